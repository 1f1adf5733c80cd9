"""A row of results: what was measured, of whom, where and against whom, in columns that no reader takes apart.

figure, dataset, scale, split   where: the figure's name, and the split that the questions are of
method, student, seed           of whom; no seed: over all seeds
k                               passages read or looked at (the k of Hits@k)
knob, x, at                     what varies along a figure; its value as a number, a named value or condition
metric                          an identifier of what was measured
over, over_x, over_at,          what a gain is over: the row then holds `method` less `over` on the same questions,
  over_student                  and of the rival's x, at and student those that are not the row's own
value, low, high, n             the number, its interval, and over how many (questions, failures, passes);
                                an end, and a crossing, that lies beyond all that was run is infinite
unread                          the share of the answers that could not be read, of a gain the greater one; empty: none
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import pandas as pd
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from kardlib.errors import KardError
from kardlib.kard import bound, methods  # noqa: F401 - they enter their methods
from kardlib.reaugkd.methods import METHODS  # noqa: F401 - and so do these
from kardlib.reaugkd.tasks import OWN_METRIC
from kardlib.registry import REGISTRY, label
from kardlib.settings import Group, SettingsError, validate

FRACTIONS = {  # metrics between 0 and 1, whose gains lie between -1 and 1
    "accuracy", "accuracy_by_likelihood", "accuracy_by_total_likelihood", "accuracy_never", "accuracy_of_rationale",
    "accuracy_often", "accuracy_one_hop", "accuracy_options", "accuracy_seldom", "accuracy_two_hops", "accuracy_yes_no",
    "doubled_hop",
    "error", "error_shown", "error_all", "f1", "former_answers", "gold_among_read", "hits_answer", "hits_gold",
    "hits_silver", "nearest_shares_label", "recall", "share_of_failures", "supported_statements", "true_statements",
    "whole_chain", "won_by_reading",
}  # fmt: skip
AT_K = ("hits_gold", "hits_silver")  # metrics that say nothing without their k
AGAINST_GOLD = ("hits_gold", "gold_among_read")  # metrics that need gold passages
IN_NATS = ("loss", "first_loss", "last_loss", "retriever_loss")
MOST_UNREAD = 0.2  # share of the answers: where more could not be read, nothing is told
ROUNDED = 1e-9  # by so much a mean may be past the end of its interval
SHOWN = {"p"}  # what a row may say beside its columns, for a notebook to show; no figure's data holds it


class FigureError(KardError, ValueError):
    """Rows that are no figure's data; the message says which row and why."""


def limits(metric: str, over: str = "") -> tuple[float, float]:
    """Between which numbers a metric lies, or what is gained in it over another method."""
    return (-1.0 if over else 0.0, 1.0) if metric in FRACTIONS else (-math.inf, math.inf)


def _identify(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(f"{name!r} is no identifier: a metric is one word, and its conditions are columns")
    return name


Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
End = Annotated[float, Field(allow_inf_nan=True)]  # of an interval; a NaN is between no two numbers


class ResultRow(Group):
    """One row, in the order of the columns; empty where a column does not apply."""

    figure: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    scale: str = Field(min_length=1)
    split: Text = ""
    method: str = Field(min_length=1)
    student: Text = ""
    seed: int | None = Field(None, ge=0)
    k: int | None = Field(None, ge=1)
    knob: Text = ""
    x: float | None = None
    at: Text = ""
    metric: Annotated[str, AfterValidator(_identify)]
    over: Text = ""
    over_x: float | None = None
    over_at: Text = ""
    over_student: Text = ""
    value: End
    low: End | None = None
    high: End | None = None
    n: int | None = Field(None, ge=0)
    unread: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _check_knob(self) -> Self:
        if bool(self.knob) != (self.x is not None or bool(self.at)):
            raise ValueError(f"{self._name}: a knob has an x or an at, and these have a knob")
        rivals = (self.over_x is not None, self.over_at, self.over_student)
        if any(rivals) and not self.over:
            raise ValueError(f"{self._name}: over_x, over_at and over_student need an over")
        if self.over == self.method and not any(rivals):
            raise ValueError(f"{self._name}: it is compared with itself; say over_x, over_at or over_student")
        return self

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        if not math.isfinite(self.value) and (self.metric != "crossing" or math.isnan(self.value)):
            raise ValueError(f"{self._name}: its value should be a finite number, not {self.value}")
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        if not low - ROUNDED <= self.value <= high + ROUNDED:
            raise ValueError(f"{self._name}: {self.value:g} is not between {low:g} and {high:g}")
        least, most = limits(self.metric, self.over)
        if not least <= low <= high <= most:
            raise ValueError(f"{self._name} must be a fraction of one, not {self.value:g}")
        return self

    @property
    def _name(self) -> str:
        return f"{self.metric} of {self.method}"


COLUMNS = list(ResultRow.model_fields)
KEYS = COLUMNS[: COLUMNS.index("value")]  # of one cell
ASKED = [key for key in KEYS if key not in ("figure", "seed")]  # of what is the same in several figures
NUMBERS = dict.fromkeys(("seed", "k", "n"), "Int64")
NUMBERS |= dict.fromkeys(("x", "over_x", "value", "low", "high", "unread"), "float64")


def long_form(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as the table that every figure is drawn from and saved with: `COLUMNS`, texts empty where there are none.

    What is `SHOWN` beside them is left out. Raises FigureError for an unknown column, a missing needed one, a value of
    the wrong type, a fraction outside 0..1, an interval that does not hold its value, and two rows for the same cell.
    """
    checked = []
    for i, row in enumerate(rows):
        if unknown := set(row) - set(COLUMNS) - SHOWN:
            raise FigureError(f"row {i}: there is no column {min(unknown)!r}; the columns are {', '.join(COLUMNS)}")
        try:
            known = {name: value for name, value in row.items() if name in COLUMNS}
            checked.append(validate(ResultRow, known).model_dump())
        except SettingsError as error:
            raise FigureError(f"row {i}: {error}") from None
    table = pd.DataFrame(checked, columns=COLUMNS).astype(NUMBERS)
    if (twice := table.duplicated(KEYS)).any():
        row = table[twice].iloc[0]
        cell = ", ".join(f"{key} {row[key]}" for key in KEYS if pd.notna(row[key]) and row[key] != "")
        raise FigureError(f"row {table.index[twice][0]}: there are two rows for {cell}")
    return table


def read_table(path: Path) -> pd.DataFrame:
    """A figure's data from its CSV file, checked by `long_form`. Raises FigureError and pandas' errors."""
    return long_form(to_rows(pd.read_csv(path, dtype=str, keep_default_na=False).replace("", None)))


def to_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as rows again, None where a cell is empty."""
    return [dict(row) for row in table.astype(object).where(table.notna(), None).to_dict("records")]


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Methods in the registry's order, everything else as it sorts; summaries over seeds come before single seeds.

    Methods that a notebook added come last, by their ids: who reads the file may not have added them.
    """
    ranks = {method: i for i, (method, entry) in enumerate(REGISTRY.items()) if entry.block != "added"}
    return table.sort_values(
        KEYS,
        key=lambda column: column.map(lambda m: (ranks.get(m, len(ranks)), m)) if column.name == "method" else column,
        na_position="first",
        kind="stable",
    )


def told(table: pd.DataFrame) -> pd.DataFrame:
    """The table without values and intervals where more than `MOST_UNREAD` of the answers could not be read.

    What is right is nearly 0 there, and says nothing of what the student knows.
    """
    read = ~(table["unread"] > MOST_UNREAD)
    return table.assign(**{column: table[column].where(read) for column in ("value", "low", "high")})


def in_digits(row: Mapping[str, Any], form: str, unit: float = 1) -> str:
    """A row's value and its interval, in `unit`s; "…" stands for what lies beyond all that was run."""
    numbers = [unit * row[name] for name in ("value", "low", "high") if pd.notna(row[name])]
    value, *ends = (f"{number:{form}}" if math.isfinite(number) else "…" for number in numbers)
    return value + (f" [{', '.join(ends)}]" if any(map(math.isfinite, numbers[1:])) else "")


def with_unread(value: str, unread: float | None) -> str:
    """A printed value and the share of its answers that could not be read, which is all where `told` has no value."""
    if not (unread or 0) >= 0.005:  # it would round to nothing, or is NaN
        return value
    return f"{unread:.0%} unread" if (unread or 0) > MOST_UNREAD else f"{value}, {unread:.0%} unread"


def only(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows that have these values in these columns."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """What was measured over all seeds, without gains."""
    return table[table["seed"].isna() & (table["over"] == "")]


def gained(table: pd.DataFrame) -> pd.DataFrame:
    """What a method gains over another, over all seeds."""
    return table[table["seed"].isna() & (table["over"] != "")]


def is_judged(table: pd.DataFrame) -> pd.Series:
    """Which rows have the metric that their dataset is judged by: accuracy, unless GLUE takes another."""
    return table["metric"] == table["dataset"].map(OWN_METRIC).fillna("accuracy")


def in_words(row: Mapping[str, Any]) -> str:
    """What a row holds, without its method: "accuracy at l = 10 over l = 3"."""
    words = row["metric"].replace("_", " ") + (f" at k = {row['k']}" if row["metric"] in AT_K else "")
    number = pd.notna(row["x"])
    if row["at"] and number:
        words += f", {row['at']},"
    if row["knob"]:
        words += f" at {row['knob']} = {row['x']:,.10g}" if number else f" at {row['knob']} = {row['at']}"
    who = ["" if row["over"] == row["method"] else label(row["over"]), row["over_student"]]
    where = f"{row['over_x']:,.10g}" if pd.notna(row["over_x"]) else row["over_at"]
    rival = [" with ".join(filter(None, who)), where and f"{row['knob']} = {where}"]
    return " over ".join(filter(None, [words, " at ".join(filter(None, rival))]))


def in_short(row: Mapping[str, Any]) -> str:
    """A row as one says it beside another."""
    form = ".1%" if row["metric"] in FRACTIONS else ".3g"
    return f"{label(row['method'])}, {in_words(row)}: {row['value']:{form}}"
