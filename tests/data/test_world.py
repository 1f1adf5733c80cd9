"""The closed world: what it calls true is true, and every chain is written in its passages."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kardlib.data.world import (
    DIAGNOSES,
    RELATIONS,
    SIGNS,
    Fact,
    build_world,
    conclude,
    judge_statements,
    read_statements,
    write_rationale,
)
from kardlib.settings import WorldSettings

FULL = build_world(WorldSettings())
SMALL = build_world(WorldSettings(ailments=12, values=6, cases=20, notes=10, train=40, dev=10, test=10, seed=3))


def test_the_default_world_is_as_large_as_promised():
    assert len(FULL.passages) >= 3000
    assert {split: len(questions) for split, questions in FULL.splits.items()} == {
        "train": 2000,
        "dev": 300,
        "test": 600,
    }
    kinds = {q.kind for q in FULL.splits["test"]}
    assert kinds == {"two-hop", "one-hop", "two-hop yes/no", "one-hop yes/no"}


def test_ids_are_unique_and_passages_are_not_repeated():
    assert len({p.id for p in FULL.passages}) == len({p.text for p in FULL.passages}) == len(FULL.passages)
    questions = [q.id for split in FULL.splits.values() for q in split]
    assert len(set(questions)) == len(questions)


def test_every_question_has_one_right_option_and_gold_passages_that_state_its_chain():
    for question in FULL.splits["test"]:
        chain = FULL.chains[question.id]
        assert chain.facts <= FULL.facts
        assert conclude(question, chain.value) == question.answer
        assert len(set(question.options)) == len(question.options) == (2 if "yes/no" in question.kind else 4)
        gold = FULL.gold(question)
        assert frozenset().union(*(FULL.stated[i] for i in gold)) == chain.facts


def test_signs_name_one_ailment_only():
    signs = [frozenset(s) for s in FULL.signs.values()]
    assert len(set(signs)) == len(signs)


def test_a_two_hop_question_names_neither_the_ailment_nor_the_value_it_asks_for():
    for question in FULL.splits["test"]:
        if question.kind == "two-hop":
            chain = FULL.chains[question.id]
            assert chain.ailment not in question.prompt
            assert question.options[question.answer] == chain.value


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
        assert not all(true for true, _ in false) or not chain.signs  # two ailments may share a single value


def test_a_seed_is_a_world():
    settings = WorldSettings(ailments=12, values=6, cases=5, notes=5, train=5, dev=5, test=5, seed=3)
    again = build_world(settings)
    assert again.facts == build_world(settings).facts and again.splits == build_world(settings).splits
    assert again.facts.isdisjoint(build_world(settings.model_copy(update={"seed": 4})).facts)


def test_everyday_words_follow_the_setting():
    def technical(share):
        world = build_world(
            WorldSettings(ailments=12, values=6, cases=0, notes=0, train=200, dev=1, test=1, everyday=share)
        )
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
