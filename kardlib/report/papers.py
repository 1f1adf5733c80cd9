"""Results as a paper prints them, from the figures' data alone: tables, figures once more, two runs side by side.

    kard table 04 --latex        kard figure 05 --style one-column        kard compare runs/A runs/B

Nothing is trained and no notebook is run: what these commands read, `report.figures.save_figure` has written.
"""

import html
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kardlib.errors import first_line, suggest
from kardlib.kard.bound import sweeps
from kardlib.kard.cases import CAUSES, GOLD_READ, PAPERS_CAUSES
from kardlib.kard.grids import ASKING_DIFFERENCES, CORPORA, IN_SHOWN, IN_STRATA, IN_TARGETS, RERANKER_DIFFERENCES
from kardlib.kard.memorization import Task
from kardlib.presets import preset
from kardlib.registry import REGISTRY, Entry, enter, label
from kardlib.report.claims import NOT_RUN, STUDENTS, gains, judge, read_claims, read_figure, read_rows
from kardlib.report.combined import MANY_WORLDS, with_many_worlds
from kardlib.report.drawings import accuracy, case, kard, memory, reaugkd, scorecard
from kardlib.report.evaluate import GROWTH
from kardlib.report.figures import PAGE, read_provenance, save_figure
from kardlib.report.page import judge_run
from kardlib.report.rows import (
    ASKED,
    AT_K,
    FRACTIONS,
    IN_NATS,
    KEYS,
    FigureError,
    gained,
    in_digits,
    in_words,
    long_form,
    measured,
    only,
    to_rows,
    with_unread,
)
from kardlib.settings import MemorizationSettings, validate

MARKUP = re.compile(r"[\\`*~|]|(?<!\w)_|_(?!\w)|\[(?![+\d-])|\](?=\()")  # what Markdown would not show as it is


def escape(text: str) -> str:
    """A text that Markdown shows as it is: no tag, no link, no emphasis and no other column; an interval may stay."""
    return MARKUP.sub(r"\\\g<0>", html.escape(text, quote=False)).replace("\n", "<br>")


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "markdown": lambda table: (
        table.map(lambda cell: escape(cell) if isinstance(cell, str) else cell)
        .rename(columns=escape)
        .to_markdown(index=False, disable_numparse=True)
    ),
    "latex": lambda table: table.to_latex(index=False, escape=True),
    "csv": lambda table: table.to_csv(index=False, lineterminator="\n").rstrip(),
}

# Shown in per cent or points: fractions, and what is no fraction of one but made of them
PER_CENT = FRACTIONS | {GROWTH, "excess_keys", "excess_recall", "latency_overhead"}

# The data of a figure


def find_data(figure: str, folder: Path) -> list[Path]:
    """The CSV file of a figure by its name, or those of a notebook's figures by its number. Raises FigureError."""
    known = {path.stem: path for path in sorted(folder.glob("*.csv"))}
    number = figure.zfill(2)
    if not figure or not (found := [path for name, path in known.items() if figure == name or number == name[:2]]):
        there = f"there are {', '.join(known)}" if known else "it has no figure's data: run notebooks, or name another"
        raise FigureError(f"there is no figure {figure!r} in {folder}{suggest(figure, known)} ({there})")
    return found


def read_drawn(path: Path) -> pd.DataFrame:
    """A figure's data in the order in which its notebook draws: students from small to large, conditions as listed."""
    listed = ([""], STUDENTS, CORPORA, CAUSES, PAPERS_CAUSES, GOLD_READ, RERANKER_DIFFERENCES, ASKING_DIFFERENCES)
    ranks = {name: i for i, name in enumerate(dict.fromkeys(name for names in listed for name in names))}
    return read_figure(path).sort_values(
        ["student", "at"], key=lambda column: column.map(lambda name: ranks.get(name, len(ranks))), kind="stable"
    )


# Tables


def paper_tables(path: Path, gain: bool = False) -> Iterator[tuple[str, pd.DataFrame]]:
    """A figure's data as tables, one for each metric with its title: what was measured, or what was gained over others.

    A method is a row. The columns are what varies: values of the knob, else the students; a method that has none of
    them, as chance, says the same in all. A cell is the mean over seeds with its interval, fractions in per cent, gains
    in points; where most answers could not be read, only that.
    """
    table = (gained if gain else measured)(read_drawn(path))
    for metric, rows in table.groupby("metric", sort=False):
        unit = (" (points)" if gain else " (%)") if metric in PER_CENT else " (nats)" if metric in IN_NATS else ""
        yield f"{path.stem}: {str(metric).replace('_', ' ')}{unit}", lay_out(rows)


def lay_out(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one metric as one of the `paper_tables`."""
    cells = [row | {"condition": _name_condition(row)} for row in to_rows(rows)]
    across = "condition" if any(cell["condition"] for cell in cells) else "student"
    beside = [name for name in ("dataset", "split", "student") if name != across]
    beside = [name for name in beside if rows.loc[rows[name] != "", name].nunique() > 1]
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in cells:
        line = lines.setdefault((_name_method(cell), *(cell[name] for name in beside)), {})
        if (column := cell[across]) in line:
            raise FigureError(f"{cell['metric']}: {_name_method(cell)} has two rows for {column or 'its only cell'}")
        line[column] = _number(cell)
    columns = list(dict.fromkeys(column for line in lines.values() for column in line))
    columns = [column for column in columns if column or len(columns) == 1]
    shown = [[*names, *(line.get(column, line.get("", "")) for column in columns)] for names, line in lines.items()]
    return pd.DataFrame(shown, columns=["method", *beside, *(column or "value" for column in columns)])


def _name_method(row: Mapping[str, Any]) -> str:
    """A method; of a gain also where, and over whom."""
    said = in_words(row).removeprefix(row["metric"].replace("_", " ")) if row["over"] else ""
    return label(row["method"]) + said


def _name_condition(row: Mapping[str, Any]) -> str:
    """Where on its figure's axes a row stands; a gain's name says it."""
    if row["over"]:
        return ""
    k = f"k = {row['k']}" if row["metric"] in AT_K else ""
    x = f"{row['knob']} = {row['x']:,.10g}" if row["x"] is not None else ""
    return ", ".join(filter(None, [k, row["at"], x]))


def _number(row: Mapping[str, Any]) -> str:
    """A value and its interval, in per cent or points if it is a fraction, and what could not be read."""
    if row["metric"] in PER_CENT:
        unit, form = 100, ".1f"
    else:
        unit, form = 1, ",.0f" if 1000 <= abs(row["value"]) < inf else ",.4g"
    return with_unread(in_digits(row, f"+{form}" if row["over"] else form, unit), row["unread"])


# Figures once more

STYLES = {"two-column": PAGE, "one-column": 5.5}  # the widest that a figure may be, in inches


def _draw_keys(table: pd.DataFrame, settings: Mapping[str, Any]) -> Figure:
    knobs = validate(MemorizationSettings, settings["memorization"])
    middle = Task(knobs.strings, knobs.bits, knobs.strings, knobs.irrelevant)
    return memory.plot_keys(table, middle, sweeps(knobs))


# By figure, without its dataset, what its notebook draws it with, of its data
DRAWN: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "00_tour": kard.plot_losses,
    "01_memorization": memory.plot_learners,
    "01_growth": memory.plot_growth,
    "01_network": memory.plot_networks,
    "02_queries": kard.plot_hits,
    "03_hits": kard.plot_hits,
    "03_losses": kard.plot_training,
    "04_losses": kard.plot_training,
    "04_main": accuracy.plot_main,
    "04_strata": partial(kard.plot_strata, methods=IN_STRATA),
    "05_dataset_size": partial(kard.plot_knob, knob="Training questions (%)"),
    "06_model_size": kard.plot_students,
    "07_rationales": partial(kard.plot_knob, knob="Rationales per question, l"),
    "09_passages": partial(kard.plot_knob, knob="Passages read at test, k"),
    "10_dapt": accuracy.plot_main,
    "11_rag": kard.plot_rag,
    "11_shown": partial(kard.plot_strata, methods=IN_SHOWN),
    "12_case": case.plot_case,
    "12_failures": kard.plot_shares,
    "13_glue": reaugkd.plot_glue,
    "13_reaugkd": accuracy.plot_main,
    "13_where": reaugkd.plot_where,
    "13_spaces": reaugkd.plot_spaces,
    "14_scorecard": scorecard.plot_claims,
    "15_example": accuracy.plot_main,
    "15_own": accuracy.plot_main,
    "16_differences": kard.plot_differences,
    "17_frontier": memory.plot_frontier,
    "17_exposures": memory.plot_frontier,
    "17_editions": memory.plot_editions,
    "18_compression": reaugkd.plot_compression,
    "18_latency": reaugkd.plot_latency,
    "19_extend": accuracy.plot_main,
    "20_hits": kard.plot_hits,
    "20_targets": accuracy.plot_main,
    "20_strata": partial(kard.plot_strata, methods=IN_TARGETS),
    "21_worlds": kard.plot_worlds,
}
# and of the settings that it was made with
DRAWN_WITH_SETTINGS: dict[str, Callable[[pd.DataFrame, Mapping[str, Any]], Figure]] = {
    "01_keys": _draw_keys,
    "08_candidates": lambda table, settings: kard.plot_candidates(table, settings["students"]),
}


def draw_again(path: Path, folder: Path, style: str = "two-column") -> Path:
    """Draw a figure from its CSV file alone into `folder`; returns the path of its PDF. Raises FigureError.

    Where the PNG of its run lies beside the CSV, the settings in it, and the rest of its provenance, go on into the new
    one. `style` is a name of `STYLES`.
    """
    table, picture = read_drawn(path), path.with_suffix(".png")
    made = read_provenance(picture) if picture.is_file() else {}
    figures = sorted(DRAWN | DRAWN_WITH_SETTINGS)
    known = next((name for name in figures if path.stem == name or path.stem.startswith(f"{name}_")), None)
    own = table[table["scale"] != "reported"]
    if not known or own.empty:
        raise FigureError(f"{path} is empty, or not the data of a notebook's figure (they are {', '.join(figures)})")
    dataset, scale = own[["dataset", "scale"]].iloc[0]
    settings = preset(scale, dataset, "").model_dump(mode="json") | made.get("settings", {})
    if known == "14_scorecard":  # its picture shows verdicts, which its data has no column for
        figure = DRAWN[known](judge_again(table, path.parent, dataset, scale))
    else:
        enter({m: Entry(m) for m in table["method"].unique() if m not in REGISTRY})  # a notebook's own has its id alone
        figure = DRAWN[known](table) if known in DRAWN else DRAWN_WITH_SETTINGS[known](table, settings)
    width, height = figure.get_size_inches()
    figure.set_size_inches(min(width, STYLES[style]), height)
    save_figure(figure, path.stem, table, folder, made)
    return folder / f"{path.stem}.pdf"


def judge_again(table: pd.DataFrame, figures: Path, dataset: str, scale: str) -> pd.DataFrame:
    """The scorecard's data with its verdicts, of the figures beside it. Raises FigureError if it is of others.

    Notebook 14 takes the published many worlds where settings are as they are, and this run alone where some differ.
    """
    claims, scorecard = read_claims(), judge_run(figures)
    for verdicts in (with_many_worlds(scorecard), only(scorecard, origin="this run")):
        data = gains(claims, verdicts, dataset, scale)
        if _numbers(data) == _numbers(table):
            return data
    raise FigureError("the scorecard was drawn from other data than the figures beside it: run notebook 14 again")


def _numbers(table: pd.DataFrame) -> set[tuple[Any, ...]]:
    """Of gains who has which, as a CSV file holds it."""
    return {*zip(table["method"], table["dataset"], table["student"], table["value"].round(6), strict=True)}


# Two runs


UNSAID = {"figure": "", "dataset": "any", "split": "", "k": None}  # what somebody's own rows need not say


def read_run(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """All rows of a run's folder, of one of figures' data, or of one CSV file, and the columns that tell them apart.

    Somebody's own CSV file needs the columns method, metric and value, and as many of the others as tell its rows
    apart. Where it leaves `UNSAID` ones out, its rows are compared whatever the other run says there. Raises
    FigureError and ClaimError.
    """
    keys = [key for key in KEYS if key != "scale"]
    if path.is_dir():
        return read_rows([path]), keys
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).replace("", None)
    except OSError:
        raise FigureError(f"there is no {path}: make a run with kard reproduce, or name one under runs/") from None
    except ValueError as error:
        raise FigureError(f"{path} is neither a run's folder nor a CSV file: {first_line(error)}") from None
    usual = UNSAID | {"figure": path.stem, "scale": "embedded"}
    rows = long_form(usual | row for row in to_rows(table))
    return rows.assign(file=path.as_posix()), [key for key in keys if key in table or key not in UNSAID]


def compare(first: Path, second: Path) -> tuple[str, pd.DataFrame, pd.DataFrame]:
    """Two runs: a sentence, the values that differ, and the verdicts that changed. Raises FigureError and ClaimError.

    Rows are the same where all that tells them apart is, but for the scale. A difference's interval takes both runs as
    independent (the root of the summed squares of the ends' distances): it is too wide where they answer the same
    questions.
    """
    (ours, known), (theirs, also) = read_run(first), read_run(second)
    keys = [key for key in known if key in also]
    verdicts = _changed_verdicts([ours, theirs], keys, first, second)
    ours, theirs = (run.drop_duplicates([*keys, "value"]) for run in (ours, theirs))
    for run, path in ((ours, first), (theirs, second)):
        if (twice := run.duplicated(keys)).any():
            row, missing = run[twice].iloc[0], [key for key in UNSAID if key not in keys]
            said = f"{path} has several rows of {label(row['method'])}, {in_words(row)}"
            raise FigureError(f"{said}: add {', '.join(missing) or 'what tells them apart'} to the other's columns")
    both = ours.merge(theirs, on=keys, suffixes=("", "_then"))
    if both.empty:
        raise FigureError(f"{first} and {second} have no value of the same: name two runs, or add columns to the file")
    differ = both[~np.isclose(both["value"], both["value_then"], rtol=0, atol=5e-7)]
    said = (
        f"{len(both)} values are in both, {len(differ)} of them differ; {len(ours) - len(both)} are in {first} alone, "
        f"{len(theirs) - len(both)} in {second} alone"
    )
    return said, _show_differences(differ, first, second), verdicts


def _show_differences(differ: pd.DataFrame, first: Path, second: Path) -> pd.DataFrame:
    lines = []
    for row in to_rows(differ):
        then = row | {name: row[f"{name}_then"] for name in ("value", "low", "high", "unread")}
        change = row | {"over": "first", "value": then["value"] - row["value"], "low": None, "high": None}
        change["unread"] = max(filter(None, (row["unread"], then["unread"])), default=None)
        if None not in (row["low"], row["high"], then["low"], then["high"]):
            below = np.hypot(then["value"] - then["low"], row["high"] - row["value"])
            above = np.hypot(then["high"] - then["value"], row["value"] - row["low"])
            change |= {"low": change["value"] - below, "high": change["value"] + above}
        where = {name: row[name] for name in ("figure", "dataset", "student", "seed") if row.get(name) is not None}
        told = {"method": label(row["method"]), "what": in_words(row), str(first): _number(row)}
        lines.append(where | told | {str(second): _number(then), "difference": _number(change)})
    return pd.DataFrame(lines).fillna("")


def _changed_verdicts(runs: list[pd.DataFrame], keys: list[str], first: Path, second: Path) -> pd.DataFrame:
    """Claims that both runs decide, and not alike; by one world, unless both have many."""
    if not all((run["figure"] == MANY_WORLDS).any() for run in runs):
        runs = [run[run["figure"] != MANY_WORLDS] for run in runs]
    judged = [judge(read_claims(), run) for run in runs]
    decided = [scorecard[scorecard["verdict"] != NOT_RUN] for scorecard in judged]
    alike = ["id", *(key for key in keys if key in ASKED)]
    both = decided[0].merge(decided[1], on=alike, suffixes=("", "_then"))
    both = both[both["verdict"] != both["verdict_then"]]
    return pd.DataFrame(
        {"claim": both["id"], "dataset": both["dataset"], "student": both["student"], "says": both["says"],
         str(first): both["verdict"], str(second): both["verdict_then"]}
    )  # fmt: skip
