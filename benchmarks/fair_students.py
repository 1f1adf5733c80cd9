"""Learning rate and epochs of every kind of student, from one grid, on a development world; one JSON line at the end.

python benchmarks/fair_students.py [--students t5-nano-base] [--world 1] [--target option]

Each kind (what is learnt, with passages or without, or together with the retriever) is trained at every point of the
same grid, so that all get the same effort and the same longest training. Of those within one standard error of the
best, the fewest epochs are chosen, then the most right answers; the choice stands in `settings.NANO_TRAINING`, RAG's
epochs in its preset. No test question is read.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from line import tell

from kardlib import REPOSITORY
from kardlib.data.answers import unread_share
from kardlib.data.world import STRATA
from kardlib.kard.experiment import Cell, Experiment, open_experiment
from kardlib.kard.methods import METHODS
from kardlib.kard.pipeline import answer

KINDS = ("fine_tuning", "ka_fine_tuning_reranker", "reasoning_distillation", "kard_reranker", "rag")


def choose(rows: list[dict[str, Any]], questions: int) -> dict[str, Any]:
    """Of one kind's rows the one to take: the cheapest within a standard error of the best (Breiman et al., 1984)."""
    best = max(row["accuracy"] for row in rows)
    error = (best * (1 - best) / questions) ** 0.5
    close = [row for row in rows if row["accuracy"] >= best - error]
    return min(close, key=lambda row: (row["epochs"], -row["accuracy"]))


def try_grid(
    experiment: Experiment, student: str, method: str, rates: Sequence[float], epochs: Sequence[int]
) -> list[dict[str, Any]]:
    """A row for every point: right answers to the development questions, in all and by stratum, and unread ones."""
    strata = np.array([q.stratum for q in experiment.data.splits["dev"]])
    rows, length = [], "rag.epochs" if METHODS[method].rag else "student.epochs"
    grid = [(("student.lr", lr), (length, n)) for lr, n in product(rates, epochs)]
    for cell, predictions in answer(experiment, [Cell(method, student, 0, knobs) for knobs in grid], "dev").items():
        right = np.array(predictions.correct)
        (_, lr), (_, n) = cell.knobs
        row = {"student": student, "method": method, "lr": lr, "epochs": n, "accuracy": right.mean()}
        row |= {stratum: right[strata == stratum].mean() for stratum in STRATA}
        rows.append(row | {"unread": unread_share(predictions.answers)})
        print(" ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True)
    return rows


def main() -> None:
    """Train the grid, print accuracy by stratum as it comes, and all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="embedded")
    parser.add_argument("--students", nargs="+", default=["t5-nano-base"])
    parser.add_argument("--methods", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 3e-3])
    parser.add_argument("--epochs", nargs="+", type=int, default=[5, 10, 20])
    parser.add_argument("--world", type=int, default=1)
    parser.add_argument("--target", default="letter", choices=("letter", "words", "option"), help="how it answers")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "fair_students.json")
    options = parser.parse_args()
    changes = {"world.seed": options.world, "seeds": [0], "student.target": options.target}
    changes |= {"world.dev": 600} if options.scale == "embedded" else {}
    experiment = open_experiment(options.scale, overrides=changes)
    found, chosen = [], []
    for student, method in product(options.students, options.methods):
        rows = try_grid(experiment, student, method, options.rates, options.epochs)
        chosen.append(choose(rows, len(experiment.data.splits["dev"])))
        print("chosen:", chosen[-1]["lr"], chosen[-1]["epochs"], flush=True)
        found += rows
    described = {"benchmark": "fair_students", "world": options.world, "target": options.target}
    tell(described | {"rows": found, "chosen": chosen}, options.out)


if __name__ == "__main__":
    main()
