"""Classification tasks for ReAugKD: texts, or pairs of texts, each with one label.

They come from GLUE's official TSV files, from the Hub's `nyu-mll/glue` at a pinned revision, or from the closed world.
The split "test" is reported (of GLUE it is the official development set, whose labels are public); "dev", on which
everything is chosen, is taken off the training set. A malformed file raises DataError.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kardlib.data import hub
from kardlib.data.files import SPLITS
from kardlib.data.records import read_text, say_shared
from kardlib.data.world import build_world
from kardlib.errors import DataError, suggest
from kardlib.settings import GLUE_TASKS, RunSettings, WorldSettings

SPLIT_SEED = 0  # one development split for all runs: seeds are for training
WORLD_TRAIN = 2000  # training examples of the world's task


class Example(NamedTuple):
    """A text, or a pair of texts (`pair` is empty if there is one), and the index of its label."""

    text: str
    pair: str
    label: int


class RawExample(NamedTuple):
    """An example with its label as the file names it, and its file and line for errors."""

    text: str
    pair: str
    label: str
    origin: str


@dataclass(frozen=True)
class Task:
    """A task with the names of its labels and the examples by split. Raises DataError for a split without examples."""

    name: str
    labels: tuple[str, ...]
    splits: dict[str, list[Example]]  # by the names in `data.files.SPLITS`
    clusters: NDArray[np.int64] | None = None  # of the test examples: `World.clusters`; None where each is its own

    def __post_init__(self) -> None:
        for split in SPLITS:
            if not self.splits.get(split):
                raise DataError(f"{self.name}: there are no {split} examples; give it more examples")

    def gold(self, split: str) -> NDArray[np.int64]:
        """Indices of the gold labels of a split, (N,)."""
        return np.array([example.label for example in self.splits[split]])


class Columns(NamedTuple):
    """The names that a GLUE task has in its files; `second` is empty if a task has one text."""

    folder: str
    first: str
    second: str
    label: str
    labels: tuple[str, ...]  # in the files; the Hub counts them from 0
    hub: tuple[str, ...]  # columns of the texts on the Hub
    dev: str = "dev"  # the development set's file
    hub_dev: str = "validation"  # and on the Hub


OWN_METRIC = {"cola": "matthews"}  # what GLUE judges by; the other tasks by accuracy
BINARY, ENTAILED = ("0", "1"), ("entailment", "not_entailment")
COLUMNS = {
    "cola": Columns("CoLA", "sentence", "", "label", BINARY, ("sentence",)),
    "mnli": Columns("MNLI", "sentence1", "sentence2", "gold_label", ("entailment", "neutral", "contradiction"),
                    ("premise", "hypothesis"), "dev_matched", "validation_matched"),
    "mrpc": Columns("MRPC", "#1 String", "#2 String", "Quality", BINARY, ("sentence1", "sentence2")),
    "qnli": Columns("QNLI", "question", "sentence", "label", ENTAILED, ("question", "sentence")),
    "qqp": Columns("QQP", "question1", "question2", "is_duplicate", BINARY, ("question1", "question2")),
    "rte": Columns("RTE", "sentence1", "sentence2", "label", ENTAILED, ("sentence1", "sentence2")),
    "sst2": Columns("SST-2", "sentence", "", "label", BINARY, ("sentence",)),
}  # fmt: skip


def open_task(settings: RunSettings) -> Task:
    """The task that `settings.dataset` names: the world's, or GLUE's from `data_dir` or the Hub. Raises DataError."""
    name, knobs = settings.dataset, settings.reaugkd
    if name == "world":
        return world_task(settings.world, knobs.train or WORLD_TRAIN, knobs.dev)
    if name not in COLUMNS:
        known = ["world", *GLUE_TASKS]
        raise DataError(f"{name!r} is no classification task{suggest(name, known)} (there are {', '.join(known)})")
    train, test = read_hub_glue(name) if settings.data_dir is None else read_official_glue(name, settings.data_dir)
    return split_task(name, train, test, knobs.train, knobs.dev)


def read_official_glue(name: str, data_dir: str | Path) -> tuple[list[RawExample], list[RawExample]]:
    """The examples of `data_dir/glue/<TASK>/train.tsv` and of `dev.tsv`; the folder `glue/` may be left out."""
    columns = COLUMNS[name]
    folders = [Path(data_dir, "glue", columns.folder), Path(data_dir, columns.folder)]
    folder = next((f for f in folders if f.is_dir()), folders[0])
    wanted = [c for c in (columns.first, columns.second, columns.label) if c]
    files = (folder / f"{file}.tsv" for file in ("train", columns.dev))
    train, test = (check_labels(read_tsv(file, wanted), columns.labels) for file in files)
    return train, test


def read_tsv(path: Path, columns: Sequence[str]) -> Iterator[RawExample]:
    """The examples of a tab-separated file with a header line; quotes are text.

    `columns` are those of the one or two texts, then the label's. Raises DataError, with file and line, for a missing
    header or column or one that comes twice, another number of cells than the header's, or an empty text or label.
    """
    lines = read_text(path).replace("\r\n", "\n").split("\n")  # not at Unicode's other line ends
    header = lines[0].split("\t")
    if missing := [c for c in columns if c not in header]:
        hint = "; the first line must name the columns"
        if path.parent.name == COLUMNS["cola"].folder:
            hint += (
                ", which it does not in the official files: leave data_dir out to take the Hub's, or put "
                "'source label star sentence' with tabs between them before the first line of train.tsv and dev.tsv"
            )
        raise DataError(f"{path}, line 1: the header has no column {missing[0]!r}{hint}")
    if twice := [c for c in columns if header.count(c) > 1]:
        raise DataError(f"{path}, line 1: the header has the column {twice[0]!r} twice; leave one of them out")
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(cells)} columns where the header has {len(header)}; "
                "every line needs as many tabs as the header"
            )
        *texts, label = (cells[header.index(c)].strip() for c in columns)
        for name, cell in zip((*columns[:-1], "label"), (*texts, label), strict=True):
            if not cell:
                raise DataError(f"{path}, line {number}: the {name} is empty; fill it in or remove the line")
        yield RawExample(texts[0], texts[1] if len(texts) > 1 else "", label, f"{path}, line {number}")


def check_labels(examples: Iterable[RawExample], labels: Sequence[str]) -> list[RawExample]:
    """The examples. Raises DataError for a label that is none of the task's: a misspelt one would be a class."""
    examples = list(examples)
    for example in examples:
        if example.label not in labels:
            raise DataError(f"{example.origin}: the label {example.label!r} is none of {', '.join(labels)}; correct it")
    return examples


def read_hub_glue(name: str) -> tuple[list[RawExample], list[RawExample]]:
    """The training and validation examples of the Hub's `nyu-mll/glue`. Raises what `fetch` raises."""
    columns = COLUMNS[name]
    files = [f"{name}/{split}-00000-of-00001.parquet" for split in ("train", columns.hub_dev)]
    paths = (hub.fetch(*hub.GLUE, file, f"glue/{columns.folder}/") for file in files)
    counted = [str(i) for i in range(len(columns.labels))]
    train, test = (check_labels(read_parquet(path, columns.hub), counted) for path in paths)
    return train, test


def read_parquet(path: Path, texts: Sequence[str]) -> list[RawExample]:
    """The examples of a parquet file with the columns `texts` (one or two) and `label`."""
    examples = []
    for record in hub.read_parquet(path, [*texts, "label"]):
        read, label = [record.text(name).strip() for name in texts], str(record.fields["label"])
        examples.append(RawExample(read[0], read[1] if len(read) > 1 else "", label, f"{path.name}, row {record.line}"))
    return examples


def split_task(name: str, train: Sequence[RawExample], test: Sequence[RawExample], size: int | None, dev: int) -> Task:
    """Shuffle the training examples: `dev` of them (at most a tenth) are "dev", the next `size` are trained on."""
    say_shared(name, *([f"{e.text} {e.pair}" for e in examples] for examples in (train, test)))
    shuffled = random.Random(SPLIT_SEED).sample(train, len(train))
    dev = min(dev, len(shuffled) // 10)
    splits = {"train": shuffled[dev : None if size is None else dev + size], "dev": shuffled[:dev], "test": test}
    return index_labels(name, splits, "correct it or train on more examples (reaugkd.train)")


def index_labels(name: str, splits: Mapping[str, Sequence[RawExample]], remedy: str) -> Task:
    """The task whose labels are those of training, in alphabetical order.

    Raises DataError for fewer than two labels, or, with the `remedy`, for a label that is never seen in training.
    """
    labels = sorted({e.label for e in splits["train"]})
    if len(labels) < 2:
        raise DataError(f"{name}: the training examples have {len(labels)} label(s); at least two are needed")
    for example in chain.from_iterable(splits.values()):
        if example.label not in labels:
            raise DataError(f"{example.origin}: the label {example.label!r} is never seen in training; {remedy}")
    indexed = {s: [Example(e.text, e.pair, labels.index(e.label)) for e in splits[s]] for s in splits}
    return Task(name, tuple(labels), indexed)


def world_task(settings: WorldSettings, train: int, dev: int) -> Task:
    """The world's two-hop questions without options: a question's label is the value that answers it.

    A question names three signs and asks for one of five relations: a model must know the ailment of these signs, and
    its value. No passage is read: the knowledge is in weights or, with ReAugKD, in the memory.
    """
    kinds = {"two_hop": 1.0, "yes_no": 0.0, "often": 1, "never": 0.0}  # a class that is never shown cannot be learnt
    world = build_world(settings.model_copy(update=kinds | {"train": train, "dev": dev}))
    splits = {
        split: [RawExample(q.text, "", world.chains[q.id].value, f"question {q.id}") for q in questions]
        for split, questions in world.splits.items()
    }
    task = index_labels("world", splits, "raise reaugkd.train or lower world.ailments")
    return replace(task, clusters=world.clusters("test"))
