"""ReAugKD: where retrieval helps (notebook 13), and what its memory costs (notebook 18)."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kardlib.reaugkd.tasks import COLUMNS
from kardlib.registry import BLUE, GREEN, ORANGE, PINK, RED, REGISTRY, label
from kardlib.report.drawings import style
from kardlib.report.drawings.accuracy import AXES, accuracy_panel, name_rows
from kardlib.report.figures import COLUMN, LOOK, PAGE
from kardlib.report.reported import find_table
from kardlib.report.rows import FigureError, gained, is_judged, measured, only
from kardlib.settings import GLUE_TASKS

QUARTERS = 4  # groups of questions in `plot_where`
SPACE_LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D"), (RED, "X"), (PINK, "P"))  # of a label in `plot_spaces`


@mpl.rc_context(LOOK)
def plot_spaces(table: pd.DataFrame) -> Figure:
    """Embeddings on the memory's first two principal components, a panel for each method, a marker for each label.

    Metrics "first_component" and "second_component" with the knob "example", whose `x` is the example's number and `at`
    its label; "nearest_shares_label" stands in the title. Raises FigureError if one is missing.
    """
    style.need_metrics(table, "first_component", "second_component", "nearest_shares_label")
    shares = measured(table).query("metric == 'nearest_shares_label'").set_index("method")["value"]
    looks = dict(zip(table.loc[table["at"] != "", "at"].unique(), SPACE_LOOKS, strict=False))
    methods = style.list_methods(table)
    fig, axes = style.make_panels(len(methods), 2.9, sharex=True, sharey=True)
    for ax, method in zip(axes, methods, strict=True):
        for name, (color, marker) in looks.items():
            rows = only(table, method=method, at=name).sort_values("x")
            x, y = (only(rows, metric=f"{nth}_component")["value"] for nth in ("first", "second"))
            ax.scatter(x, y, s=14, color=color, marker=marker, alpha=0.8, linewidths=0, label=name)
        ax.set(title=f"{label(method)}\nnearest of its label: {100 * shares[method]:.0f} %", xlabel="First component")
    axes[0].set_ylabel("Second component")
    style.legend_below(fig, len(looks), axes[:1])
    return fig


@mpl.rc_context(LOOK)
def plot_where(table: pd.DataFrame) -> Figure:
    """What retrieval gains in each quarter of the questions: by the student's confidence, by its neighbours' distance.

    Gains in accuracy with the knob "confidence" (`x` 1, least sure, to 4) and "distance" (1, nearest, to 4). Raises
    FigureError if one is missing.
    """
    panels = {
        "confidence": ("How sure the student is", "least", "most"),
        "distance": ("Distance of the nearest entry", "near", "far"),
    }
    table, ticks = gained(table).sort_values("x"), range(1, QUARTERS + 1)
    for knob in panels:
        if missing := set(ticks) - set(only(table, knob=knob)["x"]):
            raise FigureError(f"nothing to draw: no gain has the knob {knob} and the x {min(missing)}")
    fig, axes = style.make_panels(2, 2.2, sharey=True)
    for ax, (knob, (title, first, last)) in zip(axes, panels.items(), strict=True):
        rows = only(table, knob=knob)
        _quarters_panel(ax, rows)
        ax.set(title=title, xlabel=f"Quarter of the questions (n = {style.say_sizes(rows)})")
        ax.set_xticks(ticks, [f"1 ({first})", *map(str, ticks[1:-1]), f"{QUARTERS} ({last})"])
    axes[0].set_ylabel("Gain from retrieval (points)")
    return fig


def _quarters_panel(ax: Axes, gains: pd.DataFrame) -> None:
    """Gains from retrieval against the quarter, `x`."""
    style.draw_method(ax, "reaugkd", gains["x"], style.in_units(gains, 100), linestyle="none")
    ax.axhline(0, **style.DASHED)
    ax.set_xlim(0.5, QUARTERS + 0.5)
    ax.grid(axis="y")


@mpl.rc_context(LOOK)
def plot_compression(table: pd.DataFrame) -> Figure:
    """What compressing ReAugKD's knowledge base costs in accuracy, against its size: a dot for each seed, and the mean.

    `method` is a kind of compression, its knob "kept", its metrics "accuracy" of single seeds and "bytes". Drawn is the
    difference from the whole base ("full") of the same seed; dashed that of "reaugkd_no_retrieval". Raises FigureError
    if no kind has both rows.
    """
    fig, ax = plt.subplots(figsize=(COLUMN, 2.7))
    prototypes = only(_compression_panel(ax, table), method="prototypes")
    for _, same in prototypes.groupby((10 * np.log(prototypes["kib"])).round()):  # of about one size: one label
        text = ", ".join(f"{100 * kept:g} %" for kept in sorted(same["x"].unique()))
        at = (same["kib"].max(), same["change"].min())
        ax.annotate(text, at, (0, -4), textcoords="offset points", ha="center", va="top", fontsize=7)
    style.log_ticks(ax.xaxis, most=6)
    ax.set(xlabel="Size of the knowledge base (KiB)", ylabel="Change of accuracy (points)")
    style.legend_below(fig, columns=2)
    return fig


def _compression_panel(ax: Axes, table: pd.DataFrame) -> pd.DataFrame:
    """Changes of accuracy against the size of the knowledge base, logarithmic; returns the dots ("change" at "kib")."""
    size, accuracy = only(table, metric="bytes"), only(table[table["seed"].notna()], metric="accuracy")
    whole = only(accuracy, method="full").set_index("seed")["value"]
    accuracy = accuracy.assign(change=100 * (accuracy["value"] - accuracy["seed"].map(whole)))
    points = accuracy.merge(size[["method", "x", "value"]], on=["method", "x"], suffixes=("", "_of_base"))
    if points.empty:
        raise FigureError("nothing to draw: no kind of knowledge base has rows accuracy, of single seeds, and bytes")
    points = points.assign(kib=points["value_of_base"] / 1024)
    for method, rows in style.by_method(points):
        dot, means = style.dot_style(method), rows.groupby("kib")["change"].mean()
        ax.plot(rows["kib"], rows["change"], **dot | {"markersize": 2.5, "alpha": 0.5, "label": ""})
        ax.plot(means.index, means, **dot | {"linestyle": REGISTRY[method].line or "none"})
    if len(without := only(accuracy, method="reaugkd_no_retrieval")):
        ax.axhline(without["change"].mean(), label="without retrieval", **style.DASHED)
    ax.set_xscale("log")
    ax.margins(x=0.1, y=0.2)
    ax.grid(axis="y")
    return points


GLUE_PANELS = {  # knob -> title and the axes of a column of `plot_glue`
    "confidence": ("Retrieval's gain\nby confidence", "Quarter (4: surest)", "Points"),
    "distance": ("Retrieval's gain\nby distance", "Quarter (4: farthest)", ""),
    "kept": ("Compressed\nknowledge base", "Size (KiB)", "Change (points)"),
}


@mpl.rc_context(LOOK)
def plot_glue(table: pd.DataFrame) -> Figure:
    """GLUE's tasks below each other, each with what `plot_main`, `plot_where` and `plot_compression` show of it.

    Their rows, each once; a panel stays empty where a task has none. Gains, changes and sizes have the same axes in all
    tasks, and a point of what a task is judged by is as long in all. Raises FigureError if no row is of GLUE.
    """
    tasks = [task for task in GLUE_TASKS if (table["dataset"] == task).any()]
    knobs = [knob for knob in GLUE_PANELS if (table["knob"] == knob).any()]
    if not tasks:
        raise FigureError("nothing to draw: no row is of a task of GLUE")
    size, widths = (PAGE, 1.0 + 1.5 * len(tasks)), (1.3, *(1.6 if knob == "kept" else 1 for knob in knobs))
    fig, axes = plt.subplots(len(tasks), len(widths), figsize=size, squeeze=False, width_ratios=widths)
    for task, line in zip(tasks, axes, strict=True):
        part = only(table, dataset=task)
        main = only(part, knob="")
        judged, chance = style.choose_rows(main[is_judged(main)], *AXES)
        accuracy_panel(line[0], *name_rows(judged), chance)
        line[0].set_title(f"{COLUMNS[task].folder} (n = {style.say_sizes(main)})")
        for ax, top, knob in zip(line[1:], axes[0, 1:], knobs, strict=True):
            if ax is not top:
                ax.sharex(top)
            if ax is not (first := top if knob == "kept" else axes[0, 1]):
                ax.sharey(first)
            if (shown := only(part, knob=knob)).empty:
                ax.set_axis_off()
            elif knob == "kept":
                _compression_panel(ax, part)
            else:
                _quarters_panel(ax, gained(shown).sort_values("x"))
    _finish_glue(fig, axes, knobs)
    return fig


def _finish_glue(fig: Figure, axes: np.ndarray, knobs: list[str]) -> None:
    """Titles, labels and limits, which are known when all panels are drawn."""
    limits = [ax.get_xlim() for ax in axes[:, 0]]
    reach = max(high - low for low, high in limits) / 2
    for ax, ends in zip(axes[:, 0], limits, strict=True):
        ax.set_xlim(sum(ends) / 2 - reach, sum(ends) / 2 + reach)
    for column, knob in zip(axes[:, 1:].T, knobs, strict=True):
        title, below, beside = GLUE_PANELS[knob]
        column[0].set_title(title)
        column[-1].set_xlabel(below)
        for ax in column:
            ax.set_ylabel(beside)
        if knob == "kept":
            style.log_ticks(column[0].xaxis, most=4)
            style.legend_below(fig, 3, list(column))
        else:
            column[0].set_xticks(range(1, QUARTERS + 1))


@mpl.rc_context(LOOK)
def plot_latency(table: pd.DataFrame) -> Figure:
    """What looking up costs against the entries of the knowledge base: a line for each search and student.

    Metrics "latency_overhead" (a panel for each batch size, `at`), "recall" and "bytes" with the knob "entries". The
    recall of exact search, which is 1, is not drawn. Raises FigureError if there is no overhead.
    """
    style.need_metrics(table, "latency_overhead")
    overhead = only(table, metric="latency_overhead")
    panels = {f"Latency overhead, {at} (%)": (100.0, only(overhead, at=at)) for at in overhead["at"].unique()}
    panels["Recall of the nearest 16 (%)"] = (100.0, only(table, method="reaugkd", metric="recall"))
    panels["Memory (MiB)"] = (1 / 2**20, only(table, metric="bytes"))
    colors = dict(zip(overhead["student"].unique(), (BLUE, ORANGE, GREEN, RED), strict=False))
    (percent,) = find_table("reaugkd_latency").numbers("latency_overhead")
    fig, axes = style.make_panels(len(panels), 2.2)
    for ax, (title, (unit, part)) in zip(axes, panels.items(), strict=True):
        for (student, method), rows in part.groupby(["student", "method"], sort=False):
            rows = style.in_units(rows.sort_values("x"), unit)
            look = {"color": colors[student], "markerfacecolor": colors[student]}
            style.draw_method(ax, method, rows["x"], rows, label=f"{student}: {label(method)}", **look)
        if part["metric"].eq("latency_overhead").any():
            ax.axhline(percent, label=f"the paper's {percent:g} %", **style.DASHED)
        ax.set_xscale("log")
        style.log_ticks(ax.xaxis, most=5)
        if not part["metric"].eq("recall").any():
            ax.set_yscale("log")
            style.log_ticks(ax.yaxis, most=8)
        ax.set(title=title, xlabel="Entries")
        ax.grid(axis="y")
    style.legend_below(fig, columns=2)
    return fig
