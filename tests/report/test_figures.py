"""Figures: the one look, the table that is drawn, and the three files that are written."""

import json
from itertools import combinations

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from kardlib.kard.methods import METHODS
from kardlib.reaugkd import experiment as reaugkd
from kardlib.report.drawings import plot_hits, plot_main
from kardlib.report.figures import BLOCKS, COLUMNS, METHOD_LABEL, METHOD_STYLE, FigureError, long_form, save_figure
from tests.tables import RETRIEVERS, accuracy_row, hits_table, main_table

LEARNERS = ("recall_visible", "recall_hidden", "recall_lossy", "read_key", "read_prefix", "read_hidden")
NETWORKS = ("network", "network_kb")
DENSE = ("dense", "dense_warm")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


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


def test_save_figure(tmp_path):
    table = hits_table()
    provenance = {"seed": 0, "commit": "abc", "models": ["t5-nano-base (ä)"]}
    paths = save_figure(plot_hits(table), "03_hits", table, tmp_path / "figures", provenance)
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {"03_hits.pdf", "03_hits.png", "03_hits.csv"}
    assert set(paths) == {"pdf", "png", "csv"}
    with Image.open(paths["png"]) as image:
        assert json.loads(image.text["Provenance"]) == provenance
        assert image.info["dpi"][0] >= 200
        assert image.width == pytest.approx(7 * image.info["dpi"][0], abs=2)
    pdf = paths["pdf"].read_bytes()
    assert b"/Keywords" in pdf and b"CreationDate" not in pdf
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf  # text stays text


def test_saved_twice_is_the_same(tmp_path):
    whole = main_table()
    first, second = (
        save_figure(plot_main(whole), "04_main", table, tmp_path / str(i), {"seed": 0})
        for i, table in enumerate((whole, whole.sample(frac=1, random_state=0)))
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


def test_a_figure_that_fails_leaves_the_old_files(tmp_path):
    table = hits_table()
    old = save_figure(plot_hits(table), "03_hits", table, tmp_path, {})
    before = {path: path.read_bytes() for path in old.values()}
    broken = plt.figure()
    broken.text(0.5, 0.5, "$\\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(broken, "03_hits", table, tmp_path, {})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
def test_names_that_are_no_file(name, tmp_path):
    with pytest.raises(FigureError, match="cannot be a figure's name"):
        save_figure(plt.figure(), name, hits_table(), tmp_path, {})
