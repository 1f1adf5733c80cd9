"""Training a causal LM as the Trainer does, with the logits of targets alone and no mask, in bfloat16; one thread.

    python benchmarks/causal_training.py [--model smollm2] [--steps 10] [--batch 8] [--out FILE]

The closed world's questions with three passages and the symbolic teacher's rationales. The last line is JSON: by way
the tokens read a second of CPU time, the mean loss, the process's peak MiB beside what `kard plan` estimates, and the
share of the core's limit: the operations that weights ask for, a second, over those of products of large matrices.
"""

import argparse
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

import torch
from line import tell
from official import measure_limit

from kardlib.artifacts.device import multiply_with_onednn
from kardlib.artifacts.provenance import provenance
from kardlib.data.files import LETTERS
from kardlib.data.prompts import source_text, target_text
from kardlib.data.records import read_losses
from kardlib.data.world import build_world
from kardlib.kard import student
from kardlib.kard.teacher import symbolic_teacher
from kardlib.models.catalogue import read_shape
from kardlib.models.costs import training_bytes, training_flops
from kardlib.models.training import PartTrainer
from kardlib.presets import preset
from kardlib.settings import StudentSettings

WAYS = ("all_logits", "target_logits", "bf16")


class Timed(PartTrainer):
    """It knows its CPU seconds, loading and saving left out."""

    seconds = 0.0

    def train(self, *arguments: Any, **others: Any) -> Any:
        """The Trainer's."""
        began = time.process_time()
        done = super().train(*arguments, **others)
        Timed.seconds = time.process_time() - began
        return done


class AllLogits(Timed):
    """The loss as the model computes it, from the logits of every token, with a mask."""

    def __init__(self, *arguments: Any, **others: Any):
        super().__init__(*arguments, **others)
        self.causal, self.compute_loss_func = False, None


def measure(way: str, name: str, steps: int, batch: int) -> dict[str, Any]:
    """In a process of its own: train for so many steps."""
    multiply_with_onednn()
    student.PartTrainer = AllLogits if way == "all_logits" else Timed  # type: ignore[misc]
    world, settings, bf16 = build_world(preset().world), preset(), way == "bf16"
    asked = world.splits["train"][: steps * batch]
    rationales = symbolic_teacher(world, settings.teacher.flawed, settings.teacher.seed)(asked, 1)
    texts = list(world.texts.values())
    examples = [
        (source_text(q, texts[3 * i : 3 * i + 3]), target_text(r.text, LETTERS[q.answer]))
        for i, (q, r) in enumerate(zip(asked, rationales, strict=True))
    ]
    knobs = StudentSettings(model=name, epochs=1, batch=batch, max_new_tokens=None, bf16=bf16, warmup=0)
    model, tokenizer = student.load_student(name)
    data = student.Examples(*zip(*examples, strict=True), tokenizer, knobs, model.config)
    target = sum(label != -100 for labels in data.labels for label in labels)
    tokens = sum(map(len, data.inputs))
    shape = read_shape(model.config.to_dict(), model.num_parameters())
    with tempfile.TemporaryDirectory() as place:
        student.train_student(examples, knobs, 0, Path(place))
        losses = read_losses(Path(place)).values()
    longest, written = max(map(len, data.inputs)), max(sum(i != -100 for i in labels) for labels in data.labels)
    planned = training_bytes(shape, batch, longest - written, written, bf16=bf16, gpu=False)
    limit = measure_limit(dtype=torch.bfloat16 if bf16 else torch.float32)
    return {
        "tokens_a_second": round(tokens / Timed.seconds, 1), "seconds": round(Timed.seconds, 1),
        "loss": round(fmean(losses), 5),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, "planned_mib": int(planned) >> 20,
        "limit_gigaflops": round(limit, 1),
        "share_of_limit": round(training_flops(shape, tokens - target, target) / Timed.seconds / limit / 1e9, 3),
    }  # fmt: skip


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
    tell(described | {"provenance": provenance()} | measured, options.out)
