"""Figures: the one look, and the three files that are written."""

import json

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image

from kardlib.artifacts.store import Store
from kardlib.data.files import Dataset
from kardlib.kard.experiment import Experiment
from kardlib.presets import preset
from kardlib.report.drawings.accuracy import plot_main
from kardlib.report.drawings.kard import plot_hits
from kardlib.report.figures import save_figure
from kardlib.report.rows import COLUMNS, FigureError, long_form, read_table
from tests.tables import accuracy_row, hits_table, main_table


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_save_figure(tmp_path):
    table = hits_table()
    provenance = {"seed": 0, "commit": "abc", "models": ["t5-nano-base (ä)"]}
    assert save_figure(plot_hits(table), "03_hits", table, tmp_path, provenance) is None, "a notebook would show it"
    assert {p.name for p in tmp_path.iterdir()} == {"03_hits.pdf", "03_hits.png", "03_hits.csv"}
    with Image.open(tmp_path / "03_hits.png") as image:
        assert json.loads(image.text["Provenance"]) == provenance
        assert image.info["dpi"][0] >= 200
        assert image.width == pytest.approx(7 * image.info["dpi"][0], abs=2)
    pdf = (tmp_path / "03_hits.pdf").read_bytes()
    assert b"/Keywords" in pdf and b"CreationDate" not in pdf
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf  # text stays text


def test_an_experiments_figure_is_named_by_its_dataset_and_says_its_settings(tmp_path):
    settings = preset("smoke", "obqa")
    experiment = Experiment(settings, Store(tmp_path / "store"), Dataset("obqa", {}, [], {}), None, None)
    save_figure(plt.figure(), "03_hits", hits_table(), tmp_path, experiment)
    assert {path.name for path in tmp_path.iterdir()} == {f"03_hits_obqa.{suffix}" for suffix in ("pdf", "png", "csv")}
    with Image.open(tmp_path / "03_hits_obqa.png") as image:
        made = json.loads(image.text["Provenance"])
    assert made["settings"] == settings.model_dump(mode="json") and {"device", "versions"} < made.keys()


def test_saved_twice_is_the_same(tmp_path):
    whole = main_table()
    for i, table in enumerate((whole, whole.sample(frac=1, random_state=0))):
        save_figure(plot_main(whole), "04_main", table, tmp_path / str(i), {"seed": 0, "date": f"2026-11-2{i}"})
    for suffix in ("pdf", "png", "csv"):
        first, second = (tmp_path / str(i) / f"04_main.{suffix}" for i in range(2))
        assert first.read_bytes() == second.read_bytes(), suffix


def test_csv_is_long_form(tmp_path):
    table = long_form(
        [accuracy_row(seed=1, value=1 / 3), accuracy_row(low=0.4, high=0.6), accuracy_row(method="few_shot")]
    )
    save_figure(plt.figure(), "x", table, tmp_path, {})
    path = tmp_path / "x.csv"
    assert path.read_text().splitlines() == [
        ",".join(COLUMNS),
        "03_hits,world,smoke,,few_shot,t5-nano-base,,,,,,accuracy,,,,,0.5,,,,",
        "03_hits,world,smoke,,kard_bm25,t5-nano-base,,,,,,accuracy,,,,,0.5,0.4,0.6,,",
        "03_hits,world,smoke,,kard_bm25,t5-nano-base,1,,,,,accuracy,,,,,0.333333,,,,",
    ]
    in_order = pd.concat([table[2:], table[1:2], table[:1]], ignore_index=True)
    pd.testing.assert_frame_equal(read_table(path), in_order.round(6))


def test_a_figure_that_fails_leaves_the_old_files(tmp_path):
    table = hits_table()
    save_figure(plot_hits(table), "03_hits", table, tmp_path, {})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    broken = plt.figure()
    broken.text(0.5, 0.5, "$\\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(broken, "03_hits", table, tmp_path, {})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
def test_names_that_are_no_file(name, tmp_path):
    with pytest.raises(FigureError, match="cannot be a figure's name"):
        save_figure(plt.figure(), name, hits_table(), tmp_path, {})
