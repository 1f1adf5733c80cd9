"""Floors: what is right without a student, on questions whose priors are known, and against plain loops."""

import math
import re

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from kardlib.data.files import Question, read_kard
from kardlib.kard.floors import (
    FLOORS,
    bag_of_words,
    count_words,
    fit_logit,
    longest_option,
    majority_class,
    named_by_passage,
    option_prior,
)
from kardlib.report.rows import measured, read_table
from tests.folders import REAL, ROOT


def asked(text: str, options: str, answer: int, id: str = "") -> Question:
    return Question(id or f"{text} {options} {answer}", text, tuple(options.split()), answer)


TRAIN = [
    asked("a", "oak elm fir", 1), asked("b", "fir elm ash", 1), asked("c", "oak elm ash", 0), asked("d", "yes no", 0),
    asked("e", "yes no", 0), asked("f", "no yes", 0),
]  # fmt: skip
TEST = [
    asked("g", "elm oak fir", 0),  # elm was right twice, oak once
    asked("h", "ash fir oak", 0),
    asked("i", "fir ash yew", 2),  # none was ever right: a third
    asked("j", "yes no", 1),
    asked("k", "no fir", 0),
]


def test_the_option_prior_is_how_often_an_option_was_right():
    assert option_prior({"train": TRAIN, "test": TEST}).tolist() == [1, 0, 1 / 3, 0, 1]
    tied = [asked("a", "oak elm", 0), asked("b", "oak elm", 1)]
    assert option_prior({"train": tied, "test": [asked("c", "oak fir elm", 0)]}).tolist() == [0.5]


def test_the_majority_class_is_of_questions_with_as_many_options():
    # B of three options, A of two
    assert majority_class({"train": TRAIN, "test": TEST}).tolist() == [0, 0, 0, 0, 1]
    four = asked("l", "a b c d", 3)
    assert majority_class({"train": TRAIN, "test": [four]}).tolist() == [0.25]  # nobody has seen four


def test_the_longest_option_is_that_of_most_characters():
    test = [asked("a", "elm oaks fir", 1), asked("b", "elm oaks firs", 2), asked("c", "elm oaks fir", 0)]
    assert longest_option({"train": TRAIN, "test": test}).tolist() == [1, 1 / 2, 0]


def test_what_passages_name_is_a_word_of_theirs():
    question = asked("which?", "oak elm fir C++", 1)
    for texts, share in (
        (["An Elm grows."], 1),
        (["Elms and oakum."], 1 / 4),
        (["An elm.", "A fir, and an elm."], 1 / 2),
        (["An oak."], 0),
        (["elm, in C++"], 1 / 2),
        ([], 1 / 4),
    ):
        assert named_by_passage([question], [texts]).tolist() == [share], texts


def features(question, option):
    """As the docstring says: an option's words, and their pairs with the question's."""
    own = set(re.findall(r"\w+", option.lower()))
    return {("", w) for w in own} | {(q, w) for q in re.findall(r"\w+", question.text.lower()) for w in own}


def test_the_conditional_logit_minimises_its_loss():
    questions = [
        asked("Red sky", "Rain sun", 1),
        asked("grey sky", "rain sun snow", 0),
        asked("red", "sun rain", 0),
    ]
    columns: dict[tuple[str, str], int] = {}
    bags = count_words(questions, columns, grow=True)
    assert {*columns} == {f for q in questions for option in q.options for f in features(q, option)}

    def loss(weights):
        total = 0.3 / 2 * sum(w * w for w in weights)
        for q in questions:
            scores = [sum(weights[columns[f]] for f in features(q, option)) for option in q.options]
            total += math.log(sum(map(math.exp, scores))) - scores[q.answer]
        return total

    weights = fit_logit(bags, 0.3)
    for i in range(len(weights)):  # its least point: no step to any side is lower
        for step in (-1e-3, 1e-3):
            moved = weights.copy()
            moved[i] += step
            assert loss(moved) > loss(weights) - 1e-9
    np.testing.assert_array_equal(weights, fit_logit(bags, 0.3))


@pytest.mark.parametrize(("oaks", "elms", "penalty"), [(8, 3, 1), (3, 5, 0.03), (30, 1, 10)])
def test_two_weights_are_those_of_one_equation(oaks, elms, penalty):
    """Of two options alone, w and -w: the gradient `oaks - n sigma(2 w) - penalty w` is 0."""
    bags = count_words([asked("?", "oak elm", int(i < elms), str(i)) for i in range(oaks + elms)], {}, grow=True)
    w = brentq(lambda w: oaks - (oaks + elms) * expit(2 * w) - penalty * w, -9, 9)
    assert fit_logit(bags, penalty) == pytest.approx([w, -w], abs=1e-4)


def test_the_penalty_is_the_one_that_does_best_where_nothing_is_tested():
    """Of a red sky one was told once that it is elm: where weights cost little that is learnt, else it is oak."""
    train = [asked("grey sky", "oak elm", 0, f"{i}") for i in range(8)] + [asked("red sky", "oak elm", 1)]
    elm, oak = (asked("red sky", "oak elm", answer, "held out") for answer in (1, 0))
    test = asked("red sky", "oak elm", 1, "tested")
    for others, right in (
        ({"dev": [elm], "silver": [oak]}, 1),
        ({"dev": [oak], "silver": [elm]}, 0),
        ({"dev": [test], "silver": [oak]}, 0),  # the development questions are the tested ones
        ({"silver": [elm]}, 1),
        ({}, 0),  # all penalties are as good, and the largest is taken
    ):
        assert bag_of_words({"train": train, "test": [test], **others}).tolist() == [right], others


def test_words_of_question_and_option_decide_together():
    rng = np.random.default_rng(0)
    remedies = {"red": "oak", "blue": "elm", "grey": "fir"}

    def draw(n, split):
        colors = rng.choice([*remedies], n)
        options = [rng.permutation([*remedies.values()]) for _ in colors]
        return [
            asked(f"it is {c}", " ".join(o), list(o).index(remedies[c]), f"{split}{i}")
            for i, (c, o) in enumerate(zip(colors, options, strict=True))
        ]

    splits = {split: draw(60, split) for split in ("train", "dev", "test")}
    assert bag_of_words(splits).tolist() == [1.0] * 60
    # the penalty is chosen on what is not tested: the dev split's own questions, else held-out ones
    repeated = splits | {"dev": splits["test"], "silver": splits["dev"]}
    np.testing.assert_array_equal(bag_of_words(repeated), bag_of_words(splits))


@pytest.mark.parametrize("name", FLOORS)
def test_without_training_questions_every_option_is_as_good(name):
    assert FLOORS[name](
        {"train": [], "dev": [], "test": [asked("j", "oak elm", 1), asked("k", "elm fir", 0)]}
    ).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dataset", ["obqa", "strategyqa"])
def test_the_published_floors_of_real_questions_are_those_of_their_data(dataset):
    if not REAL.is_dir():
        pytest.skip(f"there is no {REAL}")
    data, table = read_kard(REAL, dataset), measured(read_table(ROOT / "figures" / f"04_main_{dataset}.csv"))
    published = table.set_index("method")["value"]
    assert published["longest_option"] == pytest.approx(longest_option(data.splits).mean(), abs=1e-6)
