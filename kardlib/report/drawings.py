"""All drawings, in the order of the notebooks: each makes a figure in the one look from a table of `long_form`."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogLocator, StrMethodFormatter

from kardlib.report.figures import (
    BLACK,
    BLOCKS,
    BLUE,
    COLUMN,
    GREEN,
    GREY,
    LOOK,
    METHOD_LABEL,
    METHOD_STYLE,
    ORANGE,
    PAGE,
    PINK,
    RED,
    SHARE,
    FigureError,
)

# What drawings share

# a line to compare with, behind what was measured
THIN: dict[str, Any] = {"color": "0.45", "linewidth": 0.9, "zorder": 1}
DASHED = THIN | {"linestyle": (0, (4, 3))}


def _need(table: pd.DataFrame, *metrics: str) -> None:
    if missing := [metric for metric in metrics if not (table["metric"] == metric).any()]:
        raise FigureError(f"nothing to draw: no row has the metric {missing[0]}")


def _methods(table: pd.DataFrame) -> list[str]:
    """The methods of a table, in the papers' order. Raises FigureError for one without a style."""
    if unknown := set(table["method"]) - set(METHOD_STYLE):
        raise FigureError(f"there is no style for the method {min(unknown)!r}; add it to figures.METHOD_STYLE")
    return [method for method in METHOD_LABEL if (table["method"] == method).any()]


def _sizes(table: pd.DataFrame) -> str:
    return ", ".join(f"{n:,}" for n in sorted(table["n"].dropna().unique())) or "?"


def _panels(count: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """Panels side by side: one is as wide as a column, more are as wide as a page."""
    width = COLUMN if count == 1 else PAGE
    fig, axes = plt.subplots(1, count, figsize=(width, height), squeeze=False, **options)
    return fig, list(axes[0])


def _whiskers(rows: pd.DataFrame) -> np.ndarray:
    """Distances from the value down to `low` and up to `high`, (2, rows); zero where there is no interval."""
    value = rows["value"].to_numpy()
    return np.nan_to_num(np.stack([value - rows["low"].to_numpy(), rows["high"].to_numpy() - value]))


def _look(method: str) -> dict[str, Any]:
    style = METHOD_STYLE[method]
    return {
        "color": style.color, "marker": style.marker, "markersize": 6.5 if style.marker == "*" else 4.2,
        "markerfacecolor": "white" if style.hollow else style.color, "label": METHOD_LABEL[method],
        "elinewidth": 1.0, "capsize": 2.2, "capthick": 1.0, "zorder": 3,
    }  # fmt: skip


def _draw(ax: Axes, method: str, x: Any, rows: pd.DataFrame, **options: Any) -> None:
    """A method's values at `x`, with their intervals as whiskers, joined by its line; `options` are errorbar's."""
    style = {"linestyle": METHOD_STYLE[method].line} | _look(method)
    ax.errorbar(x, rows["value"], yerr=_whiskers(rows), **style | options)


def _draw_across(ax: Axes, method: str, rows: pd.DataFrame, y: Any) -> None:
    """A method's values as dots in the rows `y`."""
    ax.errorbar(rows["value"], y, xerr=_whiskers(rows), linestyle="none", **_look(method))


def _draw_by_k(ax: Axes, table: pd.DataFrame, unit: float = 1) -> None:
    """A line against `k`, in `unit`s, for each method that has a style."""
    table = table[table["method"].isin(METHOD_STYLE)]
    for method in _methods(table):
        rows = table[table["method"] == method].sort_values("k")
        _draw(ax, method, rows["k"].astype(float) / unit, rows)


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


def _aside(i: int, methods: list[str], ticks: list[float]) -> float:
    """What to multiply the i-th method's `x` with, so that whiskers stand side by side on a logarithmic axis."""
    span = max(10.0, ticks[-1] / ticks[0])
    return span ** (0.02 * (i - (len(methods) - 1) / 2))


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
    """One legend for all panels, each label once, methods in the papers' order."""
    shown: dict[str, Any] = {}
    for ax in axes or fig.axes:
        shown |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    ranks = {label: i for i, label in enumerate(METHOD_LABEL.values())}
    labels = sorted(shown, key=lambda label: ranks.get(label, len(ranks)))
    fig.legend(
        [shown[label] for label in labels], labels, loc="outside lower center",
        ncols=min(columns, len(labels)), handlelength=2.6, columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip


# Notebook 01: what the bound says


@mpl.rc_context(LOOK)
def plot_learners(table: pd.DataFrame) -> Figure:
    """Learners without a knowledge base: error and bits stored against samples, and error against a budget of bits.

    Metrics "error_samples" and "bits_samples" (`k`: samples), "error_budget" (`k`: bits). The methods "theorem_1"
    (the rate n d) and "floor" (the least error at a budget) are drawn as plain lines. Raises FigureError for no rows.
    """
    _need(table, "error_samples", "bits_samples", "error_budget")
    fig, (error, bits, budget) = plt.subplots(1, 3, figsize=(PAGE, 2.7))
    rate = table[table["metric"] == "rate"]["value"].item()
    for ax, metric in ((error, "error_samples"), (bits, "bits_samples"), (budget, "error_budget")):
        _draw_by_k(ax, table[table["metric"] == metric], rate if ax is budget else 1)
    line = table[(table["method"] == "theorem_1") & (table["metric"] == "bits_samples")].sort_values("k")
    bits.plot(line["k"].astype(float), line["value"], color=BLACK, linewidth=1, linestyle=(0, (5, 2)))
    middle = line.iloc[len(line) // 2]
    bits.annotate("n d", (middle["k"], middle["value"]), (-3, 2), textcoords="offset points", ha="right")
    floor = table[table["method"] == "floor"].sort_values("k")
    x = floor["k"].astype(float) / rate
    budget.plot(x, floor["value"], color=BLACK, linewidth=1, linestyle=(0, (1, 1)), label="Least error for any learner")
    budget.axvline(1, color=BLACK, linewidth=1, linestyle=(0, (5, 2)), label="Theorem 1's rate, n d")
    for ax in (error, bits):
        ax.set_xscale("log", base=2)
        ticks = sorted(table.loc[table["metric"] == "error_samples", "k"].unique())
        ax.set_xticks(ticks, [str(k) if i % 2 else "" for i, k in enumerate(ticks)])
        ax.set_xlabel("Samples, n")
    bits.set_yscale("log")
    error.set(title="(a) Error of the optimal learner")
    bits.set(title="(a) Bits that it stores", ylabel="Bits")
    budget.set(title="(b) Error against budget", xlabel="Budget / (n d)", xlim=(-0.03, 1.06))
    for ax in (error, budget):
        ax.set_ylabel("Error (%)")
        _percent(ax.yaxis)
    for ax in (error, bits, budget):
        ax.grid(axis="y")
    _legend_below(fig, 3)
    return fig


SWEEPS = {  # styles for the sizes of a sweep, from small to large: no reader's, and not the other sweep's
    "N": [("#DDA6C5", "v", ":"), (PINK, "^", "--"), ("#7A3A60", "<", "-.")],
    "R": [("#ABABAB", "1", ":"), (GREY, "2", "--"), (BLACK, "3", "-.")],
}


@mpl.rc_context(LOOK)
def plot_keys(table: pd.DataFrame, middle: str) -> Figure:
    """Readers of a knowledge base against the key's length, one panel a question; `middle` is the task of all sweeps.

    Metrics "error_keys" and "excess_keys" (`k`: bits of the key, `student`: the task as "N=.. d=.. R=.."), and
    "m_eps..": Theorem 2's m (dashed). A table of one task is drawn as two panels. Raises FigureError for no rows.
    """
    _need(table, "error_keys", "excess_keys")
    tasks = list(dict.fromkeys(table.loc[table["metric"] == "error_keys", "student"]))
    sizes = {task: [part.split("=")[1] for part in task.split()] for task in tasks}  # N, d, R
    at = sizes[middle]
    sweeps = {  # what varies -> tasks in which nothing else does
        "N": sorted((t for t in tasks if sizes[t][2] == at[2]), key=lambda t: int(sizes[t][0])),
        "R": sorted((t for t in tasks if sizes[t][0] == at[0]), key=lambda t: int(sizes[t][2])),
    }
    panels = len(sweeps) + 2 if len(tasks) > 1 else 2
    fig, axes = plt.subplots(panels // 2, 2, figsize=(PAGE, 2.4 * (panels // 2) + 0.3), squeeze=False)
    errors, excess = axes[-1]
    eps = min(set.intersection(*(set(_thresholds(table, task)) for task in tasks)))
    for ax, (name, swept) in zip(axes[0] if panels > 2 else (), sweeps.items(), strict=False):
        others = iter(SWEEPS[name])  # the task of all panels looks in each as it does in the panel of readers
        for task in swept:
            color, marker, line = METHOD_STYLE["read_key"][:3] if task == middle else next(others)
            rows = table[(table["student"] == task) & (table["method"] == "read_key")]
            rows = rows[rows["metric"] == "error_keys"].sort_values("k")
            label = f"{name} = {int(sizes[task]['NdR'.index(name)]):,}"
            look = {"color": color, "marker": marker, "linestyle": line, "markersize": 3.6}
            ax.plot(rows["k"], rows["value"], markevery=3, label=label, **look)
            ax.fill_between(rows["k"].astype(float), rows["low"], rows["high"], color=color, alpha=0.25, linewidth=0)
            ax.axvline(_thresholds(table, task)[eps], color=color, linestyle=line, linewidth=1)
        first = min(_thresholds(table, task)[eps] for task in swept)
        said = f"Theorem 2's m, $\\epsilon$ = {eps:g}"
        ax.annotate(said, (first, 0.49), (-4, 0), textcoords="offset points", ha="right", va="top", fontsize=7)
        other = "R" if name == "N" else "N"
        ax.set_title(f"Key reader, several {name} ({other} = {at['NdR'.index(other)]})")
        ax.legend(loc="lower left", handlelength=2.6)
    part = table[table["student"] == middle]
    for method in _methods(part[part["method"].isin(METHOD_STYLE)]):
        rows = part[(part["method"] == method) & (part["metric"] == "error_keys")].sort_values("k")
        style = METHOD_STYLE[method]
        if rows["k"].isna().all():
            errors.axhline(rows["value"].item(), color=style.color, linestyle=style.line, label=METHOD_LABEL[method])
            continue
        _draw(errors, method, rows["k"], rows, markevery=3, errorevery=3)
        rows = part[(part["method"] == method) & (part["metric"] == "excess_keys")].sort_values("k")
        rows = rows[rows["value"] > 0]
        _draw(excess, method, rows["k"], rows, markevery=3, errorevery=3)
    for eps, m in _thresholds(table, middle).items():
        excess.plot([0, m, m], [eps, eps, 1e-6], color=BLACK, linewidth=0.9, linestyle=(0, (4, 2)))
        excess.annotate(f"$\\epsilon$ = {eps:g}", (m, eps), (6, 0), textcoords="offset points", va="center", fontsize=7)
        excess.plot([m], [eps], color=BLACK, marker="x", markersize=5)
    excess.set_yscale("log")
    lowest = part.loc[(part["metric"] == "excess_keys") & (part["value"] > 0), "value"].min()
    excess.set(
        title="Error above that with whole strings",
        ylabel="Excess error (%)",
        ylim=(np.fmin(lowest, eps) / 2, 1),
        xlim=(-1, 7 + max(_thresholds(table, middle).values())),
    )
    errors.set_title("Readers" + "".join(f", {n} = {v}" for n, v in zip("NdR", at, strict=True)))
    for ax in axes.flat:
        ax.set_xlabel("Key length, m (bits)")
        ax.grid(axis="y")
        _percent(ax.yaxis)
        if ax is not excess:
            ax.set(ylabel="Error (%)", ylim=(0, 0.52))
    _legend_below(fig, 4, [errors])
    return fig


def _thresholds(table: pd.DataFrame, task: str) -> dict[float, float]:
    """eps -> Theorem 2's m, of one task."""
    rows = table[(table["student"] == task) & table["metric"].str.startswith("m_eps")]
    return {float(metric.removeprefix("m_eps")): m for metric, m in zip(rows["metric"], rows["value"], strict=True)}


@mpl.rc_context(LOOK)
def plot_growth(table: pd.DataFrame) -> Figure:
    """Bits that each learner needs against the length of a string (`k`), both logarithmic; the metric is "bits".

    The methods "theorem_1" and "theorem_2" are plain lines. Raises FigureError for no rows.
    """
    _need(table, "bits")
    part = table[table["metric"] == "bits"]
    fig, ax = plt.subplots(figsize=(COLUMN, 3.3))
    _draw_by_k(ax, part)
    for method, label, line in (
        ("theorem_1", "Theorem 1, n d", (0, (5, 2))),
        ("theorem_2", "Theorem 2, n m", (0, (1, 1))),
    ):
        rows = part[part["method"] == method].sort_values("k")
        ax.plot(rows["k"], rows["value"], color=BLACK, linewidth=1, linestyle=line, label=label)
    ax.set_xscale("log", base=2)
    ax.set_yscale("symlog", linthresh=100, linscale=0.4)  # a reader may need no bit at all
    ks = sorted(part["k"].unique())
    ax.set_xticks(ks, [str(k) if i % 2 == 0 else "" for i, k in enumerate(ks)])
    ax.set(xlabel="Length of a string, d (bits)", ylabel="Bits needed")
    ax.set_ylim(bottom=-15)
    ax.grid(axis="y")
    _legend_below(fig, 2)
    return fig


@mpl.rc_context(LOOK)
def plot_networks(table: pd.DataFrame) -> Figure:
    """Errors of networks on the bits that they were shown ("error_shown") against n d (`k`).

    The line is where the samples show as many bits as the network alone held at best ("bits_shown", "bits_held").
    Raises FigureError for no rows.
    """
    _need(table, "error_shown")
    part = table[(table["metric"] == "error_shown") & table["seed"].isna()]
    fig, ax = plt.subplots(figsize=(COLUMN, 2.6))
    _draw_by_k(ax, part)
    held = table[(table["method"] == "network") & (table["metric"] == "bits_held")]
    best = held.loc[held["value"].idxmax()]
    shown = table[(table["metric"] == "bits_shown") & (table["k"] == best["k"])]["value"].item()
    ax.axvline(
        best["value"] / shown * best["k"], color=BLACK, linewidth=1, linestyle=(0, (4, 3)), label="What it can hold"
    )
    ax.set_xscale("log", base=2)
    ks = sorted(part["k"].unique())
    ax.set_xticks(ks, [f"{k:,}" for k in ks], rotation=30)
    ax.set(xlabel="n d (bits)", ylabel="Error on shown bits (%)")
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
    table = table[table["seed"].isna()]
    panels = [metric for metric in HITS_TITLES if (table["metric"] == metric).any()]
    if not panels:
        raise FigureError(f"nothing to draw: no row has the metric {' or '.join(HITS_TITLES)}")
    fig, axes = _panels(len(panels), 2.5, sharey=True)
    methods = _methods(table)
    for ax, metric in zip(axes, panels, strict=True):
        _hits_panel(ax, table[table["metric"] == metric], methods)
    axes[0].set_ylabel("Hits@k (%)")
    _percent(axes[0].yaxis)
    _legend_below(fig, columns=2 * len(panels))
    return fig


def _hits_panel(ax: Axes, table: pd.DataFrame, methods: list[str]) -> None:
    ks = sorted(table["k"].unique())
    for i, method in enumerate(methods):
        rows = table[table["method"] == method].sort_values("k")
        _draw(ax, method, rows["k"].astype(float) * _aside(i, methods, ks), rows)
    _log_x(ax, ks)
    title = "".join(HITS_TITLES[metric] for metric in table["metric"].unique())
    ax.set(title=f"{title} (n = {_sizes(table)})", xlabel="Passages looked at, k")
    ax.grid(axis="y")


# Notebook 04: methods beside each other (also 13 and 15)

CHANCE_ROW = 0.5  # rows below the last one, for the word beside the dashed line


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
    height = 0.8 + 0.19 * (max(places.values()) + CHANCE_ROW * len(chance))
    fig, axes = _panels(len(students), height, sharex=True, sharey=True)
    for ax, student in zip(axes, students, strict=True):
        _accuracy_panel(ax, table[table["student"] == student], places, chance)
        ax.set(title=student)
    return fig


def _places(methods: list[str]) -> dict[str, float]:
    """The height of each method's row; blocks stand half a row apart."""
    places, height = {}, 0.0
    for block in BLOCKS:
        for method in [m for m in block if m in methods]:
            places[method] = height
            height += 1
        height += 0.5 * any(m in methods for m in block)
    return places


def _accuracy_panel(ax: Axes, table: pd.DataFrame, places: Mapping[str, float], chance: pd.Series) -> None:
    ax.grid(axis="x")
    for value in chance:
        ax.axvline(value, **DASHED)
        below = ("data", "axes fraction")
        ax.annotate(" chance", (value, 0.01), xycoords=below, va="bottom", fontsize=7, color="0.35")
    for method, place in places.items():
        rows = table[table["method"] == method]
        _draw_across(ax, method, rows, [place] * len(rows))
        _print_values(ax, rows["value"], [place] * len(rows))
    ax.set(xlabel="Accuracy (%)", ylim=(max(places.values()) + 0.6 + CHANCE_ROW * len(chance), -0.6))
    _percent(ax.xaxis)
    ax.set_yticks(list(places.values()), [METHOD_LABEL[method] for method in places])
    ax.tick_params(axis="y", length=0)


# Notebooks 05 to 12: ablations and comparisons

KNOB = re.compile(r"(?P<measure>.+) at (?P<knob>.+) = (?P<x>[\d.]+)")

MEASURES = {  # titles of panels, in their order
    "accuracy": "Accuracy (%)",
    "accuracy, equal steps": "Accuracy, equal steps (%)",
    "hits_gold": "Hits, gold (%)",
    "hits_silver": "Hits, silver (%)",
    "gold among read": "Gold among passages read (%)",
    "milliseconds": "Milliseconds a question",
}


@mpl.rc_context(LOOK)
def plot_knob(table: pd.DataFrame, label: str) -> Figure:
    """Measures against a knob: one panel for each of `MEASURES`, one line per method, `label` below.

    A label that ends in "(%)" says that the knob is a share, which is shown in per cent.
    Rows whose metric reads like "accuracy at l = 3" and whose seed is empty; the method "chance" is a dashed line.
    Raises FigureError if there are none.
    """
    table = table[table["seed"].isna()]
    chance = table.loc[table["method"] == "chance", "value"]
    table = table.join(table["metric"].str.extract(f"^{KNOB.pattern}$"))
    table = table[table["measure"].isin(MEASURES)].assign(x=lambda t: t["x"].astype(float))
    if table.empty:
        raise FigureError('nothing to draw: no row has a metric like "accuracy at l = 3" and an empty seed')
    panels = [measure for measure in MEASURES if (table["measure"] == measure).any()]
    fig, axes = _panels(len(panels), 2.4)
    ticks = sorted(table["x"].unique())
    for ax, measure in zip(axes, panels, strict=True):
        if measure.startswith("accuracy") and ax is not axes[0]:
            ax.sharey(axes[0])  # accuracies are compared across panels
        part = table[table["measure"] == measure]
        methods = _methods(part)
        for i, method in enumerate(methods):
            rows = part[part["method"] == method].sort_values("x")
            _draw(ax, method, rows["x"] * _aside(i, methods, ticks), rows)
        for value in chance if measure.startswith("accuracy") else ():
            ax.axhline(value, label=METHOD_LABEL["chance"], **DASHED)
        _log_x(ax, ticks, unit=100 if label.endswith("(%)") else 1)
        ax.set(title=MEASURES[measure], xlabel=label)
        ax.grid(axis="y")
        if MEASURES[measure].endswith("(%)"):
            _percent(ax.yaxis)
        else:
            ax.set_ylim(0, 1.06 * part[["value", "high"]].max(axis=None))  # from zero, with room for the highest marker
    _legend_below(fig, columns=2 if len(panels) == 1 else 4)
    return fig


@mpl.rc_context(LOOK)
def plot_students(table: pd.DataFrame) -> Figure:
    """Accuracy of methods against the student's size, and the gains that a row's metric names, a panel each.

    Rows whose seed is empty and whose metric is "accuracy" or "gain in accuracy over ..."; students as they come.
    """
    table = table[table["seed"].isna()]
    students = list(dict.fromkeys(table["student"]))
    gains = [m for m in dict.fromkeys(table["metric"]) if str(m).startswith("gain in accuracy over")]
    fig, axes = plt.subplots(1, 2, figsize=(PAGE, 2.5))
    panels = [("accuracy", method, axes[0], METHOD_LABEL[method]) for method in _methods(table)]
    for metric in gains:
        rival = metric.removeprefix("gain in accuracy over ")
        panels.append((metric, rival, axes[1], f"over {METHOD_LABEL[rival]}"))
    for i, (metric, method, ax, label) in enumerate(panels):
        rows = table[(table["metric"] == metric) & ((table["method"] == method) | (ax is axes[1]))]
        places = [students.index(s) + 0.04 * (i % 4 - 1.5) for s in rows["student"]]
        _draw(ax, method, places, rows, label=label)
    axes[0].set(title="Accuracy (%)")
    axes[1].set(title="Gain of KARD (reranker), points")
    axes[1].axhline(0, color="0.45", linewidth=0.9)
    for ax in axes:
        ax.set_xticks(range(len(students)), students)
        ax.set_xlim(-0.35, len(students) - 0.65)
        _percent(ax.yaxis)
        ax.grid(axis="y")
        ax.legend(fontsize=7)
    return fig


@mpl.rc_context(LOOK)
def plot_corpora(table: pd.DataFrame) -> Figure:
    """Accuracy after training on a corpus (DAPT), a group for each corpus; the method "chance" is a dashed line.

    Rows whose metric reads like "accuracy at corpus = own" and whose seed is empty.
    """
    chance = table.loc[table["method"] == "chance", "value"]
    table = table[table["seed"].isna() & table["metric"].str.startswith("accuracy at corpus = ")]
    table = table.assign(corpus=table["metric"].str.removeprefix("accuracy at corpus = "))
    corpora = list(dict.fromkeys(table["corpus"]))
    fig, ax = plt.subplots(figsize=(COLUMN, 3.0))
    for method in _methods(table):
        rows = table[table["method"] == method]
        places = [corpora.index(c) + (0.08 if "kard" in method else -0.08) for c in rows["corpus"]]
        _draw(ax, method, places, rows, linestyle="none")
    for value in chance:
        ax.axhline(value, label=METHOD_LABEL["chance"], **DASHED)
    ax.set_xticks(range(len(corpora)), corpora)
    ax.set(xlabel="Corpus of the first stage", ylabel="Accuracy (%)", xlim=(-0.5, len(corpora) - 0.5))
    _percent(ax.yaxis)
    ax.grid(axis="y")
    _legend_below(fig, columns=1)
    return fig


@mpl.rc_context(LOOK)
def plot_rag(table: pd.DataFrame) -> Figure:
    """Accuracy of methods beside the Hits@k of the retrievers they read from: what the student makes of what is found.

    Rows as for `plot_main` (one student) and `plot_hits`. Raises FigureError if either is missing.
    """
    table = table[table["seed"].isna()]
    accuracy, chance = table[table["metric"] == "accuracy"], table.loc[table["method"] == "chance", "value"]
    accuracy = accuracy[accuracy["method"] != "chance"]
    found = table[table["metric"].isin(HITS_TITLES)]
    if accuracy.empty or found.empty:
        raise FigureError("nothing to draw: rows with the metric accuracy and with hits_gold or hits_silver are needed")
    places, methods = _places(_methods(accuracy)), _methods(found)
    fig, (left, *right) = plt.subplots(1, 3, figsize=(PAGE, 2.9), width_ratios=(1.0, 1.1, 1.1))
    _accuracy_panel(left, accuracy, places, chance)
    left.set(title=f"Answers (n = {_sizes(accuracy)})")
    right[1].sharey(right[0])
    right[1].tick_params(labelleft=False)
    for ax, metric in zip(right, HITS_TITLES, strict=True):
        _hits_panel(ax, found[found["metric"] == metric], methods)
        ax.set(title=HITS_TITLES[metric])
    right[0].set_ylabel("Hits@k (%)")
    _percent(right[0].yaxis)
    _legend_below(fig, 3, right)
    return fig


@mpl.rc_context(LOOK)
def plot_shares(table: pd.DataFrame) -> Figure:
    """What failures are due to: metrics "share of failures: ...", a dot with its interval each, one panel a student.

    Causes and students come in the order of the table; `n` is how many failures there were. Raises FigureError if
    there are none.
    """
    table = table[table["metric"].str.startswith(SHARE)]
    if table.empty:
        raise FigureError(f"nothing to draw: no row has a metric that starts with {SHARE!r}")
    causes, students = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["student"]))
    fig, axes = _panels(len(students), 1.5, sharex=True, sharey=True)
    for ax, student in zip(axes, students, strict=True):
        ax.grid(axis="x")
        rows = table[table["student"] == student]
        places = [causes.index(metric) for metric in rows["metric"]]
        for method in _methods(rows):
            _draw_across(ax, method, rows, places)
        _print_values(ax, rows["value"], places)
        ax.set(title=student, xlabel=f"Share of {_sizes(rows)} failures (%)", xlim=(-0.03, 1.03))
        _percent(ax.xaxis)
        ax.tick_params(axis="y", length=0)
    names = [metric.removeprefix(SHARE).capitalize().replace(" with", "\nwith") for metric in causes]
    axes[0].set_yticks(range(len(causes)), names)
    axes[0].set_ylim(len(causes) - 0.4, -0.6)
    return fig


# Notebook 13: ReAugKD

QUARTERS = 4  # groups of questions in `plot_where`


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
        _draw(ax, "reaugkd", ticks, _in_points(rows), linestyle="none")
        ax.axhline(0, **DASHED)
        ax.set(title=title, xlabel=f"Quarter of the questions (n = {_sizes(rows)})", xlim=(0.5, QUARTERS + 0.5))
        ax.set_xticks(ticks, [f"1 ({first})", *map(str, ticks[1:-1]), f"{QUARTERS} ({last})"])
        ax.grid(axis="y")
    axes[0].set_ylabel("Gain from retrieval (points)")
    return fig


COMPRESSIONS = {  # of ReAugKD's knowledge base
    "full": ("everything, fp32", "D"),
    "half": ("everything, fp16", "s"),
    "pq": ("product-quantised keys", "P"),
    "prototypes_100": ("100 %", "o"),
    "prototypes_20": ("20 %", "o"),
    "prototypes_5": ("5 %", "o"),
    "prototypes_1": ("1 %", "o"),
}


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
        larger = 0 if kind in prototypes else 1.8  # all prototypes and everything in fp16 are one point
        ax.errorbar(
            [size[kind]], rows[kind]["value"], yerr=_whiskers(rows[kind]), marker=marker, linestyle="none",
            markersize=4.2 + larger, elinewidth=1.0, capsize=2.2, zorder=3, **own,
        )  # fmt: skip
    for kind in prototypes:  # where classes are many, 1 % and 5 % are both one prototype a class: one label
        same = [other for other in prototypes if abs(size[other] / size[kind] - 1) < 0.1]
        if kind == same[0]:
            at = (size[kind], min(rows[other]["low"].item() for other in same))
            text = ", ".join(COMPRESSIONS[other][0] for other in reversed(same))
            ax.annotate(text, at, (0, -4), textcoords="offset points", ha="center", va="top", fontsize=7)
    if ("reaugkd_no_retrieval", "accuracy") in table.index:
        without = table.loc[("reaugkd_no_retrieval", "accuracy"), "value"]
        ax.axhline(without, label="without retrieval", **DASHED)
    ax.set_xscale("log")
    ax.margins(x=0.1, y=0.15)
    _log_ticks(ax.xaxis, most=6)
    ax.set(xlabel="Size of the knowledge base (KiB)", ylabel="Accuracy (%)")
    _percent(ax.yaxis)
    ax.grid(axis="y")
    fig.legend(loc="outside lower center", ncols=2, columnspacing=1.2, handletextpad=0.5)
    return fig


KNOWLEDGE_BASE = re.compile(r"(?P<measure>.+) at (?:batch = (?P<batch>\d+), )?entries = (?P<entries>\d+)")

SEARCHES = {"reaugkd": ("HNSW", "-", "o"), "reaugkd_exact": ("exact", ":", "s")}  # label, line, marker


@mpl.rc_context(LOOK)
def plot_latency(table: pd.DataFrame) -> Figure:
    """What looking up costs against the entries of the knowledge base: a line for each search and student.

    Metrics like "latency overhead at batch = 32, entries = 67000" (a panel for each batch size), "recall at entries =
    67000" and "bytes at entries = 67000" of the methods `SEARCHES`. The recall of exact search, which is 1, is not
    drawn. Raises FigureError if there is no overhead.
    """
    table = table[table["method"].isin(SEARCHES)]
    table = table.join(table["metric"].str.extract(f"^{KNOWLEDGE_BASE.pattern}$"))
    overhead = table[table["measure"] == "latency overhead"]
    if overhead.empty:
        raise FigureError('nothing to draw: no row has a metric like "latency overhead at batch = 32, entries = 67000"')
    panels = {
        f"Latency overhead, batch {batch} (%)": overhead[overhead["batch"] == batch]
        for batch in sorted(overhead["batch"].unique(), key=int)
    }
    graph = table[table["method"] == "reaugkd"]
    panels["Recall of the nearest 16 (%)"] = graph[graph["measure"] == "recall"]
    panels["Memory (MiB)"] = table[table["measure"] == "bytes"]
    colors = dict(zip(dict.fromkeys(table["student"]), (BLUE, ORANGE, GREEN, RED), strict=False))
    fig, axes = plt.subplots(2, -(-len(panels) // 2), figsize=(PAGE, 4.4), squeeze=False)
    for ax, (title, part) in zip(axes.flat, panels.items(), strict=False):
        scale = 1 / 2**20 if title.startswith("Memory") else 100
        for (student, method), rows in part.groupby(["student", "method"], sort=False):
            rows = rows.assign(entries=rows["entries"].astype(float)).sort_values("entries")
            search, line, marker = SEARCHES[method]
            ax.errorbar(
                rows["entries"], scale * rows["value"], yerr=scale * _whiskers(rows), label=f"{student}: {search}",
                color=colors[student], linestyle=line, marker=marker, markersize=4.2, elinewidth=1.0, capsize=2.2,
            )  # fmt: skip
        if "overhead" in title:
            ax.axhline(3, label="the paper's 3 %", **DASHED)
        ax.set_xscale("log")
        _log_ticks(ax.xaxis, most=5)
        if not title.startswith("Recall"):
            ax.set_yscale("log")
            _log_ticks(ax.yaxis, most=8)
        ax.set(title=title, xlabel="Entries")
        ax.grid(axis="y")
    _legend_below(fig, columns=3)
    return fig


# Notebooks 14 and 16: claims, and the paper beside its code

VERDICTS = {  # marker and colour; the same markers in greyscale
    "reproduced": ("o", BLUE),
    "undecided": ("s", GREY),
    "not reproduced": ("X", RED),
}


@mpl.rc_context(LOOK)
def plot_claims(table: pd.DataFrame) -> Figure:
    """Gains that claims are tested on, in points: one line a claim (`method`), its cases below each other.

    Beside the house's columns there is "where", the place in the paper, and "verdict", empty for a paper's own gain.
    Raises FigureError if there are no rows.
    """
    if table.empty:
        raise FigureError("nothing to draw: no claim has a gain, neither ours nor the paper's")
    claims = table.drop_duplicates("method")
    cases = [(table["method"] == claim) & (table["verdict"] != "") for claim in claims["method"]]
    ends = np.cumsum([max(1.0, 0.45 * (1 + case.sum())) for case in cases])
    starts = np.concatenate([[0.0], ends[:-1]])
    fig, ax = plt.subplots(figsize=(PAGE, 0.8 + 0.18 * ends[-1]))
    ax.axvline(0, **THIN)
    for i, (claim, start, end) in enumerate(zip(claims["method"], starts, ends, strict=True)):
        if i % 2 == 0:
            ax.axhspan(start, end, color="0.96", zorder=0)
        paper, ours = table[(table["method"] == claim) & (table["verdict"] == "")], table[cases[i]]
        lines = np.linspace(start, end, 2 * (1 + len(ours)) + 1)[1::2]  # the paper's, then one for each case
        ax.plot(
            100 * paper["value"], lines[:1].repeat(len(paper)), linestyle="none", marker="D", markersize=3.8,
            markerfacecolor="none", markeredgecolor=BLACK, markeredgewidth=0.8, label="The paper's", zorder=2,
        )  # fmt: skip
        for number, verdict in enumerate(ours["verdict"]):
            row, (marker, color) = ours.iloc[[number]], VERDICTS[verdict]
            ax.errorbar(
                100 * row["value"], lines[[1 + number]], xerr=100 * _whiskers(row), linestyle="none", marker=marker,
                color=color, markersize=3.6, elinewidth=1.0, capsize=1.6, label=f"Ours: {verdict}", zorder=3,
            )  # fmt: skip
    labels = [f"{claim} ({where})" for claim, where in zip(claims["method"], claims["where"], strict=True)]
    ax.set_yticks((starts + ends) / 2, labels)
    ax.tick_params(axis="y", length=0, labelsize=7)
    ax.set(ylim=(ends[-1], 0), xlabel="Gain (points)")
    ax.grid(axis="x")
    shown = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    order = [label for label in ("The paper's", *(f"Ours: {verdict}" for verdict in VERDICTS)) if label in shown]
    fig.legend([shown[label] for label in order], order, loc="outside lower center", ncols=4, handletextpad=0.5)
    return fig


@mpl.rc_context(LOOK)
def plot_differences(table: pd.DataFrame) -> Figure:
    """What each difference changes, in points with 95 % intervals: a panel for every measure, a line for a difference.

    Rows whose metric reads like "gain in accuracy at difference = a different prompt over the paper".
    """
    pattern = r"^gain in (?P<measure>\S+) at difference = (?P<difference>.+) over the paper$"
    table = table.join(table["metric"].str.extract(pattern)).dropna(subset="difference")
    if table.empty:
        raise FigureError("nothing to draw: no row is a gain at a difference over the paper")
    names, panels = list(dict.fromkeys(table["difference"])), list(dict.fromkeys(table["measure"]))
    fig, axes = _panels(len(panels), 0.8 + 0.28 * len(names), sharex=True, sharey=True)
    for ax, measure in zip(axes, panels, strict=True):
        rows = table[table["measure"] == measure]
        ax.axvline(0, **THIN)
        _draw_across(ax, "kard_reranker", _in_points(rows), [names.index(name) for name in rows["difference"]])
        ax.set(title=MEASURES.get(measure, measure).removesuffix(" (%)"), xlabel="Change (points)")
        ax.grid(axis="x")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return fig
