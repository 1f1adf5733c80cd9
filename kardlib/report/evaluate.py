"""From outcomes to numbers: every mean comes with an interval and a paired test."""

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Metrics: an array with one value per question, so that methods can be compared question by question


def hits(
    run: Mapping[str, Sequence[tuple[str, float]]],
    relevant: Mapping[str, Collection[str]],
    k: int,
    questions: Sequence[str] | None = None,
) -> NDArray[np.float64]:
    """Hits@k: 1 where a relevant passage is among the first `k` of a question's run, else 0, shape (questions,).

    `questions` are the ids of all questions asked, in the order of the result (default: the queries of the run). A
    question without relevant passages, or for which nothing was found, is a miss. Raises ValueError for `k` below 1.
    """
    if k < 1:
        raise ValueError(f"Hits@k looks at the first k passages: k = {k} must be at least 1")
    asked = run if questions is None else questions
    return np.array([any(d in relevant.get(q, ()) for d, _ in run.get(q, ())[:k]) for q in asked], dtype=float)


# Intervals and tests


class Interval(NamedTuple):
    """A mean and the interval around it."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """How far one method is above another on the same questions, its interval, and the p-value of a paired test."""

    mean: float
    low: float
    high: float
    p: float


def bootstrap_interval(values: ArrayLike, level: float = 0.95, resamples: int = 5000, seed: int = 0) -> Interval:
    """Mean and percentile bootstrap interval of a metric, `values` of shape (questions,) or (seeds, questions).

    All seeds answer the same questions, so seeds and questions are crossed, not nested: a resample draws questions with
    replacement, the same for every seed, and seeds with replacement (the pigeonhole bootstrap: Owen, *The pigeonhole
    bootstrap*, Annals of Applied Statistics 2007). The interval speaks of new questions and of new training runs alike.
    Questions' luck is counted in full and the interplay of seed and question up to threefold, so the interval errs on
    the wide side; only the variance between `s` seeds comes out low, by (s - 1) / s, as in any bootstrap.
    Raises ValueError for no values, NaN, or another shape.
    """
    table = _as_table(values)
    means = _resample_sums(table, resamples, seed) / table.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(table.mean()), float(low), float(high))


def share_interval(
    part: ArrayLike, whole: ArrayLike, level: float = 0.95, resamples: int = 5000, seed: int = 0
) -> Interval:
    """The share `sum(part) / sum(whole)`, e.g. of the failures that have one cause, and its bootstrap interval.

    Both are (questions,) or (seeds, questions) and drawn together as in `bootstrap_interval`, so that how many failures
    there are varies too; a resample without any says nothing of the share and is left out. Raises ValueError for shapes
    that differ and an empty whole.
    """
    table, of = _as_table(part), _as_table(whole)
    if table.shape != of.shape or not of.sum():
        raise ValueError(f"a share needs a part and a whole, not empty, of one shape: {table.shape} and {of.shape}")
    parts, wholes = _resample_sums(table, resamples, seed), _resample_sums(of, resamples, seed)  # the same draws
    low, high = np.quantile(parts[wholes > 0] / wholes[wholes > 0], [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(table.sum() / of.sum()), float(low), float(high))


def paired_difference(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, resamples: int = 5000, seed: int = 0
) -> Difference:
    """How far `a` is above `b`, two methods on the same questions with the same seeds.

    Both are (questions,) or (seeds, questions). The interval is that of `bootstrap_interval` for their differences.
    `p` (two-sided) is that of the sign-flip test: if the methods were equal, a question's difference, averaged over
    these seeds, would have either sign with equal chance (for one seed of right and wrong answers: McNemar's exact
    test). It is estimated from `resamples` random flips, so never below 1 / (resamples + 1). Raises ValueError for
    shapes that differ.
    """
    table_a, table_b = _as_table(a), _as_table(b)
    if table_a.shape != table_b.shape:
        raise ValueError(
            f"the two methods must answer the same questions with the same seeds: {table_a.shape} and {table_b.shape} "
            "(seeds, questions) differ"
        )
    interval = bootstrap_interval(table_a - table_b, level, resamples, seed)
    differences = (table_a - table_b).mean(axis=0)
    sizes, counts = np.unique(np.abs(differences).round(12), return_counts=True)
    positive = np.random.default_rng(seed).binomial(counts, 0.5, size=(resamples, len(counts)))  # per size
    flipped = np.abs((2 * positive - counts) @ sizes)
    p = float((1 + np.count_nonzero(flipped >= abs(differences.sum()) - 1e-9)) / (1 + resamples))
    return Difference(*interval, p)


def f1_interval(
    predicted: ArrayLike, gold: ArrayLike, level: float = 0.95, resamples: int = 5000, seed: int = 0
) -> Interval:
    """F1 of the positive class, mean over seeds, and its bootstrap interval; `predicted` (seeds, questions) and `gold`
    (questions,) are True where an answer is the positive class.

    F1 is no mean over questions, so that each resample (drawn as in `bootstrap_interval`) counts anew. Without a
    positive prediction or answer F1 is 0. Raises ValueError for shapes that differ.
    """
    return _percentiles(_resample_f1(predicted, gold, resamples, seed), level)


def f1_difference(
    a: ArrayLike, b: ArrayLike, gold: ArrayLike, level: float = 0.95, resamples: int = 5000, seed: int = 0
) -> Interval:
    """How far the F1 of `a` is above that of `b`, shapes as in `f1_interval`, and the interval over the same draws.

    Where one of them has a single row (a teacher), it stands beside every seed. Raises ValueError for shapes that
    differ otherwise.
    """
    table_a, table_b = np.broadcast_arrays(np.atleast_2d(a), np.atleast_2d(b))
    resampled = [_resample_f1(table, gold, resamples, seed) for table in (table_a, table_b)]
    return _percentiles(resampled[0] - resampled[1], level)


def _resample_f1(predicted: ArrayLike, gold: ArrayLike, resamples: int, seed: int) -> NDArray[np.float64]:
    """F1, mean over seeds: as measured, then of every resample (1 + resamples,)."""
    guess, truth = np.atleast_2d(np.asarray(predicted, dtype=float)), np.asarray(gold, dtype=float)
    if guess.ndim != 2 or guess.shape[1:] != truth.shape or not guess.size:
        raise ValueError(f"predictions {guess.shape} and answers {truth.shape} do not belong together")
    of_seeds, of_questions = _draw(*guess.shape, resamples, seed)
    draws = np.vstack([np.ones(guess.shape[1]), of_questions])
    hits, said, true = draws @ (guess * truth).T, draws @ guess.T, (draws @ truth)[:, None]
    f1 = 2 * hits / np.maximum(said + true, 1)  # (1 + resamples, seeds)
    f1[1:] *= of_seeds
    return f1.mean(axis=1)


def _percentiles(values: NDArray[np.float64], level: float) -> Interval:
    """What was measured, which comes first, and the interval of the resamples after it."""
    low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values[0]), float(low), float(high))


def verdict(found: Interval | Difference, above: float = 0.0, below: float = math.inf) -> str:
    """Of a claim that a number lies between `above` and `below`: its whole interval decides, never its mean."""
    if above < found.low and found.high < below:
        return "reproduced"
    return "not reproduced" if found.high < above or found.low > below else "undecided"


def summary_rows(values: ArrayLike, seeds: Sequence[int | None], **columns: Any) -> list[dict[str, Any]]:
    """Rows of a figure's data for one metric: one per seed, and one over all seeds with its 95 % interval.

    `values` has shape (seeds, questions); a seed of None stands for what does not vary with it: no row of its own.
    """
    table = _as_table(values)
    rows = [
        columns | {"seed": s, "value": v.mean(), "n": len(v)}
        for s, v in zip(seeds, table, strict=True)
        if s is not None
    ]
    mean, low, high = bootstrap_interval(table)
    return [*rows, columns | {"seed": None, "value": mean, "low": low, "high": high, "n": table.shape[1]}]


def gain_row(a: ArrayLike, b: ArrayLike, over: str, metric: str = "accuracy", **columns: Any) -> dict[str, Any]:
    """The row of a figure's data that a claim is tested on: how far `a` is above `b`, with its paired interval.

    `columns` say what `a` is, and `over` with the columns `over_x`, `over_at` and `over_student` what `b` is; both have
    shape (seeds, questions). The paired test's "p" is there to be shown (`claims.findings`); a figure's data has no
    column for it.
    """
    gain = paired_difference(a, b)
    numbers = {"value": gain.mean, "low": gain.low, "high": gain.high, "n": _as_table(a).shape[1], "p": gain.p}
    return columns | {"metric": metric, "over": over} | numbers


def chance_gain_row(a: ArrayLike, options: Sequence[int], **columns: Any) -> dict[str, Any]:
    """How far `a`, (seeds, questions), is above guessing, which is right on one in `options` of a question.

    Without a p: a right answer is further above its chance than a wrong one is below, so signs cannot be flipped.
    """
    table = _as_table(a)
    row = gain_row(table, np.broadcast_to(1 / np.asarray(options, dtype=float), table.shape), "chance", **columns)
    return row | {"p": None}


def share_rows(causes: Sequence[Sequence[str]], names: Sequence[str], **columns: Any) -> list[dict[str, Any]]:
    """Rows of a figure's data: the share of each named cause among the failures of all seeds together, `n` of them.

    `causes` has shape (seeds, questions), empty where nothing failed. No rows where nothing failed at all. The interval
    of a cause that no failure or every one has is of no width: a bootstrap knows nothing of what was never seen.
    """
    table = np.array(causes)
    failed = table != ""
    columns |= {"metric": "share_of_failures", "knob": "cause", "n": int(failed.sum())}
    shares = {cause: share_interval(table == cause, failed) for cause in names if failed.any()}
    return [
        columns | {"at": cause, "value": share.mean, "low": share.low, "high": share.high}
        for cause, share in shares.items()
    ]


def _as_table(values: ArrayLike) -> NDArray[np.float64]:
    """(seeds, questions)."""
    table = np.atleast_2d(np.asarray(values, dtype=float))
    if table.ndim != 2 or not table.size:
        raise ValueError(f"values must be of shape (questions,) or (seeds, questions) and not empty, not {table.shape}")
    if np.isnan(table).any():
        raise ValueError("a value is missing (NaN): every seed must have answered every question")
    return table


def _resample_sums(table: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Sums over drawn seeds and questions: (seeds, questions) -> (resamples,)."""
    of_seeds, of_questions = _draw(*table.shape, resamples, seed)
    return (of_questions @ table.T * of_seeds).sum(axis=1)  # (resamples, seeds): sums over the drawn questions


@functools.lru_cache(maxsize=2)  # a notebook's intervals are over the same questions and seeds, and draws take long
def _draw(seeds: int, questions: int, resamples: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each seed, (resamples, seeds), and each question, (resamples, questions), is drawn."""
    rng = np.random.default_rng(seed)
    of_questions = _count_draws(rng, resamples, questions)
    return (_count_draws(rng, resamples, seeds) if seeds > 1 else np.ones((resamples, 1))), of_questions


def _count_draws(rng: np.random.Generator, resamples: int, n: int) -> NDArray[np.float64]:
    """How often each of `n` things is drawn in `n` draws with replacement: (resamples, n)."""
    draws = rng.integers(n, size=(resamples, n)) + np.arange(resamples)[:, None] * n
    return np.bincount(draws.ravel(), minlength=resamples * n).reshape(resamples, n).astype(float)
