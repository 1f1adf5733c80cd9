"""What looking up costs ReAugKD's student: time as a ratio, recall, and memory, HNSW against exact search.

    python benchmarks/reaugkd_latency.py [--sizes 2000 67000] [--data-dir ../shared/data] [--output FILE] [--build]

Students are MiniLM's every second layer and a six-layer BERT of base size (random weights: time does not depend on
them), on sentences of SST-2. One run, one thread: after every pass of the student alone each knowledge base is asked in
turn, so that a busy moment hits all alike; times are CPU seconds. The overhead is retrieval and mixing over the student
alone, sums over all passes, its interval a t interval over passes. Keys are embeddings of SST-2's 67,349 training
sentences; where more are wanted, normalised blends of two of them. For BERT's size they are padded with zeros, which
keeps neighbours and costs as much as real numbers. Embeddings and graphs are kept in the store: `--build` makes them
and times nothing, for a machine that is busy now. The last line is JSON; its rows are the data of notebook 18's figure.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from kardlib.artifacts.disk import write_text
from kardlib.artifacts.provenance import provenance
from kardlib.artifacts.store import Kind, Store, fingerprint
from kardlib.models.catalogue import identify
from kardlib.models.encoders import find_minilm
from kardlib.presets import preset
from kardlib.reaugkd.distillation import Classifier, build_student, run_classifier
from kardlib.reaugkd.memory import (
    Array,
    KnowledgeBase,
    Outputs,
    choose_candidates,
    measure_recall,
    mix,
    neighbour_prediction,
    read_outputs,
    write_outputs,
)
from kardlib.reaugkd.tasks import Example, open_task
from kardlib.report.evaluate import summary_rows
from kardlib.report.statistics import mean_interval, share_interval
from kardlib.retrieval.dense import EF_BUILD, LINKS, build_index
from kardlib.settings import ReAugKDSettings

K, TAU, BETA = 16, 0.1, 0.5
MINILM, BERT = "minilm, 3 layers", "bert-base, 6 layers"
SIZES = {MINILM: [2_000, 20_000, 67_000, 250_000, 1_000_000], BERT: [2_000, 67_000]}
PASSES = {1: 60, 32: 20}  # by batch size
QUERIES = 256  # for recall; with the others the number of candidates is chosen
METHODS = {"hnsw": "reaugkd", "exact": "reaugkd_exact"}  # as the figure's rows call them


def build_students() -> dict[str, Classifier]:
    """The two students by their names in the figure, ready to encode."""
    minilm = build_student(ReAugKDSettings(teacher="minilm", pooling="mean"), 2, 0)
    bert = BertModel(BertConfig(num_hidden_layers=6))
    tokenizer = AutoTokenizer.from_pretrained(find_minilm())  # BERT's own vocabulary
    return {MINILM: minilm.eval(), BERT: Classifier(bert, tokenizer, 2, "cls").eval()}


def embed(store: Store, student: Classifier, splits: dict[str, list[Example]]) -> dict[str, Outputs]:
    """What a student says of the training sentences (the keys) and of the others (the queries)."""
    spec = {
        "model": identify("minilm"),
        "layers": student.encoder.config.num_hidden_layers,
        "task": fingerprint(splits),
    }

    def build(folder: Path) -> None:
        write_outputs(folder, {name: run_classifier(student, examples, 128) for name, examples in splits.items()})

    return read_outputs(store.make(Kind("latency_embeddings"), spec, build))


def grow(keys: Array, size: int) -> Array:
    """`size` unit vectors: the keys themselves, then blends of two of them."""
    rng = np.random.default_rng(0)
    grown = np.empty((size, keys.shape[1]), np.float32)
    grown[: len(keys)] = keys[:size]
    for start in range(len(keys), size, 100_000):
        a, b = rng.integers(len(keys), size=(2, min(100_000, size - start)))
        share = rng.random((len(a), 1), dtype=np.float32)
        blend = share * keys[a] + (1 - share) * keys[b]
        grown[start : start + len(a)] = blend / np.linalg.norm(blend, axis=1, keepdims=True)
    return grown


def pad(vectors: Array, dim: int) -> Array:
    """Vectors (N, d) with zeros up to `dim` numbers each."""
    return np.pad(vectors, ((0, 0), (0, dim - vectors.shape[1])))


def build_bases(store: Store, keys: Array, size: int, dim: int) -> tuple[dict[str, KnowledgeBase], dict[str, int]]:
    """The graph and the exact search over the same vectors, and the bytes of each."""
    spec = {
        "keys": fingerprint([len(keys), keys[::1000].tolist()]),
        "size": size,
        "dim": dim,
        "graph": [LINKS, EF_BUILD],
    }

    def build(folder: Path) -> None:
        start = time.process_time()
        faiss.write_index(build_index(pad(grow(keys, size), dim)), str(folder / "index.faiss"))
        print(f"{size:,} entries of size {dim}: graph built in {time.process_time() - start:.0f} s", flush=True)

    file = store.make(Kind("latency_graph"), spec, build) / "index.faiss"
    graph = faiss.read_index(str(file))
    soft = np.random.default_rng(1).dirichlet([1, 1], size).astype(np.float32)
    bases = {"hnsw": KnowledgeBase(graph, soft), "exact": KnowledgeBase(faiss.downcast_index(graph.storage), soft)}
    return bases, {"hnsw": file.stat().st_size + soft.nbytes, "exact": 4 * size * dim + soft.nbytes}


def measure_time(
    student: Classifier, bases: dict[str, KnowledgeBase], candidates: int | None, queries: Array,
    sentences: list[Example], batch: int,
) -> dict[str, Array]:  # fmt: skip
    """CPU seconds of every pass: of the student alone, and of looking up in each knowledge base and mixing."""
    seconds: dict[str, list[float]] = {"student": [], **{kind: [] for kind in bases}}
    for i in range(1 + PASSES[batch]):
        at = [j % len(sentences) for j in range(i * batch, (i + 1) * batch)]
        start = time.process_time()
        own = run_classifier(student, [sentences[j] for j in at], 128).probabilities
        seconds["student"].append(time.process_time() - start)
        for kind, base in bases.items():
            start = time.process_time()
            mix(own, neighbour_prediction(*base.look_up(queries[at], K, candidates), TAU), BETA)
            seconds[kind].append(time.process_time() - start)
    return {what: np.array(values[1:]) for what, values in seconds.items()}  # the first pass warms up


def measure(
    name: str, student: Classifier, bases: dict[str, KnowledgeBase], size: dict[str, int], queries: Array,
    sentences: list[Example],
) -> list[dict[str, Any]]:  # fmt: skip
    """The figure's rows for one student and one number of entries: both searches, both batch sizes."""
    entries = bases["hnsw"].index.ntotal
    place = {"figure": "18_latency", "dataset": "sst2", "scale": "embedded", "student": name}
    place |= {"knob": "entries", "x": entries}
    rows: list[dict[str, Any]] = []

    def add(method: str, metric: str, numbers: Sequence[float], n: int | None = None, at: str = "") -> None:
        split = "" if metric == "bytes" else "test"
        rows.append(place | {"split": split, "method": method, "metric": metric, "at": at, "n": n})
        rows[-1] |= dict(zip(("value", "low", "high"), numbers, strict=False))

    candidates = choose_candidates(bases["hnsw"], queries[QUERIES:], K)
    found = {kind: base.search(queries[:QUERIES], K, candidates)[1] for kind, base in bases.items()}
    add("reaugkd", "candidates", [candidates or 0])
    for kind, method in METHODS.items():
        recall = measure_recall(found[kind], found["exact"])
        rows += summary_rows(recall, [None], method=method, metric="recall", split="test", **place)
        add(method, "bytes", [size[kind]], entries)
    for batch in PASSES:
        seconds = measure_time(student, bases, candidates, queries, sentences, batch)
        at, alone = f"batch {batch}", 1000 * seconds["student"]
        add("reaugkd_no_retrieval", "milliseconds", mean_interval(alone), PASSES[batch], at)
        for kind, method in METHODS.items():
            add(method, "milliseconds", mean_interval(1000 * seconds[kind]), PASSES[batch], at)
            overhead = share_interval(seconds[kind], seconds["student"])
            add(method, "latency_overhead", overhead, PASSES[batch], at)
            told = f"overhead {overhead.mean:.4f} [{overhead.low:.4f}, {overhead.high:.4f}]"
            print(f"{name}, {entries} entries, {at}, {kind}: {told}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", help="these sizes alone")
    parser.add_argument("--data-dir", default="../shared/data", help="folder with glue/SST-2/")
    parser.add_argument("--output", type=Path, help="write the JSON there too")
    parser.add_argument("--build", action="store_true", help="build what is to be timed, and time nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = open_task(preset("embedded", "sst2", options.data_dir).override({"reaugkd.train": None, "reaugkd.dev": 1}))
    students, sentences, store = build_students(), task.splits["test"], Store()
    embedded = embed(store, students[MINILM], {"train": task.splits["train"], "test": sentences})
    keys, queries = embedded["train"].unit, embedded["test"].unit
    facts: dict[str, Any] = {"provenance": provenance(), "k": K, "embedded_sentences": len(keys), "load": {}}
    rows: list[dict[str, Any]] = []
    for name, sizes in SIZES.items():
        dim = students[name].encoder.config.hidden_size
        for size in (s for s in sizes if options.sizes is None or s in options.sizes):
            bases, measured = build_bases(store, keys, size, dim)
            if options.build:
                continue
            before = os.getloadavg()[0]
            rows += measure(name, students[name], bases, measured, pad(queries, dim), sentences)
            facts["load"][f"{name}, {size} entries"] = [round(load, 2) for load in (before, os.getloadavg()[0])]
            if options.output:  # after every size: the largest take long
                write_text(options.output, json.dumps(facts | {"rows": rows}) + "\n")
    print(json.dumps(facts | {"rows": rows}))


if __name__ == "__main__":
    main()
