"""Questions and passages, the two types that every stage passes on, and their readers.

`read_kard(data_dir, name)` reads KARD's release:

    data_dir/kard/<name>/{train,dev,test}.json     JSON lines: id, sent1, sent2, ending0..3, label
    data_dir/kb/<name>/passages.jsonl.gz           JSON lines: id, contents; also .jsonl
    data_dir/kb/<name>/gold.jsonl.gz               JSON lines: split, question_id, passage_ids; also .jsonl

`read_own(data_dir)` reads your own data. Only questions are required, as either file; every .jsonl may be .jsonl.gz:

    data_dir/questions.jsonl     JSON lines: id, question, options (a list), answer (a letter: A is the first option);
                                 split (train, dev or test) in every row or in none: then it is drawn
    data_dir/questions.csv       the same as a table: options in columns A, B, ...
    data_dir/passages.jsonl      JSON lines: id, contents
    data_dir/gold.jsonl          JSON lines: question_id, passage_ids
    data_dir/rationales.jsonl    JSON lines: question_id, rationales (a list)

All readers raise DataError: one sentence that names the file and the line and says what to do.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from kardlib.artifacts.disk import atomic_write
from kardlib.artifacts.store import fingerprint
from kardlib.data.records import LETTERS, Record, list_some, read_records, say, say_shared, shorten, with_own_ids
from kardlib.errors import DataError, suggest

SPLITS = ("train", "dev", "test")
Gold = dict[str, frozenset[str]]  # question id -> ids of the passages that are annotated as its evidence
ENDINGS = [f"ending{i}" for i in range(26)]  # more than are allowed, so that none of them is passed over
LINES = (".jsonl", ".jsonl.gz")
OWN = {"questions": (*LINES, ".csv"), "passages": LINES, "gold": LINES, "rationales": LINES}  # files of your own data
DRAWN_SPLITS = ("train",) * 7 + ("dev", "test", "test")  # of your own texts, each as likely as the next
RECORDED = "rationales_train"  # the file of a release's rationales
ON_ONE_LINE = "put all rationales of a question on one line"


@dataclass(frozen=True)
class Question:
    """A question `x_i` with its options and the gold answer `y_i` (KARD, Section 4)."""

    id: str
    text: str
    options: tuple[str, ...]
    answer: int  # index into `options`
    stratum: str = ""  # how often training shows its facts; empty where a dataset does not say

    @property
    def prompt(self) -> str:
        """The question and its lettered options, as retrievers and students read it."""
        return " ".join([self.text, *(f"{LETTERS[i]}. {option}" for i, option in enumerate(self.options))])


@dataclass(frozen=True)
class Passage:
    """A passage `d` of the knowledge base `D`."""

    id: str
    text: str


@dataclass(frozen=True)
class PassageFile:
    """Passages that stay on disk, read anew by each iteration. Ids that come twice are found by the index."""

    path: Path

    def __iter__(self) -> Iterator[Passage]:
        return map(_to_passage, read_records(self.path, ["id", "contents"]))

    def check_ids(self) -> None:
        """Raise DataError for ids that come twice, with all their lines; it holds every id in memory."""
        for _ in with_own_ids(read_records(self.path, ["id", "contents"])):
            pass


@dataclass(frozen=True)
class Dataset:
    """Splits of questions, the knowledge base, and the gold passages.

    An id means one question in all splits: a split may repeat those of another one (StrategyQA's dev is its test).
    """

    name: str
    splits: dict[str, list[Question]]  # by the names in `SPLITS`
    passages: list[Passage] | PassageFile
    gold: Gold

    @cached_property
    def texts(self) -> dict[str, str]:
        """Passage id -> text of all passages: not to be asked for where they stay on disk."""
        return {p.id: p.text for p in self.passages}

    @cached_property
    def texts_name(self) -> str:
        """A hash of `texts`."""
        return fingerprint(self.texts)


# KARD's release


def read_kard(data_dir: str | Path, name: str) -> Dataset:
    """A dataset of KARD's release, e.g. "obqa".

    Only test.json is required (MedQA comes without train.json): a split, passages or gold without a file are empty.
    Raises DataError, also for an id that means different questions in two splits.
    """
    folder, kb = Path(data_dir, "kard", name), Path(data_dir, "kb", name)
    known = sorted(path.parent.name for path in Path(data_dir, "kard").glob("*/test.json"))
    if name not in known:
        found = f"the datasets there are {', '.join(known)}" if known else "there is no kard/<dataset>/test.json there"
        near = suggest(name, known)
        raise DataError(f"no dataset {name!r} in {Path(data_dir)}{near} ({found}): correct the name, or data_dir")
    files = {split: find_file(folder, split, ".json") for split in SPLITS}
    splits = {split: read_questions(file) if file else [] for split, file in files.items()}
    by_id: dict[str, Question] = {}
    for question in chain.from_iterable(splits.values()):
        if by_id.setdefault(question.id, question) != question:
            raise DataError(f"{folder}: two splits have different questions with the id {question.id!r}; rename one")
    say_shared(folder, *([q.text for q in splits[split]] for split in ("train", "test")))
    file, gold = (find_file(kb, stem, *LINES) for stem in ("passages", "gold"))
    passages = read_passages(file) if file else []
    _say_unread(folder, [*files.values(), find_file(folder, RECORDED, *LINES)], [*SPLITS, RECORDED])
    if kb.is_dir():
        _say_unread(kb, [file, gold], ["passages", "gold"])
    return Dataset(name, splits, passages, read_gold(gold, by_id, passages) if gold else {})


def read_questions(path: str | Path) -> list[Question]:
    """Questions from the fields `id, sent1, sent2, ending0.., label`.

    `label` counts from 0; empty endings are no options; `sent2`, if there is one, continues `sent1`. Raises DataError.
    """
    questions = []
    for record in with_own_ids(read_records(path, ["id", "sent1", "sent2", "label", *ENDINGS])):
        options = record.options(record.numbered(ENDINGS), "ending0, ...")
        label = record.whole_number("label")
        if label >= len(options):
            raise record.error(f"label {label} names none of the {len(options)} options", "count the options from 0")
        text = " ".join(part for part in (record.text("sent1"), record.text("sent2", "")) if part)
        if not text.strip():
            raise record.error("the question has no text", "write it in sent1")
        questions.append(Question(record.id(), text, options, label))
    if not questions:
        raise DataError(f"{path}: the file holds no questions; put one on each line or remove the file")
    return questions


def read_passages(path: str | Path) -> list[Passage]:
    """Passages from the fields `id, contents`. Raises DataError, also for an id that comes twice or no passages."""
    passages = [_to_passage(record) for record in with_own_ids(read_records(path, ["id", "contents"]))]
    if not passages:
        raise DataError(f"{path}: the file holds no passages; a knowledge base needs at least one")
    return passages


def _to_passage(record: Record) -> Passage:
    return Passage(record.id(), record.filled("contents", "passage"))


def read_gold(
    path: str | Path, questions: Collection[str] | None = None, passages: Iterable[Passage] | None = None
) -> Gold:
    """From the fields `question_id, passage_ids`. Raises DataError, also for what is not among these questions' ids or
    passages, where they are given.

    Two lines of the same question (StrategyQA has two such pairs) are two annotations: their passages are united.
    """
    gold: Gold = {}
    first: dict[str, Record] = {}  # passage id -> the record that names it first
    for record in read_records(path, ["question_id", "passage_ids", "split"]):
        id, named = record.text("question_id"), record.texts("passage_ids")
        if questions is not None and id not in questions:
            raise record.error(f"there is no question {shorten(id)}", "correct question_id or remove the line")
        gold[id] = gold.get(id, frozenset()) | frozenset(named)
        first |= {passage: record for passage in named if passage not in first}
    if passages is not None and first and (unknown := first.keys() - (p.id for p in passages)):
        id = next(id for id in first if id in unknown)
        raise first[id].error(f"there is no passage {shorten(id)}", "add it to the passages or remove it here")
    return gold


def read_recorded_rationales(path: str | Path, questions: int = 0) -> dict[int, list[str]]:
    """Number of a question in train.json (from 0) -> its rationales that are not blank, from `idx, rationales`.

    Raises DataError, also for a number that is none of so many `questions`, if there are any.
    """
    recorded: dict[int, list[str]] = {}
    records = read_records(path, ["idx", "rationales", "model", "created"])
    for record in with_own_ids(records, "idx", ON_ONE_LINE, Record.whole_number):
        idx = record.whole_number("idx")
        if questions and idx >= questions:
            raise record.error(f"there is no question {idx} among the {questions} of train.json", "count them from 0")
        recorded[idx] = [text for text in record.texts("rationales") if text.strip()]
    return recorded


# Your own data


def read_own(data_dir: str | Path) -> Dataset:
    """The dataset "own", from the files that this module's docstring names.

    Passages stay on disk; without passages.jsonl there are none, and `knowledge.index` must name an index.
    Raises DataError, also for a training or test split without questions.
    """
    folder, files = Path(data_dir), find_own(data_dir)
    if "questions" not in files:
        raise DataError(f"there is no questions.jsonl or questions.csv in {folder}: put one there or correct data_dir")
    splits = read_own_questions(files["questions"])
    for split in ("train", "test"):
        if not splits[split]:
            problem = f"no question is in the split {split!r}; add questions or set the field split"
            raise DataError(f"{files['questions']}: {problem}")
    passages = PassageFile(files["passages"]) if "passages" in files else None
    ids = {q.id for questions in splits.values() for q in questions}
    gold = read_gold(files["gold"], ids, passages) if "gold" in files else {}
    _say_unread(folder, files.values(), OWN)
    return Dataset("own", splits, passages or [], gold)


def _say_unread(folder: Path, files: Collection[Path | None], stems: Iterable[str]) -> None:
    """Say which files of a folder are none of those that are read, whose names begin with `stems`."""
    if unread := sorted(p.name for p in folder.iterdir() if p not in files and not p.name.startswith(".")):
        say(f"{folder}: not read: {list_some(unread)} (files that are read begin with {', '.join(stems)})")


def find_own(data_dir: str | Path) -> dict[str, Path]:
    """What your own data hold, named as in `OWN` -> its file. Raises DataError."""
    files = {stem: find_file(Path(data_dir), stem, *endings) for stem, endings in OWN.items()}
    return {stem: file for stem, file in files.items() if file}


def find_file(folder: Path, stem: str, *endings: str) -> Path | None:
    """The one file that is named by the stem and one of the endings, if any.

    Raises DataError if there are several, or only such as nobody reads: `passages.csv`, `Gold.jsonl`.
    """
    names = [stem + ending for ending in endings]
    alike = sorted(p.name for p in folder.glob("*") if p.name.partition(".")[0].casefold() == stem)
    found = [name for name in names if name in alike]
    if len(found) > 1:
        raise DataError(f"{folder} has both {' and '.join(found)}: remove the one that you do not mean")
    if alike and not found:
        raise DataError(f"{folder / alike[0]} is not read: convert it to {names[0]}, or remove it")
    return folder / found[0] if found else None


def read_own_questions(path: str | Path) -> dict[str, list[Question]]:
    """Split -> questions, from a file whose name ends in `.jsonl` or `.csv`. Raises DataError.

    Without the field `split` it is drawn from the question's text, so that a text is never in two splits, and a
    question stays in its split when others are added.
    """
    splits: dict[str, list[Question]] = {split: [] for split in SPLITS}
    named: bool | None = None  # whether the lines name their split
    names = ["id", "question", "options", "answer", "split", *ascii_uppercase]
    for record in with_own_ids(read_records(path, names)):
        id, text = record.id(), record.filled("question", "question")
        options = _own_options(record)
        letters, answer = LETTERS[: len(options)], record.text("answer")
        if answer.strip().upper() not in set(letters):
            raise record.error(f"the answer {shorten(answer)} is none of {', '.join(letters)}", "write a letter")
        split = record.text("split", "").strip()
        if split not in ("", *SPLITS):
            raise record.error(f"the split {shorten(split)} is none of {', '.join(SPLITS)}", "write one of them")
        if named not in (None, bool(split)):
            raise record.error("not all questions name a split", "fill in split in every row or in none")
        named = bool(split)
        drawn = DRAWN_SPLITS[int(hashlib.sha256(text.encode()).hexdigest(), 16) % len(DRAWN_SPLITS)]
        splits[split or drawn].append(Question(id, text, options, letters.index(answer.strip().upper())))
    if named is None:
        raise DataError(f"{path}: the file holds no questions; put one on each line")
    say_shared(path, *([q.text for q in splits[split]] for split in ("train", "test")))
    return splits


def _own_options(record: Record) -> tuple[str, ...]:
    """The options of a question, which stand in one list or in lettered columns. Raises DataError."""
    lettered = record.numbered(ascii_uppercase)
    if "options" in record.fields and lettered:
        raise record.error("there are options and the columns A, B, ...", "leave one of them out")
    if "options" in record.fields:
        options = record.options(record.texts("options"), "options")
    else:
        options = record.options(lettered, "the columns A, B, ...")
    if len({option.strip().casefold() for option in options}) < len(options):
        raise record.error("two options are the same", "correct one of them or remove the question")
    return options


def read_own_rationales(path: str | Path, questions: Collection[str]) -> dict[str, list[str]]:
    """Id of one of the `questions` -> its rationales that are not blank, from `question_id, rationales`.

    Raises DataError.
    """
    recorded: dict[str, list[str]] = {}
    for record in with_own_ids(read_records(path, ["question_id", "rationales"]), "question_id", ON_ONE_LINE):
        id = record.text("question_id")
        if id not in questions:
            raise record.error(f"there is no question {shorten(id)}", "correct question_id or remove the line")
        recorded[id] = [text for text in record.texts("rationales") if text.strip()]
    return recorded


def write_own(data_dir: str | Path, data: Dataset, rationales: Mapping[str, Sequence[str]]) -> None:
    """Write a dataset and its rationales (by question id) in the layout that `read_own` reads."""
    folder = Path(data_dir)
    questions = (
        {"id": q.id, "question": q.text, "options": q.options, "answer": LETTERS[q.answer], "split": split}
        for split, questions in data.splits.items()
        for q in questions
    )
    gold = ({"question_id": id, "passage_ids": sorted(passages)} for id, passages in data.gold.items())
    recorded = ({"question_id": id, "rationales": texts} for id, texts in rationales.items())
    write_passages(folder / "passages.jsonl", data.passages)
    _write_records(folder / "questions.jsonl", questions)
    _write_records(folder / "gold.jsonl", gold)
    _write_records(folder / "rationales.jsonl", recorded)


def write_passages(path: Path, passages: Iterable[Passage]) -> None:
    """Write passages as `read_passages` reads them, one at a time; the file is written whole or not at all."""
    _write_records(path, ({"id": p.id, "contents": p.text} for p in passages))


def _write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
