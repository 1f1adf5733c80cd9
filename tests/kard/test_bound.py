"""The rows of notebook 01: what is measured once, what is drawn of it, and how growth is read off."""

import math

import numpy as np
import pytest

from kardlib.artifacts.store import Store
from kardlib.kard.bound import PARTS, fewest_bits, growth_row, key_rows, measure, shortest_key, sweeps
from kardlib.kard.memorization import Task, cut, draw_task, read, recall, remember
from kardlib.presets import preset
from kardlib.report.drawings.memory import plot_growth, plot_keys, plot_learners, plot_networks
from kardlib.report.rows import FigureError, long_form
from kardlib.settings import SettingsError

SMOKE = preset("smoke").memorization
BITS = {"metric": "bits", "knob": "length", "n": 5}


def test_requirements_are_the_smallest_that_suffice():
    draw = draw_task(Task(32, 64, 32, 32), np.random.default_rng(0))
    owners, lengths = remember(draw)
    full, needed = recall(draw, owners, lengths), fewest_bits(draw, True, 0.02, step=8)
    errors = [recall(draw, owners, cut(lengths, int(b), np.random.default_rng(0))) for b in (needed, needed - 8)]
    assert errors[0] <= full + 0.02 < errors[1]
    key = shortest_key(draw, "read_key", 0.02)
    at, below, whole = read(draw, [key, key - 1, 64])
    assert at <= whole + 0.02 < below


def test_a_sweep_varies_one_size_and_holds_the_middle():
    knobs = preset().memorization
    middle = Task(knobs.strings, knobs.bits, knobs.strings, knobs.irrelevant)
    by_n, by_r = sweeps(knobs).values()
    assert middle in by_n and middle in by_r
    assert [task.strings for task in by_n] == [16, 64, 256, 1024] and {task.irrelevant for task in by_n} == {256}
    assert [task.irrelevant for task in by_r] == [0, 256, 1024, 4096] and {task.strings for task in by_r} == {256}
    assert all(task.samples == task.strings for task in by_n + by_r)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    return {part: measure(part, SMOKE, store, figure=part, dataset="next_symbol", scale="smoke") for part in PARTS}


def test_all_parts_are_drawn(rows):
    assert len(plot_learners(long_form(rows["samples"] + rows["budgets"])).axes) == 3
    panels = plot_keys(long_form(rows["keys"]), Task(32, 32, 32, 32), sweeps(SMOKE)).axes
    shown = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in panels[:2]]
    assert len(panels) == 4
    assert shown == [["N = 2", "N = 8", "N = 32", "N = 128"], ["R = 0", "R = 32", "R = 128", "R = 512"]]
    assert plot_growth(long_form(rows["growth"])).axes[0].get_xscale() == "log"
    labels = [text.get_text() for text in plot_networks(long_form(rows["network"])).legends[0].get_texts()]
    assert labels == ["Network alone", "Network with retrieved string", "The most it held at any size"]
    with pytest.raises(FigureError, match="no row has the metric error_shown"):
        plot_networks(long_form(rows["growth"]))


def test_sliders_draw_any_size():
    for task in (Task(2, 8, 2, 0), Task(40, 512, 40, 4096)):
        table = long_form([row | {"figure": "x", "dataset": "x", "scale": "x"} for row in key_rows(task, [0.01], 2, 0)])
        assert len(plot_keys(table, task).axes) == 2


def test_measured_once(rows, tmp_path, monkeypatch):
    store = Store(tmp_path)
    first = measure("growth", SMOKE, store, figure="a")
    monkeypatch.setitem(PARTS, "growth", None)
    assert measure("growth", SMOKE, store, figure="a") == first
    assert [row["value"] for row in first] == [row["value"] for row in rows["growth"]]


def test_settings_out_of_range():
    with pytest.raises(SettingsError, match=r"memorization\.eps"):
        preset().override({"memorization.eps": 0})


def test_growth_is_the_slope_on_logarithmic_axes():
    bits = [(16, 29.0, 27.0, 32.0), (64, 50.0, 40.0, 60.0), (256, 119.0, 109.0, 129.0)]
    rows = [
        BITS | {"method": "read_key", "x": d, "value": value, "low": low, "high": high} for d, value, low, high in bits
    ]
    row = growth_row(rows, "read_key")
    assert row["metric"] == "bits_growth" and not {"knob", "x"} & row.keys()
    assert row["value"] == pytest.approx(0.5)  # 4 times the bits for 16 times the length
    assert row["low"] < row["value"] < row["high"]
    assert row["low"] == pytest.approx(math.log2(110 / 33) / 4)


def test_growth_starts_where_a_string_is_no_shorter_than_its_key():
    rows = [
        BITS | {"method": method, "x": d, "value": value, "low": value, "high": value}
        for d, bits in ((8, 3), (32, 15), (128, 31))
        for method, value in (("read_key", bits), ("theorem_1", 10 * d), ("theorem_2", 10 * 20))
    ]
    assert growth_row(rows, "read_key")["value"] == pytest.approx(0.5)  # 16 to 32 for 4 times the length
    with pytest.raises(SettingsError, match=r"^memorization\.growth_bits: two or more of the lengths must be"):
        growth_row(rows[:6], "read_key")
