"""Other people's libraries on the same work: late interaction, BM25, transformers' own `generate`; CPU time and memory.

    python benchmarks/peers.py [--dataset obqa --data-dir DIR] [--model minilm] [--student smollm2] [--out FILE]

- reranking: sentence-transformers' MultiVectorEncoder with the reranker's encoder and linear layer; it encodes all
  passages once, keeps them, and scores each question's candidates.
- bm25: bm25s with Lucene's formula and stop words, stemmed where PyStemmer is installed. Both begin with the texts.
- generation: `model.generate` on batches of questions as they come, padded to the longest, greedy, until all have
  ended; and on one question at a time.

Every way runs in a process of its own, with one thread of torch; loading a model is not counted. A peer is timed with
torch's own kernels and with those that the library replaces them by. What is not installed is left out, with the
reason. A ratio of 1 or more says that the library is as fast or faster. The last line is JSON: CPU seconds of a
question, peaks in MiB of each process and those that it starts, and how far the results agree.
"""

import argparse
import importlib.metadata
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import torch
from line import tell
from official import CANDIDATES, Work, add_inputs, cpu_seconds, fill_models, load_asked, prepare, same_ranking

from kardlib.artifacts.device import multiply_with_onednn
from kardlib.artifacts.provenance import provenance
from kardlib.data.answers import answer_end
from kardlib.data.files import Passage
from kardlib.kard.answering import write
from kardlib.models.encoders import load_reranker, rank
from kardlib.presets import preset
from kardlib.reproduce import watch_memory
from kardlib.retrieval.lucene import Lucene
from kardlib.retrieval.runs import Run

STOP_WORDS = (  # Lucene's for English
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
).split()
BATCH = 16  # questions that most people give to `generate` at once

Measured = tuple[float, Any]  # CPU seconds, and what came of it
Way = Callable[[Work, argparse.Namespace], Measured]


def timed(work: Callable[[], Any]) -> Measured:
    began = cpu_seconds()
    made = work()
    return cpu_seconds() - began, made


# Reranking


def rerank(work: Work, options: argparse.Namespace) -> Measured:
    reranker = load_reranker(work.settings.reranker.model_copy(update={"model": options.model}))
    return timed(lambda: rank(reranker, work.questions, work.run, work.passages))


def rerank_by_peer(work: Work, options: argparse.Namespace) -> Measured:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    reranker = load_reranker(work.settings.reranker.model_copy(update={"model": options.model}))
    with tempfile.TemporaryDirectory() as place:
        reranker.save(Path(place))
        encoder = Transformer(place, max_seq_length=reranker.max_tokens)
    linear, tokens = reranker.linear, "token_embeddings"
    layer = Dense(
        linear.in_features, linear.out_features, bias=False, activation_function=torch.nn.Identity(),
        init_weight=linear.weight.detach(), module_input_name=tokens,
    )  # fmt: skip
    model = MultiVectorEncoder(modules=[encoder, layer, MultiVectorMask(), Normalize(module_input_name=tokens)])

    def rank_all() -> Run:
        names = sorted({p for ranked in work.run.values() for p, _ in ranked})
        encoded = model.encode_document([work.passages[p] for p in names], show_progress_bar=False)
        vectors = dict(zip(names, encoded, strict=True))
        questions = model.encode_query(list(work.questions.values()), show_progress_bar=False)
        ranked: Run = {}
        for q, vector in zip(work.questions, questions, strict=True):
            found = [p for p, _ in work.run[q]]
            scores = model.similarity([vector], [vectors[p] for p in found])[0].tolist() if found else []
            ranked[q] = sorted(zip(found, scores, strict=True), key=lambda scored: (-scored[1], scored[0]))
        return ranked

    return timed(rank_all)


def compare_rankings(ours: Run, theirs: Run) -> dict[str, float]:
    score = {q: dict(ranked) for q, ranked in theirs.items()}
    off = max(abs(own - score[q][p]) for q, ranked in ours.items() for p, own in ranked)
    return {"same_ranking": fmean(same_ranking(ours[q], theirs[q]) for q in ours), "largest_difference": round(off, 5)}


# BM25


def search(work: Work, options: argparse.Namespace) -> Measured:
    with tempfile.TemporaryDirectory() as place, Lucene(preset().knowledge) as lucene:
        building, _ = timed(lambda: lucene.build(place, (Passage(p, text) for p, text in work.passages.items())))
        lucene.search(place, dict(list(work.questions.items())[:100]), CANDIDATES)  # loads Java's classes
        searching, run = timed(lambda: lucene.search(place, work.questions, CANDIDATES))
    return searching, (run, building)


def tokenize(texts: Iterable[str], **how: Any) -> Any:
    """bm25s's tokens, without Lucene's stop words, stemmed where PyStemmer is installed."""
    import bm25s

    try:
        from Stemmer import Stemmer

        stemmer = Stemmer("porter")
    except ImportError:
        stemmer = None
    return bm25s.tokenize(list(texts), stopwords=STOP_WORDS, stemmer=stemmer, show_progress=False, **how)


def index_by_peer(tokens: Any) -> Any:
    """bm25s's index, with Lucene's formula and the library's parameters."""
    import bm25s

    knobs = preset().knowledge
    index = bm25s.BM25(k1=knobs.k1, b=knobs.b, method="lucene")
    index.index(tokens, show_progress=False)
    return index


def search_by_peer(work: Work, options: argparse.Namespace) -> Measured:
    tokenize([""])  # imports are not counted
    names = list(work.passages)

    def find() -> Run:
        tokens, k = tokenize(work.questions.values(), return_ids=False), min(CANDIDATES, len(names))
        found, scores = index.retrieve(tokens, k=k, show_progress=False)
        return {
            q: [(names[i], float(score)) for i, score in zip(f, s, strict=True) if score > 0]
            for q, f, s in zip(work.questions, found, scores, strict=True)
        }

    building, index = timed(lambda: index_by_peer(tokenize(work.passages.values())))
    searching, run = timed(find)
    return searching, (run, building)


def compare_runs(ours: tuple[Run, float], theirs: tuple[Run, float]) -> dict[str, float]:
    def shared(k: int) -> float:
        pairs = [({p for p, _ in ours[0][q][:k]}, {p for p, _ in theirs[0][q][:k]}) for q in ours[0]]
        return round(fmean(len(a & b) / max(1, len(a)) for a, b in pairs), 3)

    building = {"library_index_seconds": round(ours[1], 2), "peer_index_seconds": round(theirs[1], 2)}
    return {f"shared_in_first_{k}": shared(k) for k in (1, 10, CANDIDATES)} | building


# Generation


def answer(work: Work, options: argparse.Namespace) -> Measured:
    model, tokenizer, settings, sources = load_asked(work, options)
    return timed(lambda: [texts[0] for texts in write(model, tokenizer, sources, settings, 0)])


def answer_by_peer(work: Work, options: argparse.Namespace, batch: int = BATCH) -> Measured:
    model, tokenizer, settings, sources = load_asked(work, options)
    model.eval()

    def write_all() -> list[str]:
        texts = []
        for first in range(0, len(sources), batch):
            inputs = tokenizer(
                sources[first : first + batch], padding=True, return_token_type_ids=False, return_tensors="pt"
            )
            written = model.generate(**inputs, max_new_tokens=settings.max_new_tokens, do_sample=False)
            start = 0 if model.config.is_encoder_decoder else inputs.input_ids.shape[1]
            texts += tokenizer.batch_decode(written[:, start:], skip_special_tokens=True)
        return texts

    return timed(write_all)


def answer_one_by_one(work: Work, options: argparse.Namespace) -> Measured:
    return answer_by_peer(work, options, 1)


def compare_texts(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, float]:
    """Up to the answer: what comes after it is not read."""
    return {"same_texts": fmean(a == b[: answer_end(b)] for a, b in zip(ours, theirs, strict=True))}


# All of them


class Peer(NamedTuple):
    part: str
    package: str
    library: Way
    peer: Way
    compare: Callable[[Any, Any], dict[str, float]]


PEERS = {
    "sentence-transformers": Peer("reranking", "sentence-transformers", rerank, rerank_by_peer, compare_rankings),
    "bm25s": Peer("bm25", "bm25s", search, search_by_peer, compare_runs),
    "generate in batches": Peer("generation", "transformers", answer, answer_by_peer, compare_texts),
    "generate one by one": Peer("generation", "transformers", answer, answer_one_by_one, compare_texts),
}


def measure(way: Way, kernels: str, work: Work, options: argparse.Namespace) -> tuple[float, Any, int]:
    """In a process of its own: CPU seconds, what came of it, and the peak in MiB."""
    torch.set_num_threads(1)
    if kernels == "library":
        multiply_with_onednn()
    this = psutil.Process()
    with watch_memory(lambda: [this.pid]) as peak:
        seconds, made = way(work, options)
        time.sleep(0.3)  # until it is looked at once more
    return seconds, made, peak[0] >> 20


def compare(name: str, work: Work, options: argparse.Namespace) -> dict[str, Any]:
    """One peer beside the library, or why it was left out."""
    part, package, library, peer, agree = PEERS[name]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return {"part": part, "skipped": f"{package} is not installed: pip install {package}"}

    def alone(way: Way, kernels: str) -> tuple[float, Any, int]:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(measure, way, kernels, work, options).result()

    asked = len(work.asked if part == "generation" else work.questions)
    seconds, ours, mib = alone(library, "library")
    their_seconds, theirs, their_mib = alone(peer, "torch")
    same = {}
    if part != "bm25":
        same = {"ratio_same_kernels": round(alone(peer, "library")[0] / seconds, 2)}
    return {"part": part, "version": version, "questions": asked, "library_seconds": seconds / asked,
            "peer_seconds": their_seconds / asked, "ratio": round(their_seconds / seconds, 2), **same,
            "library_mib": mib, "peer_mib": their_mib, "agreement": agree(ours, theirs)}  # fmt: skip


def main(options: argparse.Namespace) -> dict[str, Any]:
    load, parts = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory() as place, Lucene(preset().knowledge) as lucene:
        work = prepare(options, lucene, Path(place) / "index")
    work = work._replace(asked=work.asked[: options.written])
    for name in options.peers:
        if options.student is None and PEERS[name].part == "generation":
            parts[name] = {"part": "generation", "skipped": "no student was named with --student"}
        else:
            parts[name] = compare(name, work, options)
        print(f"{name}: {parts[name]}", flush=True)
    return {
        "benchmark": "peers", "dataset": options.dataset, "provenance": provenance(), "cores": psutil.cpu_count(),
        "threads": 1, "load": [round(l, 1) for l in (load, os.getloadavg()[0])],
        "models": {"reranker": options.model, "student": options.student},
        "peers": parts,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="these alone")
    parser.add_argument("--written", type=int, default=200, help="questions that are answered")
    parser.set_defaults(batch=50, batches=1, steps=1)  # nothing is trained; the targets say how much is written
    options = parser.parse_args()
    fill_models(parser, options)
    tell(main(options), options.out)
