"""Drawings: what stands on a figure is what stands in its table."""

from itertools import combinations
from math import inf

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from kardlib.kard.bound import key_rows
from kardlib.kard.memorization import Task
from kardlib.models.catalogue import find_shape
from kardlib.registry import REGISTRY, label
from kardlib.report.drawings.accuracy import plot_main
from kardlib.report.drawings.kard import (
    plot_differences,
    plot_distributions,
    plot_hits,
    plot_knob,
    plot_losses,
    plot_rag,
    plot_similarities,
    plot_strata,
    plot_students,
    plot_training,
    plot_worlds,
)
from kardlib.report.drawings.memory import FRONTIERS, plot_editions, plot_frontier, plot_keys
from kardlib.report.drawings.reaugkd import plot_compression, plot_glue, plot_latency, plot_spaces, plot_where
from kardlib.report.evaluate import loss_rows
from kardlib.report.reported import find_table
from kardlib.report.rows import FRACTIONS, FigureError, long_form
from tests.tables import MAIN_ROWS, RETRIEVERS, WHERE, accuracy_row, hits_table, main_table


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def labels_in_view(axis):
    """Text and place on the page of each tick's label."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return {tick.label1.get_text(): tick.label1.get_window_extent() for tick in ticks if tick.label1.get_text()}


def test_plot_similarities():
    maps = {"before": np.array([[0.5, 0.1], [-0.4, -0.2]]), "after": np.array([[0.1, 0.9], [1.0, 0.3]])}
    before, after, scale = plot_similarities(maps, ["Is", "it"], ["It", "is"]).axes
    assert before.get_title() == "before: sum of the rings 0.30" and after.get_title().endswith("1.90")
    assert before.collections[0].get_offsets().tolist() == [[0, 0], [1, 1]]  # column and row of each maximum
    assert [label.get_text() for label in before.get_yticklabels()] == ["Is", "it"]
    assert scale.get_ylabel() == "Similarity"


def test_plot_distributions():
    table = pd.DataFrame({"Q": [0.75, 0.25], "P": [0.5, 0.5], "P'": [0.0, 1.0]}, index=["one", "two"])
    (ax,) = plot_distributions(table).axes
    assert [[bar.get_width() for bar in bars] for bars in ax.containers] == [[0.75, 0.25], [0.5, 0.5], [0.0, 1.0]]
    tops = [bars[1].get_y() for bars in ax.containers]
    assert tops == sorted(tops) and all(0.5 < y < 1.5 for y in tops)  # side by side, within the row's place
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]


def test_plot_losses():
    rows = [
        accuracy_row(method=method, knob="token", at=at, metric="loss", value=value, low=value - 0.1, high=value + 0.1)
        for method, values in {"reasoning_distillation": (3.0, 0.2), "kard_reranker": (1.5, 0.2)}.items()
        for at, value in zip(("names", "other"), values, strict=True)
    ]
    fig = plot_losses(long_form(rows))
    (ax,) = fig.axes
    assert [c.lines[0].get_xdata().tolist() for c in ax.containers] == [[3.0, 0.2], [1.5, 0.2]]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [
        "Reasoning distillation (RD)",
        "KARD (reranker)",
    ]
    with pytest.raises(FigureError, match="nothing to draw"):
        plot_losses(long_form(rows[:0]))


def test_training_is_a_line_a_method_within_the_band_of_its_seeds():
    curves = {0: {10: 4.0, 20: 2.0, 30: 1.0}, 1: {10: 2.0, 20: 1.0}}  # one was trained for longer
    where = accuracy_row(student="small", metric="loss")
    rows = [row for m in ("fine_tuning", "kard_bm25") for row in loss_rows(curves, **where | {"method": m})]
    rows += loss_rows(curves, **where | {"student": "base"})
    fig = plot_training(long_form(rows))
    small, base = fig.axes
    assert [line.get_xydata().tolist() for line in small.lines] == [[[10, 3], [20, 1.5]]] * 2 and len(base.lines) == 1
    band = base.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (1.0, 4.0) and small.get_yscale() == "log" and small.get_title() == "small"
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [label("fine_tuning"), label("kard_bm25")]
    with pytest.raises(FigureError, match="no row has the metric loss"):
        plot_training(long_form([accuracy_row()]))


def test_plot_hits():
    table = hits_table()
    fig = plot_hits(table)
    gold, silver = fig.axes
    assert gold.get_title() == "Gold passages (n = 600)" and silver.get_title().startswith("Silver")
    assert [label.get_text() for label in gold.get_xticklabels()] == ["1", "3", "10"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [label(m) for m in RETRIEVERS]
    curve = gold.containers[2].lines[0]
    assert curve.get_ydata() == pytest.approx([0.43, 0.49, 0.7])
    assert curve.get_color() == REGISTRY["reranker"].color
    assert fig.get_size_inches()[0] == 7.0
    assert plot_hits(table[table["metric"] == "hits_gold"]).get_size_inches()[0] == 3.4


def test_plot_main():
    fig = plot_main(main_table())
    assert [ax.get_title() for ax in fig.axes] == ["small", "base", "large"]
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == [label(m) for m in MAIN_ROWS]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row on top
    assert len(ax.containers) == len(MAIN_ROWS)  # summaries over seeds, not single seeds
    assert {"30.0", "82.0", " chance"} <= {t.get_text() for t in ax.texts}
    fig.canvas.draw()
    (word,) = [t.get_window_extent() for t in ax.texts if t.get_text() == " chance"]
    (star,) = [c.lines[0].get_window_extent() for c in ax.containers if c.get_label() == label("teacher_cot")]
    assert word.y1 < star.y0  # the word stands below the last row


def test_a_student_whose_answers_could_not_be_read_has_no_dot():
    rows = [accuracy_row(), accuracy_row(method="few_shot", value=0.0, low=0.0, high=0.0, unread=1.0)]
    (ax,) = plot_main(long_form(rows)).axes
    assert [t.get_text() for t in ax.texts] == ["unread", "50.0"]
    shown = {c.get_label(): np.isfinite(c.lines[0].get_xdata().astype(float)).tolist() for c in ax.containers}
    assert shown == {label("few_shot"): [False], label("kard_bm25"): [True]}
    strata = [row | {"metric": "accuracy_often"} for row in rows]
    fig = plot_strata(long_form(strata), ("few_shot", "kard_bm25"))
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [label("kard_bm25")]
    assert plot_strata(long_form(strata[1:]), ("few_shot",)).axes  # nobody's could be read: what is left is chance


def test_what_has_no_student_is_a_row_of_every_panel():
    rows = [accuracy_row(student=s, value=v, low=0.3, high=0.7) for s, v in (("small", 0.4), ("large", 0.6))]
    rows += [accuracy_row(method="bag_of_words", student=None, value=0.45, low=0.4, high=0.5)]
    fig = plot_main(long_form(rows))
    assert [ax.get_title() for ax in fig.axes] == ["small", "large"]
    for ax, value in zip(fig.axes, ("40.0", "60.0"), strict=True):
        assert {t.get_text() for t in ax.texts} == {value, "45.0"}
        assert [c.get_label() for c in ax.containers] == ["Bag of words", "KARD (BM25)"]


@pytest.mark.parametrize("knobs", [(1, 3, 10), (0.01, 0.05, 0.25, 1)])
def test_plot_knob(knobs):
    row = accuracy_row(low=0.4, high=0.6, knob="l")
    rows = [row | {"x": x, "method": m} for x in knobs for m in ("fine_tuning", "kard_bm25")]
    rows += [row | {"x": x, "at": "equal steps", "value": 0.55} for x in knobs]
    rows += [row | {"x": x, "over": "few_shot", "value": 0.4} for x in knobs]  # a gain is no line
    time = accuracy_row(metric="milliseconds", knob="l")
    rows += [time | {"x": x, "value": 100 - i, "high": 150 - i} for i, x in enumerate(knobs)]
    fig = plot_knob(long_form([*rows, accuracy_row(method="chance", value=0.25)]), "Rationales, l")
    accuracy, equal, time = fig.axes
    fig.canvas.draw()
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == ["Accuracy (%)", "Accuracy, equal steps (%)", "Milliseconds a question"]
    assert len(accuracy.containers) == 2 and len(equal.containers) == 1
    assert list(labels_in_view(accuracy.xaxis)) == [f"{x:g}" for x in knobs]
    assert accuracy.get_ylim() == equal.get_ylim() and accuracy.get_ylim()[0] < 0.25  # one scale, with chance on it
    one, other = (container.lines[0].get_window_extent() for container in accuracy.containers)
    assert 3 < other.x0 - one.x0 < 12  # whiskers stand side by side, however far the knob reaches
    low, high = time.get_ylim()
    assert low == 0 and high > 154  # the highest whisker is whole


def test_where_no_answer_could_be_read_a_knobs_panel_says_so():
    rows = [accuracy_row(knob="share", x=x, unread=unread) for x, unread in ((0.01, 0.9), (0.25, 0.1), (1, None))]
    (ax,) = plot_knob(long_form(rows), "Training questions (%)").axes
    assert [(text.get_text(), text.xy[0]) for text in ax.texts] == [("unread", 0.01)]
    assert ax.get_xlim()[0] < 0.01
    rows += [accuracy_row(method="fine_tuning", knob="share", x=x, unread=0.9) for x in (0.01, 0.25)]
    (ax,) = plot_knob(long_form(rows), "Training questions (%)").axes
    said = {"unread": 0.01, f"{label('fine_tuning')}\nunread": 0.25}
    assert {text.get_text(): text.xy[0] for text in ax.texts} == said


def test_one_series_has_no_legend_and_the_papers_curve_beside_it():
    rows = [accuracy_row(figure="07_rationales", knob="l", x=x) for x in (1, 3, 10)]
    fig = plot_knob(long_form(rows), "Rationales, l")
    ours, paper = fig.axes
    assert not fig.legends and ours.get_ylabel() == "KARD (BM25)"
    reported = find_table("table3_rationales").curves()
    assert [dict(zip(*line.get_data(), strict=True)) for line in paper.lines] == list(reported.values())
    assert {text.get_text() for text in paper.texts} == {"base", "large", "Table 3, MedQA"}
    assert paper.lines[0].get_linewidth() < ours.containers[0].lines[0].get_linewidth()
    hits = [row | {"metric": "hits_gold", "k": 3} for row in rows]
    assert len(plot_knob(long_form(hits), "l").axes) == 1  # beside other measures there is nothing of the paper's


def test_the_papers_curves_are_those_of_the_methods_that_are_drawn():
    rows = [accuracy_row(figure="05_dataset_size", knob="share", x=x, method="fine_tuning") for x in (0.01, 1)]
    _, paper = plot_knob(long_form([*rows, accuracy_row(method="chance")]), "Questions (%)").axes
    assert [line.get_color() for line in paper.lines] == [REGISTRY["fine_tuning"].color]
    assert [tick.get_text() for tick in paper.get_xticklabels()] == ["1", "25", "100"]


@pytest.mark.parametrize("count", [4, 5, 6])
def test_titles_of_many_panels_do_not_touch(count):
    metrics = ["accuracy", "hits_gold", "gold_among_read", "whole_chain", "doubled_hop", "milliseconds"][-count:]
    rows = [accuracy_row(knob="kappa*", x=x, k=3, metric=m) for x in (10, 100) for m in metrics]
    fig = plot_knob(long_form(rows), "Candidates, kappa*")
    fig.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in fig.axes]
    assert len(boxes) == count and not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    left, _, right, _ = fig.get_tightbbox().extents
    assert left > -0.01 and right < fig.get_size_inches()[0] + 0.01
    assert set(metrics) - FRACTIONS == {"milliseconds"}


def test_students_stand_at_their_weights_and_no_line_joins_them():
    students = ["t5-nano-small", "t5-nano-large"]
    rows = [
        accuracy_row(figure="06_model_size", student=s, method=m)
        for s in students
        for m in ("fine_tuning", "kard_reranker")
    ]
    rows += [accuracy_row(student=s, method="kard_reranker", over="fine_tuning", value=0.1) for s in students]
    own, gain, paper = plot_students(long_form(rows)).axes
    weights = [find_shape(student).parameters / 1e6 for student in students]
    assert len(own.containers) == 2 and len(gain.containers) == 1 and len(paper.lines) == 2
    for container in (*own.containers, *gain.containers):
        dots = container.lines[0]
        assert dots.get_xdata() == pytest.approx(weights, rel=0.1) and dots.get_linestyle() == "None"
    assert own.get_xscale() == "log" and paper.lines[0].get_xdata().tolist() == [250, 780, 3000]
    with pytest.raises(FigureError, match="the weights of nobody are not known here"):
        plot_students(long_form([accuracy_row(student="nobody")]))


def test_whiskers_of_methods_in_a_stratum_stand_side_by_side():
    methods = ["fine_tuning", "kard_reranker"]
    rows = [accuracy_row(method=m, metric=f"accuracy_{s}") for m in methods for s in ("often", "seldom", "never")]
    (ax,) = plot_strata(long_form(rows), methods).axes
    one, other = (container.lines[0].get_xdata() for container in ax.containers)
    assert (other - one == pytest.approx(0.06)) and abs(one - [0, 1, 2]).max() < 0.1
    rows += [accuracy_row(method=m, metric=f"accuracy_{kind}") for m in methods for kind in ("one_hop", "two_hops")]
    rows += [row | {"student": "t5-nano-large"} for row in rows]
    strata, _, kinds, _ = plot_strata(long_form(rows), methods).axes
    assert [t.get_text() for t in kinds.get_xticklabels()][:2] == ["one\nhop", "two\nhops"]
    assert [ax.containers[0].lines[0].get_linestyle() for ax in (strata, kinds)] == [":", "None"]  # kinds have no order
    (ax,) = plot_strata(long_form(accuracy_row(method=m) for m in methods), methods).axes  # of a real dataset
    assert ax.get_xlabel() == "All questions" and len(ax.containers) == 2
    with pytest.raises(FigureError, match=r"^nothing to draw: no row has the metric of a stratum"):
        plot_strata(long_form(accuracy_row(method=m, metric="hits_gold") for m in methods), methods)


def test_a_method_under_several_conditions_has_a_row_for_each():
    rows = [accuracy_row(knob="corpus", at=at, method="dapt", k=1) for at in ("own", "neighbour")]
    rows += [accuracy_row(knob="corpus", at="none", method="kard_reranker"), accuracy_row(method="chance")]
    fig = plot_main(long_form(rows))
    (ax,) = fig.axes
    names = [f"{label('dapt')}, own", f"{label('dapt')}, neighbour", label("kard_reranker")]
    assert [t.get_text() for t in ax.get_yticklabels()] == names
    places = {c.get_label(): c.lines[0].get_ydata().tolist() for c in ax.containers}
    assert places == {label("dapt"): [0, 1], label("kard_reranker"): [2]}
    assert not fig.legends and " chance" in {t.get_text() for t in ax.texts}


@pytest.fixture
def rag_table():
    table = main_table()
    accuracy = table[table["student"].isin(["base"]) | (table["method"] == "chance")]
    rag = long_form(accuracy_row(method=m, student="base", low=0.4, high=0.6) for m in ("rag", "rag_warm"))
    return pd.concat([accuracy[~accuracy["method"].str.startswith("few")], rag, hits_table()], ignore_index=True)


def test_plot_rag(rag_table):
    fig = plot_rag(rag_table)
    answers, gold, silver = fig.axes
    assert label("rag_warm") in [t.get_text() for t in answers.get_yticklabels()]
    assert [gold.get_title(), silver.get_title()] == ["Gold passages", "Silver passages"]
    assert gold.get_xlim() == silver.get_xlim() and gold.get_xlabel() == "Hits@1 to Hits@10 (%)"
    assert [t.get_text() for t in gold.get_yticklabels()] == [label(m) for m in RETRIEVERS]  # a row each: none overlap
    ends = [container.lines[0].get_data() for container in gold.containers]
    assert [y.tolist() for _, y in ends] == [[0, 0], [1, 1], [2, 2]] and ends[0][0] == pytest.approx([0.23, 0.5])
    with pytest.raises(FigureError, match="nothing to draw"):
        plot_rag(rag_table[rag_table["metric"] == "accuracy"])
    without_gold = plot_rag(rag_table[rag_table["metric"] != "hits_gold"])
    assert [ax.get_title() for ax in without_gold.axes[1:]] == ["Silver passages"]
    fig.canvas.draw()
    left, _, right, _ = fig.get_tightbbox().extents  # inches
    assert left > -0.01 and right < fig.get_size_inches()[0] + 0.01


def test_a_share_is_drawn_in_per_cent():
    rows = [accuracy_row(knob="share", x=share, k=3) for share in (0.01, 1)]
    for axis, ticks in (("Share (%)", ["1", "100"]), ("Share", ["0.01", "1"])):
        assert [tick.get_text() for tick in plot_knob(long_form(rows), axis).axes[0].get_xticklabels()] == ticks


def test_a_sweep_has_no_style_of_a_reader_or_of_the_other_sweep():
    rows, small, middle, alone = [], Task(16, 64, 16, 256), Task(256, 64, 256, 256), Task(256, 64, 256, 0)
    for task in (small, middle, alone):
        rows += key_rows(task, [0.01], 2, 0, ["read_key", "read_prefix"])
    sweeps = {"N": [small, middle], "R": [alone, middle]}
    table = long_form(row | {"figure": "x", "dataset": "x", "scale": "x"} for row in rows)
    by_n, by_r, readers, _ = plot_keys(table, middle, sweeps).axes
    looks = [{(line.get_color(), line.get_marker()) for line in ax.lines if line.get_marker() != "None"}
             for ax in (by_n, by_r, readers)]  # fmt: skip
    assert (
        looks[0] & looks[1]
        == looks[0] & looks[2]
        == looks[1] & looks[2]
        == {(REGISTRY["read_key"].color, REGISTRY["read_key"].marker)}
    )


GAIN = WHERE | {"metric": "accuracy", "over": "reaugkd_no_retrieval"}


def test_plot_where():
    rows = [
        GAIN | {"method": "reaugkd", "knob": by, "x": i, "value": i / 100, "low": -0.01, "high": 0.05, "n": 10}
        for by in ("confidence", "distance")
        for i in (1, 2, 3, 4)
    ]
    for ax in plot_where(long_form(rows)).axes:
        assert ax.containers[0].lines[0].get_ydata() == pytest.approx([1, 2, 3, 4])
    with pytest.raises(FigureError, match="no gain has the knob distance and the x 4"):
        plot_where(long_form(rows[:-1]))


def test_a_task_is_drawn_in_what_it_is_judged_by():
    rows = [
        accuracy_row(dataset="cola", method="reaugkd", metric=metric, value=v)
        for metric, v in (("accuracy", 0.8), ("matthews", 0.4))
    ]
    (ax,) = plot_main(long_form(rows)).axes
    assert ax.get_xlabel() == "Matthews correlation (%)" and [text.get_text() for text in ax.texts] == ["40.0"]


def glue_rows(task, metric="accuracy", kept=True):
    """A task's rows of the figures 13_reaugkd, 13_where and, if it was compressed, 18_compression."""
    row = accuracy_row(dataset=task, student="minilm, 3 layers", method="reaugkd", low=0.4, high=0.6)
    rows = [row | {"method": m, "metric": metric} for m in ("student_alone", "reaugkd")] + [row | {"metric": "f1"}]
    gain = row | {"over": "reaugkd_no_retrieval", "value": 0.01, "low": -0.02, "high": 0.04, "n": 70}
    rows += [gain | {"knob": knob, "x": x} for knob in ("confidence", "distance") for x in (1, 2, 3, 4)]
    for kind, size in (("full", 2**20), ("half", 2**19)) if kept else ():
        base = row | {"knob": "kept", "x": 1, "method": kind, "low": None, "high": None}
        rows += [base | {"metric": "bytes", "value": size}, base | {"seed": 0}]
    return rows


def test_tasks_of_glue_stand_below_each_other_with_what_their_own_figures_show():
    rows = [*glue_rows("mrpc"), *glue_rows("cola", "matthews", kept=False)]
    fig = plot_glue(long_form([*rows, *glue_rows("world")]))
    fig.canvas.draw()
    cola, mrpc = np.array(fig.axes).reshape(2, 4)
    assert [ax[0].get_title() for ax in (cola, mrpc)] == ["CoLA (n = ?)", "MRPC (n = ?)"]
    assert [ax[0].get_xlabel() for ax in (cola, mrpc)] == ["Matthews correlation (%)", "Accuracy (%)"]
    names = [label(method) for method in ("student_alone", "reaugkd")]
    assert [[text.get_text() for text in ax[0].get_yticklabels()] for ax in (cola, mrpc)] == [names, names]
    assert [len(ax.containers) for ax in (*cola, *mrpc[:3])] == [2, 1, 1, 0, 2, 1, 1] and len(mrpc[3].lines) == 4
    assert not cola[3].axison and mrpc[3].axison  # nobody compressed CoLA's knowledge base
    assert len({ax.get_ylim() for ax in (*cola[1:3], *mrpc[1:3])}) == 1 and mrpc[3].get_xscale() == "log"
    reach = [np.ptp(ax[0].get_xlim()) for ax in (cola, mrpc)]
    assert reach[0] == pytest.approx(reach[1])
    left, bottom, right, top = fig.get_tightbbox().extents  # inches
    assert min(left, bottom) > -0.01 and right < 7.01 and top < fig.get_size_inches()[1] + 0.01
    assert len(plot_glue(long_form(glue_rows("rte", kept=False))).axes) == 3
    with pytest.raises(FigureError, match="no row is of a task of GLUE"):
        plot_glue(long_form(glue_rows("world")))


KEPT = WHERE | {"knob": "kept", "x": 1}


def test_plot_spaces():
    point = accuracy_row(student=None, k=None, seed=0, knob="example")
    rows = [
        point | {"method": method, "at": at, "x": x, "metric": f"{nth}_component", "value": value}
        for method, scale in (("reaugkd", 0.5), ("reaugkd_teacher", 1.0))
        for x, at in enumerate(("Benril", "Kekrax", "Benril"))
        for nth, value in (("first", scale * x), ("second", -scale))
        if (method, x) != ("reaugkd", 1)  # nobody asks for it
    ]
    share = accuracy_row(student=None, k=None, metric="nearest_shares_label")
    found = {"reaugkd": 0.6, "reaugkd_teacher": 1.0}
    shares = [share | {"method": m, "value": v, "low": v, "high": v} for m, v in found.items()]
    fig = plot_spaces(long_form([*rows, *shares]))
    student, teacher = fig.axes
    assert student.get_title() == "ReAugKD\nnearest of its label: 60 %" and teacher.get_title().endswith("100 %")
    assert [dots.get_offsets().tolist() for dots in student.collections] == [[[0, -0.5], [1, -0.5]], []]
    assert [dots.get_offsets().tolist() for dots in teacher.collections] == [[[0, -1], [2, -1]], [[1, -1]]]
    assert student.get_xlim() == teacher.get_xlim() and student.get_ylim() == teacher.get_ylim()  # one space
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["Benril", "Kekrax"]
    with pytest.raises(FigureError, match="nearest_shares_label"):
        plot_spaces(long_form(rows))


def compressed(*bases):
    """Rows of kinds of knowledge bases (method, share kept, bytes), of two seeds each."""
    rows = [KEPT | {"method": m, "x": kept, "metric": "bytes", "value": size} for m, kept, size in bases]
    gains = {"full": (0, 0), "prototypes": (0.02, 0.04)}
    return rows + [
        KEPT | {"method": m, "x": kept, "metric": "accuracy", "seed": seed, "value": own + gains.get(m, (0, 0))[seed]}
        for m, kept, _ in bases
        for seed, own in enumerate((0.8, 0.6))
    ]


def test_a_compression_is_drawn_by_what_it_changes_seed_by_seed():
    rows = compressed(
        ("full", 1, 4096), ("prototypes", 1, 4096), ("prototypes", 0.05, 2048), ("prototypes", 0.01, 2000)
    )
    alone = WHERE | {"method": "reaugkd_no_retrieval", "metric": "accuracy"}
    rows += [alone | {"seed": seed, "value": value} for seed, value in enumerate((0.7, 0.6))]
    fig = plot_compression(long_form(rows))
    (ax,) = fig.axes
    drawn = {line.get_label(): line.get_data() for line in ax.lines}
    assert drawn[label("full")][1].tolist() == [0] and drawn["without retrieval"][1] == pytest.approx([-5, -5])
    sizes, means = drawn[label("prototypes")]
    assert sizes.tolist() == [2000 / 1024, 2.0, 4.0] and means == pytest.approx([3, 3, 3])
    seeds = ax.lines[2].get_ydata()
    assert sorted(seeds) == pytest.approx([2, 2, 2, 4, 4, 4])
    assert [t.get_text() for t in ax.texts] == ["1 %, 5 %", "100 %"]  # two of about one size have one label
    labels = [label("full"), label("prototypes"), "without retrieval"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == labels


@pytest.mark.parametrize("smallest", [15, 80])
def test_sizes_can_be_read(smallest):
    sizes = {("full", 1): 200, ("half", 1): 100, ("pq", 1): 30, ("prototypes", 0.2): 20, ("prototypes", 0.01): 1}
    bases = [(*base, 1024 * smallest * size) for base, size in sizes.items()]
    fig = plot_compression(long_form(compressed(*bases)))
    fig.canvas.draw()
    boxes = labels_in_view(fig.axes[0].xaxis)
    assert len(boxes) >= 3 and not any(a.overlaps(b) for a, b in combinations(boxes.values(), 2))


@pytest.mark.parametrize(("low", "high"), [(0.48, 0.62), (0.49, 0.604), (0.77, 0.8), (0.03, 0.98)])
def test_a_tick_says_where_it_stands(low, high):
    rows = [accuracy_row(knob="l", x=x, value=high, low=low, high=high) for x in (1, 3)]
    fig = plot_knob(long_form(rows), "l")
    fig.canvas.draw()
    for tick in fig.axes[0].yaxis.get_major_ticks():
        assert float(tick.label1.get_text().replace("−", "-")) == pytest.approx(100 * tick.get_loc(), abs=1e-6)


def latency_rows(entries, method, value):
    row = WHERE | {"method": method, "student": "minilm, 3 layers", "value": value, "knob": "entries", "x": entries}
    return [
        *(row | {"metric": "latency_overhead", "at": at} for at in ("batch 1", "batch 32")),
        row | {"metric": "bytes", "value": 2**21},
        row | {"metric": "recall", "value": 0.97},
    ]


def test_plot_latency():
    searches = {"reaugkd": 0.03, "reaugkd_exact": 0.8}
    rows = [row for n in (2000, 67000) for method, value in searches.items() for row in latency_rows(n, method, value)]
    rows += [row | {"student": "bert-base, 6 layers"} for row in rows]
    alone = accuracy_row(method="reaugkd_no_retrieval", metric="milliseconds", knob="entries", x=2000, at="batch 1")
    fig = plot_latency(long_form([*rows, alone]))
    one, many, recall, memory = fig.axes
    assert "batch 1 " in one.get_title() and "batch 32 " in many.get_title()
    lines = {c.get_label(): c.lines[0].get_xydata().tolist() for c in many.containers}
    assert lines["minilm, 3 layers: ReAugKD"] == [[2000, 3], [67000, 3]] and len(lines) == 4
    students = ["minilm, 3 layers: ReAugKD", "bert-base, 6 layers: ReAugKD"]
    assert [c.get_label() for c in recall.containers] == students
    assert "the paper's 3 %" in [text.get_text() for text in fig.legends[0].get_texts()]
    fig.canvas.draw()
    left, _, right, _ = fig.get_tightbbox().extents  # inches
    assert left > -0.01 and right < fig.get_size_inches()[0] + 0.01
    assert memory.containers[0].lines[0].get_ydata().tolist() == [2, 2]


@pytest.mark.parametrize("largest", [20_000, 67_000, 250_000, 1_000_000])
def test_every_number_of_entries_can_be_read(largest):
    rows = [row for n in (2000, largest) for row in latency_rows(n, "reaugkd_exact", n / 400_000)]
    fig = plot_latency(long_form(rows))
    fig.canvas.draw()
    for ax in fig.axes[:2]:
        for axis in (ax.xaxis, ax.yaxis):
            boxes = labels_in_view(axis)
            assert len(boxes) >= 3 and not any(a.overlaps(b) for a, b in combinations(boxes.values(), 2))
    assert "10,000" in labels_in_view(fig.axes[0].xaxis)


def test_differences_have_a_line_each_and_a_panel_for_every_measure():
    rows = [
        accuracy_row(metric=measure, knob="difference", at=name, over="kard_reranker", over_at="the paper",
                     method="kard_reranker", value=-0.02, low=-0.05, high=0.01, k=1)
        for measure, names in (("hits_gold", ["loss"]), ("accuracy", ["loss", "prompt"])) for name in names
    ]  # fmt: skip
    fig = plot_differences(long_form(rows))
    assert [ax.get_title() for ax in fig.axes] == ["Hits, gold", "Accuracy"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["loss", "prompt"]
    assert [len(ax.containers[0].lines[0].get_xdata()) for ax in fig.axes] == [1, 2]
    with pytest.raises(FigureError, match="no row is a gain with the knob difference"):
        plot_differences(long_form([accuracy_row()]))


def test_a_world_is_a_small_dot_and_their_mean_a_large_one():
    columns = {"method": "kard_reranker", "n": 900, "k": 3}
    rows = [
        accuracy_row(student=student, over=over, metric=metric, seed=seed, value=value,
                     **columns, **({"low": None, "high": None} if seed else {"low": value - 0.1, "high": value + 0.1}))
        for student in ("t5-nano-large", "t5-nano-small")
        for over, metric in (("bag_of_words", "accuracy"), ("reasoning_distillation", "accuracy_never"),
                             ("reasoning_distillation", "accuracy"))
        for seed, value in ((10, 0.02), (11, 0.06), (None, 0.04))
    ]  # fmt: skip
    fig = plot_worlds(long_form([*rows, accuracy_row(student="t5-nano-large", over="fine_tuning", **columns)]))
    assert [ax.get_title() for ax in fig.axes] == ["t5-nano-small", "t5-nano-large"]
    names = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    rd = "over Reasoning distillation (RD)"
    assert names == [rd, f"{rd}, never", "over Bag of words"]
    for ax in fig.axes:
        (worlds,) = [line for line in ax.lines if line.get_marker() == "."]
        assert sorted(zip(worlds.get_ydata(), worlds.get_xdata().round(6), strict=True)) == [
            (i, value) for i in range(3) for value in (2, 6)
        ]
        assert sorted(ax.containers[0].lines[0].get_ydata()) == [0, 1, 2]
    of_rd = [row for row in rows if row["over"] != "bag_of_words" and row["student"] == "t5-nano-small"]
    shown = [row | {"method": "kard_shown_reranker", "over": "kard_reranker"} for row in of_rd]
    (ax,) = plot_worlds(long_form(shown)).axes
    lines = ["shown: over KARD (reranker)", "shown: over KARD (reranker), never"]
    assert [label.get_text() for label in ax.get_yticklabels()] == lines
    with pytest.raises(FigureError, match="no row is a gain of KARD"):
        plot_worlds(long_form([accuracy_row()]))


@pytest.mark.parametrize("plot", [plot_hits, plot_main, plot_compression, plot_latency, plot_where])
def test_nothing_to_draw(plot):
    with pytest.raises(FigureError, match="nothing to draw"):
        plot(long_form([accuracy_row(metric="bits")]))


@pytest.mark.parametrize(("plot", "metric"), [(plot_hits, "hits_gold"), (plot_main, "accuracy")])
def test_a_method_without_a_style(plot, metric):
    with pytest.raises(FigureError, match="no style for the method 'mine'"):
        plot(long_form([accuracy_row(method="mine", metric=metric, k=1)]))


def test_text_fits_on_the_page():
    for table, plot in ((hits_table(), plot_hits), (main_table(), plot_main)):
        for part in (table, table[table["metric"].isin(["hits_gold"]) | (table["student"] == "base")]):
            fig = plot(part)
            fig.canvas.draw()
            left, bottom, right, top = fig.get_tightbbox().extents  # inches
            width, height = fig.get_size_inches()
            assert left > -0.01 and bottom > -0.01 and right < width + 0.01 and top < height + 0.01


@pytest.mark.parametrize(("knob", "xlabel"), FRONTIERS.items())
def test_plot_frontier(knob, xlabel):
    told = {"knob": knob, "metric": "accuracy_of_rationale"}
    curves = {("reasoning_distillation", "often"): (0.8, 0.4), ("kard_reranker", "often"): (0.5, 0.6),
              ("reasoning_distillation", "never"): (0.1, 0.2), ("kard_reranker", "never"): (0.3, 0.4)}  # fmt: skip
    rows = [
        accuracy_row(method=method, at=at, x=x, value=value, **told)
        for (method, at), values in curves.items()
        for x, value in zip((12, 120), values, strict=True)
    ]
    rows += [accuracy_row(method="chance", metric=f"accuracy_{at}", value=0.3) for at in ("often", "never")]
    rows.append(accuracy_row(method="kard_shown_reranker", metric="crossing", value=40.0, low=20.0, high=50.0))
    rows.append(accuracy_row(method="kard_reranker", metric="crossing", value=60.0, low=30.0, high=inf))
    often, never = plot_frontier(long_form(rows)).axes
    for ax, at in ((often, "often"), (never, "never")):
        drawn = {c.get_label(): c.lines[0].get_ydata().tolist() for c in ax.containers}
        assert drawn == {label(m): list(curves[m, at]) for m in ("reasoning_distillation", "kard_reranker")}
    assert [text.get_text() for text in often.texts] == ["40", "60"] and not never.texts
    assert [text.get_color() for text in often.texts] == [
        REGISTRY[m].color for m in ("kard_shown_reranker", "kard_reranker")
    ]
    other, interval = often.patches
    assert other.get_extents().x1 == pytest.approx(often.transData.transform((50, 0))[0])
    assert interval.get_extents().x0 > often.transData.transform((12, 0))[0]  # of the sizes that were run
    assert interval.get_extents().x1 == pytest.approx(often.get_window_extent().x1)  # and on to the figure's edge
    assert never.get_xlabel() == xlabel
    for end in (0, inf):  # one of the two leads everywhere
        nowhere = [*rows[:-2], *(row | {"value": end, "low": end, "high": end} for row in rows[-2:])]
        assert not any(ax.patches or ax.texts for ax in plot_frontier(long_form(nowhere)).axes)
    with pytest.raises(FigureError, match="nothing to draw"):
        plot_frontier(long_form(rows[-1:]))


def test_plot_editions():
    rows = [
        accuracy_row(method=method, knob="edition", at=at, metric=metric, value=value)
        for method, values in {"reasoning_distillation": (0.6, 0.1, 0.5), "kard_reranker": (0.4, 0.4, 0.1)}.items()
        for (metric, at), value in zip(
            [("accuracy_of_rationale", "first edition"), ("accuracy_of_rationale", "new edition"),
             ("former_answers", "new edition")], values, strict=True,
        )
    ]  # fmt: skip
    (ax,) = plot_editions(long_form(rows)).axes
    heights = {c.get_label(): [bar.get_height() for bar in c] for c in ax.containers if hasattr(c[0], "get_height")}
    assert heights == {"right, first edition": [0.6, 0.4], "right, new edition": [0.1, 0.4],
                       "what was right before": [0.5, 0.1]}  # fmt: skip
    with pytest.raises(FigureError, match="no row has the metric former_answers"):
        plot_editions(long_form(rows[:2]))
