"""Intervals and tests are checked where the right value is known."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t, ttest_ind, ttest_rel

from kardlib.artifacts.store import Store
from kardlib.data.answers import UNREAD
from kardlib.data.files import Dataset, Question
from kardlib.data.world import build_world
from kardlib.kard.experiment import Experiment
from kardlib.kard.pipeline import Gain, Row
from kardlib.presets import preset
from kardlib.report.evaluate import gain_row, gain_rows, hits, part_rows, share_rows, summary_rows, tabulate
from kardlib.report.rows import long_form
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

EXPERIMENT = Experiment(
    preset("smoke").model_copy(update={"seeds": (0, 1)}), Store(), Dataset("world", {}, [], {}), None, None
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


def test_a_gain_is_the_paired_difference_and_says_over_what():
    a, b = np.array([[1, 1, 0, 1], [1, 0, 1, 1]]), np.array([[0, 1, 0, 0], [1, 0, 0, 1]])
    row = gain_row(a, b, "bm25", metric="hits_gold", method="reranker", k=3, over_x=1)
    difference = paired_difference(a, b)
    assert row == {
        "method": "reranker", "k": 3, "metric": "hits_gold", "over": "bm25", "over_x": 1, "n": 4,
        "value": difference.mean, "low": difference.low, "high": difference.high, "p": difference.p, "unread": None,
    }  # fmt: skip


def test_a_gain_over_chance_is_over_each_questions_own():
    answered, chance = Row("fine_tuning", "t5-nano-base"), Row("chance", "")
    scores = {answered: [[1, 0, 1, 0], [1, 0, 0, 0]], chance: [1 / 2, 1 / 2, 1 / 4, 1 / 4]}
    (row,) = gain_rows(EXPERIMENT, "04_main", scores, [Gain(answered, chance)])
    assert row["value"] == pytest.approx(3 / 8 - 3 / 8) and row["low"] < 0 < row["high"]
    assert (row["metric"], row["over"], row["n"], row["p"]) == ("accuracy", "chance", 4, 1)


def test_a_grid_is_tabulated_by_what_its_rows_say_and_how_they_differ():
    """What notebooks wrote by hand: every row's columns, and of the rival those that are not the row's own."""
    few, all_of_them = (Row("kard_bm25", "t5-nano-base", (("retrieval.k", k),), "k", k) for k in (1, 5))
    floor = Row("bag_of_words", "")
    scores = {few: [[1, 0, 1, 1], [0, 0, 1, 1]], all_of_them: [[1, 1, 1, 1], [1, 0, 1, 1]], floor: [0, 0, 1, 1]}
    gains = [Gain(all_of_them, few), Gain(few, floor)]
    rows = tabulate(EXPERIMENT, "09_passages", scores, gains, metric="hits_gold", split="silver")
    where = {"figure": "09_passages", "dataset": "world", "scale": "smoke", "split": "silver", "metric": "hits_gold"}
    seeds, by_hand = EXPERIMENT.settings.seeds, []
    for row in (few, all_of_them):
        by_hand += summary_rows(
            scores[row], seeds, method="kard_bm25", student="t5-nano-base", k=row.x, knob="k", x=row.x, **where
        )
    k = EXPERIMENT.settings.retrieval.k
    by_hand += summary_rows(scores[floor], [None], method="bag_of_words", k=k, **where)
    named = where | {"method": "kard_bm25", "student": "t5-nano-base", "knob": "k"}
    by_hand.append(gain_row(scores[all_of_them], scores[few], "kard_bm25", **named, k=5, x=5, over_x=1))
    by_hand.append(gain_row(scores[few], [scores[floor]] * 2, "bag_of_words", **named, k=1, x=1))
    assert long_form(rows).equals(long_form(by_hand)) and [row.get("p") for row in rows[-2:]] == [
        row["p"] for row in by_hand[-2:]
    ]


def test_against_gold_passages_that_nobody_knows_there_is_no_row_and_no_zero():
    questions = [Question(name, "Why?", ("a", "b"), 0) for name in ("q", "without")]
    scores = {row: [[0.0, 0.0]] * 2 for row in (Row("kard_bm25", ""), Row("kard_reranker", ""))}
    for gold, known in (({}, False), ({"other": {"p"}}, False), ({"q": {"p"}}, True)):
        data = Dataset("own", {"test": questions}, [], gold)
        here = dataclasses.replace(EXPERIMENT, data=data)
        for metric in ("hits_gold", "gold_among_read"):
            rows = tabulate(here, "08_candidates", scores, [Gain(*scores)], metric=metric)
            assert bool(rows) == bool(gain_rows(here, "11_rag", scores, [Gain(*scores)], metric=metric)) == known
        assert tabulate(here, "08_candidates", scores, metric="hits_silver", split="silver")


def closed_world() -> Experiment:
    settings = preset("smoke").model_copy(update={"seeds": (0, 1)})
    world = build_world(settings.world)
    return Experiment(settings, Store(), world.dataset(), world, None)


def test_intervals_of_the_closed_world_speak_of_ailments():
    here = closed_world()
    clusters = here.clusters()
    rng = np.random.default_rng(0)
    better, worse = Row("kard_reranker", "t5-nano-base"), Row("fine_tuning", "t5-nano-base")
    scores = {row: rng.random((2, clusters.shape[1])) < chance for row, chance in ((better, 0.8), (worse, 0.3))}
    odd = clusters[1] % 2 == 1
    for name, part in [*here.strata.items(), *here.kinds.items(), (odd, odd)]:
        _, _, whole, *_, gain = tabulate(here, "04_main", scores, [Gain(better, worse)], asked=name)
        told = mean_interval(scores[better][:, part], clusters[:, part])
        assert (whole["value"], whole["n"]) == (told.mean, scores[better][:, part].shape[1])
        assert whole["low"] == max(0, told.low)
        apart = paired_difference(scores[better][:, part], scores[worse][:, part], clusters[:, part])
        assert (gain["value"], gain["p"]) == (apart.mean, apart.p)
    with pytest.raises(ValueError, match=f"7 scores are not those of the {clusters.shape[1]} questions of 'test'"):
        tabulate(here, "04_main", {better: np.ones((2, 7))})
    (row,) = tabulate(here, "08_candidates", {better: np.ones(7)}, asked=None, metric="milliseconds")
    assert row["value"] == 1


def test_a_growth_between_two_worlds_is_as_uncertain_as_both_leads():
    here, rng = closed_world(), np.random.default_rng(0)
    large = (("world.ailments", here.settings.world.ailments + 12),)
    at = [Row("kard_reranker", "t5-nano-base", knobs, "ailments", x) for x, knobs in enumerate(((), large))]
    leads = [Gain(row, row._replace(method="fine_tuning")) for row in at]
    scores = {row: rng.random(here.clusters().shape[1]) < 0.5 for lead in leads for row in lead[:2]}
    (row,) = gain_rows(here, "17_frontier", scores, [leads[1]._replace(less=leads[0])])
    each = [gain_rows(here.at(lead.above.knobs), "17_frontier", scores, [lead])[0] for lead in leads]
    assert row["value"] == pytest.approx(each[1]["value"] - each[0]["value"])
    assert row["n"] == each[0]["n"] + each[1]["n"]
    widths = [one["high"] - one["low"] for one in (row, *each)]
    assert widths[0] == pytest.approx(np.hypot(*widths[1:]), rel=0.1)  # the t quantiles of other freedoms aside


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


def test_a_gain_less_another_says_how_a_lead_grows():
    small, large = (Row("kard_bm25", size) for size in ("t5-nano-small", "t5-nano-base"))
    leads = [Gain(row, row._replace(method="fine_tuning")) for row in (small, large)]
    scores = {small: [[1, 0, 0, 0]], large: [[1, 1, 1, 0]]} | {lead.below: [[1, 0, 0, 0]] for lead in leads}
    (row,) = gain_rows(EXPERIMENT, "06_model_size", scores, [leads[1]._replace(less=leads[0])])
    assert (row["metric"], row["value"], row["n"]) == ("accuracy_gain_growth", 0.5, 4)
    assert (row["student"], row["over"], row["over_student"]) == ("t5-nano-base", "fine_tuning", "t5-nano-small")
    nothing = scores | {row: [[UNREAD] * 4] for row in leads[0][:2]}
    (row,) = gain_rows(EXPERIMENT, "06_model_size", nothing, [leads[1]._replace(less=leads[0])])
    assert row["unread"] == 1  # on both sides of the smaller lead, which is 0 for that
    with pytest.raises(KeyError):
        gain_rows(EXPERIMENT, "06_model_size", {large: [[1.0]]}, leads)


def test_fractions_intervals_end_at_nothing_and_all():
    few = np.repeat([1, 0], [1, 19])
    (low,) = (row["low"] for row in summary_rows(few, [None], metric="accuracy"))
    assert low == 0 > mean_interval(few).low
    (high,) = (row["high"] for row in summary_rows(1 - few, [None], metric="hits_gold"))
    assert high == 1 < mean_interval(1 - few).high
    causes = np.repeat(["missed", "failed"], [1, 19])
    (share,) = share_rows([causes], ["missed"])
    assert share["low"] == 0 and share["high"] == pytest.approx(0.155, abs=0.01)
    assert ratio_interval("f1", np.arange(20) < 19, np.ones(20)).high == 1


def test_a_part_is_of_the_answers_of_all_seeds_and_of_other_questions_with_each():
    named = {"figure": "f", "dataset": "d", "scale": "s", "method": "kard_bm25", "metric": "accuracy", "knob": "read"}
    scores, parts = [[1, 0, UNREAD, 1], [1, 1, 0, 1]], [["a", "a", "b", "c"], ["b", "a", "b", "c"]]
    rows = {row["at"]: row for row in part_rows(scores, parts, ["c", "a", "b", "none"], **named)}
    assert [(at, row["value"], row["n"]) for at, row in rows.items()] == [
        ("c", 1, 2), ("a", pytest.approx(2 / 3), 3), ("b", pytest.approx(1 / 3), 3),
    ]  # fmt: skip
    assert rows["c"]["low"] is None  # both are right: nothing is known of others
    assert rows["a"]["low"] < 2 / 3 < rows["a"]["high"] and rows["a"]["unread"] is None
    assert rows["b"]["unread"] == pytest.approx(1 / 3)
    few = [0, 1] * 20
    (whole,) = part_rows([few], [["a"] * 40], ["a"], **named)
    assert [whole[name] for name in ("value", "low", "high")] == pytest.approx([*mean_interval(few)])
    over = {"less": [[0, 1, 0, UNREAD]], "over": "fine_tuning"}
    gain = part_rows([[1, 0, 0, 1]], [["a", "a", "b", "b"]], ["a", "b"], **named | over)
    assert [(row["value"], row["unread"]) for row in gain] == [(0, None), (0.5, 0.5)]
    assert len(long_form([*rows.values(), *gain])) == 5
    over["less"] = [[UNREAD, UNREAD, 0, 1]]
    (row,) = part_rows([[UNREAD, 1, 1, 1]], [["a"] * 4], ["a"], **named | over)
    assert (row["value"], row["n"], row["unread"]) == (0.5, 4, 0.5)  # the greater share of the two


def test_a_row_for_each_seed_and_one_over_all():
    rows = summary_rows([[1, 0], [1, 1]], [3, None], method="bm25")
    assert [(row["seed"], row["value"], row["n"]) for row in rows] == [(3, 0.5, 2), (None, 0.75, 2)]
    assert all(row["method"] == "bm25" for row in rows) and rows[1]["low"] <= 0.75 <= rows[1]["high"]


def test_a_row_says_how_many_answers_could_not_be_read() -> None:
    read, mostly = np.array([[1.0, 0, 1, 1]] * 2), np.array([[1.0, 0, UNREAD, UNREAD], [UNREAD, 1, 0, 0]])
    assert [row["unread"] for row in summary_rows(mostly, [0, 1])] == [0.5, 0.25, 0.375]
    assert [row["value"] for row in summary_rows(mostly, [0, 1])] == [0.25, 0.25, 0.25]  # they are wrong
    assert [row["unread"] for row in summary_rows(read, [0, 1])] == [None] * 3
    assert gain_row(read, mostly, "b")["unread"] == gain_row(mostly, read, "b")["unread"] == 0.375
    assert gain_row(mostly[:, :2], read[:, :2], "b")["unread"] == 0.25  # of the questions that it is of
    assert gain_row(read, read, "b")["unread"] is None


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
