"""Worlds of many sizes, what is known of them, and what is answered when their facts have changed."""

import random
from math import inf, log2

import numpy as np
import pytest

from kardlib.data.world import RELATIONS, write_rationale
from kardlib.errors import DataError
from kardlib.kard.experiment import Cell
from kardlib.kard.frontier import (
    ask_new_edition,
    at_size,
    count_bits,
    count_showings,
    crossing,
    known_share,
    measure_crossing,
    names_former,
)
from kardlib.kard.pipeline import Predictions, answer
from kardlib.kard.teacher import Rationale
from kardlib.report.statistics import Interval, mean_interval, verdict


def test_a_world_grows_while_training_stays(experiment):
    world = experiment.settings.world
    twice = dict(at_size(world, 2 * world.ailments))
    assert twice == {f"world.{name}": 2 * getattr(world, name) for name in ("ailments", "cases", "notes")}
    grown = experiment.at(at_size(world, 2 * world.ailments))
    assert len(grown.world.signs) == 2 * world.ailments
    assert len(grown.data.passages) == pytest.approx(2 * len(experiment.data.passages), rel=0.05)
    for split, questions in experiment.data.splits.items():
        assert len(grown.data.splits[split]) == len(questions)
    assert experiment.at(at_size(world, world.ailments)).settings == experiment.settings


def test_one_overtakes_where_its_lead_is_nothing_for_the_last_time():
    assert crossing((10, 1000), (-0.2, 0.2)) == pytest.approx(100)
    assert crossing((10, 100, 1000), (-0.3, 0, 0.2)) == pytest.approx(100)
    assert crossing((1, 10, 100, 1000), (-0.1, 0.2, -0.1, 0.2)) == pytest.approx(10 ** (2 + 1 / 3))
    assert crossing((10, 100), (0.3, 0.4)) == 0
    assert crossing((10, 100), (-0.4, -0.3)) == inf
    assert crossing((10, 100, 1000), (-0.2, 0, -0.1)) == inf  # it does not stay ahead
    assert crossing((10, 100), (-0.2, 0)) == pytest.approx(100) and crossing((10, 100), (0.3, 0)) == 0  # 0 is not below


@pytest.mark.parametrize(("seeds", "luck", "together"), [(1, 0, 10), (3, 0.08, 1)])
def test_a_crossing_has_the_interval_that_other_ailments_and_trainings_would_give(seeds, luck, together):
    """Questions about an ailment are right or wrong together, or a training is lucky at all sizes: it must be said."""
    rng, sizes, shape = np.random.default_rng(0), (10, 100, 1000), (3, seeds, 400 // together)
    about = np.array([np.zeros(400, int), np.arange(400) // together])
    found, blind = [], []
    for _ in range(100):
        chances = np.array([0.2, 0.4, 0.6])[:, None, None] + rng.normal(0, luck, (1, seeds, 1))  # over 0.5: from 316 on
        lead = (1.0 * (rng.random(shape) < chances) - (rng.random(shape) < 0.5)).repeat(together, axis=2)
        for leads, clusters, held in ((lead, about, found), (lead[:, 0], None, blind)):
            crossed = measure_crossing(sizes, [mean_interval(at, clusters) for at in leads])
            assert crossed["low"] <= crossed["value"] <= crossed["high"]
            held.append(crossed["low"] <= 10**2.5 <= crossed["high"])
    assert np.mean(found) >= 0.93 and np.mean(blind) < 0.9


def test_a_lead_everywhere_or_nowhere_crosses_nothing():
    for everywhere, ends, before_1000 in ((1.0, (0, 0, 10), "reproduced"), (-1.0, (inf, inf, inf), "not reproduced")):
        found = measure_crossing((10, 100, 1000), 3 * [(everywhere,) * 3])
        assert tuple(found.values()) == ends and verdict(Interval(*ends), -inf, 1000) == before_1000
    never_sure = measure_crossing((10, 100), 2 * [(0.1, -0.1, 0.3)])
    assert tuple(never_sure.values()) == (0, 0, inf) and verdict(Interval(0, 0, inf), -inf, 100) == "undecided"


def test_bits_of_an_ailment_are_its_signs_and_a_value_for_every_relation():
    assert count_bits(16) == pytest.approx(log2(40 * 39 * 38 / 6) + 5 * 4)


def test_a_fact_is_shown_by_every_rationale_of_a_question_that_asks_for_it(experiment):
    world, rng = experiment.world, random.Random(0)
    asked = [q for q in world.splits["train"] if world.chains[q.id].relation]
    told = {q.id: write_rationale(world.chains[q.id], rng) for q in world.splits["train"]}
    twice = [Rationale(q.id, number, told[q.id], q.answer) for q in world.splits["train"] for number in (0, 1)]
    silent = [Rationale(q.id, 2, text, q.answer) for q in world.splits["train"] for text in ("", "So it is.")]
    shown = count_showings(world, twice + silent)
    facts = {stratum: len(ailments) * len(RELATIONS) for stratum, ailments in world.strata.items()}
    assert sum(shown[stratum] * facts[stratum] for stratum in facts) == pytest.approx(2 * len(asked))
    assert shown["often"] > shown["seldom"] > shown["never"] == 0


def test_what_is_known_is_what_guessing_does_not_explain():
    chances = np.array([0, 0.25, 0.5, 0.5])
    assert known_share([1, 1, 1, 1], chances) == 1
    assert known_share(chances, chances) == pytest.approx(0)
    rng = np.random.default_rng(0)
    chances = rng.choice([0, 0.25, 0.5], 40_000)
    known = rng.random(len(chances)) < 0.3
    assert known_share(known | (rng.random(len(chances)) < chances), chances) == pytest.approx(0.3, abs=0.015)


def test_a_new_edition_is_asked_and_read_without_anything_being_trained(experiment):
    student, seed = experiment.settings.students[0], experiment.settings.seeds[0]
    cells = [Cell(method, student, seed) for method in ("fine_tuning", "kard_reranker")]
    first = answer(experiment, cells)
    trained = sorted(p.name for p in experiment.store.root.glob("*") if p.name.startswith(("student-", "reranker-")))
    later = ask_new_edition(experiment, cells)
    assert trained == sorted(
        p.name for p in experiment.store.root.glob("*") if p.name.startswith(("student-", "reranker-"))
    )
    new = experiment.at((("world.edition", 1),))
    for cell in cells:
        assert later[cell].questions == new.data.splits["test"] != first[cell].questions
    facts = {fact for ids in later[cells[1]].passages for i in ids for fact in new.world.stated[i]}
    assert facts and facts <= new.world.facts and not facts <= experiment.world.facts
    assert not any(later[cells[0]].passages) and all(later[cells[1]].passages)


def test_cells_of_a_new_edition_keep_their_own_settings(experiment):
    student, seed = experiment.settings.students[0], experiment.settings.seeds[0]
    ways = [(("retrieval.k", 1),), (("retrieval.k", 2),), (("student.epochs", 3),)]
    cells = [Cell("kard_reranker", student, seed, knobs) for knobs in ways]
    one, two, longer = ask_new_edition(experiment, cells).values()
    assert [{len(ids) for ids in asked.passages} for asked in (one, two, longer)] == [{1}, {2}, {2}]
    assert two.passages == longer.passages and two.texts != longer.texts


def test_who_reads_others_passages_is_not_asked_about_a_new_edition(experiment):
    cells = [Cell(method, experiment.student, 0) for method in ("kard_bm25", "fine_tuning")]
    with pytest.raises(DataError, match="the reranker's passages are read, or none: not by kard_bm25"):
        ask_new_edition(experiment, cells)


def test_an_answer_names_the_former_one_by_its_words(experiment):
    question = experiment.at((("world.edition", 1),)).data.splits["test"][0]
    for chosen in range(len(question.options)):
        predictions = Predictions([question, question], [[], []], [[""], [""]], [chosen, None])
        assert names_former(predictions, [question.options[0]] * 2) == [chosen == 0, False]
