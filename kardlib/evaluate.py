"""From generated text to numbers: answers are parsed, and every mean comes with an interval and a paired test."""

import functools
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kardlib.data import LETTERS

# Answers

# A letter is an option where a statement makes it one, never because it is the last character. A bare letter must be
# upper case ("the answer is a matter of taste" names no option) and stand alone (unlike "B-cells", "C's", "E.coli").
_ROUND = r"[(\[]\s*([A-Ja-j])\s*[)\]]"
_OPTION = rf"(?:{_ROUND}|\b([A-J])(?![\w'\u2019-]|\.\w))"
_CLEAR = r"(?i:(?!,?\s*(?:or|and|nor)\b|\s*/|\s+(?:is|was)\s+(?:not|wrong|incorrect|false)\b))"
_ANSWER_IS = (
    r"(?i:(?<!wrong )(?<!incorrect )\b(?:answer|option|choice)(?:\s+(?:option|choice))?"
    r"(?:\s+to\s+(?:the|this)\s[^.?!:()\n]{0,80}?)?(?:,?\s+(?:therefore|thus|hence),?)?"
    r"\s*(?:\bis\b|\b(?:would|should|must|will|has\s+to)\s+be\b|:|=)\s*"
    r"(?:(?:therefore|thus|hence|clearly|most|likely|probably|option|choice|answer|the)\b[,:]?\s*)*)"
)
_MAKING = (
    r"(?i:\bmaking\s+(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)(?:\s+(?:option|choice))?"
    r"|\bthe\s+(?:(?:correct|right|final|best)\s+)?answer)\s+"
)
_SENTENCE = r"(?:\A|\n|[.:;!?][')]?\s)[\s'>-]{0,9}(?i:(?:so|thus|hence|therefore|option|choice|answer)\b,?\s+)*"
_IS_CORRECT = (
    r"\s+(?i:is\s+(?:therefore\s+|thus\s+|clearly\s+)?(?:the\s+)?"
    r"(?:(?:correct|right)\b|(?:best|most\s+\w+)\s+(?:answer|option|choice)\b))"
)
_CONCLUSIONS = [
    re.compile(pattern)
    for pattern in (
        rf"{_ANSWER_IS}{_OPTION}{_CLEAR}",  # The answer is B. Answer: (B). The answer to this question is option B.
        rf"{_MAKING}{_ROUND}{_CLEAR}",  # ..., making the answer (B).
        rf"(?:{_SENTENCE}|(?i:\b(?:option|choice|answer)\s+)|(?=[(\[])){_OPTION}{_IS_CORRECT}",  # (B) is correct.
        rf"{_SENTENCE}{_OPTION}[\s'.!]*\Z",  # a lone letter at the end
    )
]
_YES_NO = re.compile(rf"{_ANSWER_IS}[('\[]*((?i:yes|no))\b(?!\s+(?i:longer|one|doubt)\b){_CLEAR}")


def parse_answer(text: str, options: Sequence[str]) -> int | None:
    """The option that a generated text concludes with, as an index into `options`; None if it concludes none of them.

    Conclusions are "The answer is B.", "answer is (B)", "Answer: B", "(B) is correct" and a lone letter as the last
    sentence or line; where the options are yes and no, also "The answer is yes". The last one counts, so a text whose
    last conclusion is not among the options gives None; "The answer is A or B" concludes nothing.
    """
    text = re.sub(r'[*"`“”]', "", text)  # emphasis and quotation marks say nothing here
    words = [option.strip().casefold() for option in options]
    patterns = [*_CONCLUSIONS, _YES_NO] if set(words) == {"yes", "no"} else _CONCLUSIONS
    found = [(m.start(m.lastindex or 0), m[m.lastindex or 0]) for p in patterns for m in p.finditer(text)]
    if not found:
        return None
    said = max(found)[1]
    answer = LETTERS.index(said.upper()) if len(said) == 1 else words.index(said.casefold())
    return answer if answer < len(options) else None


def last_letter(text: str, options: Sequence[str]) -> int | None:
    """The option that a text's last letter names, as an index into `options`, whatever the text says; None if none.

    KARD's released code reads an answer so; it takes the last character, which here would often be a full stop.
    """
    letters = [character for character in text if character.isalpha()]
    answer = LETTERS.find(letters[-1]) if letters else -1
    return answer if 0 <= answer < len(options) else None


def majority_vote(answers: Sequence[int | None]) -> int | None:
    """The answer most samples agree on; of several the one that came first. Samples without an answer do not vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None  # most_common keeps the order of arrival among equals


# Metrics: an array with one value per question, so that methods can be compared question by question


def accuracy(predicted: Sequence[int | None], gold: Sequence[int]) -> NDArray[np.float64]:
    """1 where the predicted option is the gold one, else 0, shape (questions,). No answer (None) is a wrong answer."""
    return np.array([p == g for p, g in zip(predicted, gold, strict=True)], dtype=float)


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

    `columns` say what `a` is, `over` what `b` is; both have shape (seeds, questions). The paired test's "p" is there to
    be shown (`claims.findings`); a figure's data has no column for it.
    """
    gain = paired_difference(a, b)._asdict()
    n = _as_table(a).shape[1]
    return columns | {"metric": f"gain in {metric} over {over}", "value": gain.pop("mean"), "n": n} | gain


def chance_gain_row(a: ArrayLike, options: Sequence[int], **columns: Any) -> dict[str, Any]:
    """How far `a`, (seeds, questions), is above guessing, which is right on one in `options` of a question.

    Without a p: a right answer is further above its chance than a wrong one is below, so signs cannot be flipped.
    """
    table = _as_table(a)
    row = gain_row(table, np.broadcast_to(1 / np.asarray(options, dtype=float), table.shape), "chance", **columns)
    return row | {"p": None}


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
