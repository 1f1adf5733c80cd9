"""Rows of results: what is refused, what a cell is, and that a gain's fields name the two rows that it is between."""

from math import inf

import pandas as pd
import pytest

from kardlib.report.rows import (
    COLUMNS,
    MOST_UNREAD,
    FigureError,
    gained,
    in_digits,
    in_order,
    in_words,
    long_form,
    measured,
    read_table,
    to_rows,
    told,
    with_unread,
)
from tests.folders import ROOT
from tests.tables import accuracy_row

FIGURES = sorted((ROOT / "figures").glob("*.csv"))


def test_long_form_keeps_whole_numbers_whole():
    table = long_form([accuracy_row(seed=0, n=600), accuracy_row(k=3)])
    assert list(table.columns) == COLUMNS
    assert [str(table[name].dtype) for name in ("seed", "k", "n", "value")] == ["Int64", "Int64", "Int64", "float64"]
    assert pd.isna(table["seed"][1]) and pd.isna(table["low"][0]) and table["knob"].tolist() == ["", ""]
    assert long_form([]).empty


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"acuracy": 1}, "row 0: there is no column 'acuracy'; the columns are figure, dataset"),
        ({"value": 57.3}, "row 0: accuracy of kard_bm25 must be a fraction of one, not 57.3"),
        ({"value": -0.1, "metric": "hits_gold"}, "hits_gold of kard_bm25 must be a fraction"),
        ({"high": 1.2, "low": 0.3}, "must be a fraction"),
        ({"low": 0.6, "high": 0.7}, "0.5 is not between 0.6 and 0.7"),
        ({"high": float("nan")}, "0.5 is not between"),
        ({"value": float("nan")}, "row 0: accuracy of kard_bm25: its value should be a finite number"),
        ({"value": None}, "row 0: value: Input should be a valid number"),
        ({"method": None}, "row 0: method: Input should be a valid string"),
        ({"metric": None}, "row 0: metric: Input should be a valid string"),
        ({"dataset": ""}, "row 0: dataset: String should have at least 1 character"),
        ({"scale": ""}, "row 0: scale: String should have at least 1 character"),
        ({"figure": ""}, "row 0: figure: String should have at least 1 character"),
        ({"seed": -1}, "row 0: seed: Input should be greater than or equal to 0"),
        ({"n": -1}, "row 0: n: Input should be greater than or equal to 0"),
        ({"unread": 0}, "row 0: unread: Input should be greater than 0"),
        ({"unread": 1.01}, "row 0: unread: Input should be less than or equal to 1"),
        ({"metric": "bits", "value": float("inf")}, "its value should be a finite number"),
        ({"metric": "crossing", "value": float("nan")}, "its value should be a finite number"),
        ({"value": "high"}, "row 0: value: Input should be a valid number"),
        ({"k": 1.5}, "row 0: k: Input should be a valid integer"),
        ({"k": 0}, "row 0: k: Input should be greater than or equal to 1"),
        ({"student": 3}, "row 0: student: Input should be a valid string"),
        ({"knob": "l", "x": "many"}, "row 0: x: Input should be a valid number"),
        ({"knob": "l", "at": 0.25}, "row 0: at: Input should be a valid string"),
        ({"metric": "accuracy at l = 3"}, "row 0: 'accuracy at l = 3' is no identifier: a metric is one word"),
        ({"knob": "l"}, "row 0: accuracy of kard_bm25: a knob has an x or an at, and these have a knob"),
        ({"x": 3}, "a knob has an x or an at"),
        ({"at": "own"}, "a knob has an x or an at"),
        ({"over_student": "t5"}, "over_x, over_at and over_student need an over"),
        ({"over": "kard_bm25"}, "it is compared with itself; say over_x, over_at or over_student"),
        ({"over": "few_shot", "value": -1.2}, "accuracy of kard_bm25 must be a fraction"),
    ],
)
def test_rows_that_are_refused(changes, message):
    with pytest.raises(FigureError, match=message):
        long_form([accuracy_row(**changes)])


def test_other_metrics_may_be_larger_than_one():
    assert long_form([accuracy_row(metric="bits", value=1200.0)])["value"][0] == 1200
    assert long_form([accuracy_row(metric="crossing", value=inf)])["value"][0] == inf  # beyond all that was run


@pytest.mark.parametrize(
    ("numbers", "digits"),
    [
        ((2, 1, 3), "2.0 [1.0, 3.0]"),
        ((2, 1, inf), "2.0 [1.0, …]"),
        ((2, -inf, inf), "2.0"),
        ((2, None, None), "2.0"),
        ((inf, 1, inf), "… [1.0, …]"),
    ],
)
def test_an_end_beyond_all_that_was_run_is_shown_beside_one_that_is_not(numbers, digits):
    assert in_digits(dict(zip(("value", "low", "high"), numbers, strict=True)), ".1f") == digits


def test_two_rows_for_one_cell():
    with pytest.raises(FigureError, match=r"row 1: there are two rows for .*method kard_bm25.*metric accuracy"):
        long_form([accuracy_row(), accuracy_row(value=0.6)])


def test_a_gain_may_be_a_loss_and_other_fields_are_other_cells():
    where = accuracy_row(knob="l", metric="accuracy")
    table = long_form(
        where | {"x": x, "at": at, "over": over, "over_x": over_x, "value": -0.2}
        for x in (5, 10) for at in ("", "equal steps") for over, over_x in (("few_shot", None), ("kard_bm25", 3))
    )  # fmt: skip
    assert len(gained(table)) == 8 and measured(table).empty
    with pytest.raises(FigureError, match=r"two rows for .*knob l, x 5\.0, metric accuracy, over few_shot"):
        long_form(to_rows(table[:1]) * 2)


def test_measured_and_gained_leave_out_single_seeds():
    table = long_form([accuracy_row(), accuracy_row(seed=1), accuracy_row(over="few_shot")])
    assert len(measured(table)) == len(gained(table)) == 1 and measured(table)["over"].item() == ""


def test_what_could_not_be_read_is_no_value():
    rows = [
        accuracy_row(k=k, unread=unread, low=0.4, high=0.6) for k, unread in ((1, None), (2, MOST_UNREAD), (3, 0.21))
    ]
    assert told(long_form(rows))[["value", "low", "high"]].isna().any(axis=1).tolist() == [False, False, True]
    shown = {None: "50.0", float("nan"): "50.0", 0.004: "50.0", 0.03: "50.0, 3% unread", 0.98: "98% unread"}
    assert [with_unread("50.0", unread) for unread in shown] == [*shown.values()]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "accuracy"),
        ({"k": 3}, "accuracy"),
        ({"metric": "hits_gold", "k": 3, "over": "bm25"}, "hits gold at k = 3 over BM25"),
        ({"knob": "l", "x": 10, "over": "kard_bm25", "over_x": 3}, "accuracy at l = 10 over l = 3"),
        (
            {"knob": "l", "x": 10, "at": "equal steps", "over": "kard_bm25", "over_x": 3},
            "accuracy, equal steps, at l = 10 over l = 3",
        ),
        (
            {"knob": "share", "x": 0.25, "over": "fine_tuning", "over_x": 1},
            "accuracy at share = 0.25 over Fine-tuning (FT) at share = 1",
        ),
        ({"over": "fine_tuning", "over_student": "t5"}, "accuracy over Fine-tuning (FT) with t5"),
        (
            {"knob": "corpus", "at": "none", "over": "dapt", "over_at": "own"},
            "accuracy at corpus = none over DAPT + RD at corpus = own",
        ),
        (
            {"knob": "cause", "at": "none", "metric": "share_of_failures"},
            "share of failures at cause = none",
        ),
        (
            {"knob": "entries", "x": 1_000_000, "at": "batch 32", "metric": "latency_overhead"},
            "latency overhead, batch 32, at entries = 1,000,000",
        ),
        ({"over": "mine"}, "accuracy over mine"),
    ],
)
def test_a_row_in_words(fields, words):
    (row,) = long_form([accuracy_row(**fields)]).to_dict("records")
    assert in_words(row) == words


def test_text_that_looks_like_nothing_is_kept(tmp_path):
    table = long_form([accuracy_row(student=name, knob="corpus", at="none") for name in ("NA", "null", "3")])
    table.to_csv(tmp_path / "x.csv", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "x.csv"), table)


@pytest.mark.parametrize("path", FIGURES, ids=lambda p: p.stem)
def test_committed_rows_are_in_order(path):
    table = read_table(path)
    pd.testing.assert_frame_equal(in_order(table), table)


def place(gain, rival):
    """The fields of one of the two rows of a gain, as they stand in a figure's data."""
    x = gain.over_x if rival and pd.notna(gain.over_x) else gain.x
    at = gain.over_at if rival and gain.over_at else gain.at
    student = gain.over_student if rival and gain.over_student else gain.student
    return gain.over if rival else gain.method, gain.dataset, student, gain.metric, gain.split, gain.knob, str(x), at


def test_every_committed_gain_is_the_difference_of_the_rows_that_its_fields_name():
    checked = 0
    for path in FIGURES:
        table, values = read_table(path), {}
        for row in measured(table).itertuples():
            values.setdefault(place(row, rival=False), {})[row.k] = row.value
        for gain in gained(table).itertuples():
            ours, theirs = values.get(place(gain, rival=False)), values.get(place(gain, rival=True))
            if ours and theirs:  # else the figure shows gains alone, or guessing, which depends on no student
                k = theirs if gain.knob == "k" else {gain.k: theirs.get(gain.k)}
                (rival,) = k.values()
                assert ours[gain.k] - rival == pytest.approx(gain.value, abs=2e-6), (path.stem, gain)
                checked += 1
    assert checked > 150
