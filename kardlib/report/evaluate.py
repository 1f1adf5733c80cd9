"""From outcomes to numbers: every mean comes with an interval and a paired test."""

import functools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, t

from kardlib.report.rows import AGAINST_GOLD, MOST_UNREAD, limits

if TYPE_CHECKING:
    from kardlib.kard.experiment import Experiment, Knobs
    from kardlib.kard.pipeline import Gain, Row

LEVEL = 0.95  # of all intervals
NOT_TOLD = "not told"
GROWTH = "accuracy_gain_growth"  # a difference of two gains, beside which a paper's own gains do not belong
TINY = 1e-9  # spread of answers that are all of one class

Clusters = NDArray[np.int64] | None  # (2, questions): `by_cluster`; None where each question stands for itself
Subset = str | NDArray[np.bool_] | None  # of a split's questions: `tabulate`

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


def mean_interval(values: ArrayLike, clusters: Clusters = None) -> Interval:
    """Mean of a metric, `values` of shape (questions,) or (seeds, questions), and its t interval (`standard_error`).

    With one seed it is the t interval over questions: it speaks of new questions and of this training run alone, since
    one run cannot know how far runs lie apart. With `clusters` it speaks of new clusters (`by_cluster`). Of a single
    value nothing is known, and the interval is infinite. Raises ValueError for no values, NaN, or another shape.
    """
    return Interval(*_t_test(*_estimate(_as_table(values), clusters))[:3])


def paired_difference(a: ArrayLike, b: ArrayLike, clusters: Clusters = None) -> Difference:
    """How far `a` is above `b`, two methods on the same questions with the same seeds.

    Both are (questions,) or (seeds, questions). The interval is that of `mean_interval` for their differences, and `p`
    (two-sided) is that of the same t statistic: it is below .05 exactly where the interval leaves 0 out, but for one of
    no width, as of questions that all differ alike: it decides nothing, and `p` is 1. Raises ValueError for shapes that
    differ.
    """
    table_a, table_b = _as_table(a), _as_table(b)
    if table_a.shape != table_b.shape:
        raise ValueError(
            f"the two methods must answer the same questions with the same seeds: {table_a.shape} and {table_b.shape} "
            "(seeds, questions) differ"
        )
    return _t_test(*_estimate(table_a - table_b, clusters))


def unpaired_difference(a: ArrayLike, b: ArrayLike, of_a: Clusters = None, of_b: Clusters = None) -> Difference:
    """How far `a` is above `b` on other questions, with the clusters of each; both (questions,) or (seeds, questions).

    Each has its own variance, and the degrees of freedom are Welch's (*The generalization of Student's problem when
    several different population variances are involved*, Biometrika 1947): few clusters on one side stay few.
    """
    (mean_a, error_a, free_a), (mean_b, error_b, free_b) = _estimate(_as_table(a), of_a), _estimate(_as_table(b), of_b)
    error = math.hypot(error_a, error_b)
    freedom = error**4 / (error_a**4 / free_a + error_b**4 / free_b) if error else 1
    return _t_test(mean_a - mean_b, error, freedom)


def share_interval(part: ArrayLike, whole: ArrayLike, clusters: Clusters = None) -> Interval:
    """The share `sum(part) / sum(whole)`, e.g. of the failures that have one cause, and its interval.

    Both are (questions,) or (seeds, questions). How large the whole is varies too, so the share is linearised: each
    cell counts by how far its part is from the share of its whole, and `mean_interval` is taken of that (the ratio
    estimator: Cochran, *Sampling Techniques*, 1977, chapter 6). It is narrow where the whole is few, and of no width
    where the part is nothing or everything. Raises ValueError for shapes that differ and an empty whole.
    """
    table, of = _as_table(part), _as_table(whole)
    if table.shape != of.shape or not of.sum():
        raise ValueError(f"a share needs a part and a whole, not empty, of one shape: {table.shape} and {of.shape}")
    share = table.sum() / of.sum()
    return mean_interval(share + (table - share * of) / of.mean(), clusters)


def ratio_interval(metric: str, predicted: ArrayLike, gold: ArrayLike) -> Interval:
    """The positive class's F1 ("f1") or the Matthews correlation with the gold answers ("matthews"): its mean over
    seeds, and its interval; `predicted` (seeds, questions) and `gold` (questions,) are True for the positive class.

    Both are ratios in every seed, and linearised as in `share_interval`. F1 is 0 without a positive prediction or
    answer, the correlation where all predictions or all answers are of one class (Matthews, *Comparison of the
    predicted and observed secondary structure of T4 phage lysozyme*, BBA 1975). Raises ValueError for shapes that
    differ.
    """
    linear, least = RATIOS[metric]
    mean, low, high = mean_interval(linear(predicted, gold))
    return Interval(mean, max(low, least), min(high, 1))


def ratio_difference(metric: str, a: ArrayLike, b: ArrayLike, gold: ArrayLike) -> Difference:
    """How far the ratio of `a` is above that of `b`, as `ratio_interval` has it, tested like `paired_difference`.

    Where one of them has a single row (a teacher), it stands beside every seed. Raises ValueError for shapes that
    differ otherwise.
    """
    linear, least = RATIOS[metric]
    tables = np.broadcast_arrays(np.atleast_2d(a), np.atleast_2d(b))
    linear_a, linear_b = (linear(table, gold) for table in tables)
    mean, low, high, p = paired_difference(linear_a, linear_b)
    return Difference(mean, max(low, least - 1), min(high, 1 - least), p)


def _linear_f1(predicted: ArrayLike, gold: ArrayLike) -> NDArray[np.float64]:
    """Numbers, (seeds, questions), whose mean over questions is F1 and whose spread is that of F1's linearisation."""
    guess, truth = _as_answers(predicted, gold)
    size = guess + truth
    mean_size = np.maximum(size.mean(axis=1, keepdims=True), 1 / truth.size)
    f1 = 2 * (guess * truth).mean(axis=1, keepdims=True) / mean_size
    return f1 + (2 * guess * truth - f1 * size) / mean_size


def _linear_matthews(predicted: ArrayLike, gold: ArrayLike) -> NDArray[np.float64]:
    """The same for the correlation of two answers: r + a b - r (a^2 + b^2) / 2, where a and b are standardised."""
    centred = [values - values.mean(-1, keepdims=True) for values in _as_answers(predicted, gold)]
    a, b = (values / np.maximum(values.std(-1, keepdims=True), TINY) for values in centred)
    r = (a * b).mean(axis=1, keepdims=True)
    return r + a * b - r * (a**2 + b**2) / 2


RATIOS = {"f1": (_linear_f1, 0), "matthews": (_linear_matthews, -1)}  # by metric: linearised, and the least it can be


def _as_answers(predicted: ArrayLike, gold: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(seeds, questions) and (questions,), 1 for the positive class. Raises ValueError."""
    guess, truth = np.atleast_2d(np.asarray(predicted, dtype=float)), np.asarray(gold, dtype=float)
    if guess.ndim != 2 or guess.shape[1:] != truth.shape or not guess.size:
        raise ValueError(f"predictions {guess.shape} and answers {truth.shape} do not belong together")
    return guess, truth


def by_cluster(values: NDArray[np.float64], clusters: NDArray[np.int64]) -> NDArray[np.float64]:
    """(seeds, questions) -> (seeds, clusters): numbers with the same means, that spread as far as clusters do.

    Questions about the same facts are right or wrong together and say less than as many that have nothing in common.
    `clusters` are two rows: the stratum of every question, and the cluster of that stratum. A cluster's number says how
    far all of its questions are from the mean of their stratum, since no draw changes how many are of a stratum
    (Cochran, *Sampling Techniques*, 1977, chapter 5; of language models Miller, *Adding Error Bars to Evals*, 2024).
    `lost` makes up for the means that were taken off, of each stratum's n clusters one: n / (n - 1), where
    `standard_error` makes up for one of all. A stratum of one cluster says nothing of how far clusters lie apart; are
    all of this kind, there is a single number.
    """
    stratum, cluster = (np.unique(codes, return_inverse=True)[1] for codes in clusters)
    strata, count = stratum.max() + 1, cluster.max() + 1
    if strata == count:
        return values.mean(1, keepdims=True)
    means = np.bincount(stratum, values.mean(0)) / np.bincount(stratum)
    sums = np.stack([np.bincount(cluster, row) for row in values - means[stratum]])
    of = np.zeros(count, dtype=int)
    of[cluster] = stratum
    each = np.bincount(of)[of]  # clusters of a cluster's stratum
    lost = np.sqrt(each / np.maximum(each - 1, 1) * (count - 1) / count)
    apart = sums * lost * count / len(cluster)
    return values.mean(1, keepdims=True) + apart - apart.mean(1, keepdims=True)


def standard_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Of the mean over seeds and questions the standard error and its degrees of freedom, from (seeds, questions).

    All seeds answer the same questions, so that seeds and questions are crossed random factors: a value is the mean, a
    seed's luck, a question's and the luck of both together. With the mean squares of seeds, questions and what is left
    the variance of the mean is (MS_seeds + MS_questions - MS_rest) / (seeds questions), and its degrees of freedom are
    Satterthwaite's (*An approximate distribution of estimates of variance components*, Biometrics Bulletin 1946). Where
    MS_seeds is below MS_rest the variance between seeds is estimated as none, and it is the t test over questions. If
    MS_questions alone is, as of seeds that each name another letter everywhere, it is the t test over seeds.

    In simulations of 600 right and wrong answers 93 to 97 % of the 95 % intervals hold the truth with three or five
    seeds that lie up to 3 points apart (`tests/report/test_evaluate.py`). With one seed they do so only if seeds do not
    differ: at 3 points it is about 71 %. With two seeds that far apart it is about 90 %.
    """
    seeds, questions = values.shape
    mean = values.mean()
    by_seed, by_question = values.mean(1, keepdims=True) - mean, values.mean(0) - mean
    rest = values - mean - by_seed - by_question
    free = np.maximum(1, [seeds - 1, questions - 1, (seeds - 1) * (questions - 1)])
    squares = [(questions * by_seed**2).sum(), (seeds * by_question**2).sum(), (rest**2).sum()]
    ms_seeds, ms_questions, ms_rest = np.array(squares) / free
    if ms_seeds <= ms_rest:
        terms = np.array([0, ms_questions, 0])
    elif ms_questions <= ms_rest:
        terms = np.array([ms_seeds, 0, 0])
    else:
        terms = np.array([ms_seeds, ms_questions, -ms_rest])
    variance = terms.sum()
    freedom = variance**2 / (terms**2 / free).sum() if variance else 1
    return math.sqrt(variance / values.size) if values.size > 1 else math.inf, float(freedom)


def _estimate(table: NDArray[np.float64], clusters: Clusters = None) -> tuple[float, float, float]:
    """Mean of (seeds, questions), its standard error and degrees of freedom.

    Clusters that lie closer together than their questions' own luck would put them are estimated to have nothing in
    common, as seeds are (`standard_error`): a few clusters do so by chance, and the interval would be far too narrow.
    """
    ways = [table]
    if clusters is not None:
        alone = np.stack([clusters[0], np.arange(table.shape[1])])
        ways = [by_cluster(table, clusters), by_cluster(table, alone)]
    error, freedom = max(map(standard_error, ways), key=itemgetter(0))
    return float(table.mean()), error, freedom


def _t_test(mean: float, error: float, freedom: float) -> Difference:
    """An estimate's interval, and the p with which it is not 0: 1 where no spread was seen, which decides nothing."""
    reach = error * float(t.ppf((1 + LEVEL) / 2, freedom))
    p = 2 * float(t.sf(abs(mean) / error, freedom)) if error else 1.0
    return Difference(mean, mean - reach, mean + reach, p)


def verdict(
    found: Interval | Difference, above: float = 0.0, below: float = math.inf, unread: float | None = None
) -> str:
    """Of a claim that a number lies between `above` and `below`: its whole interval decides, never its mean.

    So a claim of "above 0" is reproduced exactly where the mean is above 0 and the `p` of a 95 % interval below .05.
    Where all answers are alike the interval has no width and decides nothing: two right ones of two are no proof.
    Where more than `MOST_UNREAD` of the answers could not be read, nothing is told: zeros of a student that writes no
    answer say nothing of what it was trained on or reads.
    """
    if (unread or 0) > MOST_UNREAD:
        return NOT_TOLD
    if found.low == found.high:
        return "undecided"
    if above < found.low and found.high < below:
        return "reproduced"
    return "not reproduced" if found.high < above or found.low > below else "undecided"


def by_chance(tests: int) -> tuple[float, int]:
    """How many of `tests` verdicts chance alone would make "reproduced", and as many "not reproduced".

    So it is if every true number lies on the edge of what its test asks for: an interval is wholly on one side of it
    with 2.5 %. Expected, and the most in 95 % of the cases for tests that know nothing of one another.
    """
    share = (1 - LEVEL) / 2
    return tests * share, int(binom.ppf(0.95, tests, share))


def summary_rows(
    values: ArrayLike, seeds: Sequence[int | None], clusters: Clusters = None, **columns: Any
) -> list[dict[str, Any]]:
    """Rows of a figure's data for one metric: one per seed, and one over all seeds with its 95 % interval.

    `values` has shape (seeds, questions); a seed of None stands for what does not vary with it: no row of its own.
    """
    table = _as_table(values)
    rows = [
        columns | {"seed": s, "value": v.mean(), "n": len(v), "unread": _unread_share(v)}
        for s, v in zip(seeds, table, strict=True)
        if s is not None
    ]
    mean, *ends = mean_interval(table, clusters)
    low, high = clip_ends(ends, columns.get("metric", ""))
    numbers = {"value": mean, "low": low, "high": high, "n": table.shape[1], "unread": _unread_share(table)}
    return [*rows, columns | {"seed": None} | numbers]


def gain_row(
    a: ArrayLike, b: ArrayLike, over: str, metric: str = "accuracy", clusters: Clusters = None, **columns: Any
) -> dict[str, Any]:
    """The row of a figure's data that a claim is tested on: how far `a` is above `b`, with its paired interval.

    `columns` say what `a` is, and `over` with the columns `over_x`, `over_at` and `over_student` what `b` is; both have
    shape (seeds, questions). The paired test's "p" is there to be shown (`claims.findings`); a figure's data has no
    column for it.
    """
    found, n = paired_difference(a, b, clusters), np.shape(a)[-1]
    return _as_gain(found, (a, b), n=n, over=over, metric=metric, **columns)


def _as_gain(found: Difference, sides: Iterable[ArrayLike], **columns: Any) -> dict[str, Any]:
    """The row of a difference between `sides`; as many answers are unread as of the worst of them."""
    low, high = clip_ends(found[1:3], columns["metric"], columns["over"])
    unread = max(filter(None, map(_unread_share, sides)), default=None)
    return columns | {"value": found.mean, "low": low, "high": high, "p": found.p, "unread": unread}


def tabulate(
    experiment: "Experiment", figure: str, scores: Mapping["Row", ArrayLike], gains: Iterable["Gain"] = (),
    asked: Subset = "accuracy", **columns: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of a figure's data for a grid: the summary of every row's scores, then what some rows gain over others.

    Scores have shape (seeds, questions), or (questions,) where they do not vary with the seed: these have no row of
    their own for a seed, and stand beside every seed of what is compared with them. They are of all questions of the
    split, of which `asked` says which count: a name of `experiment.strata` or `kinds`, or a mask (questions,); None
    says that they are no questions'. A row's columns are its own, the experiment's, accuracy on the split "test", and
    `retrieval.k`; `columns` are others, or other values of these. There are no rows against gold passages where no
    question of the split has any: nothing could be found, and 0 says more. Raises ValueError where the closed world
    has another number of questions.
    """
    if _lacks_gold(experiment, **columns):
        return []
    rows, seeds = [], experiment.settings.seeds
    for row, values in scores.items():
        named = _name(experiment, figure, row) | columns
        table, clusters = _sample(_asks(experiment, row.knobs), values, asked, named["split"])
        rows += summary_rows(table, seeds if np.ndim(values) == 2 else [None], clusters, **named)
    return [*rows, *gain_rows(experiment, figure, scores, gains, asked, **columns)]


def gain_rows(
    experiment: "Experiment", figure: str, scores: Mapping["Row", ArrayLike], gains: Iterable["Gain"],
    asked: Subset = "accuracy", **columns: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """The gains alone, of which `scores` hold all rows; a gain less another one is of the metric `GROWTH`."""
    if _lacks_gold(experiment, **columns):
        return []
    rows = []
    for above, below, less in gains:
        named, rival = _name(experiment, figure, above), less.above if less else below
        named |= {f"over_{c}": getattr(rival, c) for c in ("student", "x", "at") if getattr(rival, c) != named[c]}
        named |= ({"metric": GROWTH} if less else {}) | columns
        here = _asks(experiment, above.knobs)
        (a, clusters), (b, _) = (_sample(here, scores[row], asked, named["split"]) for row in (above, below))
        a, b = np.broadcast_arrays(a, b)
        sides, n = [a, b], a.shape[1]
        if not less:
            found = paired_difference(a, b, clusters)
        else:
            there = _asks(experiment, less.above.knobs)
            (c, others), (d, _) = (_sample(there, scores[row], asked, named["split"]) for row in less[:2])
            sides += [c, d]
            if here.settings.world == there.settings.world:
                found = paired_difference(a - b, c - d, clusters)
            else:  # nothing that pairs their questions
                found, n = unpaired_difference(a - b, c - d, clusters, others), n + c.shape[1]
        rows.append(_as_gain(found, sides, n=n, over=below.method, **named))
    return rows


@functools.lru_cache(maxsize=8)  # a world is built once for all rows that ask about it
def _asks(experiment: "Experiment", knobs: "Knobs") -> "Experiment":
    """The experiment whose questions a row is asked: of another world where its knobs say so."""
    world = tuple(knob for knob in knobs if knob[0].startswith("world."))
    return experiment.at(world) if world else experiment


def _sample(
    experiment: "Experiment", values: ArrayLike, asked: Subset, split: str
) -> tuple[NDArray[np.float64], Clusters]:
    """Of a row's scores those that count, (seeds, questions), and the clusters of their questions."""
    table = _as_table(values)
    if asked is None:
        return table, None
    clusters = experiment.clusters(split)
    if clusters is not None and clusters.shape[1] != table.shape[1]:
        raise ValueError(f"{table.shape[1]} scores are not those of the {clusters.shape[1]} questions of {split!r}")
    if isinstance(asked, str):
        if asked == "accuracy":
            return table, clusters
        asked = (experiment.strata | experiment.kinds)[asked]
    return table[:, asked], None if clusters is None else clusters[:, asked]


def _lacks_gold(experiment: "Experiment", metric: str = "", split: str = "test", **_: Any) -> bool:
    asked = experiment.data.splits.get(split, [])
    return bool(asked) and metric in AGAINST_GOLD and not any(experiment.data.gold.get(q.id) for q in asked)


def _name(experiment: "Experiment", figure: str, row: "Row") -> dict[str, Any]:
    """The columns that say what a row of a grid is."""
    k = dict(row.knobs).get("retrieval.k", experiment.settings.retrieval.k)
    own = {name: value for name, value in row._asdict().items() if name != "knobs"}
    return experiment.place(figure) | own | {"metric": "accuracy", "k": k}


def loss_rows(curves: Mapping[int, Mapping[int, float]], **columns: Any) -> list[dict[str, Any]]:
    """Rows of a figure's data: the loss of a training by seed and step, and its mean at every step that all seeds have.

    `curves` is seed -> step -> loss. The mean stands between the least and the greatest of the seeds.
    """
    named = columns | {"metric": "loss", "knob": "step"}
    rows = [named | {"seed": seed, "x": x, "value": loss} for seed, c in curves.items() for x, loss in c.items()]
    for step in sorted(set.intersection(*map(set, curves.values()))):
        losses = [curve[step] for curve in curves.values()]
        ends = {"low": min(losses), "high": max(losses), "n": len(losses)}
        rows.append(named | {"x": step, "value": fmean(losses)} | ends)
    return rows


def share_rows(
    causes: Sequence[Sequence[str]], names: Sequence[str], clusters: Clusters = None, **columns: Any
) -> list[dict[str, Any]]:
    """Rows of a figure's data: the share of each named cause among the failures of all seeds together, `n` of them.

    `causes` has shape (seeds, questions), empty where nothing failed. No rows where nothing failed at all. The interval
    of a cause that no failure or every one has is of no width: nothing is known of what was never seen.
    """
    table = np.array(causes)
    failed, metric = table != "", "share_of_failures"
    rows = []
    for cause in names if failed.any() else ():
        share, *ends = share_interval(table == cause, failed, clusters)
        low, high = clip_ends(ends, metric)
        numbers = {"value": share, "low": low, "high": high, "n": int(failed.sum())}
        rows.append(columns | {"metric": metric, "knob": "cause", "at": cause} | numbers)
    return rows


def part_rows(
    scores: ArrayLike, parts: ArrayLike, names: Sequence[str], less: ArrayLike | None = None, **columns: Any
) -> list[dict[str, Any]]:
    """Rows of a figure's data: the mean score of each named part of the answers of all seeds together, `n` of them.

    With `less` it is a gain, over these scores of what the column `over` names.
    Scores and the parts' names have shape (seeds, questions): a question may be of another part with another seed. No
    row of a part without answers, and no interval where all of its answers are alike: nothing is known of others.
    """
    both, part, rows = [_as_table(each) for each in (scores, less) if each is not None], np.array(parts), []
    table = both[0] - both[1] if len(both) > 1 else both[0]
    for name in names:
        if (asked := part == name).any():
            mean, *ends = share_interval(table * asked, asked)
            known = len({*table[asked]}) > 1
            low, high = clip_ends(ends, columns["metric"], columns.get("over", "")) if known else (None, None)
            unread = max(filter(None, (_unread_share(each[asked]) for each in both)), default=None)
            numbers = {"value": mean, "low": low, "high": high, "n": int(asked.sum()), "unread": unread}
            rows.append(columns | {"at": name} | numbers)
    return rows


def clip_ends(ends: Sequence[float], metric: str, over: str = "") -> list[float | None]:
    """An interval's ends as a row holds them: within what the metric can be, and none that is infinite."""
    within = np.clip(ends, *limits(metric, over))
    return [float(end) if math.isfinite(end) else None for end in within]


def _unread_share(scores: ArrayLike) -> float | None:
    """The share of the answers that could not be read (`data.answers.UNREAD`); None where there is none."""
    values = np.asarray(scores, dtype=float)
    return float(((values == 0) & np.signbit(values)).mean()) or None


def _as_table(values: ArrayLike) -> NDArray[np.float64]:
    """(seeds, questions)."""
    table = np.atleast_2d(np.asarray(values, dtype=float))
    if table.ndim != 2 or not table.size:
        raise ValueError(f"values must be of shape (questions,) or (seeds, questions) and not empty, not {table.shape}")
    if np.isnan(table).any():
        raise ValueError("a value is missing (NaN): every seed must have answered every question")
    return table
