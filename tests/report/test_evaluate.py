"""The rows of a figure's data say what they are of, and have the right numbers."""

import dataclasses

import numpy as np
import pytest

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
    mean_interval,
    paired_difference,
    ratio_interval,
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
    settings = preset("smoke").override({"seeds": [0, 1], "world.test": 96})
    world = build_world(settings.world)
    return Experiment(settings, Store(), world.dataset(), world, None)


def test_questions_about_one_ailment_are_one_cluster_of_its_stratum():
    world = build_world(preset("smoke").world.model_copy(update={"test": 96}))
    here = Experiment(preset("smoke"), Store(), world.dataset(), world, None)
    (stratum, cluster), asked = here.clusters(), world.splits["test"]
    about = [world.chains[q.id].ailment for q in asked]
    assert len({*zip(cluster.tolist(), about, strict=True)}) == len({*about}) == len({*cluster.tolist()}) < len(asked)
    assert len({*zip(stratum.tolist(), (q.stratum for q in asked), strict=True)}) == len({*stratum.tolist()}) == 3


def test_intervals_of_the_closed_world_speak_of_ailments():
    here = closed_world()
    clusters = here.clusters()
    rng = np.random.default_rng(0)
    better, worse = Row("kard_reranker", "t5-nano-base"), Row("fine_tuning", "t5-nano-base")
    scores = {row: rng.random((2, clusters.shape[1])) < chance for row, chance in ((better, 0.8), (worse, 0.3))}
    odd = clusters[1] % 2 == 1
    for name, part in [*here.strata().items(), *here.kinds().items(), (odd, odd)]:
        _, _, whole, *_, gain = tabulate(here, "04_main", scores, [Gain(better, worse)], asked=name)
        told = mean_interval(scores[better][:, part], clusters[:, part])
        assert (whole["value"], whole["n"]) == (told.mean, scores[better][:, part].shape[1])
        assert whole["low"] == max(0, told.low)
        apart = paired_difference(scores[better][:, part], scores[worse][:, part], clusters[:, part])
        assert (gain["value"], gain["p"]) == (apart.mean, apart.p)
    never = here.strata("dev")["accuracy_never"]  # of dev's questions, not of test's
    (row,) = tabulate(here, "04_main", {better: never}, asked="accuracy_never", split="dev")
    assert row["value"] == 1 and row["n"] == never.sum()
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
    with pytest.raises(ValueError, match="kard_reranker and fine_tuning are asked of two worlds"):
        gain_rows(here, "17_frontier", scores, [Gain(leads[1].above, leads[0].below)])


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
    assert [row["unread"] for row in summary_rows([[-0.0, 0.7]], [0], metric="loss")] == [None, None]  # no loss at all
