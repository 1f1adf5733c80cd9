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
from matplotlib.figure import Figure

from kardlib.errors import KardError

# Jupyter's backend turns interactive drawing on when it is loaded. Were that first inside an `rc_context`, leaving the
# context would turn it off again, and a notebook would show its first figure only.
plt.switch_backend(mpl.get_backend())

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
    "kard_dense": Style(BLUE, "<", "-.", "ooo"),
    "kard_silver": Style(GREEN, "p", ":", "|||", hollow=True),
    "teacher_cot": Style(BLACK, "*", ":", "***", hollow=True),
    "rag": Style(RED, "X", "-.", "\\\\"),
    "rag_warm": Style(RED, "<", "-", "OO"),
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
    "recall_visible": Style(ORANGE, "s", "-.", "///"),
    "recall_hidden": Style(RED, "v", ":", "\\\\"),
    "recall_lossy": Style(PINK, "P", "--", "xxx"),
    "read_key": Style(BLUE, "D", "-", ""),
    "read_prefix": Style(GREEN, "p", "--", "|||"),
    "read_hidden": Style(SKY, "o", ":", "---"),
    "network": Style(ORANGE, "s", "-.", "///"),
    "network_kb": Style(BLUE, "D", "-", ""),
    "dense": Style(GREY, "X", ":", "\\\\"),  # RAG's retrievers before the student joins in: RAG's markers in grey
    "dense_warm": Style(GREY, "<", "--", "OO"),
}
METHOD_LABEL = {  # in the papers' order of rows
    "few_shot": "Few-shot ICL",
    "few_shot_cot": "Few-shot ICL + CoT",
    "ka_few_shot_cot": "KA few-shot ICL + CoT",
    "fine_tuning": "Fine-tuning (FT)",
    "ka_fine_tuning": "Knowledge-augmented FT",
    "rag": "RAG + RD",
    "rag_warm": "RAG + RD, warm start",
    "dapt": "DAPT + RD",
    "dapt_kard": "DAPT + KARD (reranker)",
    "reasoning_distillation": "Reasoning distillation (RD)",
    "kard_bm25": "KARD (BM25)",
    "kard_reranker": "KARD (reranker)",
    "kard_dense": "KARD (dense retriever)",
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
    "recall_visible": "No KB, identity visible",
    "recall_hidden": "No KB, identity hidden",
    "recall_lossy": "No KB, visible, stored lossily",
    "read_key": "KB, key",
    "read_prefix": "KB, key and prefix",
    "read_hidden": "KB, identity hidden",
    "network": "Network alone",
    "network_kb": "Network with retrieved string",
    "dense": "Dense, untrained",
    "dense_warm": "Dense, contrastive",
    "chance": "Chance",
}
BLOCKS = (  # rows that belong together, kept apart by half a row
    ("few_shot", "few_shot_cot", "ka_few_shot_cot"),
    ("fine_tuning", "ka_fine_tuning"),
    ("rag", "rag_warm", "dapt", "dapt_kard", "reasoning_distillation", "kard_bm25", "kard_reranker", "kard_dense"),
    ("kard_silver", "teacher_cot"),
    ("student_alone", "soft_labels", "rkd", "reaugkd_no_retrieval", "reaugkd", "neighbours"),
    ("reaugkd_teacher",),
)

# Tables

COLUMNS = ["figure", "dataset", "scale", "method", "student", "seed", "k", "metric", "value", "low", "high", "n"]
KEYS = COLUMNS[: COLUMNS.index("value")]
NEEDED = ("figure", "dataset", "scale", "method", "metric", "value")
SHOWN = {"p"}  # what a row may say beside them, for a notebook to show; no figure's data holds it
FRACTIONS = ("accuracy", "error", "hits", "true", "supported")  # metrics so named lie between 0 and 1
SHARE = "share of failures: "  # what the metrics of a split by cause begin with


class FigureError(KardError, ValueError):
    """Rows that are no figure's data; the message says which row and why."""


def long_form(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as the table that every figure is drawn from and saved with: `COLUMNS`, empty where one does not apply.

    What is `SHOWN` beside them is left out.
    Raises FigureError for an unknown column, a missing needed one, a fraction outside 0..1, an interval that does not
    hold its value, and two rows for the same cell.
    """
    rows = list(rows)
    for i, row in enumerate(rows):
        if unknown := set(row) - set(COLUMNS) - SHOWN:
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


# Where figures are looked at


def is_watched() -> bool:
    """Whether a person looks at this kernel in Jupyter, whose server names its sessions; papermill's kernels have none.

    Only then are widgets worth showing: a committed notebook cannot move them.
    """
    return bool(os.environ.get("JPY_SESSION_NAME"))
