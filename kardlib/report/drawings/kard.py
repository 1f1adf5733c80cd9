"""KARD: one question, what is retrieved, students and their ablations, failures, and the paper beside its code."""

from collections.abc import Mapping, Sequence
from itertools import product

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kardlib.data.world import STRATA
from kardlib.kard.cases import CAUSES, GOLD_READ, PAPERS_CAUSES
from kardlib.kard.grids import BM25, KA_FT_RERANKER, NAMED, RD, RERANKER, SAME
from kardlib.models.catalogue import find_shape
from kardlib.registry import BLACK, BLUE, GREEN, GREY, ORANGE, RED, REGISTRY, label
from kardlib.report.drawings import style
from kardlib.report.drawings.accuracy import CHANCE_ROW, accuracy_panel, name_rows
from kardlib.report.figures import COLUMN, LOOK, PAGE
from kardlib.report.reported import find_table
from kardlib.report.rows import FRACTIONS, FigureError, gained, measured, only, told


@mpl.rc_context(LOOK)
def plot_similarities(maps: Mapping[str, np.ndarray], question: Sequence[str], passage: Sequence[str]) -> Figure:
    """Similarities of a question's tokens with a passage's, (T, S), a panel for each of several encoders.

    A ring marks each row's maximum; their sum, the score of late interaction, stands in the panel's title.
    """
    fig, axes = style.make_panels(len(maps), 0.9 + 0.125 * len(question), sharey=True)
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
    style.show_percent(ax.xaxis)
    ax.legend(loc="lower right")
    return fig


@mpl.rc_context(LOOK)
def plot_losses(table: pd.DataFrame) -> Figure:
    """Mean loss of a target's token ("loss") by what it is a part of (the knob "token"), a dot for each method.

    Raises FigureError for no rows.
    """
    style.need_metrics(table, "loss")
    table = measured(table)
    kinds, methods = table["at"].unique(), style.by_method(table)
    fig, ax = plt.subplots(figsize=(COLUMN, 0.8 + 0.5 * len(kinds)))
    for i, (method, rows) in enumerate(methods):
        places = np.arange(len(kinds)) + (i - (len(methods) - 1) / 2) / 5
        style.draw_across(ax, method, rows.set_index("at").loc[kinds], places)
    style.name_lines(ax, kinds)
    ax.set_xlabel("Mean loss of a token (nats)")
    ax.grid(axis="x")
    style.legend_below(fig, 1)
    return fig


HITS_TITLES = {"hits_gold": "Gold passages", "hits_silver": "Silver passages"}


@mpl.rc_context(LOOK)
def plot_hits(table: pd.DataFrame) -> Figure:
    """Hits@k of retrievers (`method`) against `k`, one panel for each kind of relevant passages.

    Rows whose metric is "hits_gold" or "hits_silver"; `low` and `high` are drawn as whiskers. Raises FigureError if
    there are none.
    """
    table, _ = style.choose_rows(table, *HITS_TITLES)
    panels = [metric for metric in HITS_TITLES if (table["metric"] == metric).any()]
    fig, axes = style.make_panels(len(panels), 2.5, sharey=True)
    for ax, metric in zip(axes, panels, strict=True):
        found = only(table, metric=metric)
        style.draw_by_knob(ax, found.assign(x=found["k"]), sorted(found["k"].unique()))
        ax.set(title=f"{HITS_TITLES[metric]} (n = {style.say_sizes(found)})", xlabel="Passages looked at, k")
    axes[0].set_ylabel("Hits@k (%)")
    style.show_percent(axes[0].yaxis)
    style.legend_below(fig, columns=2 * len(panels))
    return fig


@mpl.rc_context(LOOK)
def plot_training(table: pd.DataFrame) -> Figure:
    """Loss ("loss", logarithmic) against the training step (the knob "step"): a panel a student, a line a method.

    The band reaches from the least of the seeds to the greatest. Raises FigureError for no rows.
    """
    style.need_metrics(table, "loss")
    table = measured(table)
    students = table["student"].unique()
    fig, axes = style.make_panels(len(students), 2.5, sharey=True)
    for ax, student in zip(axes, students, strict=True):
        for method, rows in style.by_method(only(table, student=student)):
            rows = rows.sort_values("x")
            look = style.dot_style(method) | {"linestyle": REGISTRY[method].line}
            ax.plot(rows["x"], rows["value"], markevery=max(1, len(rows) // 8), **look)
            ax.fill_between(rows["x"], rows["low"], rows["high"], color=look["color"], alpha=0.25, linewidth=0)
        ax.set(title=student, xlabel="Training step", yscale="log")
        ax.grid(axis="y")
    style.log_ticks(axes[0].yaxis, most=6)
    axes[0].set_ylabel("Loss (nats)")
    style.legend_below(fig, min(3, len(students)))
    return fig


ALL = {"All questions": ["accuracy"]}  # of a real dataset, which has no parts
BY_STRATUM = [f"accuracy_{stratum}" for stratum in STRATA]
PARTS = {  # of the test questions: their axis -> the metrics on it
    "How often training asked about the ailment": BY_STRATUM,
    "Kind of question": ["accuracy_one_hop", "accuracy_two_hops", "accuracy_yes_no", "accuracy_options"],
}


@mpl.rc_context(LOOK)
def plot_strata(table: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Accuracy of methods by how often training showed a question's ailment, and by its kind, a column a student.

    Rows over all seeds whose metric is one of `PARTS`, else accuracy itself; the method "chance" is dashed, those
    without a student stand in every panel, and whose answers could not be read in none. Raises FigureError if there
    are none.
    """
    table = measured(table)
    table = table[table["method"].isin([*methods, "chance"])]
    there = {axis: metrics for axis, metrics in (PARTS | ALL).items() if table["metric"].isin(metrics).any()}
    parts = {axis: metrics for axis, metrics in there.items() if axis in PARTS} or there
    students = [student for student in table["student"].unique() if student]
    if not (parts and students):
        raise FigureError("nothing to draw: no row has the metric of a stratum or a kind of question, nor accuracy")
    table = told(table).dropna(subset="value")
    size = (PAGE if len(students) > 1 else COLUMN, 0.8 + 2.3 * len(parts))
    fig, axes = plt.subplots(len(parts), len(students), figsize=size, sharey=True, squeeze=False)
    for (row, metrics), (column, student) in product(enumerate(parts.values()), enumerate(students)):
        ax, shown = axes[row, column], table[table["student"].isin([student, ""])]
        for i, (method, rows) in enumerate(style.by_method(shown)):
            rows = rows.set_index("metric").reindex(metrics)
            if method == "chance":
                ax.plot(range(len(rows)), rows["value"], label=label("chance"), drawstyle="steps-mid", **style.DASHED)
            else:
                line = {} if metrics == BY_STRATUM else {"linestyle": "none"}
                style.draw_method(ax, method, np.arange(len(rows)) + 0.06 * (i - len(methods) / 2), rows, **line)
        names = [metric.removeprefix("accuracy_").replace("_", "\n") for metric in metrics]
        ax.set_xticks(range(len(metrics)), names)
        ax.set(title="" if row else student, xlim=(-0.3, len(metrics) - 0.7))
        ax.grid(axis="y")
    for row, axis in enumerate(parts):
        axes[row, 0].set(ylabel="Accuracy (%)")
        axes[row, len(students) // 2].set(xlabel=axis)
    style.show_percent(axes[0, 0].yaxis)
    style.legend_below(fig, 3 if len(students) > 1 else 1, list(axes[0]))
    return fig


MEASURES = {  # titles of panels, in their order
    "accuracy": "Accuracy",
    "hits_gold": "Hits, gold",
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
    table, chance = style.choose_rows(table[table["x"].notna() | (table["method"] == "chance")], *MEASURES)
    methods, unit = style.list_methods(table), 100 if knob.endswith("(%)") else 1
    cells = product(MEASURES, table["at"].unique())
    parts = [(m, at, part) for m, at in cells if len(part := only(table, metric=m, at=at))]
    accuracies = sum(metric == "accuracy" for metric, *_ in parts)
    paper = PAPERS.get(table["figure"].iloc[0]) if accuracies else None
    fig, axes = style.make_panels(len(parts) + bool(paper), 2.3)
    if paper:
        beside = axes.pop(accuracies)
        _paper_panel(beside, paper, methods, unit)
        beside.set_xlabel(knob)
    for ax, (metric, at, part) in zip(axes, parts, strict=True):
        accuracy = metric == "accuracy"
        if accuracy and ax is not axes[0]:
            ax.sharey(axes[0])  # accuracies are compared across panels
        style.draw_by_knob(ax, part, sorted(table["x"].unique()), unit)
        _mark_unread(ax, part)
        for value in chance if accuracy else ():
            ax.axhline(value, label=label("chance"), **style.DASHED)
        title = ", ".join(filter(None, [MEASURES[metric], at]))
        ax.set(title=f"{title} (%)" if metric in FRACTIONS else title, xlabel=knob)
        if metric in FRACTIONS:
            style.show_percent(ax.yaxis)
        else:
            ax.set_ylim(0, 1.06 * part[["value", "high"]].max(axis=None))  # from zero, with room for the highest marker
    if len(methods) + len(chance) > 1:
        style.legend_below(fig, columns=2 if len(fig.axes) == 1 else 4)
    else:
        axes[0].set_ylabel(label(methods[0]))
    return fig


def plot_candidates(table: pd.DataFrame, students: Sequence[str]) -> Figure:
    """`plot_knob` of the number of candidates; of several students it shows the middle one."""
    others = {*students} - {students[len(students) // 2]}
    return plot_knob(table[~table["student"].isin(others)], "Candidates, kappa*")


def _mark_unread(ax: Axes, part: pd.DataFrame) -> None:
    """Say where whose answers could not be read, so that nothing is drawn there; no names where it is everybody's."""
    for x, rows in part.groupby("x"):
        unread = rows[told(rows)["value"].isna()]["method"].unique()
        if not len(unread):
            continue
        if len(unread) == rows["method"].nunique():
            said, y, va = "unread", 0.03, "baseline"
        else:  # above what is drawn of the others
            said, y, va = "\n".join([*map(label, unread), "unread"]), 0.98, "top"
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the line of chance
        ax.annotate(said, (x, y), xycoords=("data", "axes fraction"), ha="center", va=va, fontsize=7, color="0.35",
                    bbox=behind)  # fmt: skip
        left, right = ax.get_xlim()
        room = (right / left) ** 0.12
        ax.set_xlim(min(left, x / room), max(right, x * room))


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
    style.set_log_x(ax, sorted(points), unit)
    ax.margins(x=0.2, y=0.25)
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
    table = only(table[table["seed"].isna()], metric="accuracy")
    own, gains, weights = measured(table), gained(table), {}
    for student in table["student"].unique():
        if not (shape := find_shape(student)):
            raise FigureError(f"the weights of {student} are not known here: its folder is needed to count them")
        weights[student] = shape.parameters / 1e6
    ticks = sorted(weights.values())
    fig, axes = style.make_panels(3, 2.5)
    for ax, part in ((axes[0], own), (axes[1], gains.assign(method=gains["over"]))):
        style.draw_by_knob(ax, part.assign(x=part["student"].map(weights)), ticks, linestyle="none")
        ax.set_xticks(ticks, [f"{million:.2g}" for million in ticks])
        style.show_percent(ax.yaxis)
    axes[0].set(title="Accuracy (%)")
    axes[1].set(title="KARD's gain over each (points)")
    axes[1].axhline(0, **style.THIN)
    _paper_panel(axes[2], PAPERS["06_model_size"], style.list_methods(own))
    for ax in axes:
        ax.set(xlabel="Weights (millions)")
    style.legend_below(fig, 3, axes[:1])
    return fig


@mpl.rc_context(LOOK)
def plot_rag(table: pd.DataFrame) -> Figure:
    """Accuracy of methods beside the Hits@k of the retrievers they read from: what the student makes of what is found.

    Rows as for `plot_main` (one student) and `plot_hits`. Raises FigureError if either is missing.
    """
    (accuracy, chance), (found, _) = style.choose_rows(table, "accuracy"), style.choose_rows(table, *HITS_TITLES)
    accuracy, places = name_rows(accuracy)
    titles = {metric: title for metric, title in HITS_TITLES.items() if (found["metric"] == metric).any()}
    methods, ks = style.list_methods(found), found["k"].agg(["min", "max"])
    height = 0.8 + 0.22 * max(len(methods), max(places.values()) + CHANCE_ROW)
    fig, (left, first, *others) = style.make_panels(1 + len(titles), height)
    accuracy_panel(left, accuracy, places, chance)
    left.set(title=f"Answers (n = {style.say_sizes(accuracy)})")
    for ax, metric in zip((first, *others), titles, strict=True):
        for i, method in enumerate(methods):
            rows = only(found, metric=metric, method=method).set_index("k").reindex(ks)
            ax.plot(rows["value"], [i, i], color=REGISTRY[method].color, linewidth=0.6, linestyle=":")
            style.draw_across(ax, method, rows, [i, i])
            ax.plot(rows["value"].iloc[:1], [i], **style.dot_style(method) | {"markerfacecolor": "white", "zorder": 4})
        ax.set(title=HITS_TITLES[metric], xlabel=f"Hits@{ks['min']} to Hits@{ks['max']} (%)")
        ax.set(ylim=(len(methods) - 0.4, -0.6), yticks=range(len(methods)), yticklabels=map(label, methods))
        ax.tick_params(axis="y", length=0)
        style.show_percent(ax.xaxis)
        ax.grid(axis="x")
    for ax in others:
        ax.sharex(first)
        ax.tick_params(labelleft=False)
    return fig


@mpl.rc_context(LOOK)
def plot_shares(table: pd.DataFrame) -> Figure:
    """What failures are due to: "share_of_failures" at each cause, one bar a student, ours and by the paper's causes.

    A whisker is the interval of the first cause's share, the dashed line the paper's of its own failures, which have
    a bar too. Students come in the order of the table; `n` is how many failures there were. Of real questions a panel
    more: "accuracy" by what was read of their gold passages. Raises FigureError if there are no failures.
    """
    style.need_metrics(table, "share_of_failures")
    by_reading = measured(only(table, knob="gold read"))
    table = only(table, metric="share_of_failures")
    splits = {"All it takes must be read": CAUSES, "One relevant passage is enough": PAPERS_CAUSES}
    splits = {title: causes for title, causes in splits.items() if table["at"].isin(causes).any()}
    fig, axes = style.make_panels(len(splits) + (not by_reading.empty), 2.2)
    for ax, (title, causes) in zip(axes, splits.items(), strict=False):
        _causes_panel(ax, table[table["at"].isin(causes)], causes)
        ax.set(title=title, xlabel="Share of failures (%)")
    if not by_reading.empty:
        _reading_panel(axes[-1], by_reading)
        axes[-1].set(title="By what KARD read", xlabel="Accuracy (%)")
    for ax in axes:
        ax.set_xlim(0, 1)
        style.show_percent(ax.xaxis)
        ax.tick_params(axis="y", length=0)
        handles, names = ax.get_legend_handles_labels()
        shown = dict(zip(names, handles, strict=True))
        ax.legend(shown.values(), shown, loc="upper center", bbox_to_anchor=(0.5, -0.3), handlelength=1.2)
    return fig


def _causes_panel(ax: Axes, table: pd.DataFrame, causes: Sequence[str]) -> None:
    """A bar for each student, parted by cause; below them the paper's, if these are its causes."""
    paper = find_table("failure_analysis")
    (inspected,), *counts = (paper.numbers(row) for row in ("inspected", "reranker_missed", "student_failed"))
    first = only(table, at=causes[0]).set_index("student")
    shares = table.pivot(index="student", columns="at", values="value").loc[first.index, list(causes)]
    names = [f"{student} ({n:,})" for student, n in first["n"].items()]
    if causes == PAPERS_CAUSES:
        names.append(f"The paper ({inspected:.0f})")
        shares.loc[names[-1]] = [count / inspected for (count,) in counts]
    starts = shares.cumsum(axis=1) - shares
    for cause, color in zip(causes, (ORANGE, BLUE, GREY), strict=False):
        bars = ax.barh(range(len(shares)), shares[cause], 0.7, starts[cause], color=color, label=cause)
        shown = [f"{100 * share:.0f}" if share > 0.1 else "" for share in shares[cause]]
        behind = {"facecolor": color, "edgecolor": "none", "pad": 1}
        ax.bar_label(bars, shown, label_type="center", color="white", fontsize=7, bbox=behind, zorder=4)
    line = style.WHISKERS | {"color": BLACK, "linestyle": "none"}
    ax.errorbar(first["value"], range(len(first)), xerr=style.whiskers(first), **line)
    ax.axvline(counts[0][0] / inspected, **style.DASHED | {"zorder": 3})
    style.name_lines(ax, names)


def _reading_panel(ax: Axes, rows: pd.DataFrame) -> None:
    """Accuracy by what was read, a line for each student and each of `GOLD_READ`: who recalls, and who reads it."""
    keys = product(rows["student"].unique(), GOLD_READ)
    lines = {(s, at): part for s, at in keys if len(part := only(rows, student=s, at=at))}
    methods = style.list_methods(rows)
    for i, method in enumerate(methods):
        for y, part in enumerate(lines.values()):
            shown, height = only(part, method=method), y + 0.3 * (i - (len(methods) - 1) / 2)
            style.draw_across(ax, method, shown, [height])
            if told(shown)["value"].isna().all():
                ax.text(0.02, height, "unread", va="center", fontsize=6, color=REGISTRY[method].color)
    named = "{0}, {1} ({2:,})" if rows["student"].nunique() > 1 else "{1} ({2:,})"
    style.name_lines(ax, [named.format(student, at, part["n"].iloc[0]) for (student, at), part in lines.items()])
    ax.grid(axis="x")


@mpl.rc_context(LOOK)
def plot_differences(table: pd.DataFrame) -> Figure:
    """What each difference changes, in points with 95 % intervals: a panel for every measure, a line for a difference.

    Gains with the knob "difference". Raises FigureError if there are none.
    """
    table = only(gained(table), knob="difference")
    if table.empty:
        raise FigureError("nothing to draw: no row is a gain with the knob difference")
    names, panels = list(table["at"].unique()), table["metric"].unique()
    fig, axes = style.make_panels(len(panels), 0.8 + 0.28 * len(names), sharex=True, sharey=True)
    for ax, metric in zip(axes, panels, strict=True):
        rows = style.in_units(only(table, metric=metric), 100)
        ax.axvline(0, **style.THIN)
        style.draw_across(ax, "kard_reranker", rows, [names.index(name) for name in rows["at"]])
        ax.set(title=MEASURES[metric], xlabel="Change (points)")
        ax.grid(axis="x")
    style.name_lines(axes[0], names)
    return fig


LEADS = [  # of whom over whom, in other worlds
    *((RERANKER, over) for over in (RD, BM25, KA_FT_RERANKER, NAMED, "bag_of_words")),
    *((SAME, over) for over in (RERANKER, RD)),
]


@mpl.rc_context(LOOK)
def plot_worlds(table: pd.DataFrame) -> Figure:
    """What KARD with the reranker gains in every world: a column for each student, a line for a rival and a stratum.

    Rows are gains as in `LEADS` in accuracy and on strata: with a seed those of a world, a small dot, over all seeds
    their mean with its interval. Raises FigureError if there are none.
    """
    table = style.in_units(told(only(table, over_student="", knob="")), 100)
    kinds = [*zip(table["method"], table["over"], table["metric"], strict=True)]
    cases = [case for lead, metric in product(LEADS, ["accuracy", *BY_STRATUM]) if (case := (*lead, metric)) in kinds]
    if not cases:
        raise FigureError("nothing to draw: no row is a gain of KARD")
    place = {case: y for y, case in enumerate(cases)}
    table = table.assign(y=[place.get(kind) for kind in kinds]).dropna(subset="y")
    lines = [
        f"{'shown: ' * (method == SAME)}over {label(over)}{metric.removeprefix('accuracy').replace('_', ', ')}"
        for method, over, metric in cases
    ]
    sizes = {name: shape.parameters if (shape := find_shape(name)) else 0 for name in sorted(set(table["student"]))}
    students = sorted(sizes, key=sizes.__getitem__)
    fig, axes = style.make_panels(len(students), 0.9 + 0.2 * len(lines), sharex=True, sharey=True)
    for ax, student in zip(axes, students, strict=True):
        rows = only(table, student=student)
        worlds, means = rows[rows["seed"].notna()], rows[rows["seed"].isna()]
        ax.axvline(0, **style.THIN)
        ax.plot(worlds["value"], worlds["y"], ".", color=GREY, markersize=3.5, zorder=2)
        for method, mean in means.groupby("method", sort=False):
            style.draw_across(ax, str(method), mean, mean["y"])
        ax.set(title=student)
        ax.grid(axis="x")
    values = [0.0, *table["value"]]
    axes[0].set_xlim(min(values) - 3, max(values) + 3)  # of two worlds intervals reach far beyond
    style.name_lines(axes[0], lines)
    axes[len(students) // 2].set(xlabel="Gain (points)")
    return fig
