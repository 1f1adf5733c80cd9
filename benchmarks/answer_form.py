"""Does a pretrained student guess because of the form in which it answers? On development questions.

    python benchmarks/answer_form.py --data-dir DIR [--forms words option] [--methods ...] [--epochs 1 3] [--out FILE]

Targets name an option by its letter and then its words ("(B) - sunlight"), or by its words alone. For every form and
method a student of the scale "real" is trained and asked OpenbookQA's development questions: how many of its answers
are right and how many cannot be read, and how often the likeliest option is right, with the question and where it is
taken away, with all that was read and written, so that options alone are weighed: what is as high there is known of
options, not of questions; the "gain" is the difference. With 95 % intervals over questions; beside them what needs no
student. The method `ft_gold` asks whether so small a model can learn to read at all: it learns answers alone, and reads
the gold fact first, in training and when asked. Students are kept in the store. The last line is JSON.
"""

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from line import tell

from kardlib.artifacts.provenance import provenance
from kardlib.data.answers import unread_share
from kardlib.data.prompts import CONCLUSION, answer_text, source_text
from kardlib.errors import KardError
from kardlib.kard.experiment import Cell, Experiment, open_experiment, weigh_texts
from kardlib.kard.floors import FLOORS
from kardlib.kard.keys import student_settings
from kardlib.kard.methods import Method, register_method
from kardlib.kard.pipeline import Likelihoods, answer, prepare_all, train_students, weigh_options
from kardlib.report.statistics import Difference, Interval, mean_interval, paired_difference

METHODS = ["fine_tuning", "ka_fine_tuning", "reasoning_distillation", "kard_bm25", "kard_gold"]
FT_GOLD = Method("ft_gold", "FT (gold)", learns="answer", reads_in_training="gold", reads_at_test="gold")


def percent(found: Interval | Difference) -> list[float]:
    """A share or a difference of two, and its 95 % interval, in per cent or points."""
    return [round(100 * value, 1) for value in (found[0], found.low, found.high)]


def measure(experiment: Experiment, cell: Cell) -> dict[str, Any]:
    """A row for one student."""
    asked = prepare_all(experiment, [cell])
    students, given = train_students(experiment, asked), answer(experiment, [cell], "dev")
    questions = given[cell].questions
    settings = student_settings(asked[cell].experiment.settings, cell).model_copy(update={"model": str(students[cell])})
    sources = [source_text(replace(question, text="")) for question in questions]
    options = [[answer_text(q, i, settings.form) for i in range(len(q.options))] for q in questions]
    alone = weigh_texts(experiment, {"": (sources, [CONCLUSION] * len(sources), options, settings, 0)})[""]
    likeliest = weigh_options(experiment, "dev", asked, students, given)[cell].correct(per_character=False)
    without = Likelihoods(questions, **alone).correct(per_character=False)
    return {
        "method": cell.method,
        "form": settings.form,
        "right": percent(mean_interval(given[cell].correct)),
        "unread": round(100 * unread_share(given[cell].answers), 1),
        "likeliest": percent(mean_interval(likeliest)),
        "options alone": percent(mean_interval(without)),
        "gain": percent(paired_difference(likeliest, without)),
    }


def main() -> None:
    """Train the grid, print every row, and all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--forms", nargs="+", default=["words", "option"], choices=("letter", "words", "option"))
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=[*METHODS, FT_GOLD.id])
    parser.add_argument("--epochs", nargs="+", type=int, default=[1])
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    chosen = parser.parse_args()
    register_method(FT_GOLD)
    rows = []
    try:
        experiment = open_experiment("real", "obqa", str(chosen.data_dir))
        for form in chosen.forms:
            for method, epochs in product(chosen.methods, chosen.epochs):
                knobs = (("student.target", form), ("student.epochs", epochs))
                rows.append(measure(experiment, Cell(method, experiment.student, 0, knobs)) | {"epochs": epochs})
                print(rows[-1], flush=True)
    except KardError as error:
        raise SystemExit(f"answer_form: {error}") from None
    splits = experiment.data.splits
    asked = {"train": experiment.learns_from(0), "test": splits["dev"], "silver": splits["silver"]}
    floors = {name: round(100 * float(floor(asked).mean()), 1) for name, floor in FLOORS.items()}
    described = {"benchmark": "answer_form", "dataset": "obqa", "model": experiment.student, "floors": floors}
    described |= {"share": experiment.settings.student.share, "questions": len(splits["dev"])}
    tell(described | {"provenance": provenance(), "rows": rows}, chosen.out)


if __name__ == "__main__":
    main()
