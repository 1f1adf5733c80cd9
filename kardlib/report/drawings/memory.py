"""Remember or read: what the memorisation bound says (notebook 01), and where reading overtakes (notebook 17)."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kardlib.data.world import STRATA
from kardlib.kard.memorization import Task
from kardlib.registry import BLACK, GREEN, GREY, PINK, RED, REGISTRY, label
from kardlib.report.drawings import style
from kardlib.report.figures import COLUMN, LOOK, PAGE
from kardlib.report.rows import measured, only


@mpl.rc_context(LOOK)
def plot_learners(table: pd.DataFrame) -> Figure:
    """Learners without a knowledge base: error and bits stored against samples, and error against a budget of bits.

    Metrics "error" and "bits" with the knob "samples", "error" with the knob "budget", and "rate", in which the budget
    is shown. Raises FigureError for no rows.
    """
    style.need_metrics(table, "error", "bits", "rate")
    fig, (error, bits, budget) = style.make_panels(3, 2.7)
    rate = only(table, metric="rate")["value"].item()
    samples = only(table, knob="samples")
    _draw_by_x(error, only(samples, metric="error"))
    _draw_by_x(bits, only(samples[samples["method"] != "theorem_1"], metric="bits"))
    _draw_by_x(budget, only(table, knob="budget"), rate)
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
        style.show_percent(ax.yaxis)
    for ax in (error, bits, budget):
        ax.grid(axis="y")
    style.legend_below(fig, 3)
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
    style.need_metrics(table, "error", "excess_keys", "m")
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
        style.show_percent(ax.yaxis)
        if ax is not excess:
            ax.set(ylabel="Error (%)", ylim=(0, 0.52))
    style.legend_below(fig, 4, [errors])
    return fig


def _sweep_panel(ax: Axes, table: pd.DataFrame, name: str, tasks: Sequence[Task], middle: Task) -> None:
    """The key reader's error in several tasks, each with Theorem 2's m for the eps that all of them have."""
    marks = {task: _thresholds(table, task) for task in tasks}
    eps = min(set.intersection(*map(set, marks.values())))
    others = iter(SWEEPS[name])  # the middle looks in each panel as it does in the panel of readers
    reader = REGISTRY["read_key"]
    for task in tasks:
        color, marker, line = (reader.color, reader.marker, reader.line) if task == middle else next(others)
        rows = only(table, student=str(task), method="read_key", metric="error").sort_values("x")
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
    part = only(table, student=str(task))
    above = only(part[part["value"] > 0], metric="excess_keys")
    for method, rows in style.by_method(only(part, metric="error")):
        rows = rows.sort_values("x")
        if rows["x"].isna().all():  # it reads no key
            entry = REGISTRY[method]
            errors.axhline(rows["value"].item(), color=entry.color, linestyle=entry.line, label=entry.label)
            continue
        style.draw_method(errors, method, rows["x"], rows, markevery=3, errorevery=3)
        rows = only(above, method=method).sort_values("x")
        style.draw_method(excess, method, rows["x"], rows, markevery=3, errorevery=3)
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
    rows = only(table, student=str(task), metric="m")
    return dict(zip(rows["x"], rows["value"], strict=True))


@mpl.rc_context(LOOK)
def plot_growth(table: pd.DataFrame) -> Figure:
    """Bits that each learner needs against the length of a string, both logarithmic, and Theorem 2's n m.

    Theorem 1's Omega(n d) has no constant, so that its slope alone is drawn: from the optimal learner's first point.
    The metric is "bits", the knob "length". Raises FigureError for no rows.
    """
    style.need_metrics(table, "bits")
    part = only(table[table["method"] != "theorem_1"], metric="bits")
    fig, ax = plt.subplots(figsize=(COLUMN, 3.3))
    _draw_by_x(ax, part)
    learner = only(part, method="recall_visible").sort_values("x")
    first = learner.iloc[0]
    slope = first["value"] / first["x"] * learner["x"]
    ax.plot(learner["x"], slope, label="Theorem 1's slope, 1", **style.DASHED)
    ax.set_xscale("log", base=2)
    ax.set_yscale("symlog", linthresh=100, linscale=0.4)  # a reader may need no bit at all
    ticks = sorted(part["x"].unique())
    ax.set_xticks(ticks, [f"{x:.0f}" if i % 2 == 0 else "" for i, x in enumerate(ticks)])
    ax.set(xlabel="Length of a string, d (bits)", ylabel="Bits needed")
    ax.set_ylim(bottom=-15)
    ax.grid(axis="y")
    style.legend_below(fig, 2)
    return fig


@mpl.rc_context(LOOK)
def plot_networks(table: pd.DataFrame) -> Figure:
    """Errors of networks on the bits that they were shown ("error_shown") against how many these were ("bits_shown").

    The line is at the most bits that the network alone held at any size ("bits_held"). Raises FigureError for no rows.
    """
    style.need_metrics(table, "error_shown")
    table = measured(table)
    shown = only(table, metric="bits_shown").drop_duplicates("x").set_index("x")["value"]
    part = only(table, metric="error_shown")
    fig, ax = plt.subplots(figsize=(COLUMN, 2.6))
    _draw_by_x(ax, part.assign(x=part["x"].map(shown)))
    held = only(table, method="network", metric="bits_held")["value"].max()
    ax.axvline(held, color=BLACK, linewidth=1, linestyle=(0, (4, 3)), label="The most it held at any size")
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(shown), [f"{x:,.0f}" for x in shown], rotation=30)
    ax.set(xlabel="Bits that the samples show", ylabel="Error on shown bits (%)")
    style.show_percent(ax.yaxis)
    ax.grid(axis="y")
    style.legend_below(fig, 1)
    return fig


def _draw_by_x(ax: Axes, table: pd.DataFrame, unit: float = 1) -> None:
    """A line against `x`, in `unit`s, for each method."""
    for method, rows in style.by_method(table):
        rows = rows.sort_values("x")
        style.draw_method(ax, method, rows["x"] / unit, rows)


FRONTIERS = {"ailments": "Ailments in the world", "epochs": "Epochs, each showing every training question once"}


@mpl.rc_context(LOOK)
def plot_frontier(table: pd.DataFrame) -> Figure:
    """What is concluded rightly against the number of ailments or of epochs (`knob`), a column for each student.

    Rows are of what was shown "often" and "never" (`at`; metric "accuracy_of_rationale"). A dotted line stands where
    a method overtakes its rival ("crossing"), in its interval and of its colour, if it does. Raises FigureError if
    nothing is there.
    """
    table = measured(table)
    style.need_metrics(table, "accuracy_of_rationale")
    told, strata = only(table, metric="accuracy_of_rationale"), (STRATA[0], STRATA[-1])
    students, chance = told["student"].unique(), only(table, method="chance").set_index("metric")["value"]
    fig, axes = plt.subplots(2, len(students), figsize=(PAGE, 4.4), sharex=True, sharey=True, squeeze=False)
    for (row, stratum), (column, student) in product(enumerate(strata), enumerate(students)):
        ax, shown = axes[row, column], only(told, at=stratum, student=student)
        style.draw_by_knob(ax, shown, sorted(shown["x"].unique()))
        ax.axhline(chance[f"accuracy_{stratum}"], label=label("chance"), **style.DASHED)
        ax.set(title=student if not row else "", xlim=ax.get_xlim())  # an open interval goes to the edge, and not past
    for ax, student in zip(axes[0], students, strict=True):
        _mark_crossings(ax, only(table, metric="crossing", student=student))
    for ax, stratum in zip(axes[:, 0], strata, strict=True):
        ax.set(ylabel=f"Shown {stratum} (%)")
    style.show_percent(axes[0, 0].yaxis)
    axes[1, len(students) // 2].set(xlabel=FRONTIERS[told["knob"].iloc[0]])
    style.legend_below(fig, 3, axes.flat)
    return fig


def _mark_crossings(ax: Axes, crossings: pd.DataFrame) -> None:
    """A line where a method overtakes its rival, in its interval; none where no lines cross."""
    crossings = crossings[(crossings["value"] > 0) & (crossings["value"] < np.inf)]
    for i, row in enumerate(crossings.itertuples()):
        color = REGISTRY[row.method].color
        ax.axvspan(*np.clip((row.low, row.high), *ax.get_xlim()), color=color, alpha=0.12, linewidth=0, zorder=0)
        ax.axvline(row.value, **style.THIN | {"linestyle": ":", "color": color})
        place = (row.value, 0.02 + 0.06 * i)  # one above the other: two may be near
        ax.annotate(f"{row.value:.0f}", place, (2, 0), xycoords=("data", "axes fraction"), color=color,
                    textcoords="offset points", fontsize=7)  # fmt: skip


@mpl.rc_context(LOOK)
def plot_editions(table: pd.DataFrame) -> Figure:
    """What is answered before and after all facts have changed, a panel for each student.

    What is concluded rightly `at` "first edition" and "new edition", and the share of answers that were right in the
    first (metric "former_answers"). Raises FigureError if they are not there.
    """
    table = measured(table)
    style.need_metrics(table := only(table, knob="edition"), "accuracy_of_rationale", "former_answers")
    bars = {"right, first edition": ("accuracy_of_rationale", "first edition"),
            "right, new edition": ("accuracy_of_rationale", "new edition"),
            "what was right before": ("former_answers", "new edition")}  # fmt: skip
    students, methods = table["student"].unique(), style.list_methods(table)
    fig, axes = style.make_panels(len(students), 2.6, sharey=True)
    for ax, student in zip(axes, students, strict=True):
        for i, ((name, (metric, at)), color) in enumerate(zip(bars.items(), (GREY, GREEN, RED), strict=True)):
            rows = only(table, student=student, metric=metric, at=at).set_index("method").reindex(methods)
            places = np.arange(len(methods)) + 0.27 * (i - 1)
            ax.bar(places, rows["value"], 0.25, yerr=style.whiskers(rows), color=color, label=name, capsize=2)
        ax.set_xticks(range(len(methods)), [label(method).replace(" ", "\n") for method in methods])
        ax.set(title=student)
        ax.grid(axis="y")
    axes[0].set(ylabel="Questions on changed facts (%)")
    style.show_percent(axes[0].yaxis)
    style.legend_below(fig, len(students))
    return fig
