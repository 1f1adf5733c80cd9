"""Does KARD's student read better because it writes, or because of the passages that its training shows?

    python benchmarks/writing_or_passages.py [--student t5-nano-base] [--worlds 3 4 5 6] [--out FILE]

KARD differs from KA-FT twice: it writes a rationale before its answer, and its training shows passages that the
rationale finds, where KA-FT's shows those that the question finds. Here are all four students, in development worlds,
and one that is taught with what it will be given when asked: the reranker's passages, which all read then. Those that
notebook 11 adds get their learning rate and epochs from the grid of `fair_students.py`, on its world
(`settings.NANO_TRAINING`).

Right answers on all questions, by how often training showed the ailment, and on each kind of question; then what
writing and what the passages of training add, each with a 95 % interval over worlds (t). No test question is read.
The last line is JSON.
"""

import argparse
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
from fair_students import choose, try_grid
from line import tell
from numpy.typing import ArrayLike

from kardlib.artifacts.provenance import provenance
from kardlib.data.answers import unread_share
from kardlib.kard.experiment import Cell, Experiment, Knobs, open_experiment
from kardlib.kard.floors import named_by_passage
from kardlib.kard.methods import SHOWN
from kardlib.kard.pipeline import answer
from kardlib.report.statistics import mean_interval, paired_difference

DEVELOPMENT = 1  # the world on which everything is chosen
STUDENTS = {  # by what is learnt, and what found the passages that training shows
    ("answer", "question"): "ka_fine_tuning_reranker",
    ("answer", "rationale"): "ka_fine_tuning_shown_silver",
    ("rationale", "question"): "kard_shown_bm25",
    ("rationale", "rationale"): "kard_reranker",
    ("rationale", "reranker"): "kard_shown_reranker",
}
EFFECTS = {  # the first is above the second by what is named
    "writing, shown the question's passages": (("rationale", "question"), ("answer", "question")),
    "writing, shown the rationale's passages": (("rationale", "rationale"), ("answer", "rationale")),
    "the rationale's passages, answers alone": (("answer", "rationale"), ("answer", "question")),
    "the rationale's passages, writing": (("rationale", "rationale"), ("rationale", "question")),
    "the reranker's passages over the rationale's": (("rationale", "reranker"), ("rationale", "rationale")),
    "the reranker's passages over the question's": (("rationale", "reranker"), ("rationale", "question")),
}


def share(experiment: Experiment, right: ArrayLike) -> dict[str, float]:
    """The share of right answers among all development questions and in each part of them."""
    parts = experiment.strata("dev") | experiment.kinds("dev")
    return {part: float(np.array(right, float)[mask].mean()) for part, mask in parts.items()}


def ask_world(experiment: Experiment, student: str, knobs: Mapping[str, Knobs]) -> dict[str, dict[str, float]]:
    """By method and part of the development questions the share of right answers in one world, and of unread ones."""
    assert experiment.world
    asked, [seed] = experiment.data.splits["dev"], experiment.settings.seeds
    cells = {name: Cell(name, student, seed, knobs.get(name, ())) for name in STUDENTS.values()}
    given = answer(experiment, [*cells.values()], "dev")
    texts, read = experiment.world.texts, given[cells["kard_reranker"]].passages
    named = named_by_passage(asked, [[texts[p] for p in ids] for ids in read])
    unread = {name: {"unread": unread_share(given[cell].answers)} for name, cell in cells.items()}
    found = {name: share(experiment, given[cell].correct) | unread[name] for name, cell in cells.items()}
    return {"named_by_reranker": share(experiment, named)} | found


def main() -> None:
    """Choose, train in every world, print every row, and all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="embedded")
    parser.add_argument("--student", default="t5-nano-base")
    parser.add_argument("--worlds", nargs="+", type=int, default=[3, 4, 5, 6])
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 3e-3])
    parser.add_argument("--epochs", nargs="+", type=int, default=[5, 10, 20])
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    dev = {"world.dev": 600} if options.scale == "embedded" else {}
    first = open_experiment(options.scale, overrides=dev | {"world.seed": DEVELOPMENT, "seeds": [0]})
    tried = [try_grid(first, options.student, method, options.rates, options.epochs) for method in SHOWN]
    chosen = [choose(rows, len(first.data.splits["dev"])) | {"tried": rows} for rows in tried]
    knobs = {row["method"]: (("student.lr", row["lr"]), ("student.epochs", row["epochs"])) for row in chosen}
    worlds: list[dict[str, dict[str, float]]] = []
    for seed in options.worlds:
        here = open_experiment(options.scale, overrides=dev | {"world.seed": seed, "seeds": [seed]})
        worlds.append(ask_world(here, options.student, knobs))
        print(seed, worlds[-1], flush=True)
    by = {name: {part: [world[name][part] for world in worlds] for part in worlds[0][name]} for name in worlds[0]}
    rows = [{"method": n, "part": p, "mean": mean_interval(by[n][p])} for n in by for p in by[n]]
    effects = [
        {"effect": name, "part": part, "points": paired_difference(by[STUDENTS[more]][part], by[STUDENTS[less]][part])}
        for (name, (more, less)), part in product(EFFECTS.items(), by["named_by_reranker"])
    ]
    for row in [*rows, *effects]:
        print(*row.values(), flush=True)
    described = {"benchmark": "writing_or_passages", "student": options.student, "worlds": options.worlds}
    tell(described | {"chosen": chosen, "rows": rows, "effects": effects, "provenance": provenance()}, options.out)


if __name__ == "__main__":
    main()
