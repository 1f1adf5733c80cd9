"""Training a causal LM with all logits, with those of the targets alone, and these in bfloat16; one thread.

    python benchmarks/causal_training.py [--model smollm2] [--steps 6] [--batch 8] [--out FILE]

The closed world's questions with three passages and the symbolic teacher's rationales. The last line is JSON: by way
the tokens read a second of CPU time, the process's peak MiB, and the mean loss.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from kardlib.artifacts.device import multiply_with_onednn
from kardlib.artifacts.store import atomic_write, provenance
from kardlib.data.prompts import source_text, target_text
from kardlib.data.world import build_world
from kardlib.kard import student
from kardlib.kard.teacher import symbolic_teacher
from kardlib.models.training import PartTrainer
from kardlib.settings import StudentSettings, preset

WAYS = ("all_logits", "target_logits", "bf16")


class AllLogits(PartTrainer):
    """The loss as the model computes it, from the logits of every token."""

    def __init__(self, *arguments: Any, **others: Any):
        super().__init__(*arguments, **others)
        self.few_logits, self.compute_loss_func = False, None


def measure(way: str, model: str, steps: int, batch: int) -> dict[str, Any]:
    """In a process of its own: train for so many steps."""
    multiply_with_onednn()
    if way == "all_logits":
        student.PartTrainer = AllLogits  # type: ignore[misc]
    world, settings = build_world(preset().world), preset()
    asked = world.splits["train"][: steps * batch]
    rationales = symbolic_teacher(world, settings.teacher.flawed, settings.teacher.seed)(asked, 1)
    texts = list(world.texts.values())
    examples = [
        (source_text(q, texts[3 * i : 3 * i + 3]), target_text(r.text, q.answer))
        for i, (q, r) in enumerate(zip(asked, rationales, strict=True))
    ]
    knobs = StudentSettings(model=model, epochs=1, batch=batch, max_new_tokens=None, bf16=way == "bf16", warmup=0)
    tokenizer = student.load_student(model)[1]
    tokens = sum(len(tokenizer(f"{source}\n{target}").input_ids) for source, target in examples)
    with tempfile.TemporaryDirectory() as place:
        began = time.process_time()
        student.train_student(examples, knobs, 0, Path(place))
        seconds = time.process_time() - began
        losses = [entry["loss"] for entry in json.loads((Path(place) / "losses.json").read_text())]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"tokens_a_second": round(tokens / seconds, 1), "peak_mib": peak, "loss": round(fmean(losses), 5),
            "seconds": round(seconds, 1)}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--steps", type=int, default=10, help="at least 10: the loss is of the last ten")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    measured = {}
    for way in WAYS:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            measured[way] = pool.submit(measure, way, options.model, options.steps, options.batch).result()
        print(f"{way}: {measured[way]}", flush=True)
    described = {"benchmark": "causal_training", "model": options.model, "steps": options.steps, "batch": options.batch}
    line = json.dumps(described | {"provenance": provenance()} | measured)
    if options.out:
        with atomic_write(options.out) as file:
            file.write_text(line + "\n")
    print(line)
