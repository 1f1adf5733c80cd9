"""Rows over many worlds: each world is one observation, and many stand in the place of one."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from kardlib.report.claims import judge, read_claims
from kardlib.report.combined import MANY_WORLDS, pool_worlds, put_many_worlds
from kardlib.report.rows import gained, long_form

PLACE = {"dataset": "world", "scale": "embedded", "split": "test", "student": "t5-nano-base", "k": 3}
GAIN = PLACE | {"method": "kard_reranker", "metric": "accuracy", "over": "reasoning_distillation"}


def gain(value, figure=MANY_WORLDS, **columns):
    return GAIN | {"figure": figure, "value": value, "low": value - 0.1, "high": value + 0.1, "n": 900} | columns


def test_the_interval_over_worlds_is_that_of_the_t_test_on_their_means():
    values = [0.01, 0.05, 0.03, -0.02, 0.04]
    rows = pool_worlds({10 + i: [gain(value, unread=0.01 * i or None)] for i, value in enumerate(values)})
    assert [row["value"] for row in rows] == [*values, pytest.approx(np.mean(values))]
    assert [row["seed"] for row in rows[:-1]] == [10, 11, 12, 13, 14] and "seed" not in rows[-1]
    assert [row["low"] for row in rows[:-1]] == [value - 0.1 for value in values]  # each world keeps its own interval
    told, expected = rows[-1], ttest_1samp(values, 0)
    low, high = expected.confidence_interval()
    assert (told["low"], told["high"], told["p"]) == pytest.approx((low, high, expected.pvalue))
    assert told["n"] == 4500 and told["unread"] == pytest.approx(0.02)
    assert len(gained(long_form(rows))) == 1


def test_one_world_tells_nothing_of_others():
    *_, told = pool_worlds({10: [gain(0.3)]})
    assert (told["low"], told["high"]) == (-1, 1)  # all that a gain can be


def test_worlds_that_agree_by_luck_do_not_say_how_far_others_lie():
    *_, told = pool_worlds({10: [gain(0.3)], 11: [gain(0.3)]})
    assert told["value"] == pytest.approx(0.3) and {told["low"], told["high"], told["p"]} == {None}


def test_rows_of_a_seed_are_not_taken_for_a_worlds():
    rows = pool_worlds({10: [gain(0.1), gain(0.7, seed=0)], 11: [gain(0.2), gain(0.9, seed=0)]})
    assert [row["value"] for row in rows] == [0.1, 0.2, pytest.approx(0.15)]


def test_a_row_that_a_world_lacks_is_an_error():
    with pytest.raises(ValueError, match="kard_reranker, accuracy_never: there is no such row of every world"):
        pool_worlds({10: [gain(0.1), gain(0.2, metric="accuracy_never")], 11: [gain(0.1)]})


def test_what_many_worlds_were_asked_is_judged_by_them():
    (claim,) = [claim for claim in read_claims() if claim.id == "KARD over RD"]
    usual = [gain(0.05, "04_main"), gain(0.5, "04_main", student="t5-nano-large"), gain(0.05, "04_main", seed=0)]
    many = pool_worlds({10: [gain(0.02)], 11: [gain(0.021)], 12: [gain(0.022)]})
    table = long_form([*usual, *many])
    table["file"] = table["figure"] + ".csv"
    base, large = judge([claim], table).to_dict("records")
    assert (base["student"], base["verdict"], base["seeds"], base["n"]) == ("t5-nano-base", "reproduced", 3, 2700)
    assert base["value"] == pytest.approx(2.1) and base["file"] == f"{MANY_WORLDS}.csv"
    assert (large["value"], large["verdict"], large["file"]) == (pytest.approx(50), "reproduced", "04_main.csv")


def test_many_worlds_speak_for_their_own_folder_alone():
    mine, usual, many = (long_form([row]) for row in (gain(-0.09, "04_main"), gain(0.05, "04_main"), gain(0.02)))
    files = ["mine/04_main.csv", "figures/04_main.csv", f"figures/{MANY_WORLDS}.csv"]
    table = pd.concat([mine, usual, many], ignore_index=True).assign(seeds=1, file=files)
    assert put_many_worlds(table)["value"].tolist() == [-0.09, 0.02, 0.02]


def test_a_few_worlds_or_other_questions_replace_nothing():
    for other in (gain(0.2, "21_worlds"), gain(0.2, metric="accuracy_never"), gain(0.2, seed=10)):
        table = long_form([gain(0.05, "04_main"), other]).assign(file="", seeds=1)
        pd.testing.assert_frame_equal(put_many_worlds(table), table, check_dtype=False)
