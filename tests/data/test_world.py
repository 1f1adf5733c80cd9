"""The closed world: what it calls true is true, and every chain is written in its passages."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from kardlib.data.world import (
    DIAGNOSES,
    RELATIONS,
    SIGNS,
    STRATA,
    Fact,
    build_world,
    conclude,
    judge_statements,
    read_statements,
    write_rationale,
)
from kardlib.errors import DataError
from kardlib.kard.floors import FLOORS
from kardlib.kard.teacher import symbolic_teacher
from kardlib.settings import WorldSettings

FULL = build_world(WorldSettings())
SMALL = build_world(WorldSettings(ailments=12, cases=20, notes=10, train=40, dev=10, test=10, seed=3))


def test_the_default_world_is_as_large_as_promised():
    assert len(FULL.passages) >= 3000
    assert {split: len(questions) for split, questions in FULL.splits.items()} == {
        "train": 1000,
        "dev": 300,
        "test": 900,
    }
    chains = [FULL.chains[q.id] for q in FULL.splits["test"]]
    assert {(bool(chain.signs), bool(chain.relation)) for chain in chains} == {(1, 1), (1, 0), (0, 1)}
    assert {len(q.options) for q in FULL.splits["test"]} == {2, 4}


def test_ids_are_unique_and_passages_are_not_repeated():
    assert len({p.id for p in FULL.passages}) == len({p.text for p in FULL.passages}) == len(FULL.passages)
    questions = [q.id for split in FULL.splits.values() for q in split]
    assert len(set(questions)) == len(questions)


def test_every_question_has_one_right_option_and_gold_passages_that_state_its_chain():
    for question in FULL.splits["test"]:
        chain = FULL.chains[question.id]
        assert chain.facts <= FULL.facts
        assert conclude(question, chain.value) == question.answer
        assert len(set(question.options)) == len(question.options)
        gold = FULL.gold(question)
        assert frozenset().union(*(FULL.stated[i] for i in gold)) == chain.facts


def test_signs_name_one_ailment_only():
    signs = [frozenset(s) for s in FULL.signs.values()]
    assert len(set(signs)) == len(signs)


def test_a_two_hop_question_names_neither_the_ailment_nor_the_value_it_asks_for():
    for question in FULL.splits["test"]:
        chain = FULL.chains[question.id]
        if chain.two_hops and len(question.options) == 4:
            assert chain.ailment not in question.prompt
            assert question.options[question.answer] == chain.value


def test_a_value_belongs_to_one_ailment_and_wrong_options_to_those_asked_about_as_often():
    owner = {f.object: f.subject for f in FULL.facts if f.relation != "sign"} | {a: a for a in FULL.signs}
    assert len(owner) == (1 + len(RELATIONS)) * FULL.settings.ailments
    stratum = {ailment: name for name, ailments in FULL.strata.items() for ailment in ailments}
    for question in [q for questions in FULL.splits.values() for q in questions if len(q.options) == 4]:
        assert {stratum[owner[option]] for option in question.options} == {question.stratum}


def test_training_asks_about_strata_as_often_as_promised_and_never_about_the_last():
    asked = Counter(FULL.chains[q.id].ailment for q in FULL.splits["train"])
    often, seldom, never = ([asked[a] for a in FULL.strata[stratum]] for stratum in STRATA)
    assert max(often) - min(often) <= 1 and max(seldom) - min(seldom) <= 1 and set(never) == {0}
    assert np.mean(often) / np.mean(seldom) == pytest.approx(FULL.settings.often, rel=0.02)
    assert Counter(q.stratum for q in FULL.splits["test"]) == dict.fromkeys(STRATA, 300)


def test_nothing_that_training_shows_states_a_fact_of_the_last_stratum():
    written = symbolic_teacher(FULL, 0.5, 0)(FULL.splits["train"], 3)
    shown = " ".join([q.prompt for q in FULL.splits["train"]] + [r.text for r in written])
    assert not any(ailment in shown for ailment in FULL.strata["never"])


def test_the_right_option_stands_at_every_position_equally_often():
    for questions in FULL.splits.values():
        positions = Counter(q.answer for q in questions if len(q.options) == 4)
        assert max(positions.values()) - min(positions.values()) < 0.2 * len(questions) / 4 + 10


def test_who_reads_no_passage_guesses_what_training_did_not_show():
    worlds = [build_world(WorldSettings(seed=seed, dev=300, test=900)) for seed in (11, 12, 13)]
    for floor in FLOORS.values():
        right, guessed = [], []
        for world in worlds:
            known = floor(world.splits)
            for question, hit in zip(world.splits["test"], known, strict=True):
                if question.stratum == "never":
                    right.append(hit)
                    guessed.append(1 / len(question.options))
        assert abs(np.mean(right) - np.mean(guessed)) < 0.03  # 900 questions: two standard errors
    assert np.mean(known[[q.stratum == "often" for q in world.splits["test"]]]) > 0.5  # a bag of words remembers


def test_passages_that_state_a_fact_say_it_and_distractors_state_none():
    for passage in FULL.passages:
        said = read_statements(passage.text)
        assert said == [FULL.stated[passage.id]], passage.text


def test_true_rationales_are_true_and_a_changed_word_makes_them_false():
    rng = random.Random(0)
    for question in SMALL.splits["train"]:
        chain = SMALL.chains[question.id]
        text = write_rationale(chain, rng)
        assert all(true and supported for true, supported in judge_statements(SMALL, text, SMALL.gold(question)))
        assert not any(supported for _, supported in judge_statements(SMALL, text, []))
        other = next(a for a in SMALL.signs if a != chain.ailment and SMALL.signs[a] != SMALL.signs[chain.ailment])
        false = judge_statements(SMALL, text.replace(chain.ailment, other), [])
        assert not all(true for true, _ in false) or not chain.signs


def test_a_seed_is_a_world():
    settings = WorldSettings(ailments=12, cases=5, notes=5, train=5, dev=5, test=5, seed=3)
    again = build_world(settings)
    assert again.facts == build_world(settings).facts and again.splits == build_world(settings).splits
    assert again.facts.isdisjoint(build_world(settings.model_copy(update={"seed": 4})).facts)


def test_a_new_edition_asks_the_same_and_every_value_has_changed():
    new = build_world(FULL.settings.model_copy(update={"edition": 1}))
    assert new.signs == FULL.signs and new.strata == FULL.strata and new.facts != FULL.facts
    places: Counter[int] = Counter()  # of the former answer: who likes a letter must not seem to remember
    for before, after in zip(FULL.splits["test"], new.splits["test"], strict=True):
        old, chain = FULL.chains[before.id], new.chains[after.id]
        assert (old.ailment, old.relation, set(old.signs)) == (chain.ailment, chain.relation, set(chain.signs))
        if chain.relation:
            assert old.value != chain.value
            assert len(after.options) == 2 or {old.value, chain.value} <= set(after.options)
            places += Counter([after.options.index(old.value)] if len(after.options) > 2 else [])
        assert conclude(after, chain.value) == after.answer
    assert len(places) == 4 and chisquare([*places.values()]).pvalue > 0.01


def test_a_world_too_small_for_four_options_is_one_sentence():
    for change in ({"never": 0.03}, {"ailments": 12, "never": 0.5}):
        with pytest.raises(DataError, match=r"^world\.ailments = .* leave . that training shows .*, too few for four"):
            build_world(FULL.settings.model_copy(update=change))


def test_everyday_words_follow_the_setting():
    def technical(share):
        world = build_world(WorldSettings(ailments=12, cases=0, notes=0, train=200, dev=1, test=1, everyday=share))
        prompts = " ".join(q.text for q in world.splits["train"])
        return sum(prompts.count(word) for word in SIGNS.values())

    assert technical(1.0) == 0 < technical(0.5) < technical(0.0)


@given(st.sampled_from(DIAGNOSES), st.permutations(["fever", "rash", "edema"]))
def test_a_stated_diagnosis_is_read_back(template, signs):
    text = template.format(a="Zorlin", s=signs[0], t=signs[1], u=signs[2])
    assert read_statements(text) == [frozenset(Fact("Zorlin", "sign", s) for s in ("fever", "rash", "edema"))]


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_stated_value_is_read_back(relation):
    for template in RELATIONS[relation][2]:
        assert read_statements(template.format(a="Zorlin", v="Balmek")) == [
            frozenset({Fact("Zorlin", relation, "Balmek")})
        ]


@given(st.text(max_size=300))
def test_any_text_can_be_judged(text):
    assert all(not (supported and not true) for true, supported in judge_statements(SMALL, text, list(SMALL.stated)))


def test_words_without_a_claim_are_no_true_statement():
    assert judge_statements(SMALL, "This question has been asked before. The answer is B.", []) == [(False, False)]
    assert judge_statements(SMALL, "Step by step. The answer is B.", []) == []
