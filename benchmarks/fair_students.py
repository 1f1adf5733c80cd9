"""Learning rate and epochs of every kind of student, from one grid, on a development world; one JSON line at the end.

python benchmarks/fair_students.py [--students t5-nano-base] [--world 1]

Each kind (what is learnt, with passages or without) is trained at every point of the same grid, so that all get the
same effort and the same longest training. Of those within one standard error of the best, the fewest epochs are chosen,
then the most right answers; the choice stands in `settings.NANO_TRAINING`. No test question is read.
"""

import argparse
import json
from typing import Any

import numpy as np

from kardlib.data.world import STRATA
from kardlib.kard.experiment import Cell, open_experiment
from kardlib.kard.pipeline import answer

KINDS = ("fine_tuning", "ka_fine_tuning_reranker", "reasoning_distillation", "kard_reranker")
RATES, EPOCHS = (1e-3, 3e-3), (5, 10, 20)


def choose(rows: list[dict[str, Any]], questions: int) -> dict[str, Any]:
    """Of one kind's rows the one to take: the cheapest within a standard error of the best (Breiman et al., 1984)."""
    best = max(row["accuracy"] for row in rows)
    error = (best * (1 - best) / questions) ** 0.5
    close = [row for row in rows if row["accuracy"] >= best - error]
    return min(close, key=lambda row: (row["student.epochs"], -row["accuracy"]))


def main() -> None:
    """Train the grid, print accuracy by stratum as it comes, and all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--students", nargs="+", default=["t5-nano-base"])
    parser.add_argument("--methods", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--world", type=int, default=1)
    options = parser.parse_args()
    experiment = open_experiment(overrides={"world.seed": options.world, "world.dev": 600, "seeds": [0]})
    strata = np.array([q.stratum for q in experiment.data.splits["dev"]])
    found = []
    for student in options.students:
        for method in options.methods:
            grid = [(("student.lr", lr), ("student.epochs", epochs)) for lr in RATES for epochs in EPOCHS]
            cells = [Cell(method, student, 0, knobs) for knobs in grid]
            for cell, predictions in answer(experiment, cells, "dev").items():
                right = np.array(predictions.correct)
                row = {"student": student, "method": method, **dict(cell.knobs), "accuracy": right.mean()}
                row |= {stratum: right[strata == stratum].mean() for stratum in STRATA}
                row["unread"] = np.mean([a is None for a in predictions.answers])
                found.append(row)
                print(" ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)
    kinds = {(row["student"], row["method"]): [] for row in found}
    for row in found:
        kinds[row["student"], row["method"]].append(row)
    chosen = [choose(rows, len(strata)) for rows in kinds.values()]
    for row in chosen:
        print("chosen:", row["student"], row["method"], row["student.lr"], row["student.epochs"])
    print(json.dumps({"benchmark": "fair_students", "world": options.world, "rows": found, "chosen": chosen}))


if __name__ == "__main__":
    main()
