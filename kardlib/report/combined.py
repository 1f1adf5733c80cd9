"""Rows made of other rows: over many worlds, over tasks, and over the best of the earlier methods."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kardlib.reaugkd.methods import EARLIER
from kardlib.report.evaluate import clip_ends
from kardlib.report.rows import ASKED, COLUMNS, KEYS, gained, is_judged, only
from kardlib.report.statistics import paired_difference
from kardlib.settings import GLUE_TASKS

OTHER_WORLDS = "21_worlds"  # the figure of other worlds
MANY_WORLDS = f"{OTHER_WORLDS}_full"  # that of so many that they decide
MEASURED = COLUMNS[len(KEYS) :]


# Over many worlds


def pool_worlds(worlds: Mapping[int, Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of a figure's data over worlds, by the seed that each was drawn from: each world's own, and their mean.

    Each world's rows over all seeds are taken, with the intervals that they have (`tabulate`). Drawn anew are ailments,
    questions, rationales and trainings together, so that a world is one observation: the mean has the t interval over
    worlds and the p of the same test, whatever lies behind their differences; worlds that agree by luck, while each has
    an interval of its own, do not say how far others lie, and have none. `n` are the questions of all. Raises
    ValueError where a row is not there in every world.
    """
    cells: dict[tuple[Any, ...], dict[int, Mapping[str, Any]]] = {}
    for seed, rows in worlds.items():
        for row in rows:
            if row.get("seed") is None:
                cells.setdefault(tuple(row.get(key) for key in KEYS), {})[seed] = row
    pooled: list[dict[str, Any]] = []
    for by_world in cells.values():
        if by_world.keys() != worlds.keys():
            row = next(iter(by_world.values()))
            raise ValueError(f"{row['method']}, {row['metric']}: there is no such row of every world")
        pooled += [{**row, "seed": seed, "p": None} for seed, row in by_world.items()]
        pooled.append(_mean_of_worlds([*by_world.values()]))
    return pooled


def _mean_of_worlds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean row of the same row of every world."""
    first, values = rows[0], [row["value"] for row in rows]
    mean, *ends, p = paired_difference(values, [0.0] * len(values))
    low, high = clip_ends(ends, first["metric"], first.get("over", ""))
    told: dict[str, float | None] = {"low": low, "high": high, "p": p}
    each_has_its_own = any((row.get("high") or 0) > (row.get("low") or 0) for row in rows)
    if each_has_its_own and len(rows) > 1 and np.ptp(values) < 1e-9:  # they agree by luck
        told = dict.fromkeys(told)
    unread = sum(row.get("unread") or 0 for row in rows) / len(rows) or None
    n = sum(row["n"] for row in rows)
    return {**first, "value": mean, "n": n, "unread": unread, **told}


def put_many_worlds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, where `MANY_WORLDS` of the same folder were asked the same with what they say, of other worlds too."""
    rows = rows.assign(folder=[str(Path(file).parent) for file in rows["file"]])
    same = [*ASKED, "folder"]
    told = [*MEASURED, "seeds", "file"]
    many = rows.loc[(rows["figure"] == MANY_WORLDS) & rows["seed"].isna(), [*same, *told]]
    theirs = rows[same].merge(many, on=same, how="left")[told].set_axis(rows.index)
    asked = rows["seed"].isna() & theirs["value"].notna()
    return rows.assign(**{name: rows[name].mask(asked, theirs[name]) for name in told}).drop(columns="folder")


def of_many_worlds(scorecard: pd.DataFrame) -> pd.Series:
    """Which verdicts of a scorecard rest on `MANY_WORLDS`."""
    return scorecard["file"].str.contains(MANY_WORLDS)


def with_many_worlds(scorecard: pd.DataFrame) -> pd.DataFrame:
    """Of `page.judge_run` this run's verdicts; where many worlds that are published were asked the same, theirs."""
    own, published = (only(scorecard, origin=origin) for origin in ("this run", "published"))
    verdicts = pd.concat([published[of_many_worlds(published)], own])
    return verdicts.drop_duplicates(["id", *ASKED])


# Over the best earlier method, and means over tasks


def best_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """ReAugKD's gain over "best_earlier" of every dataset, scale and student: the one of `EARLIER` with the highest
    mean there, so the smallest of the gains.
    """
    chosen = _gained(rows)
    best = chosen[chosen["over"].isin(EARLIER)].sort_values("value", kind="stable")
    best = best.drop_duplicates(["dataset", "scale", "student"])
    return best.assign(over="best_earlier").to_dict("records")


def mean_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """ReAugKD's gains as means over the GLUE tasks, for every scale and student with two tasks or more.

    Each mean has its interval: the tasks are independent, so its ends are as far from it as the root of the summed
    squares of the tasks' distances, over their number (Zou and Donner, *Construction of confidence limits about effect
    measures*, Statistics in Medicine 2008). It speaks of these tasks, not of others. "best_on_average" is the one of
    `EARLIER` over which the mean is smallest. A task counts in the metric that it is judged by (`OWN_METRIC`); for
    MRPC and QQP, GLUE's own mean takes that of accuracy and F1.
    """
    chosen = _gained(rows).assign(metric="accuracy")
    means: list[dict[str, Any]] = []
    for _, part in chosen[chosen["dataset"].isin(GLUE_TASKS)].groupby(["scale", "student"]):
        tasks = part["dataset"].unique()
        over = {rival: _mean_of_tasks(cases) for rival, cases in part.groupby("over") if len(cases) == len(tasks) > 1}
        means += over.values()
        if earlier := [over[name] for name in EARLIER if name in over]:
            means.append(min(earlier, key=lambda mean: mean["value"]) | {"over": "best_on_average"})
    return means


def _mean_of_tasks(cases: pd.DataFrame) -> dict[str, Any]:
    """The mean row of the same row of every task."""
    value, files = cases["value"].mean(), sorted(set(cases["file"]))
    squares = ((cases["value"] - cases[end]) ** 2 for end in ("low", "high"))
    below, above = (np.sqrt(square.sum(skipna=False)) / len(cases) for square in squares)
    return cases[COLUMNS].iloc[0].to_dict() | {
        "dataset": f"mean of {', '.join(sorted(cases['dataset']))}", "value": value, "low": value - below,
        "high": value + above, "n": cases["n"].sum(), "file": ", ".join(files),
    }  # fmt: skip


def _gained(rows: pd.DataFrame) -> pd.DataFrame:
    """What ReAugKD gains over others in each task's own metric, on all questions and over all seeds."""
    return only(gained(rows[is_judged(rows)]), method="reaugkd", knob="")
