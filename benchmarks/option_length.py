"""Do likelihoods of options measure what a pretrained LM knows, or how long the options are? One thread.

    python benchmarks/option_length.py --data-dir DIR [--dataset obqa] [--questions 500] [--out FILE]

The model weighs the options of the first test questions, once after question and options and once after the options
alone: what is as high there is no knowledge. A likelihood is read in all, per character, and less that without the
question (pointwise mutual information). By reading the share of right answers with its 95 % interval, and how often a
longest option is taken. Beside it how often guessing and the longest option are right, of every split. The last line
is JSON.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from line import tell
from scipy.stats import binomtest

from kardlib.artifacts.device import prepare_torch
from kardlib.artifacts.provenance import provenance
from kardlib.data.files import Question
from kardlib.data.prompts import CONCLUSION, source_text
from kardlib.errors import KardError
from kardlib.kard.answering import per_character, score_options
from kardlib.kard.experiment import Experiment, open_experiment
from kardlib.kard.floors import longest_option
from kardlib.kard.student import load_student


def weigh(experiment: Experiment, questions: list[Question]) -> dict[str, list[list[float]]]:
    """By what is asked the log-likelihoods of every question's options."""
    model, tokenizer = load_student(experiment.student)
    settings = experiment.settings.student.of(experiment.student)
    asked = {"question": questions, "options alone": [replace(question, text="") for question in questions]}
    options = [question.options for question in questions]
    return {
        name: score_options(model, tokenizer, [*map(source_text, some)], [CONCLUSION] * len(some), options, settings)
        for name, some in asked.items()
    }


def judge(questions: list[Question], weighed: dict[str, list[list[float]]]) -> list[dict[str, Any]]:
    """A row for what was asked and each reading of it."""
    readings: dict[tuple[str, str], list[list[float]]] = {}
    for asked, scores in weighed.items():
        readings[asked, "in all"] = scores
        readings[asked, "per character"] = per_character(scores, [q.options for q in questions])
    both = zip(weighed["question"], weighed["options alone"], strict=True)
    readings["question", "less options alone"] = [np.subtract(*pair).tolist() for pair in both]
    rows = []
    for (asked, reading), scores in readings.items():
        picked = [int(np.argmax(values)) for values in scores]
        right = sum(i == q.answer for i, q in zip(picked, questions, strict=True))
        longest = [len(q.options[i]) == max(map(len, q.options)) for i, q in zip(picked, questions, strict=True)]
        low, high = binomtest(right, len(questions)).proportion_ci()
        row = {"asked": asked, "reading": reading, "right": right / len(questions), "low": low, "high": high}
        rows.append({n: round(v, 4) if isinstance(v, float) else v for n, v in row.items()})
        rows[-1]["takes a longest option"] = round(float(np.mean(longest)), 4)
        print(rows[-1], flush=True)
    return rows


def by_length(experiment: Experiment) -> dict[str, dict[str, float]]:
    """By split how often guessing and the longest option are right, a fair share where several are as long."""
    return {
        split: {
            "chance": round(float(np.mean([1 / len(q.options) for q in questions])), 4),
            "longest option": round(float(longest_option({"test": questions}).mean()), 4),
        }
        for split, questions in experiment.data.splits.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--dataset", choices=("obqa", "strategyqa"), default="obqa")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    prepare_torch(threads=1)
    try:
        experiment = open_experiment("real", options.dataset, str(options.data_dir))
        questions = list(experiment.data.splits["test"][: options.questions])
        rows = judge(questions, weigh(experiment, questions))
    except KardError as error:
        raise SystemExit(f"option_length: {error}") from None
    described = {"benchmark": "option_length", "dataset": options.dataset, "model": experiment.student}
    described |= {"questions": len(questions), "floors": by_length(experiment)}
    tell(described | {"provenance": provenance(), "rows": rows}, options.out)
