"""The rows of ReAugKD's table as data: the losses that a student learns from, and whose prediction counts."""

from dataclasses import dataclass
from typing import Literal

from kardlib.settings import Losses


@dataclass(frozen=True)
class Method:
    """A row of the table: the losses its student learns from, and whose prediction counts."""

    label: str
    losses: Losses
    predicts: Literal["student", "mixed", "neighbours", "teacher"]


METHODS = {
    "student_alone": Method("Student, fine-tuned alone", ("label",), "student"),
    "soft_labels": Method("Soft-label distillation", ("label", "soft"), "student"),
    "rkd": Method("RKD", ("label", "soft", "rkd"), "student"),
    "reaugkd_no_retrieval": Method("ReAugKD without retrieval", ("label", "soft", "relational"), "student"),
    "reaugkd": Method("ReAugKD", ("label", "soft", "relational"), "mixed"),
    "neighbours": Method("Nearest neighbours alone", ("label", "soft", "relational"), "neighbours"),
    "reaugkd_teacher": Method("Teacher", (), "teacher"),
}
