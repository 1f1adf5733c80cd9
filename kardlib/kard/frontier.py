"""Remember or read: what students know of worlds of many sizes, and after the facts have changed.

Worlds grow while training stays: as many questions, of which the same students learn for as many epochs, so that the
more there is to know, the less often a fact is shown (n samples of N strings in the papers' theorems).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import comb, inf, log2

import numpy as np
from numpy.typing import ArrayLike

from kardlib.data.world import RELATIONS, SIGNS, Fact, World, read_statements
from kardlib.errors import DataError
from kardlib.kard.experiment import Cell, Experiment, Knobs
from kardlib.kard.methods import METHODS
from kardlib.kard.pipeline import Predictions, predict, prepare_all, train_students
from kardlib.kard.rankings import rank, train_rerankers
from kardlib.kard.teacher import Rationale
from kardlib.settings import WorldSettings


def at_size(world: WorldSettings, ailments: int) -> Knobs:
    """The settings of a world of so many ailments; distractors grow with it, the number of training questions stays."""
    grown = {name: round(getattr(world, name) * ailments / world.ailments) for name in ("cases", "notes")}
    return (("world.ailments", ailments), *((f"world.{name}", number) for name, number in grown.items()))


def crossing(sizes: Sequence[float], lead: ArrayLike) -> float:
    """The size from which on a lead, (sizes,), is never below 0 again; between sizes it is straight over log size.

    0 if it is below 0 nowhere, infinite if it is at the greatest size.
    """
    lead, log = np.asarray(lead, float), np.log(sizes)
    behind = np.flatnonzero(lead < 0)
    if not len(behind) or behind[-1] == len(lead) - 1:
        return inf if len(behind) else 0.0
    i = behind[-1]
    return float(np.exp(log[i] + (log[i + 1] - log[i]) * lead[i] / (lead[i] - lead[i + 1])))


def measure_crossing(sizes: Sequence[float], leads: Iterable[Sequence[float]]) -> dict[str, float]:
    """Where leads, each with its 95 % interval (value, low, high), cross 0, and between which sizes they may.

    `low` is where intervals reach 0 for good and `high` where they are above it: the sizes that a test of the lead
    would not rule out (Fieller's way), and some more, since between two sizes ends are on a straight line. 0 is before
    all sizes, where `high` is the least of them, and infinite beyond them.
    """
    value, low, high = zip(*leads, strict=True)
    return {
        "value": crossing(sizes, value), "low": crossing(sizes, high),
        "high": crossing(sizes, low) or float(sizes[0]),  # ahead at every size: it crossed somewhere before
    }  # fmt: skip


def count_bits(ailments: int) -> float:
    """Bits of what there is to know of one ailment: which signs it has, and which of all values for each relation."""
    return log2(comb(len(SIGNS), 3)) + len(RELATIONS) * log2(ailments)


def count_showings(world: World, rationales: Iterable[Rationale]) -> dict[str, float]:
    """By stratum how many of the rationales say what an ailment has for a relation, on average over all of them."""
    told: Counter[str] = Counter()
    for r in rationales:
        chain = world.chains[r.question_id]
        fact = Fact(chain.ailment, chain.relation, chain.value)
        told[chain.ailment] += any(fact in statement for statement in read_statements(r.text))
    return {
        s: sum(told[a] for a in ailments) / len(ailments) / len(RELATIONS)
        for s, ailments in world.strata.items()
        if ailments
    }


def known_share(right: ArrayLike, guessed: ArrayLike) -> float:
    """How much is known where answers are `right` and would be with a chance of `guessed` if not, one or each its own.

    The share of questions whose answer must be known if all others are guessed; below 0 for bad luck.
    """
    chances = np.asarray(guessed, float)
    return float(np.mean(np.asarray(right) - chances) / np.mean(1 - chances))


def ask_new_edition(experiment: Experiment, cells: Iterable[Cell]) -> dict[Cell, Predictions]:
    """By cell what its student, taught the first edition, answers when the facts have changed.

    Passages are the new edition's, found by the rerankers of the first. Raises DataError for who reads any others.
    """
    cells = list(cells)
    if strange := [cell.method for cell in cells if METHODS[cell.method].reads_at_test not in ("", "reranker")]:
        raise DataError(f"of a new edition the reranker's passages are read, or none: not by {', '.join(strange)}")
    new, taught = experiment.at((("world.edition", 1),)), prepare_all(experiment, cells)
    students, later = train_students(experiment, taught), prepare_all(new, cells)
    rerankers = train_rerankers(experiment, {cell: (taught[cell], cell.seed) for cell in cells})
    ranked = rank(new, "test", {cell: (later[cell], folder) for cell, folder in rerankers.items()})
    ids, read = [q.id for q in new.data.splits["test"]], {}
    for cell, prepared in later.items():
        k = prepared.experiment.settings.retrieval.k if METHODS[cell.method].reads_at_test else 0
        read[cell] = {i: [p for p, _ in ranked[cell][i][:k]] for i in ids}
    return predict(new, "test", later, students, read)


def names_former(predictions: Predictions, before: Iterable[str]) -> list[bool]:
    """For every question whether the answer is the option that was right in the first edition (its text, `before`)."""
    return [
        answer is not None and question.options[answer] == option
        for question, answer, option in zip(predictions.questions, predictions.answers, before, strict=True)
    ]
