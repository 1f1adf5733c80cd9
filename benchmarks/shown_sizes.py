"""From which size of the world on does KARD that is shown in training what it will read overtake RD?

    python benchmarks/shown_sizes.py [--students t5-nano-base] [--seeds 0 1 2] [--scale embedded] [--out FILE]

The worlds and the rows of notebook 17's longer run, of these students alone: what rationales conclude rightly, by how
often training showed the ailment; what KARD that is shown its reranker's passages has over KARD and over RD; and the
sizes at which the lines of both cross RD's, on what was shown often. 95 % intervals over ailments and seeds. It trains
what the store lacks: an hour and a half of two cores for a student and three seeds. The last line is JSON.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from line import tell

from kardlib.artifacts.provenance import provenance
from kardlib.data.world import STRATA
from kardlib.errors import KardError
from kardlib.kard.cases import read_conclusions
from kardlib.kard.experiment import Experiment, open_experiment
from kardlib.kard.frontier import measure_crossing
from kardlib.kard.grids import FULL, RD, RERANKER, frontier
from kardlib.kard.pipeline import Gain, answer, list_cells
from kardlib.report.evaluate import tabulate
from kardlib.report.rows import gained, long_form, measured


def measure(experiment: Experiment, ailments: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Rows, gains and crossings."""
    settings, grid = experiment.settings, frontier(experiment.settings, ailments)
    cells = {row: list_cells([row], settings.seeds) for row in grid.rows}
    answered = answer(experiment, [cell for row in cells.values() for cell in row])
    right = {row: [read_conclusions(answered[cell]).correct for cell in told] for row, told in cells.items()}
    kard = [gain.below for gain in grid.gains if gain.below.method == RERANKER]
    gains, rows = [*grid.gains, *(Gain(row, row._replace(method=RD)) for row in kard)], []
    for part in STRATA:
        named = {"metric": "accuracy_of_rationale", "at": part}
        rows += tabulate(experiment, "17_frontier_full", right, gains, f"accuracy_{part}", **named)
    table = long_form(rows)
    often = gained(table).query("at == 'often'").astype({"x": int}).sort_values("x")
    found = [
        {"method": method, "student": student}
        | measure_crossing([*leads.x], leads[["value", "low", "high"]].to_numpy())
        for (method, student), leads in often[often.over == RD].groupby(["method", "student"])
    ]
    names = ["method", "over", "student", "x", "at", "value", "low", "high"]
    parts = {"rows": measured(table)[names], "gains": gained(table)[names]}
    return {name: part.to_dict("records") for name, part in parts.items()} | {"crossings": found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="embedded")
    parser.add_argument("--students", nargs="+", default=["t5-nano-base"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    try:
        overrides = {"students": options.students, "seeds": options.seeds}
        found = measure(experiment := open_experiment(options.scale, overrides=overrides), FULL["17"]["ailments"])
    except KardError as error:
        raise SystemExit(f"shown_sizes: {error}") from None
    for row in [row for rows in found.values() for row in rows]:
        print(*row.values(), flush=True)
    tell({"benchmark": "shown_sizes", "seeds": options.seeds, "provenance": provenance()} | found, options.out)
