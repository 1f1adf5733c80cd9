"""ReAugKD: a student that looks up what its teacher thought of similar training examples.

    teacher -> embeddings, logits -> projection -> knowledge base (z_i, y_i) -> students -> retrieval, mixing

Zhang et al., *ReAugKD: Retrieval-Augmented Knowledge Distillation for Pre-trained Language Models*, ACL 2023. The steps
are those of the abstract and the authors' public summary. **Reconstructed** here, from the description alone, are the
exact form of the relational loss, of the weights in retrieval and of the mixing, the pooling, and every number.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kardlib.artifacts.engine import Job, make_all
from kardlib.artifacts.store import Kind, Store, fingerprint, write_json
from kardlib.models.catalogue import identify
from kardlib.reaugkd.memory import (
    Array,
    KnowledgeBase,
    Mixing,
    Outputs,
    choose_mixing,
    compress,
    load_knowledge_base,
    predict,
    read_outputs,
)
from kardlib.reaugkd.methods import METHODS
from kardlib.reaugkd.tasks import Task, open_task
from kardlib.settings import Losses, RunSettings, preset

LOWER = "reaugkd.batch or reaugkd.max_tokens"
SHAPE = Kind("reaugkd_shape")
TEACHER = Kind("reaugkd_teacher", 1, "kardlib.reaugkd.distillation:train_teacher", LOWER)
BASE = Kind("reaugkd_base", 1, "kardlib.reaugkd.distillation:build_base", LOWER)
STUDENT = Kind("reaugkd_student", 1, "kardlib.reaugkd.distillation:distill_student", LOWER)

# ---------------------------------------------------------------------------------------------------------------------
# From settings to predictions


class ReAugKD:
    """All rows of the table for one task; every stage is an artifact of the store, made on first use.

    There is one teacher (of the first seed), as in the paper; seeds are those of the students.
    """

    def __init__(self, settings: RunSettings, store: Store | None = None):
        self.settings, self.knobs, self.store = settings, settings.reaugkd, store or Store()

    @property
    def suffix(self) -> str:
        """What figures of a real dataset add to their name."""
        return "" if self.settings.dataset == "world" else f"_{self.settings.dataset}"

    @cached_property
    def task(self) -> Task:
        return open_task(self.settings)

    @cached_property
    def _task_hash(self) -> str:
        return fingerprint([self.task.labels, self.task.splits])

    @cached_property
    def shape(self) -> dict[str, int]:
        """The student's embedding size "dim" and its number of "layers": kept, as loading a model takes seconds."""
        names = ("revision", "student_revision", "teacher_layers", "student_layers")
        spec = self._models | self.knobs.model_dump(mode="json", include=set(names))

        def build(folder: Path) -> None:
            from kardlib.reaugkd.distillation import build_student  # imported late: it brings torch

            config = build_student(self.knobs, len(self.task.labels), 0).encoder.config
            write_json(folder / "shape.json", {"dim": config.hidden_size, "layers": config.num_hidden_layers})

        return dict(json.loads((self.store.make(SHAPE, spec, build) / "shape.json").read_text()))

    @property
    def student(self) -> str:
        """The student's name in tables: its backbone and its number of layers."""
        layers = self.shape["layers"]
        return f"{Path(self.knobs.student or self.knobs.teacher).name}, {layers} layer{'s' * (layers > 1)}"

    @property
    def _models(self) -> dict[str, str]:
        return {"teacher": identify(self.knobs.teacher), "student": identify(self.knobs.student or "")}

    def _spec(self, *names: str) -> dict[str, Any]:
        common = {"revision", "student_revision", "teacher_layers", "pooling", "train_words", "max_tokens", "batch"}
        return {
            "task": self._task_hash,
            **self._models,
            **self.knobs.model_dump(mode="json", include=common | {*names, "warmup"}),
        }

    @cached_property
    def teacher(self) -> Path:
        """The fine-tuned teacher, with its outputs on all splits."""
        seed = self.settings.seeds[0]
        spec = self._spec("teacher_lr", "teacher_epochs") | {"seed": seed}
        work = (self.task, self.knobs, seed)
        return make_all(self.store, TEACHER, {seed: (spec, work)})[seed]

    @cached_property
    def teacher_weights(self) -> str:
        return identify(str(self.teacher))

    @cached_property
    def teacher_outputs(self) -> dict[str, Outputs]:
        return read_outputs(self.teacher)

    @cached_property
    def base_folder(self) -> Path:
        """The knowledge base of the training split: projected embeddings, soft labels, HNSW graph."""
        seed, dim = self.settings.seeds[0], self.shape["dim"]
        spec = {"teacher": self.teacher.name, "dim": dim, "seed": seed, "tau": self.knobs.tau}
        spec |= {"weights": self.teacher_weights}  # a teacher trained again has the same name
        spec |= self.knobs.model_dump(include={"projection_steps", "projection_batch", "projection_lr"})

        work = (self.task, self.knobs, self.teacher, dim, seed)
        return make_all(self.store, BASE, {seed: (spec, work)})[seed]

    @cached_property
    def base(self) -> KnowledgeBase:
        return self._loaded_base[0]

    @cached_property
    def keys(self) -> Array:
        """`z_j` of the training examples, (N, d)."""
        return self._loaded_base[1]

    @cached_property
    def _loaded_base(self) -> tuple[KnowledgeBase, Array]:
        return load_knowledge_base(self.base_folder, self.teacher_weights, self.shape["dim"])

    @cached_property
    def students(self) -> dict[tuple[Losses, int], Path]:
        """Students by losses and seed; those that two rows share are trained once."""
        kinds = dict.fromkeys(m.losses for m in METHODS.values() if m.losses)
        knobs = {"soft": ["soft_weight", "temperature"], "relational": ["relational_weight", "tau"]}
        knobs["rkd"] = ["rkd_weight"]
        jobs: dict[tuple[Losses, int], Job] = {}
        for losses in kinds:
            spec = self._spec("lr", "epochs", "student_layers", *(w for l in losses for w in knobs.get(l, [])))
            if losses != ("label",):
                spec |= {"losses": losses, "base": self.base_folder.name}
            work = (self.task, self.knobs, self.teacher, self.base_folder, losses)
            jobs |= {(losses, seed): (spec | {"seed": seed}, (*work, seed)) for seed in self.settings.seeds}
        return make_all(self.store, STUDENT, jobs)

    @cached_property
    def _student_outputs(self) -> dict[tuple[Losses, int], dict[str, Outputs]]:
        return {cell: read_outputs(folder) for cell, folder in self.students.items()}

    def outputs(self, method: str, split: str = "test") -> list[Outputs]:
        """What the students of a method say, one per seed; of the teacher's row the teacher, once."""
        losses = METHODS[method].losses
        if not losses:
            return [self.teacher_outputs[split]]
        return [self._student_outputs[losses, seed][split] for seed in self.settings.seeds]

    @cached_property
    def mixing(self) -> dict[str, Mixing]:
        """`k`, `tau` and `beta` of the two methods that retrieve, chosen on the development split."""
        return {"reaugkd": self.choose(self.base), "neighbours": self.choose(self.base, betas=(0.0,))}

    def choose(self, base: KnowledgeBase, betas: Sequence[float] | None = None) -> Mixing:
        return choose_mixing(base, self.outputs("reaugkd", "dev"), self.task.gold("dev"), self.knobs, betas)

    def probabilities(self, method: str, split: str = "test") -> Array:
        """Predictions of a method, (seeds, N, C)."""
        if METHODS[method].predicts in ("mixed", "neighbours"):
            return predict(self.base, self.outputs(method, split), self.mixing[method])
        return np.stack([o.probabilities for o in self.outputs(method, split)])

    def correct(self, method: str, split: str = "test") -> NDArray[np.float64]:
        """Right (1) or wrong (0), (seeds, N); the teacher's one row is repeated."""
        right = (self.probabilities(method, split).argmax(2) == self.task.gold(split)).astype(float)
        return np.broadcast_to(right, (len(self.settings.seeds), right.shape[1]))

    # Past the paper

    def compressed(self, kind: str, kept: float = 1) -> KnowledgeBase:
        """The knowledge base in one of the kinds of `memory.compress`."""
        return compress(self.keys, self.base.soft_labels, self.task.gold("train"), kind, kept)

    def correct_with(self, base: KnowledgeBase) -> NDArray[np.float64]:
        """Right or wrong on the reported split with another knowledge base; its mixing is chosen on the other."""
        p = predict(base, self.outputs("reaugkd"), self.choose(base))
        return (p.argmax(2) == self.task.gold("test")).astype(float)

    def confidence(self) -> Array:
        """How sure the students are without retrieval: their highest probability, (seeds, N)."""
        return self.probabilities("reaugkd_no_retrieval").max(2)

    def distance(self) -> Array:
        """From a student's embedding to the nearest entry: 1 - cosine, (seeds, N)."""
        return np.stack([1 - self.base.search(s.unit, 1)[0][:, 0] for s in self.outputs("reaugkd")])


def open_reaugkd(
    scale: str = "embedded",
    dataset: str = "world",
    data_dir: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ReAugKD:
    """The experiment of a scale's preset with single knobs changed. Raises SettingsError."""
    return ReAugKD(preset(scale, dataset, data_dir).override(overrides or {}))
