"""Every claim of the two papers, what it is tested on here, and the verdict: from the figures' data to a scorecard.

`claims.yml` holds the claims and explains their fields, `reported.yml` the papers' numbers. A claim selects rows of the
figures' data that have an interval, mostly gains (`evaluate.gain_row`), and says where that whole interval must lie.
None of our numbers is typed: what no notebook has written is not run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import translate
from math import inf, nan
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Self, get_args

import pandas as pd
import yaml
from pandas.io.formats.style import Styler
from pydantic import Field, model_validator

from kardlib.errors import KardError, first_line
from kardlib.models.catalogue import MODELS
from kardlib.presets import preset
from kardlib.report.captions import DATASETS
from kardlib.report.combined import OTHER_WORLDS, best_rows, mean_rows, put_many_worlds
from kardlib.report.evaluate import GROWTH
from kardlib.report.reported import find_table, read_reported
from kardlib.report.rows import (
    ASKED,
    COLUMNS,
    KEYS,
    NUMBERS,
    in_digits,
    in_short,
    in_words,
    is_judged,
    long_form,
    only,
    read_table,
    to_rows,
)
from kardlib.report.statistics import NOT_TOLD, Interval, by_chance, verdict
from kardlib.settings import Group, Scale, SettingsError, validate

CLAIMS = Path(__file__).with_name("claims.yml")
NOT_RUN = "not run at this scale"
SIGNS = {"reproduced": "✓", "not reproduced": "✗", "undecided": "?", NOT_TOLD: "∅", NOT_RUN: "–"}
STUDENTS = [*(student for scale in get_args(Scale) for student in preset(scale).students), *MODELS]  # small to large


class ClaimError(KardError, ValueError):
    """The claims or the figures' data cannot be read; the message is one sentence that says what is wrong."""


# Claims

PATTERNS = ("student", "at", "over_at", "over_student")  # columns in which `*` stands for any text, and `|` for or


class Selection(Group):
    """Rows of the figures' data by their columns; None: any, but of `over` and its like, which must then be empty."""

    method: str
    metric: str
    dataset: str | None = None
    student: str | None = None
    k: int | None = None
    knob: str | None = None
    x: float | None = None
    at: str | None = None
    over: str = ""
    over_x: float | None = None
    over_at: str = ""
    over_student: str = ""

    def choose(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table that are meant, over all seeds; "accuracy" stands for what their dataset is judged by."""
        table = table[table["seed"].isna() & (table["over_x"].isna() | (self.over_x is not None))]
        for name, wanted in self.model_dump(exclude_none=True).items():
            if name in PATTERNS and wanted:
                found = table[name].ne("") & table[name].str.match("|".join(map(translate, wanted.split("|"))))
            elif (name, wanted) == ("metric", "accuracy"):
                found = is_judged(table)
            else:
                found = (table[name] == wanted).fillna(False)
            table = table[found.astype(bool)]
        return table


class Reported(Group):
    """Numbers of a paper in one of its tables, one per column, in per cent or points."""

    table: str
    row: str | None = None  # None: the claim's method
    columns: tuple[str, ...] = ()  # none: all
    over: str | None = None  # None: what the claim's method is over; "": the number is no difference of two rows
    over_table: str = ""
    over_columns: tuple[str, ...] = ()
    share_of: str = ""
    names: tuple[str, ...] = ()
    at: str = ""

    def numbers(self, claimed: Selection) -> dict[str, float]:
        """Column -> the value, or the gain where it is compared with another one. Raises ValueError."""
        table, columns = find_table(self.table), self.columns or find_table(self.table).columns
        values, over = table.numbers(self.row or claimed.method, columns), self.rival(claimed)
        if self.share_of:
            (part,), (whole,) = values, table.numbers(self.share_of, columns)
            return {f"share of {whole:g} {columns[0]}": 100 * part / whole}
        names, over_columns = self.names or columns, self.over_columns or columns
        if not len(names) == len(columns) == len(over_columns):
            raise ValueError("columns, over_columns and names must be equally many")
        if over:
            others = find_table(self.over_table or self.table).numbers(over, over_columns)
            values = [value - other for value, other in zip(values, others, strict=True)]
        return {name: round(value, 2) for name, value in zip(names, values, strict=True)}

    def rival(self, claimed: Selection) -> str:
        """The row that is subtracted, or nothing."""
        return claimed.over if self.over is None else self.over

    def in_words(self, claimed: Selection) -> str:
        """Place, dataset and numbers."""
        table, form = find_table(self.table), "+g" if self.rival(claimed) else "g"
        numbers = ", ".join(f"{name} {number:{form}}".strip() for name, number in self.numbers(claimed).items())
        read_off = table.read_off or find_table(self.over_table or self.table).read_off
        return f"{self.at or table.at}, {table.dataset}: {numbers}{' (read off)' if read_off else ''}"


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
        """Above and below which numbers the interval must lie, infinite where it need not."""
        if self.within is not None:
            return self.of - self.within, self.of + self.within
        return (-inf if self.above is None else self.above), (inf if self.below is None else self.below)

    def in_words(self, unit: float) -> str:
        """What the interval must be, numbers multiplied by `unit`."""
        if self.within is not None:
            return f"within {unit * self.within:g} of {unit * self.of:g}"
        least, most = self.ends
        return f"above {unit * least:g}" if most == inf else f"below {unit * most:g}"


class Case(Group):
    """Where a claim's test can come out either way, or cannot; None: everywhere."""

    dataset: str | None = None
    could_fail: bool
    why: str = Field(min_length=1)


class Claim(Group):
    """One claim; `claims.yml` says what the fields are."""

    id: str = Field(min_length=1)
    paper: Literal["KARD", "ReAugKD", "ours"]
    where: str = Field(min_length=1)
    notebook: str = Field(pattern=r"^\d\d$")
    says: str = Field(min_length=1)
    reported: tuple[Reported, ...] = ()
    row: Selection
    test: Region
    could_fail: bool
    why: str = Field(min_length=1)
    cases: tuple[Case, ...] = ()
    beside: tuple[Selection, ...] = ()
    percent: bool = True
    headline: bool = False
    note: str = ""

    @model_validator(mode="after")
    def _read(self) -> Self:
        for reported in self.reported:
            reported.numbers(self.row)
        try:
            _ = self.noted
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(f"note: {error} is no number of reported.yml; write {{table[row][column]}}") from None
        return self

    def effect(self, dataset: str) -> float:
        """The mean of the papers' numbers on a dataset, else of all; of a growth the last less the first. NaN: none."""
        own = [one for one in self.reported if find_table(one.table).dataset == DATASETS.get(f"_{dataset}")]
        found = [[*reported.numbers(self.row).values()] for reported in own or self.reported]
        numbers = [one for some in found for one in ([some[-1] - some[0]] if self.row.metric == GROWTH else some)]
        return fmean(numbers) if numbers else nan

    @property
    def unit(self) -> int:
        """What a row's numbers are multiplied by to be in the papers' units."""
        return 100 if self.percent else 1

    @property
    def noted(self) -> str:
        """The note with the papers' numbers in their places."""
        tables = read_reported()
        cells = {
            name: {row: dict(zip(table.columns, table.rows[row], strict=True)) for row in table.rows}
            for name, table in tables.items()
        }
        return self.note.format_map(cells)

    def weight(self, dataset: str) -> dict[str, Any]:
        """Whether its test could have failed on a row of this dataset, and why."""
        cases = (*self.cases, Case(could_fail=self.could_fail, why=self.why))
        held = (case for case in cases if case.dataset in (None, dataset))
        return next(held).model_dump(include={"could_fail", "why"})


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
            raise ClaimError(f"{path}, claim {name!r}: {error}") from None
    names = [claim.id for claim in claims]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ClaimError(f"{path}: there are two claims {twice[0]!r}; a claim's id is its own")
    return claims


# The figures' data


def read_rows(folders: Iterable[Path]) -> pd.DataFrame:
    """All rows of the CSV files in some folders, or in their `figures`, and the `file` each is from; of two for the
    same cell the first.

    Raises ClaimError for a folder that is not there and a file that holds no figure's data.
    """
    tables = [long_form([]).assign(file="")]
    for folder in folders:
        folder = folder / "figures" if (folder / "figures").is_dir() else folder
        if not folder.is_dir():
            raise ClaimError(f"there is no folder {folder}: name one with --figures, as runs/NAME/figures")
        for path in sorted(folder.glob("*.csv")):
            tables.append(read_figure(path).assign(file=path.as_posix()))
    return pd.concat(tables, ignore_index=True).drop_duplicates(KEYS, ignore_index=True)


def read_figure(path: Path) -> pd.DataFrame:
    """A figure's data from its CSV file. Raises ClaimError for another file."""
    try:
        return read_table(path)
    except ValueError as error:
        why = f"{path} is not a figure's data: {first_line(error)}"
        raise ClaimError(f"{why}; make it again or remove it") from None


# Verdicts

ORDER = ["dataset", "student", "k", "knob", "x", "at", "over_x", "over_at", "over_student"]  # of a claim's cases
OF_A_CASE = [name for name in COLUMNS if name not in ("figure", "seed")]
SCORECARD = [
    "id", "paper", "where", "notebook", "says", "reported", *OF_A_CASE, "seeds", "p", "test", "verdict", "effect",
    "ruled_out", "could_fail", "why", "beside", "note", "file",
]  # fmt: skip
A_TEST = [name for name in [*OF_A_CASE, "test"] if name not in ("knob", "x")]  # which say what a figure varies


def judge(claims: Sequence[Claim], rows: pd.DataFrame) -> pd.DataFrame:
    """The scorecard: a line for every claim and row that it is tested on, in the papers' units (per cent, points).

    Gains over the best earlier method and means over tasks are rows too (`best_rows`, `mean_rows`). What was asked in
    many worlds is judged by them, in the place of one (`put_many_worlds`). A claim that has no row at any scale has
    one line, "not run at this scale", the first. A row without an interval decides nothing, and of answers that could
    mostly not be read nothing is told (`statistics.verdict`). "seeds" is how many there are rows of for the same
    figure, method and student; "p" is the paired test's, where the rows hold it; "could_fail" whether the verdict could
    have been another, and "why": that of a number which a claim above is tested on could not; "beside" what is to be
    told with it. "ruled_out": the papers' mean ("effect", on this dataset where they have it) lies outside of the
    interval.
    """
    rows = rows if "file" in rows else rows.assign(file="")
    alike = ["figure", "dataset", "scale", "method", "student", "file"]
    seeds = rows.groupby(alike, dropna=False)["seed"].transform("nunique") if len(rows) else 0
    rows = put_many_worlds(rows.assign(seeds=seeds))
    if derived := best_rows(rows) + mean_rows(rows):
        rows = pd.concat([rows, pd.DataFrame(derived)], ignore_index=True)
    scales = [scale for scale in get_args(Scale) if (rows["scale"] == scale).any()] or [""]
    lines = []
    for claim in claims:
        mine = rows[rows["figure"].str.startswith(f"{claim.notebook}_")]
        parts = [mine[mine["scale"] == scale] for scale in scales]
        judged = [line for part in parts for line in _judge_claim(claim, part)]
        lines += judged or [_about(claim, parts[0]) | claim.weight("") | {"scale": scales[0], "verdict": NOT_RUN}]
    scorecard = pd.DataFrame(lines, columns=SCORECARD, dtype=object)
    kinds = {name: kind for name, kind in NUMBERS.items() if name in SCORECARD}
    kinds |= {"seeds": "Int64", "p": "float64", "effect": "float64", "ruled_out": "boolean", "could_fail": "bool"}
    scorecard = scorecard.fillna({name: "" for name in SCORECARD if name not in kinds}).astype(kinds)
    again = scorecard.duplicated(A_TEST) & scorecard["value"].notna()  # e.g. with the usual number of passages
    scorecard.loc[again, ["could_fail", "why"]] = [False, "The same number decides a claim above, and counts once."]
    return scorecard


def _judge_claim(claim: Claim, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The scorecard's lines of a claim, of the rows of its notebook at one scale."""
    cases = claim.row.choose(rows).drop_duplicates(ASKED)  # two figures may share a row
    cases = cases.sort_values(ORDER, key=lambda column: column.map(by_size) if column.name == "student" else column)
    about, lines = _about(claim, rows), []
    least, most = (claim.unit * end for end in claim.test.ends)
    for case in cases.to_dict("records"):
        value, low, high = (claim.unit * case[name] for name in ("value", "low", "high"))
        effect = claim.effect(case["dataset"])
        lines.append(case | about | claim.weight(case["dataset"]) | {
            "value": value, "low": low, "high": high, "effect": effect,
            "verdict": verdict(Interval(value, low, high), least, most, unread=case["unread"]),
            "ruled_out": low < high and (effect < low or high < effect),
        })  # fmt: skip
    return lines


def _about(claim: Claim, rows: pd.DataFrame) -> dict[str, Any]:
    """What all lines of a claim say, of the rows of its notebook at one scale."""
    return claim.model_dump(include={"id", "paper", "where", "notebook", "says"}) | {
        "reported": "; ".join(reported.in_words(claim.row) for reported in claim.reported),
        "test": claim.test.in_words(claim.unit), "note": claim.noted,
        "beside": "; ".join(in_short(row) for other in claim.beside for row in to_rows(other.choose(rows))),
    }  # fmt: skip


def by_size(student: str) -> tuple[int, str]:
    """By which students are sorted: known ones from small to large, then others."""
    return STUDENTS.index(student) if student in STUDENTS else len(STUDENTS), student


def tally(scorecard: pd.DataFrame) -> str:
    """How many verdicts of each kind, as a sentence: of tests that could have failed, and of those that could not.

    Beside the first stands what chance alone would give (`statistics.by_chance`), and how many undecided ones are
    "ruled_out".
    """
    told = scorecard[~scorecard["verdict"].isin([NOT_TOLD, NOT_RUN])]
    could, could_not = told[told["could_fail"]], told[~told["could_fail"]]
    parts = []
    if len(could):
        expected, most = by_chance(len(could))
        parts.append(f"{len(could)} tests that could have failed: {_count(could)}")
        chance = f"chance alone would give {expected:.1f} reproduced and {expected:.1f} not"
        parts.append(f"{chance}, seldom more than {most} of either")
    if ruled_out := could.loc[could["verdict"] == "undecided", "ruled_out"].sum():
        parts.append(f"in {ruled_out} of the undecided the papers' own number lies outside of the interval")
    if len(could_not):
        parts.append(f"{len(could_not)} that could not, and do not count: {_count(could_not)}")
    if untold := _count(scorecard.drop(told.index)):
        parts.append(untold)
    return "; ".join(parts) or "no claims"


def _count(scorecard: pd.DataFrame) -> str:
    counts = scorecard["verdict"].value_counts()
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in SIGNS if verdict in counts)


def gains(claims: Iterable[Claim], scorecard: pd.DataFrame, dataset: str, scale: str) -> pd.DataFrame:
    """What `plot_claims` draws: the gains of one dataset at one scale, and the papers' (scale "reported").

    A figure's data with four more columns: "where" in the paper, "verdict", empty for a paper's own gain, "could_fail"
    and "headline".
    """
    ours = only(scorecard, dataset=dataset, scale=scale)
    lines = []
    for claim in [claim for claim in claims if claim.row.over and claim.row.metric != GROWTH]:
        about = {"figure": "14_scorecard", "method": claim.id, "where": claim.where, "headline": claim.headline}
        theirs = about | {"scale": "reported", "verdict": "", "could_fail": True}
        theirs |= {"metric": claim.row.metric, "over": claim.row.over}
        for reported in claim.reported:
            theirs["dataset"] = find_table(reported.table).dataset
            for column, number in reported.numbers(claim.row).items():
                lines.append(theirs | {"student": column, "value": number / 100})
        for case in to_rows(only(ours, id=claim.id)):
            lines.append(case | about | {name: case[name] and case[name] / 100 for name in ("value", "low", "high")})
    shown = long_form({name: line.get(name) for name in COLUMNS if name != "seed"} for line in lines)
    more = pd.DataFrame(lines, columns=["where", "verdict", "could_fail", "headline"])
    return pd.concat([shown, more], axis=1)


# The scorecard as text


def by_claim(scorecard: pd.DataFrame) -> Iterator[tuple[pd.Series, dict[str, str], list[tuple[str, str, str]]]]:
    """A claim at a time, twice if its test could have failed in some cases alone: its first case, by title what is told
    besides, and of every case the verdict, the verdict's sign and what it rests on."""
    for _, cases in scorecard.groupby(["id", "could_fail"], sort=False):
        claim, named = cases.iloc[0], cases.apply(in_words, axis=1).nunique() > 1
        told = {"Note": claim.note, "Beside it": claim.beside}
        told |= {} if claim.could_fail else {"Could not fail": " ".join(cases["why"].unique())}
        shown = [(case.verdict, SIGNS[case.verdict], _case(case, named)) for _, case in cases.iterrows()]
        yield claim, {name: text for name, text in told.items() if text}, shown


def summarize(scorecard: pd.DataFrame) -> pd.DataFrame:
    """What `by_claim` gives as text: claim, paper, here (a line per case), test, verdict (each with its number)."""
    lines = []
    for claim, told, shown in by_claim(scorecard):
        had = [verdict for verdict, *_ in shown]
        lines.append({
            "claim": "\n".join([claim.says, *(f"{name}: {text}" for name, text in told.items())]),
            "paper": f"{claim.paper}, {claim.reported or claim['where']}".replace("; ", "\n"),
            "here": "\n".join(f"{sign} {text}" for _, sign, text in shown),
            "test": claim.test,
            "verdict": "\n".join(f"{SIGNS[v]} {v}" + f" ({had.count(v)})" * (len(had) > 1) for v in SIGNS if v in had),
        })  # fmt: skip
    return pd.DataFrame(lines, columns=["claim", "paper", "here", "test", "verdict"])


def format_claims(scorecard: pd.DataFrame) -> str:
    """The scorecard as plain text, a block per claim; the last line counts the verdicts."""
    blocks = []
    for name, cases in scorecard.groupby("id", sort=False):
        claim = cases.iloc[0]
        block = [f"{name} ({claim.paper}, {claim['where']}; notebook {claim.notebook}; test: {claim.test})", claim.says]
        told = {"paper": claim.reported, "note": claim.note, "beside it": claim.beside}
        block += [f"{name}: {text}" for name, text in told.items() if text]
        block += [f"could not fail: {why}" for why in cases.loc[~cases["could_fail"], "why"].unique()]
        for _, case in cases.iterrows():
            source = f" ({case.file})" if case.file else ""
            block.append(f"{SIGNS[case.verdict]} {case.verdict}: {_case(case, named=True)}{source}")
        blocks.append("\n    ".join(block))
    return "\n\n".join([*blocks, tally(scorecard)])


def _case(case: pd.Series, named: bool) -> str:
    """What a verdict rests on: where, and the number with its interval; `named`: what was measured is told too."""
    if case.verdict == NOT_RUN:
        return str(case.scale)
    where = ", ".join(filter(None, [case.dataset, case.scale, case.student, in_words(case) if named else ""]))
    if case.verdict == NOT_TOLD:
        return f"{where}: {case.unread:.0%} of answers could not be read"
    drawn = "world" if OTHER_WORLDS in case.file else "seed"
    seeds = f", {case.seeds} {drawn}{'s' * (case.seeds > 1)}" if pd.notna(case.seeds) and case.seeds else ""
    number = in_digits(case, "+.3g" if case.over else ".3g")
    text = f"{where}: {number}{seeds}{'' if pd.isna(case.p) else f', p = {case.p:.2g}'}"
    if case.verdict != "undecided" or pd.isna(case.effect):
        return text
    effect = f"{case.effect:{'+.3g' if case.over else '.3g'}}"
    return f"{text}, the papers' {effect} {'' if case.ruled_out else 'not '}ruled out"


# What a notebook shows


def findings(rows: Iterable[Mapping[str, Any]], *notebooks: str) -> Styler:
    """The claims of a notebook (its number) judged on the rows that it has made: claim, paper, here, test, verdict.

    `rows` are those of its figure's data; the p that a gain has beside them is shown. Nothing is cut. Where rows speak
    of several notebooks' claims, those that they say nothing of are left out.
    """
    rows = list(rows)
    table = long_form(rows).assign(p=pd.Series([row.get("p") for row in rows], dtype="float64"))
    table["file"] = table["figure"]
    each = [table.assign(figure=table["figure"].str.replace(r"^\d\d", n, regex=True)) for n in notebooks]
    claims = [claim for claim in read_claims() if claim.notebook in notebooks]
    scorecard = judge(claims, pd.concat(each, ignore_index=True))
    return as_text(summarize(scorecard[(scorecard["verdict"] != NOT_RUN) | (len(notebooks) == 1)]))


def as_text(table: pd.DataFrame) -> Styler:
    """A table of text as a notebook shows it: nothing cut, lines as they are."""
    look = [{"selector": "td, th", "props": "text-align: left; vertical-align: top; white-space: pre-line"}]
    return Styler(table, cell_ids=False).hide(axis="index").format(escape="html").set_table_styles(look)
