"""One look for all figures, and `save_figure`: what was drawn, as PDF and PNG, beside the numbers it was drawn from.

A method has one colour, marker and line in every figure. Markers and lines tell methods apart in greyscale print, the
colours are safe for colour-blind readers, and widths and font sizes are those of a two-column paper.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, PercentFormatter, StrMethodFormatter

from kardlib.errors import KardError

COLUMN, PAGE = 3.4, 7.0  # widths in inches: one column, two columns

LOOK: dict[Any, Any] = sns.axes_style("ticks") | {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 220,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "0.3",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,  # TrueType: text in the PDF stays text
    "ps.fonttype": 42,
}


class Style(NamedTuple):
    """How a method is drawn: colour, marker, line style, hatch of a bar; an oracle's marker is hollow."""

    color: str
    marker: str
    line: str
    hatch: str
    hollow: bool = False


GREY, BLUE, SKY, GREEN, ORANGE, RED, PINK, BLACK = (
    "#767676", "#0072B2", "#3D9BD1", "#008B67", "#B87700", "#C44E00", "#B65C92", "#222222",
)  # fmt: skip
METHOD_STYLE = {
    "few_shot": Style(GREY, "v", ":", "..."),
    "few_shot_cot": Style(GREY, "^", "-.", "ooo"),
    "ka_few_shot_cot": Style(GREY, "P", "--", "+++"),
    "fine_tuning": Style(PINK, "v", ":", "\\\\\\"),
    "ka_fine_tuning": Style(PINK, "P", "--", "xxx"),
    "reasoning_distillation": Style(ORANGE, "s", "-.", "///"),
    "kard_bm25": Style(SKY, "o", "--", "---"),
    "kard_reranker": Style(BLUE, "D", "-", ""),
    "kard_silver": Style(GREEN, "p", ":", "|||", hollow=True),
    "teacher_cot": Style(BLACK, "*", ":", "***", hollow=True),
    "rag": Style(RED, "X", "-.", "\\\\"),
    "dapt": Style(RED, "d", ":", "//"),
    "dapt_kard": Style(RED, "h", "--", "||"),
    "student_alone": Style(GREY, "v", ":", "..."),
    "soft_labels": Style(PINK, "P", "--", "xxx"),
    "rkd": Style(ORANGE, "s", "-.", "///"),
    "reaugkd_no_retrieval": Style(SKY, "o", "--", "---"),
    "reaugkd": Style(BLUE, "D", "-", ""),
    "neighbours": Style(RED, "X", "-.", "\\\\"),
    "reaugkd_teacher": Style(BLACK, "*", ":", "***", hollow=True),
    "bm25": Style(SKY, "o", "--", "---"),
    "untrained": Style(ORANGE, "s", "-.", "///"),
    "reranker": Style(BLUE, "D", "-", ""),
    "silver": Style(GREEN, "p", ":", "|||", hollow=True),
}
METHOD_LABEL = {  # in the papers' order of rows
    "few_shot": "Few-shot ICL",
    "few_shot_cot": "Few-shot ICL + CoT",
    "ka_few_shot_cot": "KA few-shot ICL + CoT",
    "fine_tuning": "Fine-tuning (FT)",
    "ka_fine_tuning": "Knowledge-augmented FT",
    "rag": "RAG + RD",
    "dapt": "DAPT + RD",
    "dapt_kard": "DAPT + KARD",
    "reasoning_distillation": "Reasoning distillation (RD)",
    "kard_bm25": "KARD (BM25)",
    "kard_reranker": "KARD (reranker)",
    "kard_silver": "KARD (silver, oracle)",
    "teacher_cot": "Teacher CoT (oracle)",
    "student_alone": "Student, fine-tuned alone",
    "soft_labels": "Soft-label distillation",
    "rkd": "RKD",
    "reaugkd_no_retrieval": "ReAugKD without retrieval",
    "reaugkd": "ReAugKD",
    "neighbours": "Nearest neighbours alone",
    "reaugkd_teacher": "Teacher",
    "bm25": "BM25",
    "untrained": "Reranker, untrained",
    "reranker": "Reranker, trained",
    "silver": "Silver (rationale query)",
    "chance": "Chance",
}
BLOCKS = (  # rows that belong together, kept apart by a line
    ("few_shot", "few_shot_cot", "ka_few_shot_cot"),
    ("fine_tuning", "ka_fine_tuning"),
    ("rag", "dapt", "dapt_kard", "reasoning_distillation", "kard_bm25", "kard_reranker"),
    ("kard_silver", "teacher_cot"),
    ("student_alone", "soft_labels", "rkd", "reaugkd_no_retrieval", "reaugkd", "neighbours"),
    ("reaugkd_teacher",),
)
COMPRESSIONS = {  # of ReAugKD's knowledge base
    "full": ("everything, fp32", "D"),
    "half": ("everything, fp16", "s"),
    "pq": ("product-quantised keys", "P"),
    "prototypes_100": ("100 %", "o"),
    "prototypes_20": ("20 %", "o"),
    "prototypes_5": ("5 %", "o"),
    "prototypes_1": ("1 %", "o"),
}
QUARTERS = 4  # groups of questions in `plot_where`

# Tables

COLUMNS = ["figure", "dataset", "scale", "method", "student", "seed", "k", "metric", "value", "low", "high", "n"]
KEYS = COLUMNS[: COLUMNS.index("value")]
NEEDED = ("figure", "dataset", "scale", "method", "metric", "value")
FRACTIONS = ("accuracy", "hits", "true", "supported")  # a metric whose name starts like this lies between 0 and 1


class FigureError(KardError, ValueError):
    """Rows that are no figure's data; the message says which row and why."""


def long_form(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as the table that every figure is drawn from and saved with: `COLUMNS`, empty where one does not apply.

    Raises FigureError for an unknown column, a missing needed one, a fraction outside 0..1, an interval that does not
    hold its value, and two rows for the same cell.
    """
    rows = list(rows)
    for i, row in enumerate(rows):
        if unknown := set(row) - set(COLUMNS):
            raise FigureError(f"row {i}: there is no column {min(unknown)!r}; the columns are {', '.join(COLUMNS)}")
        if missing := [name for name in NEEDED if row.get(name) is None]:
            raise FigureError(f"row {i}: {missing[0]} is missing")
        _check_numbers(i, row)
    table = pd.DataFrame(rows, columns=COLUMNS)
    integers = dict.fromkeys(("seed", "k", "n"), "Int64")
    table = table.astype(integers | dict.fromkeys(("value", "low", "high"), "float64"))
    if (twice := table.duplicated(KEYS)).any():
        row = table[twice].iloc[0]
        cell = ", ".join(f"{key} {row[key]}" for key in KEYS if pd.notna(row[key]))
        raise FigureError(f"row {table.index[twice][0]}: there are two rows for {cell}")
    return table


def _check_numbers(i: int, row: Mapping[str, Any]) -> None:
    value = float(row["value"])
    low, high = (float(value if row.get(end) is None else row[end]) for end in ("low", "high"))
    if not np.isfinite([value, low, high]).all():
        raise FigureError(f"row {i}: {row['metric']} of {row['method']} is not a finite number")
    if not low - 1e-9 <= value <= high + 1e-9:  # rounding may push a mean past the end of its interval
        raise FigureError(f"row {i}: {row['metric']} of {row['method']}: {value:g} is not between {low:g} and {high:g}")
    if row["metric"].startswith(FRACTIONS) and not 0 <= low <= high <= 1:
        raise FigureError(f"row {i}: {row['metric']} of {row['method']} must be a fraction of one, not {value:g}")


# Files


def save_figure(
    fig: Figure, name: str, data: pd.DataFrame, folder: str | Path, provenance: Mapping[str, Any]
) -> dict[str, Path]:
    """Write `{name}.pdf`, `.png` and `.csv` into `folder`, each whole or not at all; returns their paths by suffix.

    `data` is what was drawn, in the columns of `long_form`. `provenance` goes as JSON into the PDF's keywords and the
    PNG's text chunk "Provenance"; neither file bears the time of day, so the same figure is the same bytes. Numbers in
    the CSV are rounded to six decimals. Raises FigureError for a name that is no file name or a table of other columns.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise FigureError(f"{name!r} cannot be a figure's name: use letters, digits, '-', '_' and '.'")
    table = long_form(data.astype(object).where(data.notna(), None).to_dict("records")).round(6)
    facts = json.dumps(provenance, sort_keys=True, default=str)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {suffix: folder / f"{name}.{suffix}" for suffix in ("pdf", "png", "csv")}
    partial = {suffix: path.with_name(f".{path.name}.{os.getpid()}") for suffix, path in paths.items()}
    pdf = {"Title": name, "Subject": f"Data: {name}.csv", "Keywords": facts, "Creator": "kardlib", "CreationDate": None}
    png = {"Title": name, "Description": f"Data: {name}.csv", "Provenance": facts, "Software": "kardlib"}
    try:
        with mpl.rc_context(LOOK):
            fig.savefig(partial["pdf"], format="pdf", metadata=pdf)
            fig.savefig(partial["png"], format="png", metadata=png)
        _in_order(table).to_csv(partial["csv"], index=False, lineterminator="\n")
        for suffix, path in paths.items():
            os.replace(partial[suffix], path)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    return paths


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Methods in the papers' order, everything else as it sorts; summaries over seeds come before single seeds."""
    ranks = {method: i for i, method in enumerate(METHOD_LABEL)}
    return table.sort_values(
        KEYS,
        key=lambda column: column.map(lambda m: (ranks.get(m, len(ranks)), m)) if column.name == "method" else column,
        na_position="first",
        kind="stable",
    )


# Drawing


@mpl.rc_context(LOOK)
def plot_hits(table: pd.DataFrame) -> Figure:
    """Hits@k of retrievers (`method`) against `k`, one panel for each kind of relevant passages.

    Rows whose metric is "hits_gold" or "hits_silver"; `low` and `high` are drawn as whiskers. Raises FigureError if
    there are none.
    """
    titles = {"hits_gold": "Gold passages", "hits_silver": "Silver passages"}
    table = table[table["seed"].isna()]
    panels = [metric for metric in titles if (table["metric"] == metric).any()]
    if not panels:
        raise FigureError(f"nothing to draw: no row has the metric {' or '.join(titles)}")
    size = (COLUMN if len(panels) == 1 else PAGE, 2.5)
    fig, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    methods = _methods(table)
    for ax, metric in zip(axes[0], panels, strict=True):
        part = table[table["metric"] == metric]
        ks = sorted(part["k"].unique())
        for i, method in enumerate(methods):
            rows = part[part["method"] == method].sort_values("k")
            aside = 1.05 ** (i - (len(methods) - 1) / 2)  # whiskers side by side
            _draw(ax, method, rows["k"].astype(float) * aside, rows["value"], yerr=_whiskers(rows))
        ax.set_xscale("log")
        ax.set_xticks(ks, [str(k) for k in ks])
        ax.xaxis.minorticks_off()
        ax.set(title=f"{titles[metric]} (n = {_sizes(part)})", xlabel="Passages looked at, k")
        ax.grid(axis="y")
    axes[0, 0].set_ylabel("Hits@k (%)")
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    shown = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(
        [shown[METHOD_LABEL[method]] for method in methods], [METHOD_LABEL[method] for method in methods],
        loc="outside lower center", ncols=2 * len(panels), handlelength=2.6, columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip
    return fig


@mpl.rc_context(LOOK)
def plot_main(table: pd.DataFrame) -> Figure:
    """Accuracy of methods, one row each in the papers' order, one panel per student: the main table as a figure.

    Rows whose metric is "accuracy" and whose seed is empty: summaries over seeds, each a dot with its interval and the
    mean in print; the method "chance" is a dashed line. Students come in the order of the table. Raises FigureError if
    there are none.
    """
    table = table[(table["metric"] == "accuracy") & table["seed"].isna()]
    chance = table.loc[table["method"] == "chance", "value"]
    table = table[table["method"] != "chance"]
    if table.empty:
        raise FigureError("nothing to draw: no row has the metric accuracy and an empty seed")
    students, places = list(dict.fromkeys(table["student"])), _places(_methods(table))
    height = 0.8 + 0.19 * max(places.values())
    size = (COLUMN if len(students) == 1 else PAGE, height)
    fig, axes = plt.subplots(1, len(students), figsize=size, sharey=True, sharex=True, squeeze=False)
    for ax, student in zip(axes[0], students, strict=True):
        ax.grid(axis="x")
        for value in chance:
            ax.axvline(value, color="0.45", linestyle=(0, (4, 3)), linewidth=0.9, zorder=1)
            below = ("data", "axes fraction")
            ax.annotate(" chance", (value, 0.01), xycoords=below, va="bottom", fontsize=7, color="0.35")
        for method, place in places.items():
            rows = table[(table["method"] == method) & (table["student"] == student)]
            _draw(ax, method, rows["value"], [place] * len(rows), xerr=_whiskers(rows), linestyle="none")
            for value in rows["value"]:
                at = (1.02, place)
                ax.annotate(f"{100 * value:.1f}", at, xycoords=("axes fraction", "data"), va="center", fontsize=7)
        ax.set(title=student, xlabel="Accuracy (%)")
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
        ax.tick_params(axis="y", length=0)
    ax = axes[0, 0]
    ax.set_yticks(list(places.values()), [METHOD_LABEL[method] for method in places])
    ax.set_ylim(max(places.values()) + 0.6, -0.6)
    return fig


@mpl.rc_context(LOOK)
def plot_compression(table: pd.DataFrame) -> Figure:
    """Accuracy of ReAugKD against the size of its knowledge base, one point for each of `COMPRESSIONS`.

    `method` is a kind of compression with rows "accuracy" and "bytes"; a row "accuracy" of "reaugkd_no_retrieval" is a
    dashed line. Single seeds are left out. Raises FigureError if no kind has both rows.
    """
    table = table[table["seed"].isna()].set_index(["method", "metric"])
    kinds = [kind for kind in COMPRESSIONS if {(kind, "accuracy"), (kind, "bytes")} <= set(table.index)]
    if not kinds:
        raise FigureError("nothing to draw: no kind of knowledge base has rows accuracy and bytes")
    fig, ax = plt.subplots(figsize=(COLUMN, 2.7))
    size = {kind: table.loc[(kind, "bytes"), "value"] / 1024 for kind in kinds}
    rows = {kind: table.loc[[(kind, "accuracy")]] for kind in kinds}
    prototypes = [kind for kind in kinds if kind.startswith("prototypes")]
    ax.plot([size[k] for k in prototypes], [rows[k]["value"].item() for k in prototypes], color=GREEN, zorder=2)
    for kind in kinds:
        text, marker = COMPRESSIONS[kind]
        own: dict[str, Any] = {"label": text, "color": BLUE} if kind not in prototypes else {"color": GREEN}
        own |= {"label": "class prototypes"} if kind == "prototypes_100" else {}
        ax.errorbar(
            [size[kind]], rows[kind]["value"], yerr=_whiskers(rows[kind]), marker=marker, linestyle="none",
            markersize=4.2, elinewidth=1.0, capsize=2.2, zorder=3, **own,
        )  # fmt: skip
    for kind in prototypes:  # where classes are many, 1 % and 5 % are both one prototype a class: one label
        same = [other for other in prototypes if abs(size[other] / size[kind] - 1) < 0.1]
        if kind == same[0]:
            at = (size[kind], min(rows[other]["low"].item() for other in same))
            text = ", ".join(COMPRESSIONS[other][0] for other in reversed(same))
            ax.annotate(text, at, (0, -4), textcoords="offset points", ha="center", va="top", fontsize=7)
    if ("reaugkd_no_retrieval", "accuracy") in table.index:
        without = table.loc[("reaugkd_no_retrieval", "accuracy"), "value"]
        ax.axhline(without, color="0.45", linestyle=(0, (4, 3)), linewidth=0.9, label="without retrieval", zorder=1)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.xaxis.minorticks_off()
    ax.margins(x=0.1, y=0.15)
    ax.set(xlabel="Size of the knowledge base (KiB)", ylabel="Accuracy (%)")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    ax.grid(axis="y")
    fig.legend(loc="outside lower center", ncols=2, columnspacing=1.2, handletextpad=0.5)
    return fig


@mpl.rc_context(LOOK)
def plot_where(table: pd.DataFrame) -> Figure:
    """What retrieval gains in each quarter of the questions: by the student's confidence, by its neighbours' distance.

    Rows "gain_confidence_1" (least sure) to "_4" and "gain_distance_1" (nearest) to "_4", differences of accuracy with
    intervals. Raises FigureError if one is missing.
    """
    panels = {
        "confidence": ("How sure the student is", "least", "most"),
        "distance": ("Distance of the nearest entry", "near", "far"),
    }
    table = table[table["seed"].isna()].set_index("metric")
    wanted = [f"gain_{panel}_{i}" for panel in panels for i in range(1, QUARTERS + 1)]
    if missing := [metric for metric in wanted if metric not in table.index]:
        raise FigureError(f"nothing to draw: no row has the metric {missing[0]}")
    fig, axes = plt.subplots(1, 2, figsize=(PAGE, 2.2), sharey=True)
    ticks = range(1, QUARTERS + 1)
    for ax, (panel, (title, first, last)) in zip(axes, panels.items(), strict=True):
        rows = table.loc[[f"gain_{panel}_{i}" for i in ticks]]
        _draw(ax, "reaugkd", ticks, 100 * rows["value"], yerr=100 * _whiskers(rows), linestyle="none")
        ax.axhline(0, color="0.45", linestyle=(0, (4, 3)), linewidth=0.9, zorder=1)
        ax.set(title=title, xlabel=f"Quarter of the questions (n = {_sizes(rows)})", xlim=(0.5, QUARTERS + 0.5))
        ax.set_xticks(ticks, [f"1 ({first})", *map(str, ticks[1:-1]), f"{QUARTERS} ({last})"])
        ax.grid(axis="y")
    axes[0].set_ylabel("Gain from retrieval (points)")
    return fig


def _methods(table: pd.DataFrame) -> list[str]:
    """The methods of a table, in the papers' order. Raises FigureError for one without a style."""
    if unknown := set(table["method"]) - set(METHOD_STYLE):
        raise FigureError(f"there is no style for the method {min(unknown)!r}; add it to figures.METHOD_STYLE")
    return [method for method in METHOD_LABEL if (table["method"] == method).any()]


def _places(methods: list[str]) -> dict[str, float]:
    """The height of each method's row; blocks stand half a row apart."""
    places, height = {}, 0.0
    for block in BLOCKS:
        for method in [m for m in block if m in methods]:
            places[method] = height
            height += 1
        height += 0.5 * any(m in methods for m in block)
    return places


def _draw(ax: Axes, method: str, x: Any, y: Any, **options: Any) -> None:
    style = METHOD_STYLE[method]
    ax.errorbar(
        x, y, **{"linestyle": style.line} | options, color=style.color, marker=style.marker, label=METHOD_LABEL[method],
        markerfacecolor="white" if style.hollow else style.color, markersize=6.5 if style.marker == "*" else 4.2,
        elinewidth=1.0, capsize=2.2, capthick=1.0, zorder=3,
    )  # fmt: skip


def _whiskers(rows: pd.DataFrame) -> np.ndarray:
    """Distances from the value down to `low` and up to `high`, (2, rows); zero where there is no interval."""
    value = rows["value"].to_numpy()
    return np.nan_to_num(np.stack([value - rows["low"].to_numpy(), rows["high"].to_numpy() - value]))


def _sizes(table: pd.DataFrame) -> str:
    return ", ".join(f"{n:,}" for n in sorted(table["n"].dropna().unique())) or "?"
