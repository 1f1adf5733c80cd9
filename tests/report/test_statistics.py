"""Intervals and tests are checked where the right value is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t, ttest_ind, ttest_rel

from kardlib.report.evaluate import gain_row
from kardlib.report.statistics import (
    Interval,
    by_chance,
    by_cluster,
    mean_interval,
    paired_difference,
    ratio_interval,
    share_interval,
    standard_error,
    unpaired_difference,
    verdict,
)


def test_interval_of_one_seed_is_the_binomial_one():
    values = np.repeat([1, 0], [360, 240])
    mean, low, high = mean_interval(values)
    assert mean == 0.6
    assert [low, high] == pytest.approx([0.6 - 0.0392, 0.6 + 0.0392], abs=0.0002)  # 1.96 sqrt(0.6 0.4 / 600)


def test_one_seed_is_the_t_test_over_questions_and_one_question_that_over_seeds():
    a, b = np.random.default_rng(0).random((2, 40)) < [[0.7], [0.5]]
    right = ttest_rel(a.astype(float), b.astype(float))
    ends = right.confidence_interval()
    for table_a, table_b in ((a, b), (a[None], b[None]), (a[:, None], b[:, None])):
        found = paired_difference(table_a, table_b)
        assert (found.low, found.high, found.p) == pytest.approx((ends.low, ends.high, right.pvalue))


def test_the_error_of_crossed_seeds_and_questions_by_hand():
    table = np.array([[1.0, 2, 6], [3, 4, 5]])  # means of seeds 3, 4; of questions 2, 3, 5.5
    ms_seeds, ms_questions, ms_rest = 1.5, 6.5, 1.5
    assert standard_error(table) == pytest.approx((np.sqrt(6.5 / 6), 2))  # seeds differ no more than the rest does
    table[1] += 3
    error, freedom = standard_error(table)
    ms_seeds = 3 * 4**2 / 2
    variance = ms_seeds + ms_questions - ms_rest
    assert error == pytest.approx(np.sqrt(variance / 6))
    assert freedom == pytest.approx(variance**2 / (ms_seeds**2 / 1 + ms_questions**2 / 2 + ms_rest**2 / 2))


def test_a_single_value_says_nothing():
    assert mean_interval([1]) == (1, -np.inf, np.inf) and paired_difference([1], [0]).p == 1
    assert {gain_row([1], [0], "bm25")[end] for end in ("low", "high")} == {-1, 1}
    assert {gain_row([1], [0], "bm25", "milliseconds")[end] for end in ("low", "high")} == {None}


def answers(draws: int, seeds: int, spread: float) -> np.ndarray:
    """Right and wrong answers of two equally good methods, (methods, draws, seeds, 600 questions): half of what makes a
    question hard is the same for both, and a training run is `spread` (standard deviation) better or worse.
    """
    rng = np.random.default_rng(0)
    hard = rng.normal(size=(1, draws, 1, 600)) + rng.normal(size=(2, draws, 1, 600))
    luck = rng.normal(0, spread, (2, draws, seeds, 1))
    return rng.random((2, draws, seeds, 600)) < 1 / (1 + np.exp(-hard)) + luck


def rejections(values: np.ndarray) -> float:
    """In how many draws p < .05 says that a mean which is 0 is not, so that 95 % intervals miss it: per cent."""
    error, freedom = np.array([standard_error(draw) for draw in values]).T
    return 100 * float((2 * t.sf(abs(values.mean((1, 2))) / error, freedom) < 0.05).mean())


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0), (3, 0), (3, 0.01), (3, 0.03), (5, 0), (5, 0.01), (5, 0.03)])
def test_intervals_and_p_are_wrong_as_often_as_they_say(seeds, spread):
    a, b = answers(2000, seeds, spread)
    assert 3 <= rejections(a - 0.5) <= 7
    assert 3 <= rejections(a.astype(float) - b) <= 7


def answers_of_clusters(draws: int, seeds: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """As `answers`, of 60 ailments with 10 or 20 questions each, of two strata, one of them harder; with the clusters.

    An ailment is easy or hard for a method as a whole.
    """
    rng = np.random.default_rng(0)
    ailment = np.repeat(np.arange(60), np.tile([10, 20], 30))
    stratum = (ailment >= 30).astype(int)
    hard = rng.normal(0, 0.12, (2, draws, 1, 60))[..., ailment] + np.array([0.1, -0.1])[stratum]
    luck = rng.normal(0, spread, (2, draws, seeds, 1))
    return rng.random((2, draws, seeds, len(ailment))) < 0.5 + hard + luck, np.stack([stratum, ailment])


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0), (3, 0), (5, 0.01), (5, 0.03)])
def test_intervals_of_questions_that_share_facts_are_wrong_as_often_as_they_say(seeds, spread):
    (a, b), clusters = answers_of_clusters(1000, seeds, spread)
    for values in (a - 0.5, a.astype(float) - b):
        assert 3 <= rejections(np.stack([by_cluster(draw, clusters) for draw in values])) <= 7
        assert rejections(values) > 10  # as if each question stood for itself


def test_clusters_that_have_nothing_in_common_are_no_surer_than_their_questions():
    """A few of them lie close together by chance; the interval is then that of questions, and covers no less."""
    rng, covered, narrow = np.random.default_rng(0), 0, 0
    clusters = np.stack([np.zeros(120, int), np.arange(120) // 30])
    for _ in range(500):
        values = (rng.random(120) < 0.5).astype(float)
        found, alone = mean_interval(values, clusters), mean_interval(values)
        assert found.high - found.low >= alone.high - alone.low - 1e-9
        covered += found.low <= 0.5 <= found.high
        error, freedom = standard_error(by_cluster(values[None], clusters))
        narrow += 2 * error * t.ppf(0.975, freedom) < 0.5 * (alone.high - alone.low)
    assert covered >= 0.95 * 500 and narrow > 0.02 * 500


def test_clusters_keep_every_seeds_mean_and_their_spread_is_that_by_hand():
    values = np.array([[1.0, 0, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0]])
    clusters = np.array([[0, 0, 0, 1, 1, 1], [4, 4, 7, 5, 5, 9]])
    pooled = by_cluster(values, clusters)
    assert pooled.shape == (2, 4) and pooled.mean(1) == pytest.approx(values.mean(1))
    easy, hard = 5 / 6, 2 / 6  # means of the strata
    sums = [1 - 2 * easy, 1 - 2 * hard, 1 - easy, 0 - hard]  # of the first seed: ailments 4, 5, 7, 9
    by_hand = 3 / 6 + (np.array(sums) - np.mean(sums)) * 4 / 6 * np.sqrt(3 / 2)
    assert pooled[0] == pytest.approx(by_hand)
    assert mean_interval([1, 0, 1], [[0, 0, 1], [0, 0, 1]]) == (pytest.approx(2 / 3), -np.inf, np.inf)
    assert mean_interval([1, 0, 1, 1], [[0, 0, 1, 1], [0, 0, 1, 1]]) == (0.75, -np.inf, np.inf)


def test_questions_that_each_stand_for_themselves_are_clusters_of_one():
    a, b = np.random.default_rng(0).random((2, 3, 50)) < [[[0.8]], [[0.5]]]
    alone = np.stack([np.zeros(50, int), np.arange(50)])
    assert paired_difference(a, b, alone) == pytest.approx(paired_difference(a, b))


def test_one_seed_cannot_know_how_far_training_runs_lie_apart():
    assert 7 < rejections(np.subtract(*answers(2000, 1, 0.01).astype(float))) < 12
    assert 24 < rejections(np.subtract(*answers(2000, 1, 0.03).astype(float))) < 34
    assert 7 < rejections(np.subtract(*answers(2000, 2, 0.03).astype(float))) < 14  # and two hardly


def test_ratios_are_wrong_as_often_as_they_say():
    rng, missed = np.random.default_rng(0), {"f1": 0, "matthews": 0, "share": 0}
    for _ in range(1500):
        gold = rng.random(400) < 0.6
        said = np.where(rng.random((3, 400)) < 0.8, gold, ~gold)
        f1 = ratio_interval("f1", said, gold)
        missed["f1"] += not f1.low <= 2 * 0.48 / (0.56 + 0.6) <= f1.high
        matthews = ratio_interval("matthews", said, gold)
        missed["matthews"] += not matthews.low <= 0.144 / (0.56 * 0.44 * 0.6 * 0.4) ** 0.5 <= matthews.high
        hard = rng.random(400)
        failed = rng.random((3, 400)) < hard
        share = share_interval(failed & (hard > 0.8), failed)
        missed["share"] += not share.low <= 1 - 0.8**2 <= share.high
    assert all(0.03 <= count / 1500 <= 0.07 for count in missed.values()), missed


def test_how_many_verdicts_chance_alone_would_give():
    expected, most = by_chance(40)
    assert expected == pytest.approx(1) and most == 3 and by_chance(0) == (0, 0)
    draws = np.random.default_rng(0).binomial(40, 0.025, 10_000)
    assert (draws > most).mean() <= 0.05 < (draws >= most).mean()


def test_seeds_that_differ_widen_the_interval():
    same = np.tile(np.repeat([1, 0], [300, 300]), (3, 1))
    apart = np.stack([np.repeat([1, 0], [n, 600 - n]) for n in (200, 300, 400)])
    width = [high - low for _, low, high in map(mean_interval, (same, apart))]
    assert width[1] > 2 * width[0]


@given(st.integers(1, 4), st.integers(2, 12), st.integers(0, 2**32))
def test_p_is_below_a_twentieth_exactly_where_the_interval_leaves_zero_out(seeds, questions, draw):
    a, b = np.random.default_rng(draw).random((2, seeds, questions)) < [[[0.8]], [[0.3]]]
    found = paired_difference(a, b)
    assert (found.p < 0.05) == (found.low < found.high and not found.low <= 0 <= found.high)
    assert (verdict(found) == "reproduced") == (found.p < 0.05 and found.mean > 0)


def test_paired_difference():
    rng = np.random.default_rng(0)
    a = rng.random((3, 600)) < 0.6
    b = a & (rng.random((3, 600)) < 0.9)
    better = paired_difference(a, b)
    assert better.low > 0 and better.p < 0.001
    assert better.mean == pytest.approx(a.mean() - b.mean())
    worse = paired_difference(b, a)
    assert (worse.mean, worse.low, worse.p) == pytest.approx((-better.mean, -better.high, better.p))
    alone = mean_interval(a)
    assert better.high - better.low < alone.high - alone.low  # pairing takes out what questions have in common
    assert paired_difference(a, a) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("values", "message"), [([], "not empty"), (np.zeros((2, 2, 2)), "shape"), ([1.0, np.nan], "missing")]
)
def test_values_that_are_none(values, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(values)


def test_methods_with_different_questions():
    with pytest.raises(ValueError, match=r"\(1, 3\) and \(1, 2\)"):
        paired_difference([1, 0, 1], [1, 0])


def test_a_share_has_the_interval_of_a_mean_where_the_whole_is_all():
    part = np.random.default_rng(0).integers(2, size=(3, 80))
    assert share_interval(part, np.ones((3, 80))) == pytest.approx(mean_interval(part))


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


def test_samples_of_other_questions_are_compared_as_by_welch():
    rng = np.random.default_rng(0)
    few, many = rng.normal(1, 3, (4, 25)), rng.normal(0, 1, (160, 2))
    welch = ttest_ind(few[:, 0], many[:, 0], equal_var=False)
    found = unpaired_difference(few[:, 0], many[:, 0])
    assert found.p == pytest.approx(welch.pvalue)
    assert found[1:3] == pytest.approx((*welch.confidence_interval(),))
    assert unpaired_difference([[1, 1]], [[0, 0]]).p == 1  # no spread was seen, and two are not all
    few, many = few + rng.normal(0, 3, (4, 1)), many + rng.normal(0, 3, (160, 1))  # ailments differ
    clusters = [np.repeat([np.zeros(len(part), int), range(len(part))], part.shape[1], 1) for part in (few, many)]
    welch = ttest_ind(few.mean(1), many.mean(1), equal_var=False)
    assert unpaired_difference(few.ravel(), many.ravel(), *clusters).p == pytest.approx(welch.pvalue)


@pytest.mark.parametrize(("low", "high"), [(0, 0.1), (-0.1, 0), (0, 0)])
def test_an_interval_that_ends_where_the_claim_does_decides_nothing(low, high):
    found = Interval((low + high) / 2, low, high)
    assert verdict(found) == verdict(found, -np.inf, below=0) == "undecided"


@pytest.mark.parametrize("differ", [1, -1, 0])
def test_two_questions_that_agree_decide_nothing(differ):
    found = paired_difference([[differ, differ]], [[0, 0]])
    assert found == (differ, differ, differ, 1)
    assert verdict(found) == verdict(found, -np.inf, below=0) == verdict(found, above=-2, below=2) == "undecided"


@pytest.mark.parametrize(("unread", "told"), [(None, "reproduced"), (0.2, "reproduced"), (0.21, "not told")])
def test_no_verdict_on_answers_that_could_not_be_read(unread, told) -> None:
    assert verdict(Interval(0.5, 0.4, 0.6), unread=unread) == told


def test_seeds_that_each_name_one_letter_everywhere_have_an_interval_of_their_spread():
    answers = np.random.default_rng(0).integers(0, 4, 600)
    answers[:60] = 0  # so that the seeds differ
    values = np.stack([answers == letter for letter in range(3)]).astype(float)
    low, high = mean_interval(values)[1:]
    by_seed = values.mean(1)
    reach = t.ppf(0.975, 2) * by_seed.std(ddof=1) / 3**0.5
    assert (low, high) == pytest.approx((by_seed.mean() - reach, by_seed.mean() + reach))
