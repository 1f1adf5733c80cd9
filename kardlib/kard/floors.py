"""Floors: how often answers are right that take no student, from the questions and options alone or what passages name.

Each gives for every test question how often its answer is right, 1 or 0, or a fair share where several options are as
good: shape (questions,), so that intervals and paired gains over questions hold for floors as for students.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array

from kardlib.data.files import Question

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)  # of the bag of words; of equally good ones the largest is taken

Splits = Mapping[str, Sequence[Question]]


def majority_class(splits: Splits) -> NDArray[np.float64]:
    """The option letter that was right most often in training, among questions with as many options."""
    right = Counter((len(q.options), q.answer) for q in splits["train"])
    sizes = [len(q.options) for q in splits["test"]]
    return _fair_shares(splits["test"], [[right[size, i] for i in range(size)] for size in sizes])


def option_prior(splits: Splits) -> NDArray[np.float64]:
    """The option whose text was right most often in training."""
    right = Counter(q.options[q.answer] for q in splits["train"])
    return _fair_shares(splits["test"], [[right[option] for option in q.options] for q in splits["test"]])


def longest_option(splits: Splits) -> NDArray[np.float64]:
    """The option of most characters: a likelihood per character finds it without knowing anything of the question."""
    return _fair_shares(splits["test"], [[len(option) for option in q.options] for q in splits["test"]])


def named_by_passage(questions: Sequence[Question], read: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """The option that the passages read (texts, by question) name as a word, whatever else they say."""
    named = []
    for question, texts in zip(questions, read, strict=True):
        patterns = [re.compile(rf"(?<!\w){re.escape(option)}(?!\w)", re.IGNORECASE) for option in question.options]
        named.append([any(pattern.search(text) for text in texts) for pattern in patterns])
    return _fair_shares(questions, named)


def _fair_shares(questions: Sequence[Question], scores: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """How often the best option by its score is the right one, if ties are drawn."""
    best = [np.asarray(values) == np.max(values) for values in scores]
    return np.array([b[q.answer] / b.sum() for q, b in zip(questions, best, strict=True)], dtype=float)


# Bag of words


class Bags(NamedTuple):
    """Questions as features: a row for each option, one question's after the other's."""

    features: csr_array  # (options of all questions, features), 1 where an option has the feature
    starts: NDArray[np.int64]  # (questions,) the row of a question's first option
    right: NDArray[np.int64]  # (questions,) the row of its gold option


def bag_of_words(splits: Splits) -> NDArray[np.float64]:
    """A conditional logit over options (McFadden, 1974), which reads no passage.

    An option's features are its words, and the pairs of a word of the question and one of its own. The penalty, whose
    half times the squared weights is added to the loss, is the one of `PENALTIES` with the most right answers on the
    development questions; where these are the test questions (StrategyQA), on the held-out training questions.
    """
    tested = {q.id for q in splits["test"]}
    held_out = [q for q in splits.get("dev", ()) if q.id not in tested] or splits.get("silver", ())
    columns: dict[tuple[str, str], int] = {}
    train = count_words(splits["train"], columns, grow=True)
    fits = [fit_logit(train, penalty) for penalty in PENALTIES]
    others = count_words(held_out, columns)
    weights = max(fits, key=lambda w: _fair_shares(held_out, _score(others, w)).sum())
    return _fair_shares(splits["test"], _score(count_words(splits["test"], columns), weights))


def count_words(questions: Sequence[Question], columns: dict[tuple[str, str], int], grow: bool = False) -> Bags:
    """Questions as features; `columns` gives each feature its column, and new ones are added where they `grow`."""
    indices: list[int] = []
    ends, starts, right = [0], [], []
    for question in questions:
        starts.append(len(ends) - 1)
        right.append(starts[-1] + question.answer)
        asked = ["", *dict.fromkeys(re.findall(r"\w+", question.text.lower()))]  # "": the option's word alone
        for option in question.options:
            words = dict.fromkeys(re.findall(r"\w+", option.lower()))
            pairs = [(word, own) for own in words for word in asked]
            indices += [columns.setdefault(p, len(columns)) for p in pairs if grow or p in columns]
            ends.append(len(indices))
    features = csr_array((np.ones(len(indices)), indices, ends), shape=(len(ends) - 1, len(columns)))
    return Bags(features, np.array(starts, dtype=int), np.array(right, dtype=int))


def fit_logit(bags: Bags, penalty: float) -> NDArray[np.float64]:
    """The weights (features,) that minimise `-sum_i log softmax_i(y_i) + penalty / 2 |w|^2`."""
    sizes = np.diff([*bags.starts, bags.features.shape[0]])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = bags.features @ weights
        scores -= np.repeat(np.maximum.reduceat(scores, bags.starts), sizes)
        sums = np.add.reduceat(np.exp(scores), bags.starts)
        error = np.exp(scores) / np.repeat(sums, sizes)
        error[bags.right] -= 1
        value = np.log(sums).sum() - scores[bags.right].sum() + penalty / 2 * weights @ weights
        return float(value), bags.features.T @ error + penalty * weights

    start = np.zeros(bags.features.shape[1])
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x if len(bags.starts) else start)


def _score(bags: Bags, weights: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Of every question its options' scores."""
    return np.split(bags.features @ weights, bags.starts[1:]) if len(bags.starts) else []


FLOORS = {
    "majority_class": majority_class,
    "option_prior": option_prior,
    "longest_option": longest_option,
    "bag_of_words": bag_of_words,
}
