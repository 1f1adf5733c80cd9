"""Intervals and tests are checked where the right value is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from kardlib.report.evaluate import (
    bootstrap_interval,
    chance_gain_row,
    f1_difference,
    f1_interval,
    gain_row,
    hits,
    paired_difference,
    share_interval,
    summary_rows,
)


def test_hits_over_all_questions():
    run = {"q1": [("a", 3.0), ("b", 2.0)], "q2": [("c", 1.0)], "q3": [("d", 1.0)]}
    relevant = {"q1": {"b"}, "q2": {"c"}}
    assert hits(run, relevant, 1).tolist() == [0, 1, 0]
    assert hits(run, relevant, 2).tolist() == [1, 1, 0]
    assert hits(run, relevant, 2, ["q4", "q1"]).tolist() == [0, 1]  # nothing was found for q4
    with pytest.raises(ValueError, match="k = 0 must be at least 1"):
        hits(run, relevant, 0)


def test_interval_of_one_seed_is_the_binomial_one():
    values = np.repeat([1, 0], [360, 240])
    mean, low, high = bootstrap_interval(values)
    assert mean == 0.6
    assert [low, high] == pytest.approx([0.6 - 0.0392, 0.6 + 0.0392], abs=0.004)  # 1.96 sqrt(0.6 0.4 / 600)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values)


def test_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(200):
        hard, luck = rng.normal(0, 1, 300), rng.normal(0, 0.02, (3, 1))
        values = rng.random((3, 300)) < 1 / (1 + np.exp(-hard)) + luck
        _, low, high = bootstrap_interval(values, resamples=500, seed=i)
        covered += low <= 0.5 <= high
    assert covered >= 182  # 95 % of 200 is 190; three standard deviations below


def test_seeds_that_differ_widen_the_interval():
    same = np.tile(np.repeat([1, 0], [300, 300]), (3, 1))
    apart = np.stack([np.repeat([1, 0], [n, 600 - n]) for n in (200, 300, 400)])
    width = [high - low for _, low, high in map(bootstrap_interval, (same, apart))]
    assert width[1] > 2 * width[0]


@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 30))
def test_p_is_mcnemar_for_one_seed(only_a, only_b, both):
    a = np.repeat([1, 0, 1, 0], [only_a, only_b, both, 1])
    b = np.repeat([0, 1, 1, 0], [only_a, only_b, both, 1])
    exact = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1
    assert paired_difference(a, b, resamples=4000).p == pytest.approx(exact, abs=0.04)


def test_paired_difference():
    rng = np.random.default_rng(0)
    a = rng.random((3, 600)) < 0.6
    b = a & (rng.random((3, 600)) < 0.9)
    better = paired_difference(a, b)
    assert better.low > 0 and better.p < 0.001
    assert better.mean == pytest.approx(a.mean() - b.mean())
    worse = paired_difference(b, a)
    assert (worse.mean, worse.low, worse.p) == pytest.approx((-better.mean, -better.high, better.p))
    alone = bootstrap_interval(a)
    assert better.high - better.low < alone.high - alone.low  # pairing takes out what questions have in common
    assert paired_difference(a, a) == (0, 0, 0, 1)


def test_p_is_uniform_where_methods_are_equal():
    rng = np.random.default_rng(1)
    below = sum(paired_difference(*(rng.random((2, 3, 100)) < 0.5), resamples=300).p <= 0.1 for _ in range(300))
    assert below <= 46  # expected 30 of 300, three standard deviations above


@pytest.mark.parametrize(
    ("values", "message"), [([], "not empty"), (np.zeros((2, 2, 2)), "shape"), ([1.0, np.nan], "missing")]
)
def test_values_that_are_none(values, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values)


def test_methods_with_different_questions():
    with pytest.raises(ValueError, match=r"\(1, 3\) and \(1, 2\)"):
        paired_difference([1, 0, 1], [1, 0])


def test_a_share_has_the_interval_of_a_mean_where_the_whole_is_all():
    part = np.random.default_rng(0).integers(2, size=(3, 80))
    assert share_interval(part, np.ones((3, 80))) == pytest.approx(bootstrap_interval(part))


def test_a_share_of_few_is_less_certain_than_one_of_many():
    whole = np.zeros((2, 400))
    whole[:, :40] = 1
    part = whole * (np.arange(400) % 4 == 0)
    few, many = share_interval(part, whole), share_interval(np.tile(part[:, :40], 10), np.ones((2, 400)))
    assert few.mean == many.mean == 0.25
    assert few.low < many.low < 0.25 < many.high < few.high


def test_a_share_of_nothing_is_refused():
    with pytest.raises(ValueError, match="not empty"):
        share_interval([0, 0], [0, 0])
    with pytest.raises(ValueError, match="one shape"):
        share_interval([0, 1], [1, 1, 1])


def test_a_gain_is_the_paired_difference_and_says_over_what():
    a, b = np.array([[1, 1, 0, 1], [1, 0, 1, 1]]), np.array([[0, 1, 0, 0], [1, 0, 0, 1]])
    row = gain_row(a, b, "bm25", metric="hits_gold", method="reranker", k=3, over_x=1)
    difference = paired_difference(a, b)
    assert row == {
        "method": "reranker", "k": 3, "metric": "hits_gold", "over": "bm25", "over_x": 1, "n": 4,
        "value": difference.mean, "low": difference.low, "high": difference.high, "p": difference.p,
    }  # fmt: skip


def test_a_gain_over_chance_is_over_each_questions_own():
    row = chance_gain_row([[1, 0, 1, 0], [1, 0, 0, 0]], [2, 2, 4, 4], method="fine_tuning")
    assert row["value"] == pytest.approx(3 / 8 - 3 / 8) and row["low"] < 0 < row["high"]
    assert (row["metric"], row["over"], row["n"], row["p"]) == ("accuracy", "chance", 4, None)


def test_a_row_for_each_seed_and_one_over_all():
    rows = summary_rows([[1, 0], [1, 1]], [3, None], method="bm25")
    assert [(row["seed"], row["value"], row["n"]) for row in rows] == [(3, 0.5, 2), (None, 0.75, 2)]
    assert all(row["method"] == "bm25" for row in rows) and rows[1]["low"] <= 0.75 <= rows[1]["high"]


def test_f1_and_its_interval():
    rng = np.random.default_rng(0)
    gold = rng.random(200) < 0.6
    said = np.stack([np.where(rng.random(200) < 0.8, gold, ~gold) for _ in range(3)])
    plain = []
    for row in said:
        hit, wrong, missed = (row & gold).sum(), (row & ~gold).sum(), (~row & gold).sum()
        plain.append(2 * hit / (2 * hit + wrong + missed))
    interval = f1_interval(said, gold)
    assert interval.mean == pytest.approx(np.mean(plain))
    assert interval.low < interval.mean < interval.high < interval.low + 0.2
    assert f1_interval(gold, gold) == (1, 1, 1)
    assert f1_interval(np.zeros(200), gold).mean == 0
    with pytest.raises(ValueError, match="do not belong together"):
        f1_interval(said, gold[:5])


def test_a_difference_in_f1_is_paired():
    rng = np.random.default_rng(0)
    gold = rng.random(200) < 0.6
    worse = np.stack([np.where(rng.random(200) < 0.8, gold, ~gold) for _ in range(3)])
    better = np.where(rng.random(worse.shape) < 0.3, gold, worse)  # some of its mistakes are mended
    gain = f1_difference(better, worse, gold)
    alone = f1_interval(better, gold), f1_interval(worse, gold)
    assert gain.mean == pytest.approx(alone[0].mean - alone[1].mean)
    assert 0 < gain.low < gain.mean < gain.high
    assert gain.high - gain.low < min(interval.high - interval.low for interval in alone)
    assert f1_difference(worse, worse, gold) == (0, 0, 0)
    assert f1_difference(gold, worse, gold).mean == pytest.approx(1 - alone[1].mean)  # one row beside three
    with pytest.raises(ValueError, match="broadcast"):
        f1_difference(better, worse[:, :5], gold)
