"""Training MiniLM as a reranker, in float32 as the library does it and under autocast to bfloat16; one thread.

    python benchmarks/reranker_training.py [--dataset strategyqa --data-dir DIR] [--steps 10] [--batch 16] [--out FILE]

`train_reranker` with the settings of the scale "real", KL among them, on a dataset's first questions. Passages and
scores are drawn, not searched: speed depends on how long texts are, not on what they say. Those of the closed world,
which needs no files, have 12 tokens. The library trains a reranker in bfloat16 on GPUs alone; what a CPU would
gain is measured by letting it take this one for such a device.

The last line is JSON. The fastest of so many repeats counts. By way, in a process of its own: the tokens read a second
of CPU time, each text of a step counted once, since it is encoded once; the mean loss; the peak MiB, beside which
stands what `kard plan` estimates; the share of the core's limit, which is that of products of large matrices of that
type; what a step spends its time on, loading with it. Operations are 6 for each weight, embeddings left out, and each
token that it multiplies; `share_with_attention` adds 12 * layers * width * length for each token: two products of
tokens with tokens, forward and twice as many backward.
"""

import argparse
import os
import random
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
from official import measure_limit, slowest

from kardlib.artifacts.device import multiply_with_onednn, pick_device
from kardlib.artifacts.provenance import provenance
from kardlib.artifacts.store import Store
from kardlib.data.records import read_losses
from kardlib.kard import reranker
from kardlib.kard.experiment import open_settings
from kardlib.kard.plan import plan
from kardlib.models import encoders
from kardlib.models.catalogue import read_shape
from kardlib.models.costs import training_flops
from kardlib.presets import preset
from kardlib.retrieval.runs import Candidates
from kardlib.settings import RunSettings

WAYS = ("fp32", "bf16")


def draw_work(settings: RunSettings) -> tuple[Any, ...]:
    """What `train_reranker` takes before its folder: questions, and for each as many passages as a step reads."""
    data, knobs, rng = open_settings(settings, Store()).data, settings.reranker, random.Random(0)
    asked, texts, candidates = data.splits["train"][: knobs.questions], {p.id: p.text for p in data.passages}, []
    for question in asked:
        drawn = {p: rng.uniform(0, 20) for p in rng.sample(list(texts), 2 * knobs.sampled)}
        first = dict(list(drawn.items())[: knobs.sampled])
        candidates.append(Candidates(question.id, first, {p: s for p, s in drawn.items() if p not in first}))
    read = {p: texts[p] for c in candidates for p in (*c.from_rationale, *c.from_question)}
    return knobs, {q.id: q.prompt for q in asked}, read, candidates, 0


def count(work: tuple[Any, ...]) -> tuple[int, float, float]:
    """The tokens of all steps, and the operations without attention's products and with them."""
    settings, questions, passages, candidates, seed = work
    model = encoders.load_reranker(settings)
    ids = model.tokenize(questions | passages)
    steps = reranker.draw_steps(candidates, settings, seed)
    lengths = [len(ids[text]) for step in steps for text in {text for q, drawn in step for text in (q, *drawn)}]
    shape = read_shape(model.encoder.config.to_dict(), model.encoder.num_parameters())
    weights = training_flops(shape, sum(lengths), 0)
    return sum(lengths), weights, weights + 12 * shape.encoder_layers * shape.width * sum(n * n for n in lengths)


def measure(way: str, work: tuple[Any, ...], repeats: int) -> dict[str, Any]:
    """In a process of its own: train, loading and saving not counted."""
    multiply_with_onednn()
    if way == "bf16":
        encoders.pick_device = lambda: pick_device()._replace(bf16=True)  # type: ignore[attr-defined]
    fit, spent = reranker.fit, []

    def timed(*arguments: Any, **others: Any) -> Any:
        began = time.process_time()
        done = fit(*arguments, **others)
        spent.append(time.process_time() - began)
        return done

    def train(work: tuple[Any, ...]) -> list[float]:
        with tempfile.TemporaryDirectory() as place:
            trained = reranker.train_reranker(*work, Path(place))
            return list(read_losses(trained).values())

    reranker.fit = timed  # type: ignore[attr-defined]
    for _ in range(repeats):
        losses = train(work)  # the same every time
    seconds, peak = min(spent), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    limit = measure_limit(dtype=torch.bfloat16 if way == "bf16" else torch.float32)
    tokens, *operations = count(work)
    weights, both = (round(some / seconds / limit / 1e9, 6) for some in operations)
    settings, questions, passages, candidates, seed = work
    step = settings, questions, passages, candidates[: settings.batch], seed
    return {
        "tokens_a_second": round(tokens / seconds, 1), "tokens": tokens, "seconds": round(seconds, 2),
        "loss": round(fmean(losses), 5), "peak_mib": peak, "limit_gigaflops": round(limit, 1),
        "share_of_limit": weights, "share_with_attention": both, "slowest": slowest(lambda: train(step)),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="world", choices=("world", "obqa", "strategyqa"))
    parser.add_argument("--data-dir", help="folder with kard/ and kb/, for obqa and strategyqa")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    settings = preset("real", options.dataset, options.data_dir).override({
        "reranker.model": "minilm", "reranker.dim": 384, "reranker.batch": options.batch, "reranker.epochs": 1,
        "reranker.questions": options.steps * options.batch,
    })  # fmt: skip
    work = draw_work(settings)
    planned = next(row["memory"] for row in plan(settings, "cpu")["work"] if row["model"] == settings.reranker.model)
    line: dict[str, Any] = {
        "benchmark": "reranker_training", "dataset": options.dataset, "model": settings.reranker.model,
        "steps": options.steps, "batch": options.batch, "repeats": options.repeats,
        "planned_mib": int(planned) >> 20, "provenance": provenance(),
    }  # fmt: skip
    for way in WAYS:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            line[way] = pool.submit(measure, way, work, options.repeats).result()
        print(f"{way}: {line[way]}", flush=True)
    tell(line, options.out)
