"""Does a pretrained student gain on real questions if training shows what it will be given when asked?

    python benchmarks/shown_real.py --data-dir DIR [--dataset obqa] [--seeds 0 1 2] [--out FILE]

In the closed world it does (notebooks 11 and 21). Here the student of the scale "real" that is shown its reranker's
passages stands beside the one that is taught to recall (RD), on the test questions: right answers by what is written
and by the likeliest option, and what the first gains over the second, paired by question and seed, with 95 % intervals
over questions and seeds. It trains what the store lacks, three hours of two cores for three seeds. The last line is
JSON.
"""

import argparse
from pathlib import Path
from typing import Any

from line import tell

from kardlib.artifacts.provenance import provenance
from kardlib.data.answers import unread_share
from kardlib.errors import KardError
from kardlib.kard.experiment import Experiment, open_experiment
from kardlib.kard.grids import RD, SAME
from kardlib.kard.pipeline import Row, answer, list_cells, prepare_all, score_rows, train_students, weigh_options
from kardlib.report.statistics import mean_interval, paired_difference


def measure(experiment: Experiment) -> list[dict[str, Any]]:
    """A row for each way of reading answers: both students, and the gain."""
    seeds, rows = experiment.settings.seeds, [Row(SAME, experiment.student), Row(RD, experiment.student)]
    of = {row: list_cells([row], seeds) for row in rows}
    answered = answer(experiment, [cell for cells in of.values() for cell in cells])
    asked = prepare_all(experiment, answered)
    weighed = weigh_options(experiment, "test", asked, train_students(experiment, asked), answered)
    likeliest = {row: [weighed[cell].correct(per_character=False) for cell in cells] for row, cells in of.items()}
    unread = {row.method: unread_share([a for cell in of[row] for a in answered[cell].answers]) for row in rows}
    found = []
    for reading, right in {"written": score_rows(answered, rows, seeds), "likeliest option": likeliest}.items():
        means = {row.method: mean_interval(right[row]) for row in rows}
        found.append({"reading": reading} | means | {"gain": paired_difference(*(right[row] for row in rows))})
    return [found[0] | {"unread": unread}, *found[1:]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--dataset", default="obqa")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    try:
        overrides = {"seeds": options.seeds, "methods": [RD, SAME]}
        experiment = open_experiment("real", options.dataset, str(options.data_dir), overrides)
        rows = measure(experiment)
    except KardError as error:
        raise SystemExit(f"shown_real: {error}") from None
    for row in rows:
        print(row, flush=True)
    described = {"benchmark": "shown_real", "dataset": options.dataset, "student": experiment.student}
    described |= {"seeds": options.seeds, "questions": len(experiment.data.splits["test"])}
    tell(described | {"provenance": provenance(), "rows": rows}, options.out)
