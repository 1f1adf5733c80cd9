"""What looking up costs ReAugKD's student: time as a ratio, recall, and memory, HNSW against exact search.

    python benchmarks/reaugkd_latency.py [--sizes 2000 67000] [--data-dir ../shared/data] [--output FILE]

Students are MiniLM's every second layer and a six-layer BERT of base size (random weights: time does not depend on
them), on sentences of SST-2. One run, one thread: after every pass of the student alone each knowledge base is asked in
turn, so that a busy moment hits all alike; times are CPU seconds, medians over passes, and `overhead` is retrieval and
mixing over the student alone. Keys are embeddings of real training sentences; where more are wanted, normalised blends
of two of them. For BERT's size they are padded with zeros, which keeps neighbours and costs as much as real numbers.
The last line is JSON.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from kardlib.device import describe_device
from kardlib.memory import Array, KnowledgeBase, build_index, mix, neighbour_prediction
from kardlib.reaugkd import Classifier, build_student, encode
from kardlib.reranker import find_minilm
from kardlib.settings import ReAugKDSettings, preset
from kardlib.store import atomic_write
from kardlib.tasks import Example, open_task

K, TAU, BETA = 16, 0.1, 0.5
REAL = 10_000  # training sentences that are embedded
BUILT = {"minilm": [2_000, 20_000, 67_000, 250_000, 1_000_000], "bert-base": [2_000, 67_000]}
PASSES, BATCHES = 15, (1, 32)


def build_students() -> dict[str, Classifier]:
    minilm = build_student(ReAugKDSettings(teacher="minilm", pooling="mean"), 2, 0)
    bert = BertModel(BertConfig(num_hidden_layers=6))
    tokenizer = AutoTokenizer.from_pretrained(find_minilm())  # BERT's own vocabulary
    return {"minilm": minilm.eval(), "bert-base": Classifier(bert, tokenizer, 2, "cls").eval()}


def grow(keys: Array, size: int) -> Array:
    """`size` unit vectors: the keys themselves, then blends of two of them."""
    rng = np.random.default_rng(0)
    parts = [keys[:size]]
    for start in range(len(keys), size, 100_000):
        a, b = rng.integers(len(keys), size=(2, min(100_000, size - start)))
        share = rng.random((len(a), 1), dtype=np.float32)
        blend = share * keys[a] + (1 - share) * keys[b]
        parts.append(blend / np.linalg.norm(blend, axis=1, keepdims=True))
    return np.concatenate(parts)


def pad(vectors: Array, dim: int) -> Array:
    return np.pad(vectors, ((0, 0), (0, dim - vectors.shape[1])))


def measure(
    name: str, student: Classifier, size: int, keys: Array, queries: Array, sentences: list[Example]
) -> Iterator[dict[str, object]]:
    """Rows for one student and one size: both searches, both batch sizes."""
    dim = student.encoder.config.hidden_size
    keys, queries = pad(grow(keys, size), dim), pad(queries, dim)
    soft = np.random.default_rng(1).dirichlet([1, 1], size).astype(np.float32)
    bases = {}
    for kind in ("hnsw", "exact"):
        start = time.process_time()
        bases[kind] = KnowledgeBase(build_index(keys, kind), soft)
        print(f"{name}, {size:,} entries: {kind} built in {time.process_time() - start:.0f} s", flush=True)
    found = {kind: base.search(queries[:256], K)[1] for kind, base in bases.items()}
    recall = np.mean([len({*a} & {*b}) / K for a, b in zip(found["hnsw"], found["exact"], strict=True)])
    for batch in BATCHES:
        seconds: dict[str, list[float]] = {"student": [], "hnsw": [], "exact": []}
        for i in range(PASSES):
            at = range(i * batch, (i + 1) * batch)
            start = time.process_time()
            own = encode(student, [sentences[j % len(sentences)] for j in at], 128).probabilities
            seconds["student"].append(time.process_time() - start)
            asked = queries[[j % len(queries) for j in at]]
            for kind, base in bases.items():
                start = time.process_time()
                mix(own, neighbour_prediction(*base.look_up(asked, K), TAU), BETA)
                seconds[kind].append(time.process_time() - start)
        median = {what: float(np.median(values[1:])) for what, values in seconds.items()}  # the first pass warms up
        for kind, base in bases.items():
            yield {
                "student": name, "dim": dim, "entries": size, "batch": batch, "search": kind,
                "student_ms": round(1000 * median["student"], 3), "retrieval_ms": round(1000 * median[kind], 3),
                "overhead": round(median[kind] / median["student"], 4),
                "recall": 1.0 if kind == "exact" else round(float(recall), 4), "mib": round(base.bytes / 2**20, 1),
            }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", help="these sizes alone")
    parser.add_argument("--data-dir", default="../shared/data", help="folder with glue/SST-2/")
    parser.add_argument("--output", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = open_task(preset("embedded", "sst2", options.data_dir).override({"reaugkd.train": REAL}))
    students, test = build_students(), task.splits["test"]
    keys = encode(students["minilm"], task.splits["train"], 128).unit
    queries = encode(students["minilm"], test, 128).unit
    facts = {"device": describe_device(), "k": K, "embedded_sentences": len(keys)}
    rows: list[dict[str, object]] = []
    for name, sizes in BUILT.items():
        for size in (s for s in sizes if options.sizes is None or s in options.sizes):
            rows += measure(name, students[name], size, keys, queries, test)
            line = json.dumps(facts | {"rows": rows})
            if options.output:  # after every size: the largest take long
                with atomic_write(options.output) as temporary:
                    temporary.write_text(line + "\n", "utf-8")
    print(line)


if __name__ == "__main__":
    main()
