"""The methods compared in ReAugKD's table, as data: which losses a student learns from, and whose prediction counts."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from kardlib.registry import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, Entry, RegistryError, enter
from kardlib.settings import Losses

Predicts = Literal["student", "mixed", "neighbours", "teacher"]


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    id: str
    label: str
    losses: Losses
    predicts: Predicts


METHODS: dict[str, Method] = {}


def register_method(method: Method, **look: Any) -> None:
    """Add a row to the table and to all figures; `look` as in `kard.methods.register_method`.

    Raises RegistryError as that does, and where a row has no losses that is not the teacher's, or the other way round.
    """
    known, predicts = get_args(get_args(Losses)[0]), get_args(Predicts)
    if not {*method.losses} <= {*known} or method.predicts not in predicts:
        fields = f"losses are some of {', '.join(known)}, and predicts is one of {', '.join(predicts)}"
        raise RegistryError(f"the method {method.id!r} cannot be run: {fields}")
    if bool(method.losses) == (method.predicts == "teacher"):
        raise RegistryError(f"the method {method.id!r} cannot be run: the teacher's row, and no other, has no losses")
    enter({method.id: Entry(method.label, **look)})
    METHODS[method.id] = method


RELATIONAL: Losses = ("label", "soft", "relational")
for color, marker, line, row in (
    (GREY, "v", ":", Method("student_alone", "Student, fine-tuned alone", ("label",), "student")),
    (PINK, "P", "--", Method("soft_labels", "Soft-label distillation", ("label", "soft"), "student")),
    (ORANGE, "s", "-.", Method("rkd", "RKD", ("label", "soft", "rkd"), "student")),
    (SKY, "o", "--", Method("reaugkd_no_retrieval", "ReAugKD without retrieval", RELATIONAL, "student")),
    (BLUE, "D", "-", Method("reaugkd", "ReAugKD", RELATIONAL, "mixed")),
    (RED, "X", "-.", Method("neighbours", "Nearest neighbours alone", RELATIONAL, "neighbours")),
):
    register_method(row, color=color, marker=marker, line=line, block="students")
register_method(
    Method("reaugkd_teacher", "Teacher", (), "teacher"), color=BLACK, marker="*", line=":", hollow=True, block="teacher"
)

EARLIER = ("student_alone", "soft_labels", "rkd")  # ways of training the student that are not ReAugKD's
COMPRESSIONS = (  # of the knowledge base: `memory.compress`'s kind, and the share of entries that is kept
    ("full", 1.0), ("half", 1.0), ("pq", 1.0),
    ("prototypes", 1.0), ("prototypes", 0.2), ("prototypes", 0.05), ("prototypes", 0.01),
)  # fmt: skip

enter({
    "best_earlier": Entry("best earlier method", GREY, "v", ":", block="rivals"),  # of EARLIER, on a task
    "best_on_average": Entry("earlier method that is best on average", GREY, "v", ":", block="rivals"),
    "reaugkd_exact": Entry("ReAugKD, exact search", RED, "s", ":", block="searches"),
    "full": Entry("everything, fp32", BLUE, "D", block="compressions"),
    "half": Entry("everything, fp16", BLUE, "s", block="compressions"),
    "pq": Entry("product-quantised keys", BLUE, "P", block="compressions"),
    "prototypes": Entry("class prototypes", GREEN, "o", "-", block="compressions"),
})  # fmt: skip
