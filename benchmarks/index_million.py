"""A million generated passages: time, size and memory of building the index and of searching it.

    python benchmarks/index_million.py [--passages 1000000] [--questions 1000] [--out benchmarks/results/NAME.json]

1,000 questions are searched for at kappa* = 100, in calls of 200 on 2 threads and one after the other, by turns, so
that what else the machine does meets both; the rankings must be the same. Memory is what this process and the JVM's
hold together, index pages that the JVM maps included. The last line is JSON.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from line import tell

from kardlib.artifacts.device import describe_device
from kardlib.data.files import Passage, PassageFile, write_passages
from kardlib.reproduce import watch_memory
from kardlib.retrieval.lucene import HEAP, Lucene
from kardlib.settings import KnowledgeSettings

WORDS, LENGTH, ASKED = 200_000, 60, 20  # vocabulary, mean words of a passage, words of a question
KAPPA, AT_ONCE = 100, 200
VOCABULARY = [f"w{rank:x}" for rank in range(WORDS)]


def draw_words(rng: np.random.Generator, size: int) -> list[str]:
    """Words whose frequency falls with their rank, as in English (Zipf's law)."""
    ranks = np.exp(rng.random(size) * np.log(WORDS)).astype(int)  # density 1 / rank
    return [VOCABULARY[rank] for rank in ranks.tolist()]


def generate(count: int) -> Iterator[Passage]:
    rng = np.random.default_rng(0)
    for i in range(count):
        yield Passage(f"p{i:07d}", " ".join(draw_words(rng, int(rng.integers(LENGTH // 2, 3 * LENGTH // 2)))))


def measure(passages: int, questions: int, folder: Path) -> dict[str, object]:
    start = time.monotonic()
    write_passages(folder / "passages.jsonl", generate(passages))
    print(f"{passages} passages written in {time.monotonic() - start:.0f} s", flush=True)
    rng = np.random.default_rng(1)
    queries = {f"q{i}": " ".join(draw_words(rng, ASKED)) for i in range(questions)}
    settings, index = KnowledgeSettings(threads=2), folder / "index"

    def this() -> list[int]:
        return [os.getpid()]

    with watch_memory(this) as build_peak, Lucene(settings) as lucene:
        start = time.monotonic()
        lucene.build(index, PassageFile(folder / "passages.jsonl"))
        built = time.monotonic() - start
    print(f"built in {built:.0f} s", flush=True)
    turns: list[tuple[float, float]] = []  # seconds one by one, and at once
    with watch_memory(this) as search_peak, Lucene(settings) as lucene:
        lucene.search(index, dict(list(queries.items())[:AT_ONCE]), KAPPA)  # warms caches
        for first in range(0, questions, AT_ONCE):
            asked = dict(list(queries.items())[first : first + AT_ONCE])
            start = time.monotonic()
            single = {id: lucene.search(index, {id: text}, KAPPA)[id] for id, text in asked.items()}
            turn = time.monotonic()
            together = lucene.search(index, asked, KAPPA)
            turns.append((turn - start, time.monotonic() - turn))
            print(f"{len(asked)} questions: one by one {turns[-1][0]:.1f} s, at once {turns[-1][1]:.1f} s", flush=True)
            if together != single:
                raise SystemExit("the rankings differ")
    loop, batch = map(sum, zip(*turns, strict=True))
    return {
        "benchmark": "index_million", "cpu": describe_device(), "cores": psutil.cpu_count(),
        "threads": settings.threads, "load": [round(load, 1) for load in psutil.getloadavg()], "heap": HEAP,
        "passages": passages,
        "corpus_mb": round((folder / "passages.jsonl").stat().st_size / 1e6),
        "index_mb": round(sum(file.stat().st_size for file in index.iterdir()) / 1e6),
        "build_seconds": round(built, 1), "build_peak_mib": build_peak[0] >> 20, "questions": questions,
        "kappa": KAPPA, "one_by_one_per_second": round(questions / loop, 1),
        "batched_per_second": round(questions / batch, 1), "speedup": round(loop / batch, 2),
        "turns": [[round(seconds, 1) for seconds in turn] for turn in turns],  # on a busy machine they differ
        "search_peak_mib": search_peak[0] >> 20, "same_ranking": True,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tell(measure(options.passages, options.questions, Path(folder)), options.out)
