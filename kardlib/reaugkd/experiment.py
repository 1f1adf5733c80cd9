"""ReAugKD: a student that looks up what its teacher thought of similar training examples.

    task -> teacher -> memory: projected embeddings, soft labels (z_i, y_i) -> students -> retrieval, mixing

Zhang et al., *ReAugKD: Retrieval-Augmented Knowledge Distillation for Pre-trained Language Models*, ACL 2023. The steps
are those of the abstract and the authors' public summary. **Reconstructed** here, from the description alone, are the
exact form of the relational loss, of the weights in retrieval and of the mixing, the pooling, and every number.

There is one teacher (of the first seed), as in the paper; seeds are those of the students.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kardlib.artifacts.disk import write_json
from kardlib.artifacts.engine import Job, make_all
from kardlib.artifacts.provenance import describe_provenance
from kardlib.artifacts.store import Kind, Store, fingerprint
from kardlib.models.catalogue import identify
from kardlib.presets import preset
from kardlib.reaugkd.memory import (
    Array,
    KnowledgeBase,
    Mixing,
    Outputs,
    choose_mixing,
    load_knowledge_base,
    predict,
    read_outputs,
)
from kardlib.reaugkd.methods import METHODS
from kardlib.reaugkd.tasks import Task, open_task
from kardlib.settings import Losses, ReAugKDSettings, RunSettings

LOWER = "reaugkd.batch or reaugkd.max_tokens"
SHAPE = Kind("reaugkd_shape")
TEACHER = Kind("reaugkd_teacher", 1, "kardlib.reaugkd.distillation:train_teacher", LOWER)
BASE = Kind("reaugkd_base", 1, "kardlib.reaugkd.distillation:build_base", LOWER)
STUDENT = Kind("reaugkd_student", 2, "kardlib.reaugkd.distillation:distill_student", LOWER)
WEIGHTS: dict[str, list[str]] = {  # the settings that a loss brings into a student's name
    "soft": ["soft_weight", "temperature"], "relational": ["relational_weight", "tau"], "rkd": ["rkd_weight"],
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ReAugKDExperiment:
    """The settings of a run, where its artifacts are kept, its task, and the student's shape."""

    settings: RunSettings
    store: Store
    task: Task
    dim: int  # the student's embedding size
    layers: int

    def __str__(self) -> str:
        """What makes a run's numbers: its settings in a line, and where it runs."""
        settings = self.settings
        told = f"{settings.scale} scale, dataset {settings.dataset}, student {self.student}, seeds {settings.seeds}"
        return f"{told}\n{', '.join(describe_provenance())}"

    @property
    def student(self) -> str:
        """The student's name in tables: its backbone and its number of layers."""
        knobs = self.settings.reaugkd
        return f"{Path(knobs.student or knobs.teacher).name}, {self.layers} layer{'s' * (self.layers > 1)}"


class Memory(NamedTuple):
    """The knowledge base of the training split, and `z_j`, the keys of its entries, (N, d)."""

    folder: Path
    base: KnowledgeBase
    keys: Array


@dataclass(frozen=True, eq=False)
class Distilled:
    """What a teacher and its students say of the splits where something is chosen or reported."""

    experiment: ReAugKDExperiment
    teacher: dict[str, Outputs]
    memory: Memory
    students: dict[tuple[Losses, int], dict[str, Outputs]]  # by losses and seed; rows share them
    mixing: dict[str, Mixing]  # of the two methods that retrieve, chosen on the development split


def open_reaugkd(
    scale: str = "embedded",
    dataset: str = "world",
    data_dir: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ReAugKDExperiment:
    """The experiment of a scale's preset with single knobs changed. Raises SettingsError and DataError."""
    return open_settings(preset(scale, dataset, data_dir).override(overrides or {}))


def open_settings(settings: RunSettings, store: Store | None = None) -> ReAugKDExperiment:
    """The experiment of these settings; `store` None: the one that `Store()` finds. Raises DataError."""
    store, task, knobs = store or Store(), open_task(settings), settings.reaugkd

    def build(folder: Path) -> None:
        from kardlib.reaugkd.distillation import build_student  # imported late: it brings torch

        config = build_student(knobs, len(task.labels), 0).encoder.config
        write_json(folder / "shape.json", {"dim": config.hidden_size, "layers": config.num_hidden_layers})

    spec = describe_models(knobs, "teacher_layers", "student_layers")
    shape = json.loads((store.make(SHAPE, spec, build) / "shape.json").read_text())  # loading a model takes seconds
    return ReAugKDExperiment(settings, store, task, **shape)


def describe_models(knobs: ReAugKDSettings, *names: str) -> dict[str, Any]:
    """What artifacts' names say of the two backbones and of these settings."""
    student = identify(knobs.student, knobs.student_revision) if knobs.student else ""
    hashes = {"teacher": identify(knobs.teacher, knobs.revision), "student": student}
    return hashes | knobs.model_dump(mode="json", include={"revision", "student_revision", *names})


def training_spec(experiment: ReAugKDExperiment, *names: str) -> dict[str, Any]:
    """What a trained model's artifact is named by: task, backbones, these settings and those of every training."""
    names = (*names, "teacher_layers", "pooling", "train_words", "max_tokens", "batch", "warmup")
    task = fingerprint([experiment.task.labels, experiment.task.splits])
    return {"task": task} | describe_models(experiment.settings.reaugkd, *names)


def train_teacher(experiment: ReAugKDExperiment) -> Path:
    """The folder of the fine-tuned teacher, with its outputs on all splits."""
    seed = experiment.settings.seeds[0]
    spec = training_spec(experiment, "teacher_lr", "teacher_epochs") | {"seed": seed}
    work = (experiment.task, experiment.settings.reaugkd, seed)
    return make_all(experiment.store, TEACHER, {seed: (spec, work)})[seed]


def build_memory(experiment: ReAugKDExperiment, teacher: Path) -> Memory:
    """The knowledge base of the training split: projected embeddings, soft labels, HNSW graph."""
    seed, knobs, dim = experiment.settings.seeds[0], experiment.settings.reaugkd, experiment.dim
    weights = identify(str(teacher))  # a teacher trained again has the same name
    spec = {"teacher": teacher.name, "weights": weights, "dim": dim, "seed": seed}
    spec |= knobs.model_dump(include={"tau", "projection_steps", "projection_batch", "projection_lr"})
    work = (experiment.task, knobs, teacher, dim, seed)
    folder = make_all(experiment.store, BASE, {seed: (spec, work)})[seed]
    return Memory(folder, *load_knowledge_base(folder, weights, dim))


def distill_students(experiment: ReAugKDExperiment, teacher: Path, memory: Memory) -> dict[tuple[Losses, int], Path]:
    """By losses and seed the folder of a student, with its outputs; those that two rows share are trained once."""
    knobs, jobs = experiment.settings.reaugkd, dict[tuple[Losses, int], Job]()
    for losses in dict.fromkeys(method.losses for method in METHODS.values() if method.losses):
        weights = [name for loss in losses for name in WEIGHTS.get(loss, [])]
        spec = training_spec(experiment, "lr", "epochs", "student_layers", *weights)
        if losses != ("label",):
            spec |= {"losses": losses, "base": memory.folder.name}
        work = (experiment.task, knobs, teacher, memory.folder, losses)
        jobs |= {(losses, seed): (spec | {"seed": seed}, (*work, seed)) for seed in experiment.settings.seeds}
    return make_all(experiment.store, STUDENT, jobs)


def gather(
    experiment: ReAugKDExperiment, teacher: Path, memory: Memory, students: Mapping[tuple[Losses, int], Path]
) -> Distilled:
    """What teacher and students say, and how predictions are mixed: `k`, `tau`, `beta` are chosen on "dev"."""
    said = {key: read_outputs(folder) for key, folder in students.items()}
    distilled = Distilled(experiment, read_outputs(teacher), memory, said, {})
    for method in METHODS.values():
        if method.predicts in ("mixed", "neighbours"):
            betas = (0.0,) if method.predicts == "neighbours" else None
            distilled.mixing[method.id] = choose(distilled, memory.base, method.id, betas)
    return distilled


# Predictions


def outputs(distilled: Distilled, method: str, split: str = "test") -> list[Outputs]:
    """What the students of a method say, one per seed; of the teacher's row the teacher, once."""
    losses = METHODS[method].losses
    if not losses:
        return [distilled.teacher[split]]
    return [distilled.students[losses, seed][split] for seed in distilled.experiment.settings.seeds]


def choose(
    distilled: Distilled, base: KnowledgeBase, method: str = "reaugkd", betas: Sequence[float] | None = None
) -> Mixing:
    """The mixing of a method's students with a knowledge base that is best on the development split."""
    experiment = distilled.experiment
    gold = experiment.task.gold("dev")
    return choose_mixing(base, outputs(distilled, method, "dev"), gold, experiment.settings.reaugkd, betas)


def probabilities(distilled: Distilled, method: str) -> Array:
    """Predictions of a method on the reported split, (seeds, N, C)."""
    if METHODS[method].predicts in ("mixed", "neighbours"):
        return predict(distilled.memory.base, outputs(distilled, method), distilled.mixing[method])
    return np.stack([o.probabilities for o in outputs(distilled, method)])


def correct(distilled: Distilled, method: str) -> NDArray[np.float64]:
    """Right (1) or wrong (0) there, (seeds, N); the teacher's one row is repeated."""
    gold = distilled.experiment.task.gold("test")
    right = (probabilities(distilled, method).argmax(2) == gold).astype(float)
    return np.broadcast_to(right, (len(distilled.experiment.settings.seeds), right.shape[1]))


# Past the paper


def correct_with(distilled: Distilled, base: KnowledgeBase) -> NDArray[np.float64]:
    """Right or wrong on the reported split with another knowledge base; its mixing is chosen on the other."""
    p = predict(base, outputs(distilled, "reaugkd"), choose(distilled, base))
    return (p.argmax(2) == distilled.experiment.task.gold("test")).astype(float)


def confidence(distilled: Distilled) -> Array:
    """How sure the students are without retrieval: their highest probability, (seeds, N)."""
    return probabilities(distilled, "reaugkd_no_retrieval").max(2)


def distance(distilled: Distilled) -> Array:
    """From a student's embedding to the nearest entry: 1 - cosine, (seeds, N)."""
    return np.stack([1 - distilled.memory.base.search(s.unit, 1)[0][:, 0] for s in outputs(distilled, "reaugkd")])
