"""Few-shot prompts of a pretrained LM, in its chat's turns and line by line, on development questions; one thread.

    python benchmarks/few_shot.py --data-dir DIR [--dataset obqa] [--questions 100] [--out FILE]

By kind of prompt and form the share of answers that are right and that cannot be read, and the seconds of CPU time with
the examples read once and read with every question; in float32 the texts must be the same. The last line is JSON.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from line import tell

from kardlib.artifacts.device import prepare_torch
from kardlib.artifacts.provenance import provenance
from kardlib.errors import KardError
from kardlib.kard import answering
from kardlib.kard.experiment import Cell, Experiment, open_experiment
from kardlib.kard.keys import student_settings
from kardlib.kard.methods import METHODS
from kardlib.kard.pipeline import answer_reader, prepare_all, source_texts
from kardlib.kard.prompting import fit_sources
from kardlib.kard.rankings import Reading, read_passages
from kardlib.kard.student import load_student

KINDS = [method for method in METHODS if METHODS[method].shots]
TIMED = 8  # questions whose texts are compared in float32


def measure(experiment: Experiment, count: int) -> list[dict[str, Any]]:
    """A row for every kind and form. Raises SystemExit where reading examples once changes a text in float32."""
    model, tokenizer = load_student(experiment.student)
    cells, rows = [Cell(kind, experiment.student, 0) for kind in KINDS], []
    asked = prepare_all(experiment, cells)
    read = read_passages(Reading(experiment, "dev", asked, {}))
    questions = experiment.data.splits["dev"][:count]
    for cell in cells:
        sources = source_texts(asked[cell], cell, "dev", read[cell])[:count]
        for form in ("chat", "plain"):
            settings = student_settings(experiment.settings, cell).model_copy(update={"prompt": form})
            prompts = fit_sources(sources, tokenizer, settings, model.config)
            texts = answering.write(model, tokenizer, prompts, settings, 0)
            read_answer = answer_reader(experiment.settings, cell)
            answers = [read_answer(text, q.options) for (text,), q in zip(texts, questions, strict=True)]
            right = [answer == q.answer for answer, q in zip(answers, questions, strict=True)]
            shares = {"right": sum(right) / count, "unread": answers.count(None) / count}
            times = compare(model, tokenizer, prompts[:TIMED], settings)
            rows.append({"method": cell.method, "form": form} | shares | times)
            print(rows[-1], flush=True)
    return rows


def compare(model: Any, tokenizer: Any, prompts: list[str], settings: Any) -> dict[str, Any]:
    """Seconds of CPU time with the examples read once, and with every prompt."""
    texts, seconds, usual = {}, {}, answering.SHARED
    answering.prepare_to_ask(model, settings.model_copy(update={"bf16": False}))  # cast before the clock runs
    for way, least in (("read_once", usual), ("read_each_time", 10**9)):
        answering.SHARED, began = least, time.process_time()
        texts[way] = answering.write(model, tokenizer, prompts, settings.model_copy(update={"bf16": False}), 0)
        seconds[way] = round(time.process_time() - began, 3)
    answering.SHARED = usual
    if texts["read_once"] != texts["read_each_time"]:
        raise SystemExit("in float32 another text is written when the examples are read once")
    return seconds | {"ratio": round(seconds["read_each_time"] / seconds["read_once"], 2)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--dataset", choices=("obqa", "strategyqa"), default="obqa")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    prepare_torch(threads=1)
    try:
        experiment = open_experiment("real", options.dataset, str(options.data_dir))
        rows = measure(experiment, options.questions)
    except KardError as error:
        raise SystemExit(f"few_shot: {error}") from None
    described = {"benchmark": "few_shot", "dataset": options.dataset, "model": experiment.student}
    described |= {"questions": options.questions, "timed": TIMED}
    tell(described | {"provenance": provenance(), "rows": rows}, options.out)
