"""What the memorisation bound says (KARD, Section 3), as the rows of notebook 01: `memorization`'s learners, swept.

Rows are those of `report.rows`, without the columns that all of a figure's rows share. `student` names the task or, of
a network, its size.
"""

import json
import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from kardlib.artifacts.disk import write_json
from kardlib.artifacts.store import Kind, Store
from kardlib.kard.memorization import (
    COMPARED,
    Draw,
    Task,
    cut,
    draw_task,
    key_bits,
    least_error,
    read,
    recall,
    recall_lossy,
    remember,
    train_networks,
)
from kardlib.registry import BLACK, BLUE, GREEN, ORANGE, PINK, RED, SKY, Entry, enter
from kardlib.settings import MemorizationSettings, SettingsError

MEMORIZATION = Kind("memorization", 2)
ERRORS = ("error", "error_shown", "error_all")  # metrics between 0 and 1
DASHES, DOTS = (0, (5, 2)), (0, (1, 1))
enter({
    "recall_visible": Entry("No KB, identity visible", ORANGE, "s", "-.", block="learners"),
    "recall_hidden": Entry("No KB, identity hidden", RED, "v", ":", block="learners"),
    "recall_lossy": Entry("No KB, visible, stored lossily", PINK, "P", "--", block="learners"),
    "read_key": Entry("KB, key", BLUE, "D", "-", block="learners"),
    "read_prefix": Entry("KB, key and prefix", GREEN, "p", "--", block="learners"),
    "read_hidden": Entry("KB, identity hidden", SKY, "o", ":", block="learners"),
    "network": Entry("Network alone", ORANGE, "s", "-.", block="networks"),
    "network_kb": Entry("Network with retrieved string", BLUE, "D", "-", block="networks"),
    "theorem_1": Entry("n d", BLACK, line=DASHES, block="theory"),
    "theorem_2": Entry("Theorem 2, n m", BLACK, line=DOTS, block="theory"),
    "floor": Entry("Least error for any learner", BLACK, line=DOTS, block="theory"),
})  # fmt: skip

Rows = list[dict[str, Any]]
RECALLERS = {"recall_visible": True, "recall_hidden": False}  # whether the learner is told which reference it sees
READERS = {"read_key": {"prefix": False}, "read_prefix": {"prefix": True}, "read_hidden": {"visible": False}}


def mean_over_draws(values: ArrayLike, **columns: Any) -> dict[str, Any]:
    """A row with the mean over draws and its 95 % t-interval, cut to what is possible: an excess may be negative."""
    values = np.asarray(values, dtype=float)
    mean, spread = values.mean(), values.std(ddof=1) / len(values) ** 0.5
    reach = stats.t.ppf(0.975, len(values) - 1) * spread
    least, most = (0 if values.min() >= 0 else -1, 1 if columns["metric"] in ERRORS else np.inf)
    low, high = np.clip([mean - reach, mean + reach], least, most)
    return columns | {"value": float(mean), "low": float(low), "high": float(high), "n": len(values)}


def draws_of(task: Task, count: int, seed: int) -> list[tuple[Draw, np.random.Generator]]:
    """Draws of a task, each with the generator that goes on from it."""
    generators = [np.random.default_rng([seed, *task, number]) for number in range(count)]
    return [(draw_task(task, rng), rng) for rng in generators]


def sample_rows(settings: MemorizationSettings) -> Rows:
    """(a) The optimal learner without a knowledge base as samples grow: its error and the bits it stores."""
    rows: Rows = []
    for factor in (1 / 4, 1 / 2, 1, 2, 4, 8):
        task = Task(settings.strings, settings.bits, int(factor * settings.strings))
        draws = draws_of(task, settings.draws, settings.seed)
        where = {"student": str(task), "knob": "samples", "x": task.samples}
        for method, visible in RECALLERS.items():
            stored = [remember(draw, visible) for draw, _ in draws]
            errors = [recall(draw, *s, visible) for (draw, _), s in zip(draws, stored, strict=True)]
            rows.append(mean_over_draws(errors, method=method, metric="error", **where))
            rows.append(mean_over_draws([s[1].sum() for s in stored], method=method, metric="bits", **where))
        rows.append(where | {"method": "theorem_1", "metric": "bits", "value": task.samples * task.bits})
    return rows


def budget_rows(settings: MemorizationSettings) -> Rows:
    """(b) Learners without a knowledge base held to a budget of bits, `n = N`: their errors."""
    task = Task(settings.strings, settings.bits, settings.strings)
    rate, draws = task.samples * task.bits, draws_of(task, settings.draws, settings.seed)
    rows: Rows = [{"student": str(task), "method": "theorem_1", "metric": "rate", "value": rate}]
    where = {"student": str(task), "knob": "budget", "metric": "error"}
    known = float(np.mean([remember(draw)[1].sum() for draw, _ in draws]))
    for budget in [round(rate * share / 20) for share in range(13)]:
        for method, visible in RECALLERS.items():
            errors = []
            for draw, rng in draws:
                owners, lengths = remember(draw, visible)
                errors.append(recall(draw, owners, cut(lengths, budget, rng), visible))
            rows.append(mean_over_draws(errors, method=method, x=budget, **where))
    for budget in [round(rate * share / 100) for share in range(61)]:
        rows.append(where | {"method": "floor", "x": budget, "value": least_error(task, known, budget)})
    for order in range(2, 7):
        stored, errors = np.array([recall_lossy(draw, order) for draw, _ in draws]).T
        rows.append(mean_over_draws(errors, method="recall_lossy", x=round(stored.mean()), **where))
    return rows


def key_rows(task: Task, eps: Sequence[float], draws: int, seed: int, readers: Sequence[str] = ("read_key",)) -> Rows:
    """(c) Readers of a knowledge base: error and excess for each length of the key, and Theorem 2's `m` for each `eps`.

    Excess is over the same reader with keys of all `d` bits; "excess_recall" over the optimal learner without a
    knowledge base, which is the method "recall_visible".
    """
    marks = {e: key_bits(task, e) for e in eps}
    theorem = {"student": str(task), "knob": "eps", "method": "theorem_2", "metric": "m"}
    rows: Rows = [theorem | {"x": e, "value": m} for e, m in marks.items()]
    keys = range(min(task.bits, math.ceil(max(marks.values())) + 2) + 1)
    drawn = [draw for draw, _ in draws_of(task, draws, seed)]
    optimal = np.array([recall(draw, *remember(draw)) for draw in drawn])
    rows.append(mean_over_draws(optimal, method="recall_visible", metric="error", student=str(task)))
    for method in readers:
        errors = np.array([read(draw, [*keys, task.bits], **READERS[method]) for draw in drawn]).T  # (keys + 1, draws)
        for key, error in zip(keys, errors[:-1], strict=True):
            where = {"student": str(task), "knob": "key", "x": key, "method": method}
            rows.append(mean_over_draws(error, metric="error", **where))
            rows.append(mean_over_draws(error - errors[-1], metric="excess_keys", **where))
            rows.append(mean_over_draws(error - optimal, metric="excess_recall", **where))
    return rows


def sweeps(settings: MemorizationSettings) -> dict[str, list[Task]]:
    """What varies, "N" or "R" -> the tasks of (c) from small to large, alike in all else; the middle is in both."""
    n, d, r = settings.strings, settings.bits, settings.irrelevant
    return {
        "N": [Task(strings, d, strings, r) for strings in (n // 16, n // 4, n, 4 * n)],
        "R": [Task(n, d, n, irrelevant) for irrelevant in sorted({0, r, 4 * r, 16 * r})],
    }


def sweep_rows(settings: MemorizationSettings) -> Rows:
    """(c) `key_rows` for several `N`, several `R` and several `eps`, with `n = N`; all readers at the middle."""
    middle, eps = Task(settings.strings, settings.bits, settings.strings, settings.irrelevant), settings.eps
    rows = key_rows(middle, [10 * eps, eps, eps / 10], settings.draws, settings.seed, list(READERS))
    for task in [task for swept in sweeps(settings).values() for task in swept if task != middle]:
        rows += key_rows(task, [eps], settings.draws, settings.seed)
    return rows


def growth_rows(settings: MemorizationSettings) -> Rows:
    """(d) The fewest bits with which each learner is within `eps` of its optimum, as the length `d` grows; `n = N = R`.

    Found by bisection for every draw: budgets in steps of `n d / 256`, keys in whole bits.
    """
    rows: Rows = []
    for d in settings.growth_bits:
        task = Task(settings.growth_strings, d, settings.growth_strings, settings.growth_strings)
        rate, m = task.samples * d, key_bits(task, settings.eps)
        where = {"student": f"N={task.strings} R={task.irrelevant}", "knob": "length", "x": d, "metric": "bits"}
        drawn = draws_of(task, settings.growth_draws, settings.seed)
        rows.append(where | {"method": "theorem_1", "value": rate})
        rows.append(where | {"method": "theorem_2", "value": task.samples * m})
        for method, visible in RECALLERS.items():
            needed = [fewest_bits(draw, visible, settings.eps, rate / 256) for draw, _ in drawn]
            rows.append(mean_over_draws(needed, method=method, **where))
        for method in ("read_key", "read_prefix"):
            lengths = [shortest_key(draw, method, settings.eps) for draw, _ in drawn]
            needed = [np.minimum(remember(draw)[1], k).sum() for (draw, _), k in zip(drawn, lengths, strict=True)]
            rows.append(mean_over_draws(needed, method=method, **where))
            rows.append(mean_over_draws(lengths, method=method, **where | {"metric": "key_length"}))
    return rows


def fewest_bits(draw: Draw, visible: bool, eps: float, step: float) -> float:
    """The smallest budget, in multiples of `step`, within `eps` of what storing everything reaches."""
    owners, lengths = remember(draw, visible)
    limit = recall(draw, owners, lengths, visible) + eps

    def enough(steps: int) -> bool:
        kept = cut(lengths, round(steps * step), np.random.default_rng(0))  # always in the same order
        return recall(draw, owners, kept, visible) <= limit

    return step * bisect_left(range(math.ceil(lengths.sum() / step)), True, key=enough)


def shortest_key(draw: Draw, method: str, eps: float) -> int:
    """The smallest key length within `eps` of what the same reader reaches with keys of all `d` bits."""
    d = draw.strings.shape[1]
    limit = read(draw, [d], **READERS[method])[0] + eps
    return bisect_left(range(min(d, COMPARED)), True, key=lambda key: read(draw, [key], **READERS[method])[0] <= limit)


def network_rows(settings: MemorizationSettings) -> Rows:
    """(e) Networks of one size as the bits `n d` grow, `n = N = R`: errors on shown bits and on all, and the bits held.

    Who gets a share `e` of `K` shown bits wrong holds at least `K (1 - h(e))` bits about them (see `least_error`).
    """
    rows: Rows = []
    for strings in settings.network_strings:
        task = Task(strings, settings.network_bits, strings, strings)
        trained = train_networks(task, settings)
        where = {"student": f"{trained.parameters:,} weights", "knob": "bits", "x": strings * task.bits}
        for method, shown, everywhere in zip(("network", "network_kb"), trained.on_shown, trained.on_all, strict=True):
            rows.append(mean_over_draws(shown, method=method, metric="error_shown", **where))
            rows.append(mean_over_draws(everywhere, method=method, metric="error_all", **where))
            for seed, value in enumerate(shown):
                rows.append(where | {"method": method, "metric": "error_shown", "seed": seed, "value": float(value)})
        wrong = np.minimum(trained.on_shown[0], 0.5)
        held = trained.shown * (1 - stats.entropy([wrong, 1 - wrong], base=2))
        rows.append(mean_over_draws(held, method="network", metric="bits_held", **where))
        rows.append(mean_over_draws(trained.shown, method="network", metric="bits_shown", **where))
    return rows


PARTS = {
    "samples": sample_rows, "budgets": budget_rows, "keys": sweep_rows, "growth": growth_rows, "network": network_rows,
}  # fmt: skip


def measure(part: str, settings: MemorizationSettings, store: Store | None = None, **columns: Any) -> Rows:
    """The rows of one of `PARTS` with `columns` added; made once, then read from the store."""
    spec = {"part": part, "settings": settings.model_dump(mode="json")}
    build = PARTS[part]
    folder = (store or Store()).make(
        MEMORIZATION, spec, lambda folder: write_json(folder / "rows.json", build(settings))
    )
    return [columns | row for row in json.loads((folder / "rows.json").read_text("utf-8"))]


def growth_row(rows: Rows, method: str) -> dict[str, Any]:
    """How the bits that a learner needs grow with the length of a string: their slope on logarithmic axes.

    Between the ends of the sweep "growth"; the interval takes their intervals at their worst. One bit is added to both
    ends, since a reader may need none. The sweep starts where n d reaches Theorem 2's n m: in a string shorter than a
    key the key is the whole string, and grows with it whatever the theorem says. Raises SettingsError for fewer than
    two lengths from there on.
    """
    found = [row for row in rows if row["metric"] == "bits"]
    rate, enough = ({r["x"]: r["value"] for r in found if r["method"] == name} for name in ("theorem_1", "theorem_2"))
    long = [row for row in found if enough.get(row["x"], 0) <= rate.get(row["x"], math.inf)]
    bits = sorted((row for row in long if row["method"] == method), key=lambda row: float(row["x"]))
    if len(bits) < 2:
        wrong = "two or more of the lengths must be no shorter than Theorem 2's m"
        raise SettingsError(f"memorization.growth_bits: {wrong}")
    first, last = bits[0], bits[-1]
    span = math.log2(last["x"] / first["x"])
    ends = (("value", "value"), ("low", "high"), ("high", "low"))
    slope = {at: math.log2((1 + max(0, last[at])) / (1 + max(0, first[of]))) / span for at, of in ends}
    about = {name: value for name, value in last.items() if name not in ("knob", "x", "metric")}
    return about | {"metric": "bits_growth"} | slope
