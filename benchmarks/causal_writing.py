"""Writing with a causal LM: a batch that is kept until its longest text is out, and one that texts leave; one thread.

    python benchmarks/causal_writing.py --data-dir DIR [--dataset strategyqa] [--questions 32] [--out FILE]

KARD's student at the scale "real" and what notebook 04 asks it, in one batch; the student is trained if the store lacks
it. Both ways must write the same texts in float32; in bfloat16 another number of rows rounds in another way, so that
the share of texts that are the same is told. The last line is JSON: by number type and way the seconds of CPU time.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from line import tell
from transformers import StoppingCriteriaList

from kardlib.artifacts.device import prepare_torch
from kardlib.artifacts.provenance import provenance
from kardlib.errors import KardError
from kardlib.kard import answering
from kardlib.kard.experiment import Cell, open_experiment
from kardlib.kard.grids import RERANKER
from kardlib.kard.pipeline import list_writings, prepare_all, train_students
from kardlib.kard.prompting import fit_sources
from kardlib.kard.rankings import Reading, read_passages
from kardlib.kard.student import load_student
from kardlib.settings import StudentSettings


def write_kept(model: Any, tokenizer: Any, start: Any, cache: Any, inputs: Any, limit: int) -> list[str]:
    """As `generate` does it: nothing leaves the batch, and sources share no start."""
    source = inputs.input_ids.shape[1]
    stops = StoppingCriteriaList([answering.AnswerIsOut(tokenizer, source)])
    written = model.generate(**inputs, max_new_tokens=limit, do_sample=False, stopping_criteria=stops)
    return tokenizer.batch_decode(written[:, source:], skip_special_tokens=True)


WAYS = {"kept": write_kept, "leaving": answering._write_on}


def measure(sources: Sequence[str], settings: StudentSettings, seed: int) -> dict[str, Any]:
    """Both ways on the same sources. Raises SystemExit where texts in float32 are not the same."""
    model, tokenizer = load_student(settings.model, settings.revision, seed)
    settings = answering._with_limit(model, settings).model_copy(update={"generation_batch": len(sources)})
    fitted, measured = fit_sources(sources, tokenizer, settings, model.config), {}
    for bf16 in (False, True):
        asked, texts, seconds = settings.model_copy(update={"bf16": bf16}), {}, {}
        for way, write_batch in WAYS.items():
            answering._write_on = write_batch
            began = time.process_time()
            texts[way] = [text for (text,) in answering.write(model, tokenizer, fitted, asked, seed)]
            seconds[way] = round(time.process_time() - began, 3)
        same = sum(map(str.__eq__, *texts.values())) / len(sources)
        if same < 1 and not bf16:
            raise SystemExit(f"in float32 the two ways wrote the same text for {same:.0%} of the sources only")
        lengths = [len(ids) for ids in tokenizer(texts["leaving"]).input_ids]
        number = "bf16" if bf16 else "float32"
        measured[number] = {"seconds": seconds, "ratio": round(seconds["kept"] / seconds["leaving"], 2),
                            "same_texts": round(same, 3), "tokens": sum(lengths), "longest": max(lengths)}  # fmt: skip
        print(f"{number}: {measured[number]}", flush=True)
    return measured


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--dataset", choices=("obqa", "strategyqa"), default="strategyqa")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    prepare_torch(threads=1)
    try:
        experiment = open_experiment("real", options.dataset, str(options.data_dir))
        cells = [Cell(RERANKER, experiment.student, experiment.settings.seeds[0])]
        asked = prepare_all(experiment, cells)
        students = train_students(experiment, asked)
        read = read_passages(Reading(experiment, "test", asked, students))
        ((sources, settings, seed),) = list_writings("test", asked, students, read).values()
    except KardError as error:
        raise SystemExit(f"causal_writing: {error}") from None
    measured = measure(sources[: options.questions], settings, seed)
    described = {"benchmark": "causal_writing", "dataset": options.dataset, "model": experiment.student}
    tell(described | {"questions": options.questions, "provenance": provenance()} | measured, options.out)
