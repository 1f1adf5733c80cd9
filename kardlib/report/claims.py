"""Every claim of the two papers, what it is tested on here, and the verdict: from the figures' data to a scorecard.

`claims.yml` holds the claims with the papers' numbers and explains their fields. A claim points at rows of the figures'
data that have an interval, mostly gains (`evaluate.gain_row`), and says where that whole interval must lie. None of our
numbers is typed: what no notebook has written is not run.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import inf
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import pandas as pd
import yaml
from pandas.io.formats.style import Styler
from pydantic import Field, model_validator

from kardlib.errors import KardError
from kardlib.models.catalogue import MODELS
from kardlib.report.evaluate import Interval, verdict
from kardlib.report.figures import COLUMNS, KEYS, METHOD_LABEL, long_form
from kardlib.settings import GLUE_TASKS, Group, Scale, SettingsError, preset, validate

CLAIMS = Path(__file__).with_name("claims.yml")
NOT_RUN = "not run at this scale"
SIGNS = {"reproduced": "✓", "not reproduced": "✗", "undecided": "?", NOT_RUN: "–"}
STUDENTS = [*(student for scale in get_args(Scale) for student in preset(scale).students), *MODELS]  # small to large


class ClaimError(KardError, ValueError):
    """The claims or the figures' data cannot be read; the message is one sentence that says what is wrong."""


# Claims


class Reported(Group):
    """Numbers of a paper for one dataset, one per student, in per cent or points."""

    at: str = Field(min_length=1)  # table, figure or section
    dataset: str
    students: tuple[str, ...] = ("",)
    value: tuple[float, ...] = Field(min_length=1)
    over: tuple[float, ...] | None = None
    read_off: bool = False

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if not len(self.students) == len(self.value) == len(self.over or self.value):
            raise ValueError("students, value and over must be equally many")
        return self

    @property
    def numbers(self) -> dict[str, float]:
        """Student -> the value, or the gain where it is compared with another one."""
        gains = self.value if self.over is None else [v - o for v, o in zip(self.value, self.over, strict=True)]
        return {student: round(gain, 2) for student, gain in zip(self.students, gains, strict=True)}

    def __str__(self) -> str:
        form = "+g" if self.over else "g"
        numbers = ", ".join(f"{student} {number:{form}}".strip() for student, number in self.numbers.items())
        return f"{self.at}, {self.dataset}: {numbers}{' (read off)' if self.read_off else ''}"


class Row(Group):
    """Rows of the figures' data; in `student` and `metric`, `*` stands for any text."""

    method: str
    metric: str
    student: str = "*"
    k: int | None = None  # None: any

    def choose(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table that are meant: those over all seeds."""
        table = table[table["seed"].isna() & (table["method"] == self.method)]
        table = table[table["metric"].map(lambda metric: fnmatchcase(metric, self.metric)).astype(bool)]
        table = table[table["student"].fillna("").map(lambda name: fnmatchcase(name, self.student)).astype(bool)]
        return table if self.k is None else table[table["k"] == self.k]


class Region(Group):
    """Where an interval must lie: one of the three. In a row's units, so shares are fractions of one."""

    above: float | None = None
    below: float | None = None
    within: float | None = Field(None, gt=0)
    of: float = 0.0

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len({"above", "below", "within"} & self.model_fields_set) != 1:
            raise ValueError("a test is one of above, below, within")
        if "of" in self.model_fields_set and self.within is None:
            raise ValueError("`of` belongs to `within`")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        if self.within is not None:
            return self.of - self.within, self.of + self.within
        return (-inf if self.above is None else self.above), (inf if self.below is None else self.below)

    def describe(self, unit: float) -> str:
        """In words, numbers multiplied by `unit`."""
        if self.within is not None:
            return f"within {unit * self.within:g} of {unit * self.of:g}"
        (name, end), *_ = self.model_dump(exclude_none=True, exclude={"of"}).items()
        return f"{name} {unit * end:g}"


class Claim(Group):
    """One claim; `claims.yml` says what the fields are."""

    id: str = Field(min_length=1)
    paper: Literal["KARD", "ReAugKD"]
    where: str = Field(min_length=1)
    notebook: str = Field(pattern=r"^\d\d$")
    says: str = Field(min_length=1)
    reported: tuple[Reported, ...] = ()
    row: Row
    test: Region
    percent: bool = True
    note: str = ""


def read_claims(path: Path = CLAIMS) -> list[Claim]:
    """The claims of a YAML file. Raises ClaimError."""
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ClaimError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ClaimError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, list):
        raise ClaimError(f"{path} must be a list of claims, not {type(values).__name__}")
    claims = []
    for number, value in enumerate(values, 1):
        name = value.get("id", number) if isinstance(value, dict) else number
        try:
            claims.append(validate(Claim, value))
        except SettingsError as error:
            raise ClaimError(f"{path}, claim {name!r}: {str(error).removeprefix(': ')}") from None
    names = [claim.id for claim in claims]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ClaimError(f"{path}: there are two claims {twice[0]!r}; a claim's id is its own")
    return claims


# The figures' data


def read_rows(folders: Iterable[Path]) -> pd.DataFrame:
    """All rows of the CSV files in some folders, and the `file` each is from; of two for the same cell the first.

    Raises ClaimError for a folder that is not there and a file that holds no figure's data.
    """
    tables = [long_form([]).assign(file="")]
    for folder in folders:
        if not folder.is_dir():
            raise ClaimError(f"there is no folder {folder}: run kard reproduce first, or correct --figures")
        for path in sorted(folder.glob("*.csv")):
            try:
                read = pd.read_csv(path, dtype={"student": str}).astype(object)
                tables.append(long_form(read.where(read.notna(), None).to_dict("records")).assign(file=path.as_posix()))
            except (ValueError, TypeError) as error:
                reason = str(error).splitlines()[0]
                raise ClaimError(f"{path} is not a figure's data: {reason}; make it again or remove it") from None
    return pd.concat(tables, ignore_index=True).drop_duplicates(KEYS, ignore_index=True)


# The best earlier method, and means over tasks

GAIN = "gain in accuracy over "
EARLIER = ("student_alone", "soft_labels", "rkd")  # ways of training the student that are not ReAugKD's


def best_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """ReAugKD's gain over "the best earlier method" of every dataset, scale and student: the one of `EARLIER` with the
    highest mean there, so the smallest of the gains.
    """
    over = {f"{GAIN}{name}" for name in EARLIER}
    chosen = rows[(rows["method"] == "reaugkd") & rows["metric"].isin(over) & rows["seed"].isna()]
    best = chosen.sort_values("value", kind="stable").drop_duplicates(["dataset", "scale", "student"])
    return best.assign(metric=f"{GAIN}the best earlier method").to_dict("records")


def mean_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """ReAugKD's gains as means over the GLUE tasks, for every scale and student with two tasks or more.

    Each mean has its interval: the tasks are independent, so its ends are as far from it as the root of the summed
    squares of the tasks' distances, over their number (Zou and Donner, *Construction of confidence limits about effect
    measures*, Statistics in Medicine 2008). It speaks of these tasks, not of others. "The best earlier method" is the
    one of `EARLIER` that is best on average.
    """
    chosen = (rows["method"] == "reaugkd") & rows["metric"].str.startswith(GAIN) & rows["seed"].isna()
    means: list[dict[str, Any]] = []
    for (scale, student), part in rows[chosen & rows["dataset"].isin(GLUE_TASKS)].groupby(["scale", "student"]):
        tasks = sorted(part["dataset"].unique())
        over: dict[str, dict[str, Any]] = {}
        for metric, cases in part.groupby("metric"):
            if len(cases) == len(tasks) > 1:
                value, files = cases["value"].mean(), ", ".join(sorted(cases["file"]))
                squares = ((cases["value"] - cases[end]) ** 2 for end in ("low", "high"))
                below, above = (np.sqrt(square.sum(skipna=False)) / len(tasks) for square in squares)
                over[str(metric).removeprefix(GAIN)] = {
                    "figure": cases["figure"].iloc[0], "dataset": f"mean of {', '.join(tasks)}", "scale": scale,
                    "method": "reaugkd", "student": student, "metric": f"{metric}, mean of tasks", "value": value,
                    "low": value - below, "high": value + above, "n": cases["n"].sum(), "file": files,
                }  # fmt: skip
        means += over.values()
        if earlier := [over[name] for name in EARLIER if name in over]:
            best = min(earlier, key=lambda mean: mean["value"])  # the gain over the best one is the smallest
            means.append(best | {"metric": f"{GAIN}the best earlier method, mean of tasks"})
    return means


# Verdicts

SCORECARD = [
    "id", "paper", "where", "notebook", "says", "reported", "dataset", "scale", "student", "k", "metric",
    "value", "low", "high", "n", "seeds", "p", "test", "verdict", "note", "file",
]  # fmt: skip


def judge(claims: Sequence[Claim], rows: pd.DataFrame) -> pd.DataFrame:
    """The scorecard: a line for every claim and row that it is tested on, in the papers' units (per cent, points).

    Gains over the best earlier method and means over tasks are rows too (`best_rows`, `mean_rows`). A claim has one
    line "not run at this scale" for every scale of the rows that has no row for it. A row without an interval decides
    nothing. "seeds" is how many there are rows of for the same figure, method and student; "p" is the paired test's,
    where the rows hold it.
    """
    alike = ["figure", "dataset", "scale", "method", "student"]
    seeds = rows.groupby(alike, dropna=False)["seed"].transform("nunique") if len(rows) else 0
    rows = rows.assign(seeds=seeds)
    if derived := best_rows(rows) + mean_rows(rows):
        rows = pd.concat([rows, pd.DataFrame(derived)], ignore_index=True)
    scales = [scale for scale in get_args(Scale) if (rows["scale"] == scale).any()] or [""]
    lines = []
    for claim in claims:
        found = claim.row.choose(rows[rows["figure"].str.startswith(f"{claim.notebook}_")])
        found = found.drop_duplicates([key for key in KEYS if key != "figure"])  # a row that two figures share
        unit = 100 if claim.percent else 1
        about = claim.model_dump(include={"id", "paper", "where", "notebook", "says", "note"}) | {
            "reported": "; ".join(map(str, claim.reported)),
            "test": claim.test.describe(unit),
        }
        for scale in scales:
            cases = found[found["scale"] == scale].sort_values(["dataset", "student", "k", "metric"], key=_rank)
            for case in cases.to_dict("records"):
                decided = verdict(Interval(case["value"], case["low"], case["high"]), *claim.test.ends)
                numbers = {name: unit * case[name] for name in ("value", "low", "high")}
                lines.append({**case, **about, **numbers, "verdict": decided})
            if cases.empty:
                lines.append(about | {"scale": scale, "verdict": NOT_RUN})
    scorecard = pd.DataFrame(lines, columns=SCORECARD, dtype=object)
    texts = ["dataset", "student", "metric", "file"]
    scorecard[texts] = scorecard[texts].fillna("")
    kinds = dict.fromkeys(("k", "n", "seeds"), "Int64") | dict.fromkeys(("value", "low", "high", "p"), "float64")
    return scorecard.astype(kinds)


def _rank(column: pd.Series) -> pd.Series:
    """Students from small to large, everything else as it sorts."""
    if column.name != "student":
        return column
    return column.fillna("").map(lambda name: (STUDENTS.index(name) if name in STUDENTS else len(STUDENTS), name))


def tally(scorecard: pd.DataFrame) -> str:
    """How many verdicts of each kind, as a sentence."""
    counts = scorecard["verdict"].value_counts()
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in SIGNS if verdict in counts) or "no claims"


def gains(claims: Iterable[Claim], scorecard: pd.DataFrame, dataset: str, scale: str) -> pd.DataFrame:
    """What `drawings.plot_claims` draws: the gains of one dataset at one scale, and the papers' (scale "reported").

    A figure's data with two more columns: "where" in the paper, and "verdict", empty for a paper's own gain.
    """
    ours = scorecard[(scorecard["dataset"] == dataset) & (scorecard["scale"] == scale)]
    lines = []
    for claim in [claim for claim in claims if claim.row.metric.startswith("gain")]:
        about = {"figure": "14_scorecard", "method": claim.id, "where": claim.where, "verdict": ""}
        for reported in claim.reported:
            place = {"dataset": reported.dataset, "scale": "reported", "metric": "gain"}
            lines += [about | place | {"student": s, "value": gain / 100} for s, gain in reported.numbers.items()]
        for case in ours[ours["id"] == claim.id].to_dict("records"):
            numbers = {name: case[name] / 100 for name in ("value", "low", "high")}
            lines.append({**case, **about, **numbers, "verdict": case["verdict"]})
    return pd.DataFrame(lines, columns=[*COLUMNS, "where", "verdict"])


# The scorecard as text


def summarize(scorecard: pd.DataFrame) -> pd.DataFrame:
    """A line per claim, as text to show: claim, paper, here, test, verdict.

    "here" has a line for every case, which begins with its verdict's sign, "verdict" one for every verdict that was
    given, with the number of its cases where there are several.
    """
    lines = []
    for _, cases in scorecard.groupby("id", sort=False):
        claim, given = cases.iloc[0], cases["verdict"].value_counts()
        named = [column for column in ("metric", "k") if cases[column].nunique() > 1]
        lines.append({
            "claim": f"{claim.says}\nNote: {claim.note}" if claim.note else claim.says,
            "paper": f"{claim.paper}, {claim.reported or claim['where']}".replace("; ", "\n"),
            "here": "\n".join(f"{SIGNS[case.verdict]} {_case(case, named)}" for _, case in cases.iterrows()),
            "test": claim.test,
            "verdict": "\n".join(
                f"{sign} {verdict}" + f" ({given[verdict]})" * (len(cases) > 1)
                for verdict, sign in SIGNS.items() if verdict in given
            ),
        })  # fmt: skip
    return pd.DataFrame(lines, columns=["claim", "paper", "here", "test", "verdict"])


def describe(scorecard: pd.DataFrame) -> str:
    """The scorecard as plain text, a block per claim; the last line counts the verdicts."""
    blocks = []
    for name, cases in scorecard.groupby("id", sort=False):
        claim = cases.iloc[0]
        block = [f"{name} ({claim.paper}, {claim['where']}; notebook {claim.notebook}; test: {claim.test})", claim.says]
        block += [f"paper: {claim.reported}"] * bool(claim.reported) + [f"note: {claim.note}"] * bool(claim.note)
        for _, case in cases.iterrows():
            source = f" ({case.file})" if case.file else ""
            named = ["metric", "k"] if cases["k"].nunique() > 1 else ["metric"]
            block.append(f"{SIGNS[case.verdict]} {case.verdict}: {_case(case, named)}{source}")
        blocks.append("\n    ".join(block))
    return "\n\n".join([*blocks, tally(scorecard)])


def _case(case: pd.Series, named: Sequence[str]) -> str:
    """What a verdict rests on: where, and the number with its interval; `named`: which of metric and k are told."""
    if case.verdict == NOT_RUN:
        return str(case.scale)
    told = {"metric": case.metric, "k": f"k = {case.k}"}
    where = ", ".join(filter(None, [case.dataset, case.scale, case.student, *(told[name] for name in named)]))
    seeds = f", {case.seeds} seed{'s' * (case.seeds > 1)}" if pd.notna(case.seeds) and case.seeds else ""
    return f"{where}: {_number(case)}{seeds}{'' if pd.isna(case.p) else f', p = {case.p:.2g}'}"


def _number(case: Any) -> str:
    """The value and its interval; gains with their sign."""
    form = "+.3g" if "gain" in case.metric else ".3g"
    return f"{case.value:{form}}" + (f" [{case.low:{form}}, {case.high:{form}}]" if pd.notna(case.low) else "")


# What a notebook shows


def findings(rows: Iterable[Mapping[str, Any]], notebook: str) -> Styler:
    """The claims of a notebook (its number) judged on the rows that it has made: claim, paper, here, test, verdict.

    `rows` are those of its figure's data; the p that a gain has beside them is shown. Nothing is cut.
    """
    rows = list(rows)
    table = long_form(rows).assign(file="", p=pd.Series([row.get("p") for row in rows], dtype="float64"))
    return as_text(summarize(judge([claim for claim in read_claims() if claim.notebook == notebook], table)))


def other_gains(rows: Iterable[Mapping[str, Any]], notebook: str) -> Styler:
    """The gains that no claim of a notebook is tested on, in points with their interval and p."""
    gained = [row for row in rows if "gain" in row["metric"]]
    table = long_form(gained).assign(p=pd.Series([row.get("p") for row in gained], dtype="float64"))
    for claim in read_claims():
        if claim.notebook == notebook:
            table = table.drop(claim.row.choose(table).index)
    numbers = table.assign(**{name: 100 * table[name] for name in ("value", "low", "high")})
    shown = pd.DataFrame({
        "method": table["method"].map(lambda method: METHOD_LABEL.get(method, method)),
        "student": table["student"].fillna(""),
        "k": table["k"].astype("string").fillna(""),
        "gain": table["metric"],
        "points": [_number(row) for row in numbers.itertuples()],
        "p": table["p"].map("{:.2g}".format, na_action="ignore").fillna(""),
    })  # fmt: skip
    return as_text(shown)


def as_text(table: pd.DataFrame) -> Styler:
    """A table of text as a notebook shows it: nothing cut, lines as they are."""
    look = [{"selector": "td, th", "props": "text-align: left; vertical-align: top; white-space: pre-line"}]
    return table.style.hide(axis="index").format(escape="html").set_table_styles(look)
