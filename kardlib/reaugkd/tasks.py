"""Classification tasks for ReAugKD: texts, or pairs of texts, each with one label.

Three places they come from: GLUE's official TSV files, the Hub's `nyu-mll/glue` at a pinned revision, and the closed
world. The split that is reported is "test" (of GLUE its official development set, whose labels are public); "dev", on
which everything is chosen, is taken off the training set. Whatever is wrong with a file raises DataError.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kardlib.data.files import DataError
from kardlib.data.hub import GLUE, fetch
from kardlib.data.world import build_world
from kardlib.settings import GLUE_TASKS, RunSettings, WorldSettings

SPLIT_SEED = 0  # one development split for all runs: seeds are for training
WORLD_TRAIN = 2000


class Example(NamedTuple):
    """One text, or a pair of them (else `pair` is empty), and the index of its label."""

    text: str
    pair: str
    label: int


class Row(NamedTuple):
    """An example as its file has it, and where it stands, for errors."""

    text: str
    pair: str
    label: str
    place: str


@dataclass(frozen=True)
class Task:
    """`labels` are names; "dev" is for choosing, "test" is reported. Raises DataError for a split without examples."""

    name: str
    labels: tuple[str, ...]
    splits: dict[str, list[Example]]  # "train", "dev", "test"

    def __post_init__(self) -> None:
        for split in ("train", "dev", "test"):
            if not self.splits.get(split):
                raise DataError(f"{self.name}: there are no {split} examples; give it more examples")

    def gold(self, split: str) -> NDArray[np.int64]:
        return np.array([example.label for example in self.splits[split]])


class Columns(NamedTuple):
    """How a GLUE task's files call what we read; `second` is empty where there is one text."""

    folder: str
    first: str
    second: str
    label: str
    hub: tuple[str, ...]
    dev: str = "dev"
    hub_dev: str = "validation"


COLUMNS = {
    "cola": Columns("CoLA", "sentence", "", "label", ("sentence",)),
    "mnli": Columns("MNLI", "sentence1", "sentence2", "gold_label", ("premise", "hypothesis"),
                    "dev_matched", "validation_matched"),
    "mrpc": Columns("MRPC", "#1 String", "#2 String", "Quality", ("sentence1", "sentence2")),
    "qnli": Columns("QNLI", "question", "sentence", "label", ("question", "sentence")),
    "qqp": Columns("QQP", "question1", "question2", "is_duplicate", ("question1", "question2")),
    "rte": Columns("RTE", "sentence1", "sentence2", "label", ("sentence1", "sentence2")),
    "sst2": Columns("SST-2", "sentence", "", "label", ("sentence",)),
}  # fmt: skip


def open_task(settings: RunSettings) -> Task:
    """The task that `settings.dataset` names: "world", or a GLUE task from `data_dir` (None: the Hub's)."""
    name, knobs = settings.dataset, settings.reaugkd
    if name == "world":
        return world_task(settings.world, knobs.train or WORLD_TRAIN, knobs.dev)
    if name not in COLUMNS:
        raise DataError(f"{name!r} is no classification task: set dataset to world, {', '.join(GLUE_TASKS)}")
    train, test = read_hub(name) if settings.data_dir is None else read_tsv_folder(name, settings.data_dir)
    return split_task(name, train, test, knobs.train, knobs.dev)


# ---------------------------------------------------------------------------------------------------------------------
# GLUE


def read_tsv_folder(name: str, data_dir: str | Path) -> tuple[list[Row], list[Row]]:
    """The rows of `[data_dir]/glue/<TASK>/train.tsv` and of `dev.tsv`; `glue/` may be left out."""
    columns = COLUMNS[name]
    folders = [Path(data_dir, "glue", columns.folder), Path(data_dir, columns.folder)]
    folder = next((f for f in folders if f.is_dir()), folders[0])
    wanted = [c for c in (columns.first, columns.second, columns.label) if c]
    train, test = (list(read_tsv(folder / f"{file}.tsv", wanted)) for file in ("train", columns.dev))
    return train, test


def read_tsv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a tab-separated file with a header; quotes are text. `columns`: the text(s), then the label.

    Raises DataError, with file and line, for no header, another number of columns than the header's, an empty label.
    """
    try:
        lines = path.read_text("utf-8-sig").replace("\r\n", "\n").split("\n")  # not at every character Unicode offers
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; correct data_dir or put the file there") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); correct the path or its permissions") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: the text is not UTF-8; convert the file") from None
    header = lines[0].split("\t")
    if missing := [c for c in columns if c not in header]:
        hint = "; the first line must name the columns"
        if path.parent.name == COLUMNS["cola"].folder:
            hint += (
                ", which it does not in the official files: leave data_dir out to take the Hub's, or put "
                "'source label star sentence' with tabs between them before the first line of train.tsv and dev.tsv"
            )
        raise DataError(f"{path}, line 1: the header has no column {missing[0]!r}{hint}")
    places = [header.index(c) for c in columns]
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(cells)} columns where the header has {len(header)}; "
                "every line needs as many tabs as the header"
            )
        *texts, label = (cells[place].strip() for place in places)
        if not label:
            raise DataError(f"{path}, line {number}: the label is empty; fill it in or remove the line")
        yield Row(texts[0], texts[1] if len(texts) > 1 else "", label, f"{path}, line {number}")


def read_hub(name: str) -> tuple[list[Row], list[Row]]:
    """The training and validation rows of the Hub's `nyu-mll/glue`, pinned. Raises what `fetch` does."""
    columns = COLUMNS[name]
    files = [f"{name}/{split}-00000-of-00001.parquet" for split in ("train", columns.hub_dev)]
    train, test = (read_parquet(fetch(*GLUE, file, f"glue/{columns.folder}/"), columns.hub) for file in files)
    return train, test


def read_parquet(path: Path, texts: Sequence[str]) -> list[Row]:
    """Rows of a parquet file with the given text columns and `label`."""
    table = pd.read_parquet(path, columns=[*texts, "label"])
    second = table[texts[1]] if len(texts) > 1 else [""] * len(table)
    cells = zip(table[texts[0]], second, table["label"], strict=True)
    return [Row(a.strip(), b.strip(), str(label), f"{path.name}, row {i}") for i, (a, b, label) in enumerate(cells)]


def split_task(name: str, train: Sequence[Row], test: Sequence[Row], size: int | None, dev: int) -> Task:
    """Shuffle the training rows, take `dev` of them (at most a tenth) to choose on and the next `size` to train on.

    Raises DataError where a label is never seen in training, with the place of the example that has it.
    """
    rows = random.Random(SPLIT_SEED).sample(train, len(train))
    dev = min(dev, len(rows) // 10)
    chosen = {"train": rows[dev : None if size is None else dev + size], "dev": rows[:dev], "test": list(test)}
    return index_labels(name, chosen, "correct it or train on more examples (reaugkd.train)")


def index_labels(name: str, rows: Mapping[str, Sequence[Row]], remedy: str) -> Task:
    """Rows by split as a task whose labels are those of training, in alphabetical order. Raises DataError."""
    labels = tuple(sorted({row.label for row in rows["train"]}))
    if len(labels) < 2:
        raise DataError(f"{name}: the training examples have {len(labels)} label(s); at least two are needed")
    index = {label: i for i, label in enumerate(labels)}
    for row in (row for split in rows for row in rows[split]):
        if row.label not in index:
            raise DataError(f"{row.place}: the label {row.label!r} is never seen in training; {remedy}")
    return Task(name, labels, {s: [Example(r.text, r.pair, index[r.label]) for r in rs] for s, rs in rows.items()})


# ---------------------------------------------------------------------------------------------------------------------
# The closed world


def world_task(settings: WorldSettings, train: int, dev: int) -> Task:
    """The world's two-hop questions without their options: the label is the value that answers, of all values.

    A question names three signs and asks for one of five relations; to answer, a model must know which ailment has
    these signs and its value. Nothing is read: the knowledge is in weights or, with ReAugKD, in the memory.
    """
    changes = {"two_hop": 1.0, "yes_no": 0.0, "train": train, "dev": dev}
    world = build_world(settings.model_copy(update=changes))
    rows = {
        split: [Row(q.text, "", world.chains[q.id].value, f"question {q.id}") for q in questions]
        for split, questions in world.splits.items()
    }
    return index_labels("world", rows, "raise reaugkd.train or lower world.ailments")
