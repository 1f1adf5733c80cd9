"""Every knob of the suite, validated, in plain names; comments give the papers' symbols.

`preset(scale, dataset)` returns the settings of one of the three scales; a notebook changes single knobs with
`settings.override({"retrieval.k": 1})`. A misspelt name or a value out of range is an error before anything runs.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kardlib.errors import KardError

GLUE_TASKS = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2")  # those that sort texts into classes

G = TypeVar("G", bound="Group")
Scale = Literal["smoke", "embedded", "paper"]


class SettingsError(KardError, ValueError):
    """A setting that does not exist or is out of range; the message is one sentence that says which and what fits."""


class Group(BaseModel):
    """Settings that belong together: frozen, so that what is run is what was named, and closed to unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WorldSettings(Group):
    """The closed world. How hard it is was chosen on the development world (seed 1), never on the test world."""

    seed: int = Field(0, ge=0)
    ailments: int = Field(60, ge=8, le=2000)
    values: int = Field(60, ge=4, le=500)  # possible answers of each relation
    wordings: int = Field(2, ge=1, le=3)  # passages that state the same fact
    cases: int = Field(300, ge=0)  # distractors: patients with other ailments
    notes: int = Field(2050, ge=0)  # distractors: towns, jobs, food
    train: int = Field(2000, ge=1)
    dev: int = Field(300, ge=1)
    test: int = Field(600, ge=1)
    two_hop: float = Field(0.75, ge=0, le=1)  # share of two-hop questions
    yes_no: float = Field(0.2, ge=0, le=1)  # share of yes/no questions
    everyday: float = Field(0.4, ge=0, le=1)  # chance that a question uses the everyday word for a sign


class KnowledgeSettings(Group):
    """BM25 through Lucene."""

    k1: float = Field(0.9, ge=0)
    b: float = Field(0.4, ge=0, le=1)
    threads: int = Field(2, ge=1)


class TeacherSettings(Group):
    """Rationales: how many per question are used (`l`), and which are kept."""

    rationales: int = Field(3, ge=1, le=20)  # l
    flawed: float = Field(0.15, ge=0, le=1)  # share of flawed ones that the symbolic teacher writes
    correct_only: bool = True  # the filter: drop rationales that conclude another option than the gold one
    seed: int = Field(0, ge=0)


class RetrievalSettings(Group):
    """What the student reads."""

    candidates: int = Field(100, ge=1)  # kappa*: candidates that the reranker orders
    k: int = Field(3, ge=1)  # passages given to the student

    @model_validator(mode="after")
    def _k_fits(self) -> Self:
        if self.k > self.candidates:
            raise ValueError(
                f"retrieval.k = {self.k} passages cannot be chosen from "
                f"retrieval.candidates = {self.candidates} (kappa*): "
                "lower k or raise candidates"
            )
        return self


class RerankerSettings(Group):
    """Late interaction trained with the KL objective. Defaults are those of the released code where it has one."""

    model: str = "bert-nano"  # a nano model's name, a folder, or a Hub id
    revision: str | None = None  # pins a Hub id
    dim: int = Field(128, ge=1)  # size of a token's vector; the linear layer starts as the identity where it can
    rationale_candidates: int = Field(32, ge=1)  # kappa_1
    question_candidates: int = Field(32, ge=0)  # kappa_2
    questions: int | None = Field(None, ge=1)  # train on the first so many questions; None: on all
    sampled: int = Field(4, ge=1)  # per step, of each of the two kinds
    tau_1: float = Field(1.0, gt=0)  # temperature of the target Q
    tau_2: float = Field(1.0, gt=0)  # temperature of the model P
    lr: float = Field(1e-4, gt=0)
    epochs: int = Field(3, ge=1)
    batch: int = Field(16, ge=1)
    warmup: float = Field(0.05, ge=0, lt=1)
    lora: bool = False  # r 16, alpha 32, dropout 0.1 on query and value
    max_tokens: int = Field(512, ge=8)


class StudentSettings(Group):
    """Training and generation. Defaults are the paper's where it states one."""

    model: str = "t5-nano-base"  # a nano model's name, a folder, a Hub id, or "random-t5"
    revision: str | None = None
    lr: float = Field(1e-4, gt=0)
    epochs: int = Field(3, ge=1)
    batch: int = Field(32, ge=1)
    examples: int | None = Field(None, ge=1)  # train on the first so many examples; None: all
    warmup: float = Field(0.05, ge=0, lt=1)
    max_source_tokens: int = Field(512, ge=8)
    max_new_tokens: int = Field(160, ge=2)
    generation_batch: int = Field(100, ge=1)
    samples: int = Field(1, ge=1)  # 1: greedy; more: majority vote over samples
    top_k: int = Field(50, ge=1)
    top_p: float = Field(0.95, gt=0, le=1)


class ReAugKDSettings(Group):
    """The second paper. Its values are not public, so defaults are BERT's usual ones on GLUE; symbols are those of
    `reaugkd.py`. `ks`, `taus` and `betas` are what is tried on the development split, never on the reported one.
    """

    teacher: str = "bert-nano"  # backbone: a nano model's name, "minilm", a folder, or a Hub id
    revision: str | None = None  # pins a Hub id
    teacher_layers: tuple[int, ...] | None = None  # the backbone's layers that are kept; None: all
    student: str | None = None  # another backbone; None: the teacher's, before its fine-tuning
    student_revision: str | None = None
    student_layers: tuple[int, ...] | None = None  # None: every second layer of the teacher's, all of another backbone
    pooling: Literal["cls", "mean"] = "cls"  # which of the last layer's vectors are a text's embedding
    train_words: bool = True  # whether the word vectors are trained too
    train: int | None = Field(None, ge=2)  # train on so many examples; None: on all (of the world: 2,000)
    dev: int = Field(1000, ge=1)  # examples taken off the training set to choose on, at most a tenth of it
    max_tokens: int = Field(128, ge=8)
    batch: int = Field(32, ge=2)
    warmup: float = Field(0.06, ge=0, lt=1)
    teacher_lr: float = Field(3e-5, gt=0)
    teacher_epochs: int = Field(3, ge=1)
    lr: float = Field(5e-5, gt=0)  # of every student
    epochs: int = Field(3, ge=1)
    temperature: float = Field(2.0, gt=0)  # of the soft labels in distillation
    soft_weight: float = Field(1.0, ge=0)
    relational_weight: float = Field(1.0, ge=0)
    rkd_weight: float = Field(25.0, ge=0)  # of RKD's distances; its angles weigh twice as much
    tau: float = Field(0.1, gt=0)  # tau of the contrastive and of the relational loss
    projection_steps: int = Field(300, ge=0)
    projection_batch: int = Field(1024, ge=2)
    projection_lr: float = Field(1e-3, gt=0)
    ks: tuple[int, ...] = Field((1, 4, 16, 64), min_length=1)  # k
    taus: tuple[float, ...] = Field((0.03, 0.1, 0.3), min_length=1)  # tau of retrieval
    betas: tuple[float, ...] = Field((0.1, 0.3, 0.5, 0.7, 0.9), min_length=1)  # beta

    @model_validator(mode="after")
    def _grids_fit(self) -> Self:
        for name, values, fits, range in (
            ("ks", self.ks, all(k >= 1 for k in self.ks), "at least 1"),
            ("taus", self.taus, all(tau > 0 for tau in self.taus), "above 0"),
            ("betas", self.betas, all(0 <= beta <= 1 for beta in self.betas), "between 0 and 1"),
        ):
            if not fits:
                raise ValueError(f"reaugkd.{name} = {list(values)}: every value must be {range}")
        return self


class RunSettings(Group):
    """All of a run. `seeds` and `students` span the grid of the main table."""

    scale: Scale = "embedded"
    dataset: str = "world"  # "world", a dataset of KARD's release ("obqa", "strategyqa", "medqa_usmle_hf"), a GLUE task
    data_dir: str | None = None  # where `kard/<dataset>/` and `kb/<dataset>/` are, or `glue/<TASK>/`
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    students: tuple[str, ...] = Field(("t5-nano-small", "t5-nano-base", "t5-nano-large"), min_length=1)
    world: WorldSettings = WorldSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    teacher: TeacherSettings = TeacherSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    reranker: RerankerSettings = RerankerSettings()
    student: StudentSettings = StudentSettings()
    reaugkd: ReAugKDSettings = ReAugKDSettings()

    def override(self, changes: Mapping[str, Any]) -> Self:
        """A copy with single knobs changed, each named by its dotted path: `{"retrieval.k": 1}`.

        Raises SettingsError for a name that does not exist or a value out of range.
        """
        values = json.loads(self.model_dump_json())
        for path, value in changes.items():
            group, *rest = path.split(".")
            target = values if not rest else values.get(group)
            name = rest[0] if rest else group
            if len(rest) > 1 or not isinstance(target, dict) or name not in target:
                raise SettingsError(
                    f"there is no setting {path!r}; the settings are: {', '.join(sorted(self.paths()))}"
                )
            target[name] = value
        return validate(type(self), values)

    def paths(self) -> list[str]:
        """The dotted name of every knob."""
        groups = {name: getattr(self, name) for name in type(self).model_fields}
        return [
            path
            for name, value in groups.items()
            for path in (
                [f"{name}.{knob}" for knob in type(value).model_fields] if isinstance(value, Group) else [name]
            )
        ]


def validate(group: type[G], values: Mapping[str, Any]) -> G:
    """`group(**values)` with pydantic's report turned into one sentence. Raises SettingsError."""
    try:
        return group.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name, message = ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")
        raise SettingsError(
            f"{name}: {message}" if "loc" in first and first["type"] != "value_error" else message
        ) from None


# What differs from the defaults, which are the paper's where it states a value. Learning rates, epochs and temperatures
# of the small scales were chosen on the development world or on development questions (docs/LOG.md), never on test.
REAUGKD_WORLD = {
    "pooling": "mean", "dev": 600, "teacher_lr": 2e-3, "teacher_epochs": 5, "lr": 2e-3, "epochs": 3, "max_tokens": 64,
    "relational_weight": 4.0,
}  # fmt: skip
SMOKE = {
    "seeds": [0],
    "students": ["t5-nano-small"],
    "world": {"ailments": 16, "values": 8, "cases": 40, "notes": 20, "train": 96, "dev": 24, "test": 24},
    "teacher": {"rationales": 2},
    "retrieval": {"candidates": 20, "k": 2},
    "reranker": {"epochs": 1, "rationale_candidates": 8, "question_candidates": 8},
    "student": {"lr": 1e-3, "epochs": 1, "max_new_tokens": 64},
    "reaugkd": REAUGKD_WORLD | {"train": 640, "dev": 64, "teacher_epochs": 2, "epochs": 1, "projection_steps": 20},
}
EMBEDDED_WORLD = {
    "reranker": {"lr": 1e-3, "batch": 32, "epochs": 1, "sampled": 8, "tau_1": 2.0, "tau_2": 0.5},
    "student": {"lr": 1e-3, "epochs": 1, "batch": 64, "max_new_tokens": 64},
    "reaugkd": REAUGKD_WORLD,
}
EMBEDDED_REAL = {
    "seeds": [0],
    "students": ["random-t5"],
    "reranker": {"model": "minilm", "dim": 384, "questions": 1200, "epochs": 1, "tau_1": 2.0, "tau_2": 2.0},
    "student": {"examples": 640, "epochs": 1, "max_source_tokens": 256, "max_new_tokens": 24},
}
EMBEDDED_GLUE = {
    "seeds": [0, 1, 2, 3, 4],
    "reaugkd": {
        "teacher": "minilm", "student_layers": [0], "pooling": "mean", "train_words": False, "max_tokens": 96,
        "train": 4000, "teacher_lr": 1e-4, "teacher_epochs": 3, "lr": 2e-4, "epochs": 2,
    },
}  # fmt: skip
PAPER = {
    "students": ["google/flan-t5-base", "google/flan-t5-large", "google/flan-t5-xl"],
    "retrieval": {"k": 1},
    "reranker": {"model": "michiyasunaga/LinkBERT-base", "dim": 768, "lora": True},
    "student": {"samples": 5},
    "reaugkd": {"teacher": "bert-base-uncased", "revision": "86b5e0934494bd15c9632b12f734a8a67f723594"},
}


def preset(scale: str = "embedded", dataset: str = "world", data_dir: str | None = None) -> RunSettings:
    """The settings of one scale for one dataset. Raises SettingsError."""
    embedded = EMBEDDED_WORLD if dataset == "world" else EMBEDDED_GLUE if dataset in GLUE_TASKS else EMBEDDED_REAL
    changes = {"smoke": SMOKE, "embedded": embedded, "paper": PAPER}
    return validate(RunSettings, {"scale": scale, "dataset": dataset, "data_dir": data_dir} | changes.get(scale, {}))
