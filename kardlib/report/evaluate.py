"""From outcomes to the rows of a figure's data: a metric has one value per question, a row a mean with its interval."""

import functools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kardlib.report.rows import AGAINST_GOLD, IN_NATS, limits
from kardlib.report.statistics import (
    Clusters,
    Difference,
    Interval,
    as_table,
    mean_interval,
    paired_difference,
    share_interval,
    unpaired_difference,
)
from kardlib.settings import WorldSettings

if TYPE_CHECKING:
    from kardlib.kard.experiment import Experiment, Knobs
    from kardlib.kard.pipeline import Gain, Row

GROWTH = "accuracy_gain_growth"  # a difference of two gains, beside which a paper's own gains do not belong

Subset = str | NDArray[np.bool_] | None  # of a split's questions: `tabulate`


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


def summary_rows(
    values: ArrayLike, seeds: Sequence[int | None], clusters: Clusters = None, **columns: Any
) -> list[dict[str, Any]]:
    """Rows of a figure's data for one metric: one per seed, and one over all seeds with its 95 % interval.

    `values` has shape (seeds, questions); a seed of None stands for what does not vary with it: no row of its own.
    """
    table, metric = as_table(values), columns.get("metric", "")
    rows = [
        columns | {"seed": s, "value": v.mean(), "n": len(v), "unread": _unread_share(metric, v)}
        for s, v in zip(seeds, table, strict=True)
        if s is not None
    ]
    return [*rows, _as_row(mean_interval(table, clusters), [table], n=table.shape[1], **columns | {"seed": None})]


def gain_row(
    a: ArrayLike, b: ArrayLike, over: str, metric: str = "accuracy", clusters: Clusters = None, **columns: Any
) -> dict[str, Any]:
    """The row of a figure's data that a claim is tested on: how far `a` is above `b`, with its paired interval.

    `columns` say what `a` is, and `over` with the columns `over_x`, `over_at` and `over_student` what `b` is; both have
    shape (seeds, questions). The paired test's "p" is there to be shown (`claims.findings`); a figure's data has no
    column for it.
    """
    found = paired_difference(a, b, clusters)
    return _as_row(found, [a, b], n=np.shape(a)[-1], over=over, metric=metric, p=found.p, **columns)


def _as_row(found: Interval | Difference, scores: Iterable[ArrayLike], **columns: Any) -> dict[str, Any]:
    """The row of a number that was found in `scores`; as many answers are unread as in the worst of them."""
    metric = columns.get("metric", "")
    low, high = clip_ends([found.low, found.high], metric, columns.get("over", ""))
    return columns | {"value": found.mean, "low": low, "high": high, "unread": _unread_share(metric, *scores)}


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
    for gain in gains:
        above, below, less = gain
        named, rival = _name(experiment, figure, above), less.above if less else below
        named |= {f"over_{c}": getattr(rival, c) for c in ("student", "x", "at") if getattr(rival, c) != named[c]}
        named |= ({"metric": GROWTH} if less else {}) | columns
        (a, b), clusters, world = _sides(experiment, scores, gain, asked, named["split"])
        sides, n = [a, b], a.shape[1]
        if not less:
            found = paired_difference(a, b, clusters)
        else:
            (c, d), others, other_world = _sides(experiment, scores, less, asked, named["split"])
            sides += [c, d]
            if world == other_world:
                found = paired_difference(a - b, c - d, clusters)
            else:  # nothing that pairs their questions
                found, n = unpaired_difference(a - b, c - d, clusters, others), n + c.shape[1]
        rows.append(_as_row(found, sides, n=n, over=below.method, p=found.p, **named))
    return rows


@functools.lru_cache(maxsize=8)  # a world is built once for all rows that ask about it
def _asks(experiment: "Experiment", knobs: "Knobs") -> "Experiment":
    """The experiment whose questions a row is asked: of another world where its knobs say so."""
    world = tuple(knob for knob in knobs if knob[0].startswith("world."))
    return experiment.at(world) if world else experiment


def _sides(
    experiment: "Experiment", scores: Mapping["Row", ArrayLike], gain: "Gain", asked: Subset, split: str
) -> tuple[Sequence[NDArray[np.float64]], Clusters, WorldSettings]:
    """The scores of both rows that a gain compares, (seeds, questions), the questions' clusters, and their world.

    Raises ValueError where the two are asked of two worlds.
    """
    above, below, _ = gain
    world, other = (experiment.settings.override(dict(row.knobs)).world for row in (above, below))
    if world != other:
        raise ValueError(f"{above.method} and {below.method} are asked of two worlds, which share no question")
    here = _asks(experiment, above.knobs)
    (a, clusters), (b, _) = (_sample(here, scores[row], asked, split) for row in (above, below))
    return np.broadcast_arrays(a, b), clusters, world


def _sample(
    experiment: "Experiment", values: ArrayLike, asked: Subset, split: str
) -> tuple[NDArray[np.float64], Clusters]:
    """Of a row's scores those that count, (seeds, questions), and the clusters of their questions."""
    table = as_table(values)
    if asked is None:
        return table, None
    clusters = experiment.clusters(split)
    if clusters is not None and clusters.shape[1] != table.shape[1]:
        raise ValueError(f"{table.shape[1]} scores are not those of the {clusters.shape[1]} questions of {split!r}")
    if isinstance(asked, str):
        if asked == "accuracy":
            return table, clusters
        asked = (experiment.strata(split) | experiment.kinds(split))[asked]
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
    table, columns = np.array(causes), columns | {"metric": "share_of_failures"}
    failed, rows = table != "", []
    for cause in names if failed.any() else ():
        share = share_interval(table == cause, failed, clusters)
        rows.append(_as_row(share, [], n=int(failed.sum()), **columns | {"knob": "cause", "at": cause}))
    return rows


def part_rows(
    scores: ArrayLike, parts: ArrayLike, names: Sequence[str], less: ArrayLike | None = None, **columns: Any
) -> list[dict[str, Any]]:
    """Rows of a figure's data: the mean score of each named part of the answers of all seeds together, `n` of them.

    With `less` it is a gain, over these scores of what the column `over` names.
    Scores and the parts' names have shape (seeds, questions): a question may be of another part with another seed. No
    row of a part without answers, and no interval where all of its answers are alike: nothing is known of others.
    """
    both, part, rows = [as_table(each) for each in (scores, less) if each is not None], np.array(parts), []
    table = both[0] - both[1] if len(both) > 1 else both[0]
    for name in names:
        if (asked := part == name).any():
            found, of_part = share_interval(table * asked, asked), [each[asked] for each in both]
            row = _as_row(found, of_part, n=int(asked.sum()), **columns | {"at": name})
            alike = len({*table[asked]}) == 1
            rows.append(row | {"low": None, "high": None} if alike else row)
    return rows


def clip_ends(ends: Sequence[float], metric: str, over: str = "") -> list[float | None]:
    """An interval's ends as a row holds them: within what the metric can be, and none that is infinite."""
    within = np.clip(ends, *limits(metric, over))
    return [float(end) if math.isfinite(end) else None for end in within]


def _unread_share(metric: str, *scores: ArrayLike) -> float | None:
    """The share of answers that could not be read (`data.answers.UNREAD`), of several scores the greatest; None: none.

    Losses are no answers: one of -0.0 is as small as a loss can be.
    """
    sides = [np.asarray(side, dtype=float) for side in scores if metric not in IN_NATS]
    return max((float(((side == 0) & np.signbit(side)).mean()) for side in sides), default=0.0) or None
