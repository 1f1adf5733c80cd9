"""What nano students practise before anybody distils into them."""

import random
import re

import pytest

from kardlib.data.world import EVERYDAY, OPENERS, RELATIONS, read_statements
from kardlib.models.exercises import DRILL, SKILLS, choose, draw_world, find, follow, match
from kardlib.models.nano import build_tokenizer
from kardlib.models.pretraining import FIRST_WORLD, read_letters

LISTED = re.compile(r"\b([A-D])[:),]?(?: -)? (\w+)")


@pytest.fixture(scope="module")
def world():
    return draw_world(FIRST_WORLD)


def draw(skill, world, number=200, k=4):
    rng = random.Random(0)
    return [skill(world, k, rng) for _ in range(number)]


@pytest.mark.parametrize("skill", [*SKILLS, *DRILL])
def test_no_exercise_has_a_word_of_kards_prompts_and_the_tokenizer_knows_all_of_its_own(skill, world):
    tokenizer = build_tokenizer()
    for exercise in draw(skill, world):
        text = " ".join(exercise)
        assert not any(word in text for word in ("Question:", "Passage:", "answer", *filter(None, OPENERS)))
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids


@pytest.mark.parametrize(("skill", "number"), [(find, 3), (follow, 2)])
def test_what_is_told_is_asked_for_in_this_order_and_each_said_by_one_passage(skill, number, world):
    questions = {relation: which for relation, (which, _, _) in RELATIONS.items()}
    for source, begun, target in draw(skill, world):
        cue, read = (re.search(rf"{task}: (.*?)(?= (?:Read|Tell): |$)", source)[1] for task in ("Tell", "Read"))
        told = read_statements(target)
        assert len(told) == number and len(read.split(". ")) == 4
        at = 0
        for facts in told:
            assert read_statements(read).count(facts) == 1 and facts <= world.facts
            ((ailment, relation),) = {(f.subject, f.relation) for f in facts}
            words = [(f.object, EVERYDAY[f.object]) for f in facts] if relation == "sign" else [questions[relation]]
            places = [min(p for word in either if (p := cue.find(word, at)) >= 0) for either in words]
            assert relation == "sign" or ailment in (begun or cue)
            at = max(places) + 1
        assert [{f.relation for f in facts} for facts in read_statements(begun)] == [{"sign"}] * (skill is follow)


def test_the_letter_follows_from_what_was_begun_and_from_nothing_else(world):
    chosen = draw(choose, world, 600)
    for source, begun, target in chosen:
        options = dict(LISTED.findall(source.split("Choose: ")[1].split(" Read:")[0]))
        (fact,) = read_statements(begun)[-1]
        asked = re.search(r"Choose: [^?]*\?", source)
        expected = ("yes" if fact.object in asked[0] else "no") if asked else fact.object
        (letter,) = read_letters(target)
        assert options[letter] == expected
    assert {letter for _, _, target in chosen for letter in read_letters(target)} == {*"ABCD"}
    assert len({target for _, _, target in chosen}) > 4 * 5  # in many wordings


def test_letters_are_matched_with_their_options(world):
    for source, _, target in draw(match, world):
        listed = LISTED.findall(source)
        assert sorted((letter, option) for option, letter in re.findall(r"(\w+): (\w);", target)) == listed
