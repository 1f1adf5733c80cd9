"""All drawings, in the order of the notebooks: each makes a figure in the one look from a table of `rows.long_form`."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogLocator, StrMethodFormatter

from kardlib.data.world import STRATA
from kardlib.kard.cases import CAUSES, PAPERS_CAUSES
from kardlib.kard.memorization import Task
from kardlib.models.catalogue import find_shape
from kardlib.registry import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, REGISTRY, label
from kardlib.report.figures import COLUMN, LOOK, PAGE
from kardlib.report.reported import find_table
from kardlib.report.rows import FRACTIONS, FigureError, gained, measured, to_rows

# What drawings share

# a line to compare with, behind what was measured
THIN: dict[str, Any] = {"color": "0.45", "linewidth": 0.9, "zorder": 1}
DASHED = THIN | {"linestyle": (0, (4, 3))}
WHISKERS: dict[str, Any] = {"elinewidth": 1.0, "capsize": 2.2, "capthick": 1.0}


def _need(table: pd.DataFrame, *metrics: str) -> None:
    if missing := [metric for metric in metrics if not (table["metric"] == metric).any()]:
        raise FigureError(f"nothing to draw: no row has the metric {missing[0]}")


def _choose(table: pd.DataFrame, *metrics: str) -> tuple[pd.DataFrame, pd.Series]:
    """What was measured over all seeds in some metrics, and what chance gives. Raises FigureError for none."""
    table = measured(table)
    table = table[table["metric"].isin(metrics)]
    chance = table["method"] == "chance"
    if chance.all():
        raise FigureError(f"nothing to draw: no row over all seeds has the metric {' or '.join(metrics)}")
    return table[~chance], table.loc[chance, "value"]


def _methods(table: pd.DataFrame) -> list[str]:
    """The methods of a table, in the registry's order. Raises FigureError for one that nobody has entered there."""
    if unknown := set(table["method"]) - set(REGISTRY):
        raise FigureError(f"there is no style for the method {min(unknown)!r}: add it with register_method")
    return [method for method in REGISTRY if (table["method"] == method).any()]


def _sizes(table: pd.DataFrame) -> str:
    return ", ".join(f"{n:,}" for n in sorted(table["n"].dropna().unique())) or "?"


def _panels(count: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """Panels side by side, in two lines if more than three: one is as wide as a column, more are as wide as a page."""
    lines, width = 1 + (count > 3), COLUMN if count == 1 else PAGE
    fig, axes = plt.subplots(lines, -(-count // lines), figsize=(width, lines * height), squeeze=False, **options)
    for spare in axes.flat[count:]:
        spare.remove()
    return fig, list(axes.flat[:count])


def _whiskers(rows: pd.DataFrame) -> np.ndarray:
    """Distances from the value down to `low` and up to `high`, (2, rows); zero where there is no interval."""
    value = rows["value"].to_numpy()
    return np.nan_to_num(np.stack([value - rows["low"].to_numpy(), rows["high"].to_numpy() - value]))


def _dot(method: str) -> dict[str, Any]:
    entry = REGISTRY[method]
    return {
        "color": entry.color, "marker": entry.marker, "markersize": 6.5 if entry.marker == "*" else 4.2,
        "markerfacecolor": "white" if entry.hollow else entry.color, "label": entry.label, "linestyle": "none",
        "zorder": 3,
    }  # fmt: skip


def _draw(ax: Axes, method: str, x: Any, rows: pd.DataFrame, **options: Any) -> None:
    """A method's values at `x`, with their intervals as whiskers, joined by its line; `options` are errorbar's."""
    style = WHISKERS | _dot(method) | {"linestyle": REGISTRY[method].line} | options
    ax.errorbar(x, rows["value"], yerr=_whiskers(rows) if rows["low"].notna().any() else None, **style)


def _draw_across(ax: Axes, method: str, rows: pd.DataFrame, y: Any) -> None:
    """A method's values as dots in the rows `y`."""
    ax.errorbar(rows["value"], y, xerr=_whiskers(rows), **WHISKERS | _dot(method))


def _draw_by_x(ax: Axes, table: pd.DataFrame, unit: float = 1) -> None:
    """A line against `x`, in `unit`s, for each method."""
    for method in _methods(table):
        rows = table[table["method"] == method].sort_values("x")
        _draw(ax, method, rows["x"] / unit, rows)


def _print_values(ax: Axes, values: pd.Series, y: Iterable[float]) -> None:
    """Fractions in per cent, right of the rows `y`."""
    for value, place in zip(values, y, strict=True):
        at = (1.02, place)
        ax.annotate(f"{100 * value:.1f}", at, xycoords=("axes fraction", "data"), va="center", fontsize=7)


def _in_points(rows: pd.DataFrame) -> pd.DataFrame:
    """Values and intervals, fractions, times 100."""
    return 100 * rows[["value", "low", "high"]]


def _percent(axis: Axis) -> None:
    """A fraction's axis reads in per cent; a tick between whole per cents keeps its decimals."""
    axis.set_major_formatter(lambda value, _: Formatter.fix_minus(f"{round(100 * value, 6) + 0:g}"))  # + 0: no -0


def _log_x(ax: Axes, ticks: list[float], unit: float = 1) -> None:
    """A logarithmic axis with its ticks where something was measured and nowhere else, their labels times `unit`."""
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{unit * x:g}" for x in ticks])
    ax.xaxis.minorticks_off()


def _draw_by_knob(ax: Axes, table: pd.DataFrame, ticks: list[float], unit: float = 1, **options: Any) -> None:
    """A line for each method against `x` on a logarithmic axis (`_log_x`), whiskers side by side."""
    methods, step = _methods(table), max(10.0, ticks[-1] / ticks[0]) ** 0.02
    for i, method in enumerate(methods):
        rows = table[table["method"] == method].sort_values("x")
        _draw(ax, method, rows["x"].astype(float) * step ** (i - (len(methods) - 1) / 2), rows, **options)
    _log_x(ax, ticks, unit)
    ax.grid(axis="y")


def _log_ticks(axis: Axis, most: int) -> None:
    """Ticks of a logarithmic axis, drawn before: 1, 2, 5 in each decade, or as few as keep to `most` labels in view."""
    low, high = axis.get_view_interval()
    for subs in ((1, 2, 5), (1, 3), (1,)):
        locator = LogLocator(subs=subs)
        ticks = np.asarray(locator.tick_values(low, high))
        if ((low <= ticks) & (ticks <= high)).sum() <= most:
            break
    axis.set_major_locator(locator)
    axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axis.minorticks_off()


def _legend_below(fig: Figure, columns: int, axes: Iterable[Axes] = ()) -> None:
    """One legend for all panels, each label once, methods in the registry's order."""
    shown: dict[str, Any] = {}
    for ax in axes or fig.axes:
        shown |= {name: handle for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    ranks = {entry.label: i for i, entry in enumerate(REGISTRY.values())}
    labels = sorted(shown, key=lambda name: ranks.get(name, len(ranks)))
    fig.legend(
        [shown[label] for label in labels], labels, loc="outside lower center",
        ncols=min(columns, len(labels)), handlelength=2.6, columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip


# Notebook 00: one question


@mpl.rc_context(LOOK)
def plot_similarities(maps: Mapping[str, np.ndarray], question: Sequence[str], passage: Sequence[str]) -> Figure:
    """Similarities of a question's tokens with a passage's, (T, S), a panel for each of several encoders.

    A ring marks each row's maximum; their sum, the score of late interaction, stands in the panel's title.
    """
    fig, axes = _panels(len(maps), 0.9 + 0.125 * len(question), sharey=True)
    for ax, (name, similarity) in zip(axes, maps.items(), strict=True):
        image = ax.imshow(similarity, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.scatter(similarity.argmax(1), range(len(question)), s=14, facecolors="none", edgecolors=RED)
        ax.set_title(f"{name}: sum of the rings {similarity.max(1).sum():.2f}")
        ax.set_xticks(range(len(passage)), passage, rotation=90, fontsize=7)
    axes[0].set_yticks(range(len(question)), question, fontsize=7)
    fig.colorbar(image, ax=axes, label="Similarity", shrink=0.5)
    return fig


@mpl.rc_context(LOOK)
def plot_distributions(table: pd.DataFrame) -> Figure:
    """Probabilities of passages (the rows) under a target and two rerankers (the columns), as bars side by side."""
    fig, ax = plt.subplots(figsize=(PAGE, 0.7 + 0.3 * len(table)))
    for i, (name, color) in enumerate(zip(table, (GREEN, ORANGE, BLUE), strict=True)):
        ax.barh(np.arange(len(table)) + (i - 1) / 4, table[name], 0.25, color=color, label=name)
    ax.set_yticks(range(len(table)), table.index, fontsize=7)
    ax.invert_yaxis()
    ax.set(xlabel="Probability (%)")
    _percent(ax.xaxis)
    ax.legend(loc="lower right")
    return fig


@mpl.rc_context(LOOK)
def plot_losses(table: pd.DataFrame) -> Figure:
    """Mean loss of a target's token ("loss") by what it is a part of (the knob "token"), a dot for each method.

    Raises FigureError for no rows.
    """
    _need(table, "loss")
    table = measured(table)
    kinds, methods = list(dict.fromkeys(table["at"])), _methods(table)
    fig, ax = plt.subplots(figsize=(COLUMN, 0.8 + 0.5 * len(kinds)))
    for i, method in enumerate(methods):
        rows = table[table["method"] == method].set_index("at").loc[kinds]
        _draw_across(ax, method, rows, np.arange(len(kinds)) + (i - (len(methods) - 1) / 2) / 5)
    ax.set_yticks(range(len(kinds)), kinds)
    ax.set(ylim=(len(kinds) - 0.5, -0.5), xlabel="Mean loss of a token (nats)")
    ax.grid(axis="x")
    _legend_below(fig, 1)
    return fig


# Notebook 01: what the bound says


@mpl.rc_context(LOOK)
def plot_learners(table: pd.DataFrame) -> Figure:
    """Learners without a knowledge base: error and bits stored against samples, and error against a budget of bits.

    Metrics "error" and "bits" with the knob "samples", "error" with the knob "budget", and "rate", in which the budget
    is shown. Raises FigureError for no rows.
    """
    _need(table, "error", "bits", "rate")
    fig, (error, bits, budget) = plt.subplots(1, 3, figsize=(PAGE, 2.7))
    rate = table[table["metric"] == "rate"]["value"].item()
    samples = table[table["knob"] == "samples"]
    _draw_by_x(error, samples[samples["metric"] == "error"])
    _draw_by_x(bits, samples[(samples["metric"] == "bits") & (samples["method"] != "theorem_1")])
    _draw_by_x(budget, table[table["knob"] == "budget"], rate)
    ticks = sorted(samples["x"].unique())
    for ax in (error, bits):
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [f"{x:g}" if i % 2 else "" for i, x in enumerate(ticks)])
        ax.set_xlabel("Samples, n")
    bits.set_yscale("log")
    error.set(title="(a) Error of the optimal learner")
    bits.set(title="(a) Bits that it stores", ylabel="Bits")
    budget.set(title="(b) Error against budget", xlabel="Budget / (n d)")
    for ax in (error, budget):
        ax.set_ylabel("Error (%)")
        _percent(ax.yaxis)
    for ax in (error, bits, budget):
        ax.grid(axis="y")
    _legend_below(fig, 3)
    return fig


SIZES = {"N": "strings", "d": "bits", "R": "irrelevant"}  # the papers' symbols: fields of a task
SWEEPS = {  # styles for the sizes of a sweep, from small to large: no reader's, and not the other sweep's
    "N": [("#DDA6C5", "v", ":"), (PINK, "^", "--"), ("#7A3A60", "<", "-.")],
    "R": [("#ABABAB", "1", ":"), (GREY, "2", "--"), (BLACK, "3", "-.")],
}


@mpl.rc_context(LOOK)
def plot_keys(table: pd.DataFrame, middle: Task, sweeps: Mapping[str, Sequence[Task]] | None = None) -> Figure:
    """Readers of a knowledge base against the key's length, for one task and, a panel each, for `bound.sweeps`.

    Metrics "error" and "excess_keys" with the knob "key" (bits; `student`: the task), and "m": Theorem 2's, for each
    eps (dashed). Raises FigureError for no rows.
    """
    _need(table, "error", "excess_keys", "m")
    sweeps = sweeps or {}
    lines = 2 if sweeps else 1
    fig, axes = plt.subplots(lines, 2, figsize=(PAGE, 2.4 * lines + 0.3), squeeze=False)
    for ax, (name, tasks) in zip(axes[0], sweeps.items(), strict=False):
        _sweep_panel(ax, table, name, tasks, middle)
    errors, excess = axes[-1]
    _reader_panels(errors, excess, table, middle)
    for ax in axes.flat:
        ax.set_xlabel("Key length, m (bits)")
        ax.grid(axis="y")
        _percent(ax.yaxis)
        if ax is not excess:
            ax.set(ylabel="Error (%)", ylim=(0, 0.52))
    _legend_below(fig, 4, [errors])
    return fig


def _sweep_panel(ax: Axes, table: pd.DataFrame, name: str, tasks: Sequence[Task], middle: Task) -> None:
    """The key reader's error in several tasks, each with Theorem 2's m for the eps that all of them have."""
    marks = {task: _thresholds(table, task) for task in tasks}
    eps = min(set.intersection(*map(set, marks.values())))
    others = iter(SWEEPS[name])  # the middle looks in each panel as it does in the panel of readers
    reader = REGISTRY["read_key"]
    for task in tasks:
        color, marker, line = (reader.color, reader.marker, reader.line) if task == middle else next(others)
        rows = table[(table["student"] == str(task)) & (table["method"] == "read_key")]
        rows = rows[rows["metric"] == "error"].sort_values("x")
        look: dict[str, Any] = {"color": color, "marker": marker, "linestyle": line, "markersize": 3.6}
        ax.plot(rows["x"], rows["value"], markevery=3, label=f"{name} = {getattr(task, SIZES[name]):,}", **look)
        ax.fill_between(rows["x"], rows["low"], rows["high"], color=color, alpha=0.25, linewidth=0)
        ax.axvline(marks[task][eps], color=color, linestyle=line, linewidth=1)
    first, said = min(mark[eps] for mark in marks.values()), f"Theorem 2's m, $\\epsilon$ = {eps:g}"
    ax.annotate(said, (first, 0.49), (-4, 0), textcoords="offset points", ha="right", va="top", fontsize=7)
    (other,) = {"N", "R"} - {name}
    ax.set_title(f"Key reader, several {name} ({other} = {getattr(middle, SIZES[other])})")
    ax.legend(loc="lower left", handlelength=2.6)


def _reader_panels(errors: Axes, excess: Axes, table: pd.DataFrame, task: Task) -> None:
    """All readers' errors in one task, and by how much they are above those with whole strings."""
    part = table[table["student"] == str(task)]
    error, above = part[part["metric"] == "error"], part[(part["metric"] == "excess_keys") & (part["value"] > 0)]
    for method in _methods(error):
        rows = error[error["method"] == method].sort_values("x")
        if rows["x"].isna().all():  # it reads no key
            entry = REGISTRY[method]
            errors.axhline(rows["value"].item(), color=entry.color, linestyle=entry.line, label=entry.label)
            continue
        _draw(errors, method, rows["x"], rows, markevery=3, errorevery=3)
        rows = above[above["method"] == method].sort_values("x")
        _draw(excess, method, rows["x"], rows, markevery=3, errorevery=3)
    marks = _thresholds(table, task)
    for eps, m in marks.items():
        excess.plot([0, m, m], [eps, eps, 1e-6], color=BLACK, linewidth=0.9, linestyle=(0, (4, 2)))
        excess.annotate(f"$\\epsilon$ = {eps:g}", (m, eps), (6, 0), textcoords="offset points", va="center", fontsize=7)
        excess.plot([m], [eps], color=BLACK, marker="x", markersize=5)
    lowest = np.fmin(above["value"].min(), min(marks)) / 2
    excess.set(yscale="log", ylim=(lowest, 1), xlim=(-1, 7 + max(marks.values())))
    excess.set(title="Error above that with whole strings", ylabel="Excess error (%)")
    errors.set_title("Readers" + "".join(f", {name} = {getattr(task, size)}" for name, size in SIZES.items()))


def _thresholds(table: pd.DataFrame, task: Task) -> dict[float, float]:
    """eps -> Theorem 2's m, of one task."""
    rows = table[(table["student"] == str(task)) & (table["metric"] == "m")]
    return dict(zip(rows["x"], rows["value"], strict=True))


@mpl.rc_context(LOOK)
def plot_growth(table: pd.DataFrame) -> Figure:
    """Bits that each learner needs against the length of a string, both logarithmic, and Theorem 2's n m.

    Theorem 1's Omega(n d) has no constant, so that its slope alone is drawn: from the optimal learner's first point.
    The metric is "bits", the knob "length". Raises FigureError for no rows.
    """
    _need(table, "bits")
    part = table[(table["metric"] == "bits") & (table["method"] != "theorem_1")]
    fig, ax = plt.subplots(figsize=(COLUMN, 3.3))
    _draw_by_x(ax, part)
    learner = part[part["method"] == "recall_visible"].sort_values("x")
    first = learner.iloc[0]
    slope = first["value"] / first["x"] * learner["x"]
    ax.plot(learner["x"], slope, label="Theorem 1's slope, 1", **DASHED)
    ax.set_xscale("log", base=2)
    ax.set_yscale("symlog", linthresh=100, linscale=0.4)  # a reader may need no bit at all
    ticks = sorted(part["x"].unique())
    ax.set_xticks(ticks, [f"{x:.0f}" if i % 2 == 0 else "" for i, x in enumerate(ticks)])
    ax.set(xlabel="Length of a string, d (bits)", ylabel="Bits needed")
    ax.set_ylim(bottom=-15)
    ax.grid(axis="y")
    _legend_below(fig, 2)
    return fig


@mpl.rc_context(LOOK)
def plot_networks(table: pd.DataFrame) -> Figure:
    """Errors of networks on the bits that they were shown ("error_shown") against how many these were ("bits_shown").

    The line is at the most bits that the network alone held at any size ("bits_held"). Raises FigureError for no rows.
    """
    _need(table, "error_shown")
    table = measured(table)
    shown = table[table["metric"] == "bits_shown"].drop_duplicates("x").set_index("x")["value"]
    part = table[table["metric"] == "error_shown"]
    fig, ax = plt.subplots(figsize=(COLUMN, 2.6))
    _draw_by_x(ax, part.assign(x=part["x"].map(shown)))
    held = table.loc[(table["method"] == "network") & (table["metric"] == "bits_held"), "value"].max()
    ax.axvline(held, color=BLACK, linewidth=1, linestyle=(0, (4, 3)), label="The most it held at any size")
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(shown), [f"{x:,.0f}" for x in shown], rotation=30)
    ax.set(xlabel="Bits that the samples show", ylabel="Error on shown bits (%)")
    _percent(ax.yaxis)
    ax.grid(axis="y")
    _legend_below(fig, 1)
    return fig


# Notebooks 02 and 03: what is retrieved

HITS_TITLES = {"hits_gold": "Gold passages", "hits_silver": "Silver passages"}


@mpl.rc_context(LOOK)
def plot_hits(table: pd.DataFrame) -> Figure:
    """Hits@k of retrievers (`method`) against `k`, one panel for each kind of relevant passages.

    Rows whose metric is "hits_gold" or "hits_silver"; `low` and `high` are drawn as whiskers. Raises FigureError if
    there are none.
    """
    table, _ = _choose(table, *HITS_TITLES)
    panels = [metric for metric in HITS_TITLES if (table["metric"] == metric).any()]
    fig, axes = _panels(len(panels), 2.5, sharey=True)
    for ax, metric in zip(axes, panels, strict=True):
        found = table[table["metric"] == metric]
        _draw_by_knob(ax, found.assign(x=found["k"]), sorted(found["k"].unique()))
        ax.set(title=f"{HITS_TITLES[metric]} (n = {_sizes(found)})", xlabel="Passages looked at, k")
    axes[0].set_ylabel("Hits@k (%)")
    _percent(axes[0].yaxis)
    _legend_below(fig, columns=2 * len(panels))
    return fig


# Notebook 04: methods beside each other (also 10, 13 and 15)

CHANCE_ROW = 0.5  # rows below the last one, for the word beside the dashed line


@mpl.rc_context(LOOK)
def plot_main(table: pd.DataFrame) -> Figure:
    """Accuracy of methods, one row each in the registry's order, one panel per student: the main table as a figure.

    Rows whose metric is "accuracy" and whose seed is empty: summaries over seeds, each a dot with its interval and the
    mean in print, by condition (`at`) where there are several; the method "chance" is a dashed line, and others without
    a student are rows of every panel. Students come in the order of the table. Raises FigureError if there are none.
    """
    table, chance = _choose(table, "accuracy")
    table, places = _name_rows(table)
    students = list(dict.fromkeys(filter(None, table["student"])))
    height = 0.8 + 0.19 * (max(places.values()) + CHANCE_ROW * len(chance))
    fig, axes = _panels(len(students), height, sharex=True, sharey=True)
    for ax, student in zip(axes, students, strict=True):
        _accuracy_panel(ax, table[table["student"].isin([student, ""])], places, chance)
        ax.set(title=student)
    return fig


def _name_rows(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, float]]:
    """The table with its rows' names in the column "row", and the height of each; blocks stand half a row apart.

    A method is a row, one that was measured at several conditions (`at`) one for each.
    """
    places, height, methods = {}, 0.0, _methods(table)
    several = table.groupby("method")["at"].transform("nunique") > 1
    table = table.assign(row=table["method"].map(label) + (", " + table["at"]).where(several, ""))
    for block in dict.fromkeys(REGISTRY[method].block for method in methods):
        for method in [method for method in methods if REGISTRY[method].block == block]:
            for row in table.loc[table["method"] == method, "row"].unique():
                places[row] = height
                height += 1
        height += 0.5
    return table, places


def _accuracy_panel(ax: Axes, table: pd.DataFrame, places: Mapping[str, float], chance: pd.Series) -> None:
    """Dots with their numbers in print, each in the place that `places` gives for its "row"."""
    ax.grid(axis="x")
    for value in chance:
        ax.axvline(value, **DASHED)
        below = ("data", "axes fraction")
        ax.annotate(" chance", (value, 0.01), xycoords=below, va="bottom", fontsize=7, color="0.35")
    for method in _methods(table):
        rows = table[table["method"] == method]
        _draw_across(ax, method, rows, rows["row"].map(places))
        _print_values(ax, rows["value"], rows["row"].map(places))
    ax.set(xlabel="Accuracy (%)", ylim=(max(places.values()) + 0.6 + CHANCE_ROW * len(chance), -0.6))
    _percent(ax.xaxis)
    ax.set_yticks(list(places.values()), list(places), fontsize=7)
    ax.tick_params(axis="y", length=0)


PARTS = {  # of the test questions: their axis -> the metrics on it
    "How often training asked about the ailment": [f"accuracy_{stratum}" for stratum in STRATA],
    "Kind of question": ["accuracy_one_hop", "accuracy_two_hops", "accuracy_yes_no", "accuracy_options"],
}


@mpl.rc_context(LOOK)
def plot_strata(table: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Accuracy of methods by how often training showed a question's ailment, and by its kind, a column a student.

    Rows over all seeds whose metric is one of `PARTS`; the method "chance" is dashed, those without a student stand
    in every panel. Raises FigureError if there are none.
    """
    table = measured(table)
    table = table[table["method"].isin([*methods, "chance"])]
    parts = {axis: metrics for axis, metrics in PARTS.items() if table["metric"].isin(metrics).any()}
    students = list(dict.fromkeys(filter(None, table["student"])))
    if not (parts and students):
        raise FigureError("nothing to draw: no row has the metric of a stratum or a kind of question")
    size = (PAGE if len(students) > 1 else COLUMN, 0.8 + 2.3 * len(parts))
    fig, axes = plt.subplots(len(parts), len(students), figsize=size, sharey=True, squeeze=False)
    for (row, metrics), (column, student) in product(enumerate(parts.values()), enumerate(students)):
        ax, shown = axes[row, column], table[table["student"].isin([student, ""])]
        for i, method in enumerate(_methods(shown)):
            rows = shown[shown["method"] == method].set_index("metric").reindex(metrics)
            if method == "chance":
                ax.plot(range(len(rows)), rows["value"], label=label("chance"), drawstyle="steps-mid", **DASHED)
            else:
                line = {} if metrics == PARTS["How often training asked about the ailment"] else {"linestyle": "none"}
                _draw(ax, method, np.arange(len(rows)) + 0.06 * (i - len(methods) / 2), rows, **line)
        names = [metric.removeprefix("accuracy_").replace("_", "\n") for metric in metrics]
        ax.set_xticks(range(len(metrics)), names)
        ax.set(title="" if row else student, xlim=(-0.3, len(metrics) - 0.7))
        ax.grid(axis="y")
    for row, axis in enumerate(parts):
        axes[row, 0].set(ylabel="Accuracy (%)")
        axes[row, len(students) // 2].set(xlabel=axis)
    _percent(axes[0, 0].yaxis)
    _legend_below(fig, 3, list(axes[0]))
    return fig


@mpl.rc_context(LOOK)
def plot_frontier(table: pd.DataFrame) -> Figure:
    """What is concluded rightly against the number of ailments, a column for each student.

    Rows are of what was shown "often" and "never" (`at`; metric "accuracy_of_rationale"). A dotted line stands where
    reading overtakes recalling ("crossing"). Raises FigureError if nothing is there.
    """
    table = measured(table)
    _need(table, "accuracy_of_rationale")
    told, strata = table[table["metric"] == "accuracy_of_rationale"], (STRATA[0], STRATA[-1])
    students, chance = list(dict.fromkeys(told["student"])), table[table["method"] == "chance"].set_index("metric")
    fig, axes = plt.subplots(2, len(students), figsize=(PAGE, 4.4), sharex=True, sharey=True, squeeze=False)
    for (row, stratum), (column, student) in product(enumerate(strata), enumerate(students)):
        ax, shown = axes[row, column], told[(told["at"] == stratum) & (told["student"] == student)]
        _draw_by_knob(ax, shown, sorted(shown["x"].unique()))
        ax.axhline(chance.loc[f"accuracy_{stratum}", "value"], label=label("chance"), **DASHED)
        crossing = table[(table["metric"] == "crossing") & (table["student"] == student)]
        for size in crossing["value"] if not row else ():
            ax.axvline(size, **THIN | {"linestyle": ":"})
            ax.annotate(f"{size:.0f}", (size, 0.02), xycoords=("data", "axes fraction"), ha="center", fontsize=7)
        ax.set(title=student if not row else "")
    for ax, stratum in zip(axes[:, 0], strata, strict=True):
        ax.set(ylabel=f"Shown {stratum} (%)")
    _percent(axes[0, 0].yaxis)
    axes[1, len(students) // 2].set(xlabel="Ailments in the world")
    _legend_below(fig, 3, axes.flat)
    return fig


@mpl.rc_context(LOOK)
def plot_editions(table: pd.DataFrame) -> Figure:
    """What is answered before and after all facts have changed, a panel for each student.

    What is concluded rightly `at` "first edition" and "new edition", and the share of answers that were right in the
    first (metric "former_answers"). Raises FigureError if they are not there.
    """
    table = measured(table)
    _need(table := table[table["knob"] == "edition"], "accuracy_of_rationale", "former_answers")
    bars = {"right, first edition": ("accuracy_of_rationale", "first edition"),
            "right, new edition": ("accuracy_of_rationale", "new edition"),
            "what was right before": ("former_answers", "new edition")}  # fmt: skip
    students, methods = list(dict.fromkeys(table["student"])), _methods(table)
    fig, axes = _panels(len(students), 2.6, sharey=True)
    for ax, student in zip(axes, students, strict=True):
        for i, ((name, (metric, at)), color) in enumerate(zip(bars.items(), (GREY, GREEN, RED), strict=True)):
            rows = table[(table["student"] == student) & (table["metric"] == metric) & (table["at"] == at)]
            rows = rows.set_index("method").reindex(methods)
            places = np.arange(len(methods)) + 0.27 * (i - 1)
            ax.bar(places, rows["value"], 0.25, yerr=_whiskers(rows), color=color, label=name, capsize=2)
        ax.set_xticks(range(len(methods)), [label(method).replace(" ", "\n") for method in methods])
        ax.set(title=student)
        ax.grid(axis="y")
    axes[0].set(ylabel="Questions on changed facts (%)")
    _percent(axes[0].yaxis)
    _legend_below(fig, len(students))
    return fig


# Notebooks 05 to 12: ablations and comparisons

MEASURES = {  # titles of panels, in their order
    "accuracy": "Accuracy",
    "accuracy_of_rationale": "Concluded rightly",
    "hits_gold": "Hits, gold",
    "hits_silver": "Hits, silver",
    "gold_among_read": "Gold among what is read",
    "whole_chain": "Whole chain read",
    "doubled_hop": "One hop twice, one not",
    "milliseconds": "Milliseconds a question",
}
PAPERS = {  # figure -> the paper's table of the same ablation
    "05_dataset_size": "figure4a_dataset_size",
    "06_model_size": "table1_medqa",
    "07_rationales": "table3_rationales",
    "08_candidates": "table4_candidates",
    "09_passages": "table5_passages",
}


@mpl.rc_context(LOOK)
def plot_knob(table: pd.DataFrame, knob: str) -> Figure:
    """Measures against a knob's `x`: one panel for each of `MEASURES` and condition `at`, one line per method.

    `knob` is what the axis is called; if that ends in "(%)", `x` is a share, which is shown in per cent. The method
    "chance" is a dashed line. The paper's own curve of the same figure (`PAPERS`) has a panel beside the accuracies.
    Raises FigureError if there is nothing to draw.
    """
    table, chance = _choose(table[table["x"].notna() | (table["method"] == "chance")], *MEASURES)
    conditions, methods, unit = list(dict.fromkeys(table["at"])), _methods(table), 100 if knob.endswith("(%)") else 1
    parts = [(m, at, table[(table["metric"] == m) & (table["at"] == at)]) for m in MEASURES for at in conditions]
    parts = [(metric, at, part) for metric, at, part in parts if len(part)]
    paper, accuracies = PAPERS.get(table["figure"].iloc[0]), sum(metric == "accuracy" for metric, *_ in parts)
    fig, axes = _panels(len(parts) + bool(paper and accuracies), 2.3)
    if paper and accuracies:
        beside = axes.pop(accuracies)
        _paper_panel(beside, paper, methods, unit)
        beside.set_xlabel(knob)
    for ax, (metric, at, part) in zip(axes, parts, strict=True):
        accuracy = metric.startswith("accuracy")
        if accuracy and ax is not axes[0]:
            ax.sharey(axes[0])  # accuracies are compared across panels
        _draw_by_knob(ax, part, sorted(table["x"].unique()), unit)
        for value in chance if accuracy else ():
            ax.axhline(value, label=label("chance"), **DASHED)
        title = ", ".join(filter(None, [MEASURES[metric], at]))
        if metric in FRACTIONS:
            ax.set(title=f"{title} (%)", xlabel=knob)
            _percent(ax.yaxis)
        else:
            ax.set(title=title, xlabel=knob)
            ax.set_ylim(0, 1.06 * part[["value", "high"]].max(axis=None))  # from zero, with room for the highest marker
    if len(methods) + len(chance) > 1:
        _legend_below(fig, columns=2 if len(fig.axes) == 1 else 4)
    else:
        axes[0].set_ylabel(label(methods[0]))
    return fig


def _paper_panel(ax: Axes, name: str, methods: list[str], unit: float = 1) -> None:
    """The paper's accuracy (%) in the same ablation, thin and hollow: it is of another task.

    A line for each of `methods` that the table has; where it has none but students, one for each student of the method.
    """
    paper = find_table(name)
    for line, points in paper.curves().items():
        if line in REGISTRY and line not in methods:
            continue
        entry = REGISTRY.get(line, REGISTRY[methods[0]])
        x, y = list(points), list(points.values())
        ax.plot(x, y, color=entry.color, linestyle=entry.line, linewidth=0.8, marker=entry.marker, markersize=3.2,
                markerfacecolor="white", markeredgewidth=0.8)  # fmt: skip
        if line not in REGISTRY:
            ax.annotate(line, (x[-1], y[-1]), (5, 0), textcoords="offset points", va="center", fontsize=7)
    _log_x(ax, sorted(points), unit)
    ax.margins(x=0.15, y=0.25)
    ax.set_facecolor("0.96")
    ax.grid(axis="y", color="white")
    ax.set_title("The paper's accuracy (%)")
    where = f"{paper.at}, {paper.dataset}" + ", read off" * paper.read_off
    ax.annotate(where, (0.97, 0.03), xycoords="axes fraction", ha="right", fontsize=7, color="0.35")


@mpl.rc_context(LOOK)
def plot_students(table: pd.DataFrame) -> Figure:
    """Accuracy of methods and what KARD gains over each, against the student's weights; then the paper's (`PAPERS`).

    Rows whose metric is "accuracy" and whose seed is empty, gains too; students as they come. No line joins them: more
    weights need not read better. Raises FigureError for a student whose weights nobody has counted.
    """
    table = table[(table["metric"] == "accuracy") & table["seed"].isna()]
    own, gains, weights = measured(table), gained(table), {}
    for student in dict.fromkeys(table["student"]):
        if not (shape := find_shape(student)):
            raise FigureError(f"the weights of {student} are not known here: its folder is needed to count them")
        weights[student] = shape.parameters / 1e6
    ticks = sorted(weights.values())
    fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.5))
    for ax, part in ((axes[0], own), (axes[1], gains.assign(method=gains["over"]))):
        _draw_by_knob(ax, part.assign(x=part["student"].map(weights)), ticks, linestyle="none")
        ax.set_xticks(ticks, [f"{million:.2g}" for million in ticks])
        _percent(ax.yaxis)
    axes[0].set(title="Accuracy (%)")
    axes[1].set(title="KARD's gain over each (points)")
    axes[1].axhline(0, **THIN)
    _paper_panel(axes[2], PAPERS["06_model_size"], _methods(own))
    for ax in axes:
        ax.set(xlabel="Weights (millions)")
    _legend_below(fig, 3, axes[:1])
    return fig


@mpl.rc_context(LOOK)
def plot_rag(table: pd.DataFrame) -> Figure:
    """Accuracy of methods beside the Hits@k of the retrievers they read from: what the student makes of what is found.

    Rows as for `plot_main` (one student) and `plot_hits`. Raises FigureError if either is missing.
    """
    (accuracy, chance), (found, _) = _choose(table, "accuracy"), _choose(table, *HITS_TITLES)
    accuracy, places = _name_rows(accuracy)
    methods, ks = _methods(found), found["k"].agg(["min", "max"])
    height = 0.8 + 0.22 * max(len(methods), max(places.values()) + CHANCE_ROW)
    fig, (left, *right) = plt.subplots(1, 3, figsize=(PAGE, height))
    _accuracy_panel(left, accuracy, places, chance)
    left.set(title=f"Answers (n = {_sizes(accuracy)})")
    for ax, metric in zip(right, HITS_TITLES, strict=True):
        for i, method in enumerate(methods):
            rows = found[(found["metric"] == metric) & (found["method"] == method)].set_index("k").reindex(ks)
            ax.plot(rows["value"], [i, i], color=REGISTRY[method].color, linewidth=0.6, linestyle=":")
            _draw_across(ax, method, rows, [i, i])
            ax.plot(rows["value"].iloc[:1], [i], **_dot(method) | {"markerfacecolor": "white", "zorder": 4})
        ax.set(title=HITS_TITLES[metric], xlabel=f"Hits@{ks['min']} to Hits@{ks['max']} (%)")
        ax.set(ylim=(len(methods) - 0.4, -0.6), yticks=range(len(methods)), yticklabels=map(label, methods))
        ax.tick_params(axis="y", length=0)
        _percent(ax.xaxis)
        ax.grid(axis="x")
    right[1].sharex(right[0])
    right[1].tick_params(labelleft=False)
    return fig


@mpl.rc_context(LOOK)
def plot_shares(table: pd.DataFrame) -> Figure:
    """What failures are due to: "share_of_failures" at each cause, one bar a student, ours and by the paper's causes.

    A whisker is the interval of the first cause's share, the dashed line the paper's of its own failures, which have
    a bar too. Students come in the order of the table; `n` is how many failures there were. Raises FigureError if there
    are none.
    """
    _need(table, "share_of_failures")
    table = table[table["metric"] == "share_of_failures"]
    paper = find_table("failure_analysis")
    (inspected,), *papers = (paper.numbers(row) for row in ("inspected", "reranker_missed", "student_failed"))
    splits = {"All it takes must be read": CAUSES, "One relevant passage is enough": PAPERS_CAUSES}
    splits = {title: causes for title, causes in splits.items() if table["at"].isin(causes).any()}
    fig, axes = _panels(len(splits), 2.2)
    for ax, (title, causes) in zip(axes, splits.items(), strict=True):
        shares = table[table["at"].isin(causes)].pivot(index="student", columns="at", values="value")
        first = table[table["at"] == causes[0]].set_index("student")
        shares, whole = shares.loc[first.index, list(causes)], f"The paper ({inspected:.0f})"
        if causes == PAPERS_CAUSES:
            shares.loc[whole] = [number / inspected for (number,) in papers]
        starts = shares.cumsum(axis=1) - shares
        for cause, color in zip(causes, (ORANGE, BLUE, GREY), strict=False):
            bars = ax.barh(range(len(shares)), shares[cause], 0.7, starts[cause], color=color, label=cause)
            shown = [f"{100 * share:.0f}" if share > 0.1 else "" for share in shares[cause]]
            behind = {"facecolor": color, "edgecolor": "none", "pad": 1}
            ax.bar_label(bars, shown, label_type="center", color="white", fontsize=7, bbox=behind, zorder=4)
        ax.errorbar(first["value"], range(len(first)), xerr=_whiskers(first), color=BLACK, linestyle="none", **WHISKERS)
        ax.axvline(papers[0][0] / inspected, **DASHED | {"zorder": 3})
        names = [f"{student} ({n:,})" for student, n in first["n"].items()]
        ax.set_yticks(range(len(shares)), [*names, *shares.index[len(first) :]])
        ax.set(title=title, xlabel="Share of failures (%)", xlim=(0, 1), ylim=(len(shares) - 0.5, -0.5))
        _percent(ax.xaxis)
        ax.tick_params(axis="y", length=0)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), handlelength=1.2)
    return fig


# Notebook 13: ReAugKD

QUARTERS = 4  # groups of questions in `plot_where`
SPACE_LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D"), (RED, "X"), (PINK, "P"))  # of a label in `plot_spaces`


@mpl.rc_context(LOOK)
def plot_spaces(table: pd.DataFrame) -> Figure:
    """Embeddings on the memory's first two principal components, a panel for each method, a marker for each label.

    Metrics "first_component" and "second_component" with the knob "example", whose `x` is the example's number and `at`
    its label; "nearest_shares_label" stands in the title. Raises FigureError if one is missing.
    """
    _need(table, "first_component", "second_component", "nearest_shares_label")
    shares = measured(table).query("metric == 'nearest_shares_label'").set_index("method")["value"]
    looks = dict(zip(dict.fromkeys(table.loc[table["at"] != "", "at"]), SPACE_LOOKS, strict=False))
    methods = _methods(table)
    fig, axes = _panels(len(methods), 2.9, sharex=True, sharey=True)
    for ax, method in zip(axes, methods, strict=True):
        for name, (color, marker) in looks.items():
            rows = table[(table["method"] == method) & (table["at"] == name)].sort_values("x")
            x, y = (rows.loc[rows["metric"] == f"{nth}_component", "value"] for nth in ("first", "second"))
            ax.scatter(x, y, s=14, color=color, marker=marker, alpha=0.8, linewidths=0, label=name)
        ax.set(title=f"{label(method)}\nnearest of its label: {100 * shares[method]:.0f} %", xlabel="First component")
    axes[0].set_ylabel("Second component")
    _legend_below(fig, len(looks), axes[:1])
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
        if missing := set(ticks) - set(table.loc[table["knob"] == knob, "x"]):
            raise FigureError(f"nothing to draw: no gain has the knob {knob} and the x {min(missing)}")
    fig, axes = plt.subplots(1, 2, figsize=(PAGE, 2.2), sharey=True)
    for ax, (knob, (title, first, last)) in zip(axes, panels.items(), strict=True):
        rows = table[table["knob"] == knob]
        _draw(ax, "reaugkd", rows["x"], _in_points(rows), linestyle="none")
        ax.axhline(0, **DASHED)
        ax.set(title=title, xlabel=f"Quarter of the questions (n = {_sizes(rows)})", xlim=(0.5, QUARTERS + 0.5))
        ax.set_xticks(ticks, [f"1 ({first})", *map(str, ticks[1:-1]), f"{QUARTERS} ({last})"])
        ax.grid(axis="y")
    axes[0].set_ylabel("Gain from retrieval (points)")
    return fig


# Notebook 18: what ReAugKD's memory costs


@mpl.rc_context(LOOK)
def plot_compression(table: pd.DataFrame) -> Figure:
    """What compressing ReAugKD's knowledge base costs in accuracy, against its size: a dot for each seed, and the mean.

    `method` is a kind of compression, its knob "kept", its metrics "accuracy" of single seeds and "bytes". Drawn is the
    difference from the whole base ("full") of the same seed; dashed that of "reaugkd_no_retrieval". Raises FigureError
    if no kind has both rows.
    """
    size, accuracy = table[table["metric"] == "bytes"], table[(table["metric"] == "accuracy") & table["seed"].notna()]
    whole = accuracy[accuracy["method"] == "full"].set_index("seed")["value"]
    accuracy = accuracy.assign(change=100 * (accuracy["value"] - accuracy["seed"].map(whole)))
    points = accuracy.merge(size[["method", "x", "value"]], on=["method", "x"], suffixes=("", "_of_base"))
    if points.empty:
        raise FigureError("nothing to draw: no kind of knowledge base has rows accuracy, of single seeds, and bytes")
    points = points.assign(kib=points["value_of_base"] / 1024)
    fig, ax = plt.subplots(figsize=(COLUMN, 2.7))
    for method in _methods(points):
        rows, dot = points[points["method"] == method], _dot(method)
        means = rows.groupby("kib")["change"].mean()
        ax.plot(rows["kib"], rows["change"], **dot | {"markersize": 2.5, "alpha": 0.5, "label": ""})
        ax.plot(means.index, means, **dot | {"linestyle": REGISTRY[method].line or "none"})
    for without in accuracy[accuracy["method"] == "reaugkd_no_retrieval"].groupby("method")["change"].mean():
        ax.axhline(without, label="without retrieval", **DASHED)
    prototypes = points[points["method"] == "prototypes"]
    for _, same in prototypes.groupby((10 * np.log(prototypes["kib"])).round()):  # of about one size: one label
        text = ", ".join(f"{100 * kept:g} %" for kept in sorted(same["x"].unique()))
        at = (same["kib"].max(), same["change"].min())
        ax.annotate(text, at, (0, -4), textcoords="offset points", ha="center", va="top", fontsize=7)
    ax.set_xscale("log")
    ax.margins(x=0.1, y=0.2)
    _log_ticks(ax.xaxis, most=6)
    ax.set(xlabel="Size of the knowledge base (KiB)", ylabel="Change of accuracy (points)")
    ax.grid(axis="y")
    _legend_below(fig, columns=2)
    return fig


@mpl.rc_context(LOOK)
def plot_latency(table: pd.DataFrame) -> Figure:
    """What looking up costs against the entries of the knowledge base: a line for each search and student.

    Metrics "latency_overhead" (a panel for each batch size, `at`), "recall" and "bytes" with the knob "entries". The
    recall of exact search, which is 1, is not drawn. Raises FigureError if there is no overhead.
    """
    _need(table, "latency_overhead")
    overhead, graph = table[table["metric"] == "latency_overhead"], table[table["method"] == "reaugkd"]
    panels = {
        f"Latency overhead, {at} (%)": (100.0, overhead[overhead["at"] == at]) for at in dict.fromkeys(overhead["at"])
    }
    panels["Recall of the nearest 16 (%)"] = (100.0, graph[graph["metric"] == "recall"])
    panels["Memory (MiB)"] = (1 / 2**20, table[table["metric"] == "bytes"])
    colors = dict(zip(dict.fromkeys(overhead["student"]), (BLUE, ORANGE, GREEN, RED), strict=False))
    (percent,) = find_table("reaugkd_latency").numbers("latency_overhead")
    fig, axes = plt.subplots(2, -(-len(panels) // 2), figsize=(PAGE, 4.4), squeeze=False)
    for ax, (title, (unit, part)) in zip(axes.flat, panels.items(), strict=False):
        for (student, method), rows in part.groupby(["student", "method"], sort=False):
            rows = rows.sort_values("x").assign(**{name: unit * rows[name] for name in ("value", "low", "high")})
            look = {"color": colors[student], "markerfacecolor": colors[student]}
            _draw(ax, method, rows["x"], rows, label=f"{student}: {label(method)}", **look)
        if part["metric"].eq("latency_overhead").any():
            ax.axhline(percent, label=f"the paper's {percent:g} %", **DASHED)
        ax.set_xscale("log")
        _log_ticks(ax.xaxis, most=5)
        if not part["metric"].eq("recall").any():
            ax.set_yscale("log")
            _log_ticks(ax.yaxis, most=8)
        ax.set(title=title, xlabel="Entries")
        ax.grid(axis="y")
    _legend_below(fig, columns=2)
    return fig


# Notebooks 14 and 16: claims, and the paper beside its code

VERDICTS = {  # marker and colour; the same markers in greyscale
    "reproduced": ("o", BLUE),
    "undecided": ("s", GREY),
    "not reproduced": ("X", RED),
    "not told": ("|", GREY),
}
UNITS = {"hits": "Gain in Hits@k (points)", "accuracy": "Gain in accuracy (points)",
         "accuracy_of_rationale": "Gain in what rationales conclude rightly (points)",
         "true_statements": "Gain in true statements (points)"}  # fmt: skip


@mpl.rc_context(LOOK)
def plot_claims(table: pd.DataFrame) -> Figure:
    """Gains that claims are tested on: a panel for each of `UNITS`, a row a claim (`method`), a line for each case.

    Beside the house's columns there is "where", the place in the paper, "verdict", empty for a paper's own gain, and
    "could_fail": claims none of whose tests could are left out, if there are others. The paper's own gains are a band
    behind ours, for they are of other tasks. Raises FigureError if there are no rows.
    """
    if table.empty:
        raise FigureError("nothing to draw: no claim has a gain, neither ours nor the paper's")
    tested = table[(table["verdict"] != "") & table["could_fail"]]
    table = table[table["method"].isin(tested["method"])] if len(tested) else table[table["verdict"] == ""]
    table = table[table["could_fail"]]
    first = table["metric"].where(table["metric"].isin(UNITS), table["metric"].str.split("_").str[0])
    parts = [(title, table[first == unit]) for unit, title in UNITS.items() if (first == unit).any()]
    rows = [_stack_claims(part) for _, part in parts]
    heights = [max(bottom for _, bottom in stack.values()) for stack in rows]
    height = 0.5 + 0.5 * len(parts) + 0.096 * sum(heights)
    fig, axes = plt.subplots(len(parts), 1, figsize=(PAGE, height), height_ratios=heights, squeeze=False)
    for ax, (unit, part), stack in zip(axes.flat, parts, rows, strict=True):
        _claims_panel(ax, part, stack)
        ax.set_xlabel(unit)
    handles = {name: handle for ax in axes.flat for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    order = [name for name in ("The paper's", *(f"Ours: {verdict}" for verdict in VERDICTS)) if name in handles]
    fig.legend([handles[name] for name in order], order, loc="outside lower center", ncols=4, handletextpad=0.5)
    return fig


def _stack_claims(part: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Claim -> top and bottom of its row, which has a line for each of its cases, at least one."""
    heights = part["verdict"].ne("").groupby(part["method"], sort=False).sum().clip(lower=1) + 0.6
    return dict(zip(heights.index, zip(heights.cumsum() - heights, heights.cumsum(), strict=True), strict=True))


def _claims_panel(ax: Axes, part: pd.DataFrame, stack: Mapping[str, tuple[float, float]]) -> None:
    """Claims below each other; the student of a case, and what else tells it from others, stands on the right."""
    ax.axvline(0, **THIN)
    for i, (claim, (top, bottom)) in enumerate(stack.items()):
        if i % 2 == 0:
            ax.axhspan(top, bottom, color="0.96", zorder=0)
        of_claim = part[part["method"] == claim]
        paper, ours = 100 * of_claim.loc[of_claim["verdict"] == "", "value"], of_claim[of_claim["verdict"] != ""]
        ax.fill_betweenx([top + 0.1, bottom - 0.1], paper.min(), paper.max(), color=GREEN, alpha=0.15, linewidth=0)
        ax.vlines(paper, top + 0.1, bottom - 0.1, color=GREEN, linewidth=0.8, alpha=0.6, zorder=1, label="The paper's")
        for n, case in enumerate(to_rows(ours)):
            (marker, color), y = VERDICTS[case["verdict"]], top + 0.8 + n
            gain = _in_points(ours.iloc[[n]])
            ax.errorbar(
                gain["value"], [y], xerr=_whiskers(gain), linestyle="none", marker=marker, color=color, markersize=3.4,
                zorder=3, label=f"Ours: {case['verdict']}", **WHISKERS | {"capsize": 1.4},
            )  # fmt: skip
            told = [case["student"], case["at"] if ours["at"].nunique() > 1 else ""]
            told += [f"{case['knob']} = {case['x']:g}"] if ours["x"].nunique() > 1 else []
            at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 6, "color": color}
            ax.annotate(", ".join(filter(None, told)), (1.01, y), **at)
    labels = part.drop_duplicates("method").set_index("method")["where"]
    ax.set_yticks([sum(ends) / 2 for ends in stack.values()], [f"{claim} ({labels[claim]})" for claim in stack])
    ax.tick_params(axis="y", length=0, labelsize=7)
    ax.set_ylim(max(bottom for _, bottom in stack.values()), 0)
    ax.grid(axis="x")


@mpl.rc_context(LOOK)
def plot_differences(table: pd.DataFrame) -> Figure:
    """What each difference changes, in points with 95 % intervals: a panel for every measure, a line for a difference.

    Gains with the knob "difference". Raises FigureError if there are none.
    """
    table = gained(table)
    table = table[table["knob"] == "difference"]
    if table.empty:
        raise FigureError("nothing to draw: no row is a gain with the knob difference")
    names, panels = list(dict.fromkeys(table["at"])), list(dict.fromkeys(table["metric"]))
    fig, axes = _panels(len(panels), 0.8 + 0.28 * len(names), sharex=True, sharey=True)
    for ax, metric in zip(axes, panels, strict=True):
        rows = table[table["metric"] == metric]
        ax.axvline(0, **THIN)
        _draw_across(ax, "kard_reranker", _in_points(rows), [names.index(name) for name in rows["at"]])
        ax.set(title=MEASURES[metric], xlabel="Change (points)")
        ax.grid(axis="x")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return fig
