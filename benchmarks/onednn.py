"""CPU time of float32 products and of what a worker does, with torch's own kernels and with oneDNN's; one thread.

    python benchmarks/onednn.py [--steps 60] [--questions 600] [--out FILE]

A student of the middle size learns to read gold passages of the closed world and then answers questions. The last line
is JSON: GFLOP a second of a feed-forward layer's product and of its weights' gradient, seconds of training and of
writing, the last loss, and the process's peak MiB.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from line import tell

from kardlib.artifacts.device import multiply_with_onednn
from kardlib.artifacts.provenance import provenance
from kardlib.data.files import LETTERS
from kardlib.data.prompts import source_text, target_text
from kardlib.data.records import read_losses
from kardlib.data.world import build_world
from kardlib.kard.answering import write
from kardlib.kard.student import load_student, train_student
from kardlib.kard.teacher import symbolic_teacher
from kardlib.presets import preset

TOKENS, WIDTH, INNER = 5440, 128, 512  # a batch's padded tokens, and a feed-forward layer of the middle student


def seconds_of(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def gigaflops(a: torch.Tensor, b: torch.Tensor, repeats: int = 50) -> float:
    def multiply() -> None:
        for _ in range(repeats):
            a @ b

    multiply()  # what is compiled once is not counted
    return round(2 * a.shape[0] * a.shape[1] * b.shape[1] * repeats / seconds_of(multiply) / 1e9, 1)


def measure(kernels: str, steps: int, questions: int) -> dict[str, Any]:
    """In a process of its own, whose kernels are replaced or not."""
    if kernels == "onednn" and not multiply_with_onednn():
        raise SystemExit("this torch does not multiply with MKL, so that nothing is replaced")
    inputs, weight = torch.randn(TOKENS, WIDTH), torch.randn(INNER, WIDTH)
    products = {"product": gigaflops(inputs, weight.T), "gradient": gigaflops((inputs @ weight.T).T, inputs)}
    settings = preset()
    world, student = build_world(settings.world), settings.student.of("t5-nano-base", "rationale", reads=True)
    student = student.model_copy(update={"steps": steps})
    asked = world.splits["train"]
    rationales = symbolic_teacher(world, settings.teacher.flawed, settings.teacher.seed)(asked, 1)
    sources = [source_text(q, [world.texts[p] for p in world.dataset().gold[q.id]]) for q in asked]
    targets = [target_text(r.text, LETTERS[q.answer]) for r, q in zip(rationales, asked, strict=True)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        examples = list(zip(sources, targets, strict=True))
        training = seconds_of(lambda: train_student(examples, student, 0, folder))
        *_, loss = read_losses(folder).values()
        model, tokenizer = load_student(place)
        writing = seconds_of(lambda: write(model, tokenizer, sources[:questions], student, 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"gigaflops": products, "training_seconds": round(training, 1), "writing_seconds": round(writing, 2),
            "loss": round(loss, 4), "peak_mib": peak}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="of training, at least 10: the loss is of the last ten")
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    measured = {}
    for kernels in ("torch", "onednn"):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            measured[kernels] = pool.submit(measure, kernels, options.steps, options.questions).result()
        print(f"{kernels}: {measured[kernels]}", flush=True)
    tell({"benchmark": "onednn", "provenance": provenance(), "steps": options.steps} | measured, options.out)
