"""What a run of KARD begins with: settings, a store, and what the dataset brings. Opening it trains and asks nobody.

    experiment = open_experiment("embedded", "world")
    experiment.data.splits["test"][0].prompt
    experiment.at((("retrieval.k", 1),))      the same with single settings changed

`prepare.py` goes on from here: rationales, and what is retrieved with them; `pipeline.py` trains and asks.
"""

import gc
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kardlib import NANO, is_nano
from kardlib.artifacts.engine import Job, K, make_all
from kardlib.artifacts.provenance import describe_provenance
from kardlib.artifacts.store import Kind, Store, fingerprint
from kardlib.data.files import (
    LINES,
    RECORDED,
    Dataset,
    Question,
    find_file,
    find_own,
    read_kard,
    read_own,
    read_own_rationales,
    read_recorded_rationales,
    write_own,
)
from kardlib.data.hub import HUB, read_hub
from kardlib.data.prompts import Source
from kardlib.data.records import say
from kardlib.data.world import STRATA, World, build_world
from kardlib.errors import DataError, suggest
from kardlib.kard.llm import server_teacher
from kardlib.kard.methods import Method, main_rows
from kardlib.kard.teacher import Teacher, recorded_teacher, symbolic_teacher
from kardlib.models.catalogue import LOADERS, identify, needs_this_process
from kardlib.presets import preset
from kardlib.settings import GLUE_TASKS, RunSettings, StudentSettings, TeacherSettings, WorldSettings

SILVER = 3  # silver passages: the union of the top 3 of each of a question's first 3 rationales
HELD_OUT = 0.05  # share of a real dataset's training questions that become the split "silver"
STRANGE = 0.1  # share of words; where nano models can only spell more than that, it is said
PREDICTIONS = Kind("predictions", 2, "kardlib.kard.answering:write_predictions", "student.generation_batch")
LIKELIHOODS = Kind("likelihoods", 1, "kardlib.kard.answering:write_likelihoods")
EXAMPLES = {  # of your own data, by scale; of a seed that no other notebook uses
    "smoke": WorldSettings(seed=2, ailments=24, cases=40, notes=20, train=96, dev=24, test=24),
    "embedded": WorldSettings(seed=2, ailments=30, cases=150, notes=800, train=600, dev=50, test=200),
}

Knobs = tuple[tuple[str, Any], ...]  # settings by their dotted names: (("student.share", 0.25),)


class Cell(NamedTuple):
    """One cell of a grid: a method with a student and a seed, and what differs from the experiment's settings."""

    method: str
    student: str
    seed: int
    knobs: Knobs = ()


@dataclass(frozen=True, eq=False)
class Experiment:
    """The settings of a run, where its artifacts are kept, and its dataset."""

    settings: RunSettings
    store: Store
    data: Dataset  # of a real one the last 5 % of the training questions are set aside as the split "silver"
    world: World | None  # the closed world; None for a real dataset, whose truth nobody knows
    teacher: Teacher | None  # None where nobody writes rationales

    def __str__(self) -> str:
        """What makes a run's numbers: its settings in a line, and where it runs."""
        return f"{describe_run(self.settings)}\n{', '.join(describe_provenance())}"

    @property
    def student(self) -> str:
        """The middle one of the students: ablations that need only one take it."""
        return self.settings.middle

    @property
    def silver_split(self) -> str:
        """The split whose silver passages are known without having been trained on."""
        return "test" if self.world else "silver"

    @property
    def methods(self) -> dict[str, Method]:
        """The rows of Tables 1 and 2 that can be run; no release has the oracles' rationales of test questions."""
        return main_rows(self.world is not None, self.teacher is not None, bool(self.data.gold), self.settings.methods)

    def learns_from(self, seed: int) -> list[Question]:
        """The training questions of a student of this seed: all, or `student.share` of them, drawn by it."""
        train, share = self.data.splits["train"], self.settings.student.share
        count = min(len(train), max(1, round(len(train) * share)))
        return list(train) if count == len(train) else random.Random(seed).sample(train, count)

    def place(self, figure: str) -> dict[str, Any]:
        """The columns of a figure's data that say where it was measured."""
        return {"figure": figure, "dataset": self.settings.dataset, "scale": self.settings.scale, "split": "test"}

    def chance_row(self, figure: str, metric: str = "accuracy") -> dict[str, Any]:
        """The row of a figure's data that says how often guessing is right on one of `strata` or `kinds`."""
        asked = (self.strata() | self.kinds())[metric]
        right = np.array([1 / len(q.options) for q in self.data.splits["test"]])[asked]
        return self.place(figure) | {"method": "chance", "metric": metric, "value": right.mean(), "n": len(right)}

    def strata(self, split: str = "test") -> dict[str, NDArray[np.bool_]]:
        """By metric the questions of a split that it is of, (questions,): all; in the closed world a stratum's each."""
        asked = np.array([q.stratum for q in self.data.splits[split]])
        parts = {f"accuracy_{stratum}": asked == stratum for stratum in STRATA if self.world}
        return {"accuracy": np.ones(len(asked), bool)} | {metric: part for metric, part in parts.items() if part.any()}

    def kinds(self, split: str = "test") -> dict[str, NDArray[np.bool_]]:
        """By metric the closed world's questions of a kind, (questions,): by hops, and by what they offer."""
        if not self.world:
            return {}
        chains = [(q, self.world.chains[q.id]) for q in self.data.splits[split]]
        two = np.array([chain.two_hops for _, chain in chains])
        either = np.array([len(q.options) == 2 for q, _ in chains])
        parts = {"one_hop": ~two, "two_hops": two, "yes_no": either, "options": ~either}
        return {f"accuracy_{kind}": part for kind, part in parts.items() if part.any()}

    def clusters(self, split: str = "test") -> NDArray[np.int64] | None:
        """The closed world's strata and ailments of a split's questions, (2, questions): `World.clusters`.

        None for a real dataset, whose questions each stand for themselves.
        """
        return self.world.clusters(split) if self.world else None

    def at(self, knobs: Knobs) -> "Experiment":
        """The same experiment with single settings changed. Raises SettingsError."""
        settings = self.settings.override(dict(knobs))
        if settings.world != self.settings.world:
            return open_settings(settings, self.store)
        teacher = self.teacher
        if settings.teacher != self.settings.teacher:
            teacher = choose_teacher(settings, self.store, self.data, self.world)
        return replace(self, settings=settings, teacher=teacher)


def open_experiment(
    scale: str = "embedded",
    dataset: str = "world",
    data_dir: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Experiment:
    """The experiment of a scale's preset with single knobs changed. Raises SettingsError and DataError."""
    gc.set_threshold(50_000)  # run tables are a million objects without a cycle: looking for one takes a tenth of a run
    settings = preset(scale, dataset, data_dir)
    say_scale(settings, scale)
    return open_settings(settings.override(overrides or {}))


def say_scale(settings: RunSettings, wanted: str) -> None:
    """Say where a dataset has no settings of the scale that was wanted, and which it gets (`preset`)."""
    if (scale := settings.scale) != wanted:
        told = f"{settings.dataset!r} has no settings of the {wanted} scale: taking those of the {scale} one"
        print(told, flush=True)


def open_settings(settings: RunSettings, store: Store | None = None) -> Experiment:
    """The experiment of these settings; `store` None: the one that `Store()` finds. Raises DataError."""
    store = store or Store()
    world = build_world(settings.world) if settings.dataset == "world" else None
    data = world.dataset() if world else read_dataset(settings)
    if not world:
        say_strange_words(settings, data.splits["test"])
    return Experiment(settings, store, data, world, choose_teacher(settings, store, data, world))


def say_strange_words(settings: RunSettings, questions: Sequence[Question]) -> None:
    """Say where nano models are to read words that are not the closed world's: they know no others, only letters.

    Looked at are some of the questions; a word is strange if its tokens hold a single letter, or nothing at all.
    """
    from tokenizers import Tokenizer  # imported late: the closed world does without

    models = [name for name in dict.fromkeys([*settings.students, settings.reranker.model]) if is_nano(name)]
    if not models:
        return
    tokenizer = Tokenizer.from_file(str(NANO / models[0] / "tokenizer.json"))  # all have the same words
    words, strange = set(), set()
    for i, read in enumerate(tokenizer.encode_batch([q.prompt for q in questions[:200]])):
        for word, token in zip(read.word_ids, read.tokens, strict=True):
            if word is not None:
                words.add((i, word))
            if token == "<unk>" or re.fullmatch("##.", token):
                strange.add((i, word))
    if len(strange) > STRANGE * len(words):
        say(
            f"{', '.join(models)} can only spell {len(strange) / len(words):.0%} of these questions' words: nano "
            "models know the closed world's words alone, and their numbers say nothing of other texts; pretrained "
            """ones: --set 'students=["smollm2"]' --set reranker.model=minilm"""
        )


def read_dataset(settings: RunSettings) -> Dataset:
    """A real dataset, whose last training questions become the split "silver". Raises DataError."""
    if settings.dataset == "own":
        data = read_own(data_folder(settings))
    elif settings.data_dir is None and settings.dataset in HUB:
        data = read_hub(settings.dataset)
    else:
        data = read_kard(data_folder(settings), settings.dataset)
    train = data.splits["train"]
    cut = max(1, int(len(train) * (1 - HELD_OUT)))
    return replace(data, splits=data.splits | {"train": train[:cut], "silver": train[cut:]})


def data_folder(settings: RunSettings) -> Path:
    """The folder that `data_dir` names. Raises DataError where it names none."""
    if settings.data_dir:
        return Path(settings.data_dir)
    if settings.dataset == "own":
        raise DataError("set data_dir to the folder that holds questions.jsonl and passages.jsonl: own data are files")
    if settings.dataset in GLUE_TASKS:
        raise DataError(f"{settings.dataset} sorts texts into classes, which only notebooks 13 and 18 do: take another")
    known = ["world", "own", *HUB, *GLUE_TASKS]
    raise DataError(
        f"there is no dataset {settings.dataset!r}{suggest(settings.dataset, known)} (without data_dir there are "
        f"{', '.join(known)}): correct the name, or set data_dir to the folder that holds kard/ and kb/"
    )


def choose_teacher(settings: RunSettings, store: Store, data: Dataset, world: World | None) -> Teacher | None:
    """A server if one is set, else who wrote the dataset's rationales; None where there are none. Raises DataError."""
    if settings.teacher.base_url:
        return server_teacher(settings.teacher, store.root)
    if world:
        return symbolic_teacher(world, settings.teacher.flawed, settings.teacher.seed)
    if settings.dataset == "own":
        own = find_own(data_folder(settings)).get("rationales")
        if own is None:
            return None
        recorded = read_own_rationales(own, {q.id for questions in data.splits.values() for q in questions})
        if any(recorded.get(q.id) for q in data.splits["train"]):
            return recorded_teacher(recorded, few=True)
        say(f"{own}: no rationale is of a training question, so only answers can be learnt")
        return None
    if settings.data_dir is None:
        return None
    folder = Path(settings.data_dir, "kard", settings.dataset)
    file = find_file(folder, RECORDED, *LINES) or folder / f"{RECORDED}.jsonl.gz"
    released = [*data.splits["train"], *data.splits["silver"]]  # the file names a question by its line
    by_line = read_recorded_rationales(file, len(released))
    return recorded_teacher({q.id: by_line.get(line, []) for line, q in enumerate(released)})


def write_texts(
    experiment: Experiment, asked: Mapping[K, tuple[Sequence[Source], StudentSettings, int]]
) -> dict[K, list[list[str]]]:
    """By key what a student writes for sources under a seed: `samples` texts each; what is missing is written."""
    jobs = {key: writing_job(*work) for key, work in asked.items()}
    here = any(needs_this_process(settings.model) for _, settings, _ in asked.values())
    folders = make_all(experiment.store, PREDICTIONS, jobs, here=here)
    return {key: json.loads((folder / "texts.json").read_text()) for key, folder in folders.items()}


def weigh_texts(
    experiment: Experiment, asked: Mapping[K, tuple[Sequence[Source], list[str], list[list[str]], StudentSettings, int]]
) -> dict[K, dict[str, list[list[float]]]]:
    """By key how likely a student finds options after sources and what it has begun to write (`write_likelihoods`).

    Asked are sources, beginnings, options, settings and seed.
    """
    jobs: dict[K, Job] = {}
    for key, work in asked.items():
        sources, begun, options, settings, seed = work
        told = {"begun": fingerprint(begun), "options": fingerprint(options)}
        jobs[key] = writing_job(sources, settings, seed)[0] | told, work
    here = any(needs_this_process(work[3].model) for work in asked.values())
    folders = make_all(experiment.store, LIKELIHOODS, jobs, here=here)
    return {key: json.loads((folder / "likelihoods.json").read_text()) for key, folder in folders.items()}


def writing_job(sources: Sequence[Source], settings: StudentSettings, seed: int) -> Job:
    """What names a student's texts, and what writes them; greedy ones do not depend on the seed."""
    spec: dict[str, Any] = {"student": identify(settings.model, settings.revision),
                            "sources": fingerprint(sources), "settings": settings.of_writing()}  # fmt: skip
    if settings.samples > 1 or settings.model in LOADERS:
        spec["seed"] = seed
    return spec, (sources, settings, seed)


def write_example(folder: Path, scale: str = "embedded") -> Path:
    """A small closed world in the layout of your own data, with the symbolic teacher's rationales as recorded ones."""
    world = build_world(EXAMPLES["smoke" if scale == "smoke" else "embedded"])
    teacher = symbolic_teacher(world, TeacherSettings().flawed, TeacherSettings().seed)
    rationales: dict[str, list[str]] = {}
    for rationale in teacher(world.splits["train"], SILVER):
        rationales.setdefault(rationale.question_id, []).append(rationale.text)
    write_own(folder, world.dataset(), rationales)
    return folder


def describe_run(settings: RunSettings) -> str:
    """One line on a run: scale, dataset, students, seeds, and what is read."""
    return (
        f"{settings.scale} scale, dataset {settings.dataset}, students {', '.join(settings.students)}, "
        f"seeds {', '.join(map(str, settings.seeds))}, l = {settings.teacher.rationales}, "
        f"kappa* = {settings.retrieval.candidates}, k = {settings.retrieval.k}"
    )
