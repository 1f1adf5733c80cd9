"""Records: the lines of a file or the rows of a table, by the names of their fields.

Nothing is passed over in silence: a reader of records says which fields it may read, and every error names file and
line. What is found and not read, and what stands in training and test alike, is said on stderr.
"""

import csv
import functools
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from kardlib.errors import DataError

LETTERS = "ABCDEFGHIJ"  # of the options, in their order


class Record(NamedTuple):
    """One line or table row of a file, whose place every error names. Methods that read a field raise DataError."""

    path: str | Path
    line: int
    fields: dict[str, Any]

    def error(self, problem: str, remedy: str) -> DataError:
        """The error to raise."""
        return DataError(f"{self.path}, line {self.line}: {problem}; {remedy}")

    def text(self, name: str, default: Any = ...) -> str:
        """The field as a text; without a default it must be there."""
        return self._as_text(name, self.fields.get(name, default))

    def filled(self, name: str, what: str) -> str:
        """The field as the text of a question or a passage, which is not blank."""
        if not (text := self.text(name)).strip():
            raise self.error(f"the {what} has no text", f"fill in {name} or remove the line")
        return text

    def numbered(self, names: Sequence[str]) -> list[str]:
        """The texts of those fields that are there; none may be missing before another one."""
        there = [name for name in names if name in self.fields]
        if gap := next((n for n, name in zip(names, there, strict=False) if n != name), ""):
            raise self.error(f"there is {there[-1]} but no {gap}", "name the options without a gap")
        return [self.text(name) for name in there]

    def texts(self, name: str) -> list[str]:
        """The field as a list of texts."""
        if not isinstance(values := self.fields.get(name, ...), list):
            raise self.error(f"{name!r} is {shorten(values)}", "a list of texts is needed")
        return [self._as_text(name, value) for value in values]

    def whole_number(self, name: str) -> int:
        """The field as a whole number from 0."""
        value = self.fields.get(name, ...)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(f"{name!r} is {shorten(value)}", "a whole number from 0 is needed")
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

    def id(self, name: str = "id") -> str:
        """The field as an id, printable."""
        id = self.text(name)
        if not id.strip() or not id.isprintable():  # run tables hold ids: no tabs, no line breaks
            raise self.error(f"the id {shorten(id)} is not printable text", "give every line an id of its own")
        return id

    def _as_text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(f"{name!r} is {shorten(value)}", "a text is needed")
        try:
            value.encode()  # JSON can spell half of a surrogate pair, which no file can hold
        except UnicodeEncodeError:
            raise self.error(f"{name!r} holds a character that is not Unicode", "remove the lone surrogate") from None
        return value


def with_own_ids(
    records: Iterable[Record], name: str = "id", remedy: str = "give every line an id of its own",
    read: Callable[[Record, str], str | int] = Record.id,
) -> Iterator[Record]:  # fmt: skip
    """The records by their ids, which `read` takes from the field `name`, the first of each.

    Raises DataError at the end, which names all ids that come twice with their lines.
    """
    lines: dict[str | int, list[int]] = {}
    record = None
    for record in records:
        id = read(record, name)
        lines.setdefault(id, []).append(record.line)
        if len(lines[id]) == 1:
            yield record
    if record and (twice := {id: found for id, found in lines.items() if len(found) > 1}):
        first = next(iter(twice))
        places = [f"{shorten(id)} in lines {', '.join(map(str, found))}" for id, found in twice.items()]
        problem = f"the {name} {shorten(first)} comes twice ({list_some(places)})"
        raise record._replace(line=twice[first][1]).error(problem, remedy)


def say_shared(where: str | Path, train: Iterable[str], test: Iterable[str]) -> None:
    """Say how many texts of the test stand in training too, whatever their case and their spaces."""
    seen = {" ".join(text.casefold().split()) for text in train}
    if shared := [shorten(text) for text in test if " ".join(text.casefold().split()) in seen]:
        say(f"{where}: {len(shared)} texts of test are in train too: {list_some(shared, 3)}")


@functools.cache
def say(text: str) -> None:
    """Print once what is not wrong but should be known, on stderr: stdout is for what a command is asked for."""
    print(text, file=sys.stderr, flush=True)


def read_losses(folder: Path) -> dict[int, float]:
    """By step, counted from 1, the loss that a training wrote into its folder: of every step, or the mean up to one."""
    written = enumerate(json.loads((folder / "losses.json").read_text("utf-8")), 1)
    return dict((loss["step"], loss["loss"]) if isinstance(loss, dict) else (step, loss) for step, loss in written)


def say_rise(name: str, losses: Sequence[float]) -> None:
    """Say where a training's loss, by step or as logged, did not fall: means of its first tenth and of its last."""
    tenth = -(-len(losses) // 10)
    if len(losses) > 1 and fmean(losses[-tenth:]) >= fmean(losses[:tenth]):
        change = f"({fmean(losses[:tenth]):.3f} at first, {fmean(losses[-tenth:]):.3f} at last)"
        say(f"{name}: the loss did not fall {change}: lower its learning rate, or train longer")


def list_some(items: Sequence[str], most: int = 20) -> str:
    """The first items, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def shorten(value: object) -> str:
    """A field's value as an error shows it."""
    shown = "missing" if value is ... else "null" if value is None else ascii(value)
    return shown if len(shown) <= 40 else shown[:40] + "..."


def read_records(path: str | Path, names: Collection[str]) -> Iterator[Record]:
    """The rows of a file whose name ends in .csv, else the JSON objects of its lines.

    `names` are the fields that may be read. Others are said; one that only spells such a name another way, and one that
    comes twice, raises DataError.
    """
    unread: dict[str, None] = {}
    for line, pairs in (_csv_rows if str(path).endswith(".csv") else _json_lines)(path):
        record = Record(path, line, dict(pairs))
        given = [name for name, _ in pairs]
        if len(record.fields) < len(given):
            name = next(name for name in given if given.count(name) > 1)
            raise record.error(f"the field {shorten(name)} comes twice", "leave one of them out")
        for name in set(given).difference(names, unread):
            if near := [known for known in names if _plain(known) == _plain(name)]:
                raise record.error(f"the field {shorten(name)} is not read", f"name it {near[0]!r}")
        unread |= dict.fromkeys(name for name in given if name not in names)
        yield record
    if unread:
        say(f"{path}: not read: the fields {list_some([shorten(name) for name in unread])}")


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _json_lines(path: str | Path) -> Iterator[tuple[int, tuple[tuple[str, Any], ...]]]:
    """Line and fields of the JSON objects of a file, gzipped if its name ends in .gz; empty lines are skipped."""
    number = 0
    try:
        with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if text := line.decode("utf-8-sig" if number == 1 else "utf-8").strip():
                    pairs = json.loads(text, object_pairs_hook=tuple)  # a dict keeps the last of two
                    if not isinstance(pairs, tuple):
                        problem = f"{shorten(pairs)} is no record"
                        raise Record(path, number, {}).error(problem, 'write {"name": value, ...}')
                    yield number, pairs
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


def _csv_rows(path: str | Path) -> Iterator[tuple[int, list[tuple[str, Any]]]]:
    """First line and cells by their column of the rows of a CSV file with a header; a cell may hold line breaks."""
    csv.field_size_limit(2**31 - 1)  # a cell is as long as it is
    table = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    header: list[str] = []
    line = 1
    try:
        for cells in table:
            record = Record(path, line, {})
            if header and any(cells):
                if len(cells) != len(header):
                    problem = f"the row has {'more' if len(cells) > len(header) else 'fewer'} cells than the header"
                    raise record.error(problem, "put texts with commas into quotation marks")
                if any(cell for name, cell in zip(header, cells, strict=True) if not name.strip()):
                    raise record.error("a cell stands in a column without a name", "name the column in the first line")
                yield line, [pair for pair in zip(header, cells, strict=True) if pair[0].strip()]
            elif cells and not header:
                if len(cells) == 1 and (mark := re.search(r"[;\t|]", cells[0])):
                    raise record.error(f"the cells are separated by {mark[0]!r}", "save the table with commas")
                header = cells
            line = table.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: the row is not CSV ({error}); correct its quotation marks") from None


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, without the mark of its byte order. Raises DataError."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; correct data_dir or put the file there") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); correct the path or its permissions") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: the text is not UTF-8; save the table in UTF-8") from None
