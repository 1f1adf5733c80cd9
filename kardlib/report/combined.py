"""Rows made of other rows: over many worlds, over tasks, and over the best of the earlier methods."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kardlib.reaugkd.methods import EARLIER
from kardlib.report.evaluate import clip_ends
from kardlib.report.rows import COLUMNS, KEYS, is_judged
from kardlib.report.statistics import paired_difference
from kardlib.settings import GLUE_TASKS

OTHER_WORLDS = "21_worlds"  # the figure of other worlds
MANY_WORLDS = f"{OTHER_WORLDS}_full"  # that of so many that they decide
MEASURED = [name for name in COLUMNS if name not in KEYS]


# Over many worlds


def pool_worlds(worlds: Mapping[int, Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of a figure's data over worlds, by the seed that each was drawn from: each world's own, and their mean.

    Each world's rows over all seeds are taken, with the intervals that they have (`tabulate`). Drawn anew are ailments,
    questions, rationales and trainings together, so that a world is one observation: the mean has the t interval over
    worlds and the p of the same test, whatever lies behind their differences; worlds that agree by luck, while each has
    an interval of its own, do not say how far others lie, and have none. `n` are the questions of all. Raises
    ValueError where a row is not there in every world.
    """
    same: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = {}
    for seed, rows in worlds.items():
        for row in (row for row in rows if row.get("seed") is None):
            same.setdefault(tuple(row.get(key) for key in KEYS), {})[seed] = dict(row)
    pooled = []
    for each in same.values():
        first, values = next(iter(each.values())), [row["value"] for row in each.values()]
        if {*each} != {*worlds}:
            raise ValueError(f"{first['method']}, {first['metric']}: there is no such row of every world")
        mean, *ends, p = paired_difference(values, [0.0] * len(values))
        low, high = clip_ends(ends, first["metric"], first.get("over", ""))
        told = {"low": low, "high": high, "p": p}
        wide = any((row.get("high") or 0) > (row.get("low") or 0) for row in each.values())
        by_luck = wide and len(values) > 1 and np.ptp(values) < 1e-9
        unread = sum(row.get("unread") or 0 for row in each.values()) / len(each) or None
        n = sum(row["n"] for row in each.values())
        pooled += [row | {"seed": seed, "p": None} for seed, row in each.items()]
        pooled.append(first | {"value": mean, "n": n, "unread": unread} | (dict.fromkeys(told) if by_luck else told))
    return pooled


def put_many_worlds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, where `MANY_WORLDS` of the same folder were asked the same with what they say, of other worlds too."""
    files = rows["file"] if "file" in rows else [""] * len(rows)
    rows = rows.assign(folder=[str(Path(file).parent) for file in files])
    same = [*(key for key in KEYS if key not in ("figure", "seed")), "folder"]
    told = [name for name in (*MEASURED, "seeds", "file") if name in rows]
    many = rows.loc[(rows["figure"] == MANY_WORLDS) & rows["seed"].isna(), [*same, *told]]
    theirs = rows[same].merge(many, on=same, how="left")[told].set_axis(rows.index)
    asked = rows["seed"].isna() & theirs["value"].notna()
    return rows.assign(**{name: rows[name].mask(asked, theirs[name]) for name in told}).drop(columns="folder")


def of_many_worlds(scorecard: pd.DataFrame) -> pd.Series:
    """Which verdicts of a scorecard rest on `MANY_WORLDS`."""
    return scorecard["file"].str.contains(MANY_WORLDS)


def with_many_worlds(scorecard: pd.DataFrame) -> pd.DataFrame:
    """Of `page.judge_run` this run's verdicts; where many worlds that are published were asked the same, theirs."""
    own, published = (scorecard[scorecard["origin"] == origin] for origin in ("this run", "published"))
    verdicts = pd.concat([published[of_many_worlds(published)], own])
    return verdicts.drop_duplicates(["id", *(key for key in KEYS if key not in ("figure", "seed"))])


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
        tasks = sorted(part["dataset"].unique())
        over: dict[str, dict[str, Any]] = {}
        for rival, cases in part.groupby("over"):
            if len(cases) == len(tasks) > 1:
                value = cases["value"].mean()
                squares = ((cases["value"] - cases[end]) ** 2 for end in ("low", "high"))
                below, above = (np.sqrt(square.sum(skipna=False)) / len(tasks) for square in squares)
                over[str(rival)] = cases[COLUMNS].iloc[0].to_dict() | {
                    "dataset": f"mean of {', '.join(tasks)}", "value": value, "low": value - below,
                    "high": value + above, "n": cases["n"].sum(), "file": ", ".join(sorted(set(cases["file"]))),
                }  # fmt: skip
        means += over.values()
        if earlier := [over[name] for name in EARLIER if name in over]:
            means.append(min(earlier, key=lambda mean: mean["value"]) | {"over": "best_on_average"})
    return means


def _gained(rows: pd.DataFrame) -> pd.DataFrame:
    """What ReAugKD gains over others in each task's own metric, on all questions and over all seeds."""
    chosen = (rows["method"] == "reaugkd") & is_judged(rows) & (rows["over"] != "")
    return rows[chosen & (rows["knob"] == "") & rows["seed"].isna()]
