"""Questions and passages, the two types that every stage passes on, and their readers.

`read_kard(data_dir, name)` reads KARD's release:

    data_dir/kard/<name>/{train,dev,test}.json     JSON lines: id, sent1, sent2, ending0..3, label
    data_dir/kb/<name>/passages.jsonl.gz           JSON lines: id, contents
    data_dir/kb/<name>/gold.jsonl.gz               JSON lines: split, question_id, passage_ids

`read_own(data_dir)` reads your own data. Only the questions, as either file, are required:

    data_dir/questions.jsonl     JSON lines: id, question, options (a list), answer (a letter: A is the first option);
                                 split (train, dev or test) in every row or in none: then it is drawn
    data_dir/questions.csv       the same as a table: options in columns A, B, ...
    data_dir/passages.jsonl      JSON lines: id, contents; also .jsonl.gz
    data_dir/gold.jsonl          JSON lines: question_id, passage_ids
    data_dir/rationales.jsonl    JSON lines: question_id, rationales (a list)

All readers raise DataError: one sentence that names the file and the line and says what to do.
"""

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from kardlib.artifacts.store import atomic_write
from kardlib.errors import KardError

LETTERS = "ABCDEFGHIJ"  # of the options, in their order
SPLITS = ("train", "dev", "test")
Gold = dict[str, frozenset[str]]  # question id -> ids of the passages that are annotated as its evidence
DRAWN_SPLITS = ("train",) * 7 + ("dev", "test", "test")  # of your own texts, each as likely as the next


class DataError(KardError, ValueError):
    """Data that cannot be used as it is; the message is one sentence that says where, and what to do."""


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
    """Passages that stay on disk, read anew by each iteration. An id that comes twice is found by the index alone."""

    path: Path

    def __iter__(self) -> Iterator[Passage]:
        return (_to_passage(record, {}) for record in _read_records(self.path))


@dataclass(frozen=True)
class Dataset:
    """Splits of questions, the knowledge base, and the gold passages.

    An id means one question in all splits: a split may repeat those of another one (StrategyQA's dev is its test).
    """

    name: str
    splits: dict[str, list[Question]]  # by the names in `SPLITS`
    passages: list[Passage] | PassageFile
    gold: Gold


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
        raise DataError(f"no dataset {name!r} in {Path(data_dir)}: {found}; correct the dataset's name or data_dir")
    files = {split: folder / f"{split}.json" for split in SPLITS}
    splits = {split: read_questions(file) if file.exists() else [] for split, file in files.items()}
    by_id: dict[str, Question] = {}
    for question in chain.from_iterable(splits.values()):
        if by_id.setdefault(question.id, question) != question:
            raise DataError(f"{folder}: two splits have different questions with the id {question.id!r}; rename one")
    passages = read_passages(kb / "passages.jsonl.gz") if (kb / "passages.jsonl.gz").exists() else []
    return Dataset(name, splits, passages, _read_known_gold(kb / "gold.jsonl.gz", by_id, passages))


def read_questions(path: str | Path) -> list[Question]:
    """Questions from the fields `id, sent1, sent2, ending0.., label`.

    `label` counts from 0; empty endings are no options; `sent2`, if there is one, continues `sent1`. Raises DataError.
    """
    questions: dict[str, Question] = {}
    for record in _read_records(path):
        endings = takewhile(record.fields.__contains__, map("ending{}".format, count()))
        options = record.options([record.text(name) for name in endings], "ending0, ...")
        label = record.whole_number("label")
        if label >= len(options):
            raise record.error(f"label {label} names none of the {len(options)} options", "count the options from 0")
        text = " ".join(part for part in (record.text("sent1"), record.text("sent2", "")) if part)
        if not text.strip():
            raise record.error("the question has no text", "write it in sent1")
        id = record.new_id(questions)
        questions[id] = Question(id, text, options, label)
    if not questions:
        raise DataError(f"{path}: the file holds no questions; put one on each line or remove the file")
    return list(questions.values())


def read_passages(path: str | Path) -> list[Passage]:
    """Passages from the fields `id, contents`. Raises DataError, also for an id that comes twice or no passages."""
    passages: dict[str, Passage] = {}
    for record in _read_records(path):
        passage = _to_passage(record, passages)
        passages[passage.id] = passage
    if not passages:
        raise DataError(f"{path}: the file holds no passages; a knowledge base needs at least one")
    return list(passages.values())


def _to_passage(record: "Record", taken: Mapping[str, Any]) -> Passage:
    id, text = record.new_id(taken), record.text("contents")
    if not text.strip():
        raise record.error("the passage has no text", "fill in contents or remove the line")
    return Passage(id, text)


def read_gold(path: str | Path) -> Gold:
    """From the fields `question_id, passage_ids`. Raises DataError.

    Two lines of the same question (StrategyQA has two such pairs) are two annotations: their passages are united.
    """
    gold: Gold = {}
    for record in _read_records(path):
        id = record.text("question_id")
        gold[id] = gold.get(id, frozenset()) | frozenset(record.texts("passage_ids"))
    return gold


def _read_known_gold(path: Path, questions: Collection[str], passages: Iterable[Passage] | None) -> Gold:
    """`read_gold`, empty without a file. Raises DataError for a question or a passage that does not exist."""
    gold = read_gold(path) if path.exists() else {}
    if unknown := gold.keys() - questions:
        raise DataError(f"{path}: there is no question {min(unknown)!r}; remove its gold passages")
    named = set().union(*gold.values())
    if named and passages is not None and (unknown := named.difference(p.id for p in passages)):
        kb = path.name.replace("gold", "passages")
        raise DataError(f"{path}: there is no passage {min(unknown)!r}; add it to {kb}")
    return gold


def read_recorded_rationales(path: str | Path) -> dict[int, list[str]]:
    """Number of a question in train.json (from 0) -> its rationales, from `idx, rationales`. Raises DataError."""
    recorded: dict[int, list[str]] = {}
    for record in _read_records(path):
        index = record.whole_number("idx")
        if index in recorded:
            raise record.error(f"idx {index} comes twice", "put all rationales of a question on one line")
        recorded[index] = record.texts("rationales")
    return recorded


# Your own data


def read_own(data_dir: str | Path) -> Dataset:
    """The dataset "own", from the files that this module's docstring names.

    Passages stay on disk; without passages.jsonl there are none, and `knowledge.index` must name an index.
    Raises DataError, also for a training or test split without questions.
    """
    folder = Path(data_dir)
    file = _find_file(folder, "questions.jsonl", "questions.csv")
    if file is None:
        raise DataError(f"there is no questions.jsonl or questions.csv in {folder}: put one there or correct data_dir")
    splits = read_own_questions(file)
    for split in ("train", "test"):
        if not splits[split]:
            raise DataError(f"{file}: no question is in the split {split!r}; add questions or set the field split")
    kb = _find_file(folder, "passages.jsonl", "passages.jsonl.gz")
    passages = PassageFile(kb) if kb else None
    ids = {q.id for questions in splits.values() for q in questions}
    return Dataset("own", splits, passages or [], _read_known_gold(folder / "gold.jsonl", ids, passages))


def _find_file(folder: Path, *names: str) -> Path | None:
    """The one file of these names that exists, if any. Raises DataError if several do."""
    found = [folder / name for name in names if (folder / name).exists()]
    if len(found) > 1:
        raise DataError(f"{folder} has both {' and '.join(names)}: remove the one that you do not mean")
    return found[0] if found else None


def read_own_questions(path: str | Path) -> dict[str, list[Question]]:
    """Split -> questions, from a file whose name ends in `.jsonl` or `.csv`. Raises DataError.

    Without the field `split` it is drawn from the question's text, so that a text is never in two splits, and a
    question stays in its split when others are added.
    """
    splits: dict[str, list[Question]] = {split: [] for split in SPLITS}
    taken: dict[str, str] = {}  # question id -> the split that its line names
    for record in _read_csv(path) if str(path).endswith(".csv") else _read_records(path):
        id, text = record.new_id(taken), record.text("question")
        if not text.strip():
            raise record.error("the question has no text", "fill in question")
        if "options" in record.fields:
            options = record.options(record.texts("options"), "options")
        else:
            columns = takewhile(record.fields.__contains__, LETTERS)
            options = record.options([record.text(name, "") for name in columns], "the columns A, B, ...")
        letters, answer = LETTERS[: len(options)], record.text("answer")
        if answer.strip().upper() not in set(letters):
            raise record.error(f"the answer {_shorten(answer)} is none of {', '.join(letters)}", "write a letter")
        split = record.text("split", "").strip()
        if split not in ("", *SPLITS):
            raise record.error(f"the split {_shorten(split)} is none of {', '.join(SPLITS)}", "write one of them")
        if bool(split) != bool(next(iter(taken.values()), split)):
            raise record.error("not all questions name a split", "fill in split in every row or in none")
        taken[id] = split
        drawn = DRAWN_SPLITS[int(hashlib.sha256(text.encode()).hexdigest(), 16) % len(DRAWN_SPLITS)]
        splits[split or drawn].append(Question(id, text, options, letters.index(answer.strip().upper())))
    if not taken:
        raise DataError(f"{path}: the file holds no questions; put one on each line")
    return splits


def read_own_rationales(path: str | Path, questions: Collection[str]) -> dict[str, list[str]]:
    """Id of one of the `questions` -> its recorded rationales, from `question_id, rationales`. Raises DataError."""
    recorded: dict[str, list[str]] = {}
    for record in _read_records(path):
        id = record.text("question_id")
        if id not in questions:
            raise record.error(f"there is no question {_shorten(id)}", "correct question_id or remove the line")
        if id in recorded:
            raise record.error(f"question {_shorten(id)} comes twice", "put all rationales of a question on one line")
        recorded[id] = record.texts("rationales")
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


# Records of a file


class Record(NamedTuple):
    """One line or table row of a file, whose place every error names. Methods that read a field raise DataError."""

    path: str | Path
    line: int
    fields: dict[str, Any]

    def error(self, problem: str, remedy: str) -> DataError:
        """The error to raise."""
        return DataError(f"{self.path}, line {self.line}: {problem}; {remedy}")

    def text(self, name: str, default: str | None = None) -> str:
        """The field as a text; without a default it must be there."""
        return self._as_text(name, self.fields.get(name, default))

    def texts(self, name: str) -> list[str]:
        """The field as a list of texts."""
        if not isinstance(values := self.fields.get(name), list):
            raise self.error(f"{name!r} is {_shorten(values)}", "a list of texts is needed")
        return [self._as_text(name, value) for value in values]

    def whole_number(self, name: str) -> int:
        """The field as a whole number from 0."""
        value = self.fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(f"{name!r} is {_shorten(value)}", "a whole number from 0 is needed")
        return value

    def options(self, given: list[str], where: str) -> tuple[str, ...]:
        """The options that are not empty; empty ones may only follow them. `where` names their fields in errors."""
        options = tuple(option for option in given if option.strip())
        if len(options) < 2:
            raise self.error("the question has fewer than two options", f"fill in {where}")
        if options != tuple(given[: len(options)]):
            raise self.error("an option is missing before another one", "fill in the options without a gap")
        if len(options) > len(LETTERS):
            raise self.error(f"the question has {len(options)} options", f"leave at most {len(LETTERS)}")
        return options

    def new_id(self, taken: Mapping[str, Any]) -> str:
        """The field `id`, printable and none of `taken`."""
        id = self.text("id")
        if not id.strip() or not id.isprintable():  # run tables hold ids: no tabs, no line breaks
            raise self.error(f"the id {_shorten(id)} is not printable text", "give every line an id of its own")
        if id in taken:
            raise self.error(f"the id {_shorten(id)} comes twice", "give every line an id of its own")
        return id

    def _as_text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(f"{name!r} is {_shorten(value)}", "a text is needed")
        try:
            value.encode()  # JSON can spell half of a surrogate pair, which no file can hold
        except UnicodeEncodeError:
            raise self.error(f"{name!r} holds a character that is not Unicode", "remove the lone surrogate") from None
        return value


def _shorten(value: object) -> str:
    """A field's value as an error shows it."""
    shown = "missing" if value is None else ascii(value)
    return shown if len(shown) <= 40 else shown[:40] + "..."


def _read_records(path: str | Path) -> Iterator[Record]:
    """The JSON objects of a file, one on each line, gzipped if its name ends in .gz; empty lines are skipped."""
    number = 0
    try:
        with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if text := line.decode("utf-8-sig" if number == 1 else "utf-8").strip():
                    record = Record(path, number, json.loads(text))
                    if not isinstance(record.fields, dict):
                        raise record.error(f"{_shorten(record.fields)} is no record", 'write {"name": value, ...}')
                    yield record
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; correct the path or put the file there") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the gzip file is damaged after line {number} ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); correct the path or its permissions") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}, line {number}: the text is not UTF-8; convert the file") from None
    except DataError:
        raise
    except (ValueError, RecursionError):
        raise DataError(f"{path}, line {number}: the line is not JSON; write one JSON object on each line") from None


def _read_csv(path: str | Path) -> Iterator[Record]:
    """The rows of a CSV file with a header line, as comma-separated UTF-8; a cell may hold line breaks."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            for fields in table:
                record = Record(path, table.line_num, fields)
                if None in fields or None in fields.values():  # DictReader's marks of too many and too few cells
                    problem = f"the row has {'more' if None in fields else 'fewer'} cells than the header"
                    raise record.error(problem, "put texts with commas into quotation marks")
                yield record
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); correct the path or its permissions") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: the text is not UTF-8; save the table as CSV in UTF-8") from None
    except csv.Error as error:
        line = table.line_num + 1  # the first one of the malformed row
        raise DataError(f"{path}, line {line}: the row is not CSV ({error}); correct its quotation marks") from None
