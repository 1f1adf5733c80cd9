"""What the paper's models cost on this device: training, writing and reranking; their speed, share of the peak, memory.

    python benchmarks/paper_scale.py [--models google/flan-t5-base google/flan-t5-large] [--small] [--out FILE]

Shapes are the paper's, weights random, texts made of the nano models' words, so that nothing is downloaded: speed does
not depend on what weights say. Training is the library's with the paper's batch of 32, sources of 512 tokens and
targets of 160; writing is greedy; a reranker orders 100 passages of 512 tokens for each question. A training step is
what a long run takes beyond a short one, so that loading does not count. The share of the peak counts the operations
of `models.training_flops` and `forward_flops`, not what gradient checkpointing computes again; the peak is the GPU's in
bfloat16, where it is known. `--small` shrinks everything, to try the code on a CPU. The last line is JSON.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from line import tell
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from kardlib.artifacts.device import describe_device, pick_device
from kardlib.artifacts.provenance import provenance
from kardlib.kard.answering import write
from kardlib.kard.plan import DEVICES
from kardlib.kard.student import load_student, train_student
from kardlib.models.catalogue import MODELS, Shape, read_shape
from kardlib.models.costs import forward_flops, training_flops
from kardlib.models.encoders import load_reranker, rank
from kardlib.models.nano import build_tokenizer
from kardlib.reproduce import watch_memory
from kardlib.settings import RerankerSettings, StudentSettings

RERANKER = "google-bert/bert-base-uncased"
STEPS = (5, 25)  # of the short and of the long training
SMALL = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2,
         "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}  # fmt: skip


def make_model(name: str, folder: Path, small: bool) -> Shape:
    """Save a model of that shape with random weights and the nano models' tokenizer in `folder`."""
    described, tokenizer = MODELS[name], build_tokenizer()
    config = described.config | (SMALL if small else {}) | {"eos_token_id": 1, "pad_token_id": 0}
    torch.manual_seed(0)
    kind = AutoModel if described.shape.kind == "encoder" else AutoModelForSeq2SeqLM
    model = kind.from_config(AutoConfig.for_model(**config))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return read_shape(model.config.to_dict(), model.num_parameters())


def make_texts(count: int, tokens: int) -> list[str]:
    """Texts of so many tokens, the end token not counted."""
    words = sorted(word for word in build_tokenizer().get_vocab() if word.isalpha())
    rng = random.Random(0)
    return [" ".join(rng.choices(words, k=tokens)) for _ in range(count)]


def measure(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that it takes, and the peak in GiB: of the GPU's memory, or of this process's without one."""
    cuda = pick_device().type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with watch_memory(lambda: [os.getpid()]) as resident:
        start = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return seconds, (torch.cuda.max_memory_allocated() if cuda else resident[0]) / 2**30


def slowest(work: Callable[[], Any]) -> list[str]:
    """The two operations that the device spends most of its time on, with their shares of it."""
    cuda = pick_device().type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiled:
        work()
    spent = {e.key: e.self_device_time_total if cuda else e.self_cpu_time_total for e in profiled.key_averages()}
    longest = sorted(spent, key=lambda operation: -spent[operation])[:2]
    return [f"{operation} {100 * spent[operation] / sum(spent.values()):.0f} %" for operation in longest]


def find_peak() -> float | None:
    """FLOPs a second of this GPU in bfloat16; None for any other device."""
    known = {name.upper(): device.flops for name, device in DEVICES.items() if device.memory}
    return next((flops for name, flops in known.items() if name in describe_device()), None)


def share(flops: float, seconds: float) -> float | None:
    peak = find_peak()
    return round(flops / seconds / peak, 3) if peak else None


def measure_training(
    folder: Path, shape: Shape, tokens: tuple[int, int], batch: int, checkpointing: bool
) -> dict[str, Any]:
    source, target = tokens
    examples = list(zip(make_texts(4 * batch, source - 1), make_texts(4 * batch, target - 1), strict=True))
    settings = StudentSettings(
        model=str(folder), batch=batch, max_source_tokens=source, max_new_tokens=target,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip

    def train(steps: int) -> None:
        with tempfile.TemporaryDirectory() as trained:
            train_student(examples, settings.model_copy(update={"steps": steps}), 0, Path(trained))

    (short, _), (long, peak) = (measure(lambda steps=steps: train(steps)) for steps in STEPS)
    step = (long - short) / (STEPS[1] - STEPS[0])
    return {
        "seconds_a_step": round(step, 4),
        "tokens_a_second": round(batch * (source + target) / step),
        "share_of_peak": share(batch * training_flops(shape, source, target), step),
        "peak_gib": round(peak, 2),
        "slowest": slowest(lambda: train(STEPS[0])),
    }


def measure_writing(folder: Path, shape: Shape, tokens: tuple[int, int], questions: int) -> dict[str, Any]:
    source, target = tokens
    model, tokenizer = load_student(str(folder))
    model.generation_config.min_new_tokens = target  # random weights end where they like
    settings = StudentSettings(max_source_tokens=source, max_new_tokens=target, generation_batch=questions)
    sources = make_texts(questions, source - 1)
    write(model, tokenizer, sources[:2], settings, 0)  # warms up
    seconds, peak = measure(lambda: write(model, tokenizer, sources, settings, 0))
    return {
        "tokens_a_second": round(questions * target / seconds),
        "share_of_peak": share(questions * forward_flops(shape, source, target), seconds),
        "peak_gib": round(peak, 2),
        "slowest": slowest(lambda: write(model, tokenizer, sources, settings, 0)),
    }


def measure_reranking(folder: Path, shape: Shape, tokens: int, candidates: int, questions: int) -> dict[str, Any]:
    reranker = load_reranker(RerankerSettings(model=str(folder), dim=shape.width, max_tokens=tokens))
    asked = {f"q{i}": text for i, text in enumerate(make_texts(questions, tokens // 8))}
    passages = {f"p{i}": text for i, text in enumerate(make_texts(questions * candidates, tokens - 2))}
    run = {q: [(f"p{i * candidates + j}", 0.0) for j in range(candidates)] for i, q in enumerate(asked)}
    first = {"q0": run["q0"]}
    rank(reranker, asked, first, passages)  # warms up
    seconds, peak = measure(lambda: rank(reranker, asked, run, passages))
    read = questions * forward_flops(shape, candidates * tokens + tokens // 8, 0)
    return {
        "questions_a_second": round(questions / seconds, 2),
        "share_of_peak": share(read, seconds),
        "peak_gib": round(peak, 2),
        "slowest": slowest(lambda: rank(reranker, asked, first, passages)),
    }


def main(models: Sequence[str], small: bool) -> dict[str, Any]:
    """All measurements, by model and by what it does."""
    tokens, batch, questions, candidates = ((24, 8), 2, 2, 3) if small else ((512, 160), 32, 32, 100)
    measured: dict[str, Any] = {}
    for name in models:
        with tempfile.TemporaryDirectory() as place:
            shape = make_model(name, Path(place), small)
            measured[name] = {
                "training": measure_training(Path(place), shape, tokens, batch, checkpointing=False),
                "training_checkpointed": measure_training(Path(place), shape, tokens, batch, checkpointing=True),
                "writing": measure_writing(Path(place), shape, tokens, questions),
            }
        print(f"{name}: {measured[name]}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        shape = make_model(RERANKER, Path(place), small)
        ranked = measure_reranking(Path(place), shape, tokens[0], candidates, questions)
        measured[RERANKER] = {"reranking": ranked}
    return {"benchmark": "paper_scale", "small": small, "tokens": tokens, "batch": batch, "candidates": candidates,
            "provenance": provenance(), "models": measured}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["google/flan-t5-base", "google/flan-t5-large"])
    parser.add_argument("--small", action="store_true", help="shrink models, texts and batches: no measurement")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    tell(main(options.models, options.small), options.out)
