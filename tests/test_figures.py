"""Figures: the table that is drawn, the three files that are written, and the one look."""

import json
from itertools import combinations

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from kardlib import reaugkd
from kardlib.figures import (
    BLOCKS,
    COLUMNS,
    METHOD_LABEL,
    METHOD_STYLE,
    FigureError,
    long_form,
    plot_compression,
    plot_differences,
    plot_hits,
    plot_latency,
    plot_main,
    plot_rag,
    plot_where,
    save_figure,
)
from kardlib.methods import MAIN_ROWS, METHODS

WHERE = {"figure": "03_hits", "dataset": "world", "scale": "smoke"}
RETRIEVERS = ("bm25", "untrained", "reranker")
LEARNERS = ("recall_visible", "recall_hidden", "recall_lossy", "read_key", "read_prefix", "read_hidden")
NETWORKS = ("network", "network_kb")
DENSE = ("dense", "dense_warm")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def accuracy_row(**changes):
    return WHERE | {"method": "kard_bm25", "student": "t5-nano-base", "metric": "accuracy", "value": 0.5} | changes


@pytest.fixture
def hits_table():
    return long_form(
        WHERE | {"method": method, "k": k, "metric": metric, "value": v, "low": v - 0.05, "high": v + 0.05, "n": 600}
        for metric in ("hits_gold", "hits_silver")
        for i, method in enumerate(RETRIEVERS)
        for k in (1, 3, 10)
        for v in [0.2 + 0.1 * i + 0.03 * k]
    )


@pytest.fixture
def main_table():
    return long_form(
        [accuracy_row(method="chance", student=None, value=0.25)]
        + [
            accuracy_row(method=m, student=s, seed=seed, value=0.3 + i / 25, low=0.28 + i / 25, high=0.33 + i / 25)
            for s in ("small", "base", "large")
            for i, m in enumerate(MAIN_ROWS)
            for seed in (None, 0, 1)
        ]
    )


def test_long_form_keeps_whole_numbers_whole():
    table = long_form([accuracy_row(seed=0, n=600), accuracy_row(k=3)])
    assert list(table.columns) == COLUMNS
    assert [str(table[name].dtype) for name in ("seed", "k", "n", "value")] == ["Int64", "Int64", "Int64", "float64"]
    assert pd.isna(table["seed"][1]) and pd.isna(table["low"][0])
    assert long_form([]).empty


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"acuracy": 1}, "row 0: there is no column 'acuracy'; the columns are figure, dataset"),
        ({"value": 57.3}, "row 0: accuracy of kard_bm25 must be a fraction of one, not 57.3"),
        ({"value": -0.1, "metric": "hits_gold"}, "hits_gold of kard_bm25 must be a fraction"),
        ({"high": 1.2, "low": 0.3}, "must be a fraction"),
        ({"low": 0.6, "high": 0.7}, "0.5 is not between 0.6 and 0.7"),
        ({"value": float("nan")}, "not a finite number"),
        ({"value": None}, "row 0: value is missing"),
        ({"method": None}, "row 0: method is missing"),
    ],
)
def test_rows_that_are_refused(changes, message):
    with pytest.raises(FigureError, match=message):
        long_form([accuracy_row(**changes)])


def test_other_metrics_may_be_larger_than_one():
    assert long_form([accuracy_row(metric="bits", value=1200.0)])["value"][0] == 1200


def test_two_rows_for_one_cell():
    with pytest.raises(FigureError, match=r"row 1: there are two rows for .*method kard_bm25.*metric accuracy"):
        long_form([accuracy_row(), accuracy_row(value=0.6)])


def test_every_method_has_a_look_of_its_own():
    assert set(METHODS) | set(reaugkd.METHODS) <= set(METHOD_STYLE)
    assert {name: method.label for name, method in reaugkd.METHODS.items()}.items() <= METHOD_LABEL.items()
    assert set(METHOD_STYLE) == set(METHOD_LABEL) - {"chance"}
    rows = [method for block in BLOCKS for method in block]
    assert sorted(rows) == sorted(set(METHOD_STYLE) - {*RETRIEVERS, *DENSE, "silver", *LEARNERS, *NETWORKS})
    kard = [m for m in rows if m not in reaugkd.METHODS]
    dense = [*RETRIEVERS, *DENSE, "silver", "rag", "rag_warm"]
    for names in (kard, list(reaugkd.METHODS), dense, LEARNERS, NETWORKS):
        for a, b in combinations(names, 2):
            one, other = METHOD_STYLE[a], METHOD_STYLE[b]
            assert (one.color, one.marker) != (other.color, other.marker), (a, b)
            assert one[1:4] != other[1:4], (a, b)  # marker, line, hatch: without colour
    assert len(set(METHOD_LABEL.values())) == len(METHOD_LABEL)


@pytest.mark.parametrize("color", sorted({style.color for style in METHOD_STYLE.values()}))
def test_colors_stand_out_from_paper(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    luminance = sum(c * w for c, w in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))
    assert 1.05 / (luminance + 0.05) >= 3  # WCAG's contrast for graphics


def test_plot_hits(hits_table):
    fig = plot_hits(hits_table)
    gold, silver = fig.axes
    assert gold.get_title() == "Gold passages (n = 600)" and silver.get_title().startswith("Silver")
    assert [label.get_text() for label in gold.get_xticklabels()] == ["1", "3", "10"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [METHOD_LABEL[m] for m in RETRIEVERS]
    curve = gold.containers[2].lines[0]
    assert curve.get_ydata() == pytest.approx([0.43, 0.49, 0.7])
    assert curve.get_color() == METHOD_STYLE["reranker"].color
    assert fig.get_size_inches()[0] == 7.0
    assert plot_hits(hits_table[hits_table["metric"] == "hits_gold"]).get_size_inches()[0] == 3.4


def test_plot_main(main_table):
    fig = plot_main(main_table)
    assert [ax.get_title() for ax in fig.axes] == ["small", "base", "large"]
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == [METHOD_LABEL[m] for m in MAIN_ROWS]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row on top
    assert len(ax.containers) == len(MAIN_ROWS)  # summaries over seeds, not single seeds
    assert {"30.0", "66.0", " chance"} <= {t.get_text() for t in ax.texts}


@pytest.fixture
def rag_table(hits_table, main_table):
    accuracy = main_table[main_table["student"].isin(["base"]) | (main_table["method"] == "chance")]
    rag = long_form(accuracy_row(method=m, student="base", low=0.4, high=0.6) for m in ("rag", "rag_warm"))
    return pd.concat([accuracy[~accuracy["method"].str.startswith("few")], rag, hits_table], ignore_index=True)


def test_plot_rag(rag_table):
    fig = plot_rag(rag_table)
    answers, gold, silver = fig.axes
    assert METHOD_LABEL["rag_warm"] in [t.get_text() for t in answers.get_yticklabels()]
    assert [gold.get_title(), silver.get_title()] == ["Gold passages", "Silver passages"]
    assert gold.get_ylim() == silver.get_ylim()
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [METHOD_LABEL[m] for m in RETRIEVERS]
    with pytest.raises(FigureError, match="nothing to draw"):
        plot_rag(rag_table[rag_table["metric"] == "accuracy"])
    fig.canvas.draw()
    left, _, right, _ = fig.get_tightbbox().extents  # inches
    assert left > -0.01 and right < fig.get_size_inches()[0] + 0.01


def test_plot_compression():
    row = WHERE | {"value": 0.8, "low": 0.7, "high": 0.9}
    rows = [row | {"method": m, "metric": "accuracy"} for m in ("full", "prototypes_5", "reaugkd_no_retrieval")]
    rows += [WHERE | {"method": m, "metric": "bytes", "value": v} for m, v in (("full", 4096), ("prototypes_5", 2048))]
    (ax,) = plot_compression(long_form(rows)).axes
    assert [c.lines[0].get_xdata().tolist() for c in ax.containers] == [[4.0], [2.0]]
    assert [t.get_text() for t in ax.texts] == ["5 %"]


def test_plot_latency():
    rows = []
    for entries in (2000, 67000):
        for method, value in (("reaugkd", 0.03), ("reaugkd_exact", 0.8)):
            row = WHERE | {"method": method, "student": "minilm, 3 layers", "value": value}
            rows += [row | {"metric": f"latency overhead at batch = {b}, entries = {entries}"} for b in (1, 32)]
            rows += [row | {"metric": f"bytes at entries = {entries}", "value": 2**21}]
            rows += [row | {"metric": f"recall at entries = {entries}", "value": 0.97}]
    table = long_form([*rows, accuracy_row(method="reaugkd_no_retrieval", metric="milliseconds at batch = 1")])
    one, many, recall, memory = plot_latency(table).axes
    assert "batch 1 " in one.get_title() and "batch 32 " in many.get_title()
    lines = {c.get_label(): c.lines[0].get_xydata().tolist() for c in many.containers}
    assert lines["minilm, 3 layers: HNSW"] == [[2000, 3], [67000, 3]] and len(lines) == 2
    assert [c.get_label() for c in recall.containers] == ["minilm, 3 layers: HNSW"]
    assert memory.containers[0].lines[0].get_ydata().tolist() == [2, 2]


def test_plot_where():
    rows = [
        WHERE | {"method": "reaugkd", "metric": f"gain_{by}_{i}", "value": i / 100, "low": -0.01, "high": 0.05, "n": 10}
        for by in ("confidence", "distance")
        for i in (1, 2, 3, 4)
    ]
    for ax in plot_where(long_form(rows)).axes:
        assert ax.containers[0].lines[0].get_ydata() == pytest.approx([1, 2, 3, 4])
    with pytest.raises(FigureError, match="gain_distance_4"):
        plot_where(long_form(rows[:-1]))


@pytest.mark.parametrize("plot", [plot_hits, plot_main, plot_compression, plot_latency, plot_where])
def test_nothing_to_draw(plot):
    with pytest.raises(FigureError, match="nothing to draw"):
        plot(long_form([accuracy_row(metric="bits")]))


def test_differences_have_a_line_each_and_a_panel_for_every_measure():
    rows = [
        accuracy_row(metric=f"gain in {measure} at difference = {name} over the paper", method="kard_reranker",
                     value=-0.02, low=-0.05, high=0.01, k=1)
        for measure, names in (("hits_gold", ["loss"]), ("accuracy", ["loss", "prompt"])) for name in names
    ]  # fmt: skip
    fig = plot_differences(long_form(rows))
    assert [ax.get_title() for ax in fig.axes] == ["Hits, gold", "Accuracy"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["loss", "prompt"]
    assert [len(ax.containers[0].lines[0].get_xdata()) for ax in fig.axes] == [1, 2]
    with pytest.raises(FigureError, match="no row is a gain at a difference"):
        plot_differences(long_form([accuracy_row()]))


@pytest.mark.parametrize(("plot", "metric"), [(plot_hits, "hits_gold"), (plot_main, "accuracy")])
def test_a_method_without_a_style(plot, metric):
    with pytest.raises(FigureError, match="no style for the method 'mine'"):
        plot(long_form([accuracy_row(method="mine", metric=metric, k=1)]))


def test_text_fits_on_the_page(hits_table, main_table):
    for table, plot in ((hits_table, plot_hits), (main_table, plot_main)):
        for part in (table, table[table["metric"].isin(["hits_gold"]) | (table["student"] == "base")]):
            fig = plot(part)
            fig.canvas.draw()
            left, bottom, right, top = fig.get_tightbbox().extents  # inches
            width, height = fig.get_size_inches()
            assert left > -0.01 and bottom > -0.01 and right < width + 0.01 and top < height + 0.01


def test_save_figure(hits_table, tmp_path):
    provenance = {"seed": 0, "commit": "abc", "models": ["t5-nano-base (ä)"]}
    paths = save_figure(plot_hits(hits_table), "03_hits", hits_table, tmp_path / "figures", provenance)
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {"03_hits.pdf", "03_hits.png", "03_hits.csv"}
    assert set(paths) == {"pdf", "png", "csv"}
    with Image.open(paths["png"]) as image:
        assert json.loads(image.text["Provenance"]) == provenance
        assert image.info["dpi"][0] >= 200
        assert image.width == pytest.approx(7 * image.info["dpi"][0], abs=2)
    pdf = paths["pdf"].read_bytes()
    assert b"/Keywords" in pdf and b"CreationDate" not in pdf
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf  # text stays text


def test_saved_twice_is_the_same(main_table, tmp_path):
    first, second = (
        save_figure(plot_main(main_table), "04_main", table, tmp_path / str(i), {"seed": 0})
        for i, table in enumerate((main_table, main_table.sample(frac=1, random_state=0)))
    )
    for suffix in first:
        assert first[suffix].read_bytes() == second[suffix].read_bytes(), suffix


def test_csv_is_long_form(tmp_path):
    table = long_form(
        [accuracy_row(seed=1, value=1 / 3), accuracy_row(low=0.4, high=0.6), accuracy_row(method="few_shot")]
    )
    path = save_figure(plt.figure(), "x", table, tmp_path, {})["csv"]
    assert path.read_text().splitlines() == [
        ",".join(COLUMNS),
        "03_hits,world,smoke,few_shot,t5-nano-base,,,accuracy,0.5,,,",
        "03_hits,world,smoke,kard_bm25,t5-nano-base,,,accuracy,0.5,0.4,0.6,",
        "03_hits,world,smoke,kard_bm25,t5-nano-base,1,,accuracy,0.333333,,,",
    ]
    again = long_form(pd.read_csv(path).astype(object).where(lambda t: t.notna(), None).to_dict("records"))
    pd.testing.assert_frame_equal(
        again.round(6), pd.concat([table[2:], table[1:2], table[:1]], ignore_index=True).round(6)
    )


def test_a_figure_that_fails_leaves_the_old_files(hits_table, tmp_path):
    old = save_figure(plot_hits(hits_table), "03_hits", hits_table, tmp_path, {})
    before = {path: path.read_bytes() for path in old.values()}
    broken = plt.figure()
    broken.text(0.5, 0.5, "$\\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(broken, "03_hits", hits_table, tmp_path, {})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
def test_names_that_are_no_file(name, hits_table, tmp_path):
    with pytest.raises(FigureError, match="cannot be a figure's name"):
        save_figure(plt.figure(), name, hits_table, tmp_path, {})
