"""BM25: pyserini's loop of queries beside the library's, what each spends its time on, and bm25s on growing corpora.

    python benchmarks/bm25.py --data-dir DIR [--passages 10000 30000 100000] [--out benchmarks/results/bm25.json]

Three ways ask for the first 100 passages of every test question and read ids and scores: pyserini's `search`, one
question after the other, as the released code does; the library's `search`, asked for one question at a time, and for
all. Rankings must be the same first. Then each way and each of its steps is done so many times by turns, all in
one process that holds Java as pyserini does, but for the library's own Lucene process. Java compiles what it runs
often: the first passes say so and are left out, of the others the one that took least CPU time counts. `lucene` is
what all ways share: queries analysed and searched for, and nothing read.

bm25s, if it is there with PyStemmer, gets the same questions: with tokens of its own, and with Lucene's, so that what
is left are scores and ties. On generated passages (`index_million.py`) both make their index from texts and search:
CPU seconds, and MiB of memory above the start, at the peak of building and after a search. The last line is JSON.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
from growth import ask_words, forget_peak, read_memory
from index_million import generate
from line import tell
from official import AIM, AIMS, CANDIDATES, check, cpu_seconds
from peers import index_by_peer, tokenize

from kardlib.artifacts.provenance import provenance
from kardlib.data.files import Passage, read_kard
from kardlib.data.world import build_world
from kardlib.presets import preset
from kardlib.retrieval.lucene import Lucene, _Anserini, _java_class, find_java
from kardlib.retrieval.runs import Run

ASKED = 400  # questions on generated passages
ROUNDED = 2e-4  # by which pyserini's scores differ: it rounds them and sets ties apart
KNOBS = preset().knowledge


def read_data(dataset: str, data_dir: str | None) -> tuple[list[Passage], dict[str, str]]:
    """Passages, and the test questions by id."""
    data = build_world(preset().world).dataset() if dataset == "world" else read_kard(str(data_dir), dataset)
    return list(data.passages), {q.id: q.prompt for q in data.splits["test"]}


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


# The steps of a search


def measure_ways(dataset: str, options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of a question by way and step. This process holds Java from here on, and must fork no other."""
    passages, test = read_data(dataset, options.data_dir)
    questions = dict(list(test.items())[: options.questions])
    with tempfile.TemporaryDirectory() as index, Lucene(KNOBS) as lucene:
        lucene.build(index, passages)
        anserini = start_java()
        steps, pyserini = list_steps(anserini, index, [*questions.values()])
        batches, loop = lucene.search(index, questions, CANDIDATES), ask_in_loop(lucene, index, questions)
        check(loop == batches and all(map(same_hits, pyserini(), batches.values())), "ranking by BM25")
        steps |= {
            "pyserini": pyserini,
            "loop": lambda: ask_in_loop(lucene, index, questions),
            "batches": lambda: lucene.search(index, questions, CANDIDATES),
        }
        spent: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(options.passes):
            for name, step in steps.items():
                began = cpu_seconds()
                step()
                spent[name].append((cpu_seconds() - began) / len(questions))
            print(dataset, turn, {name: f"{1000 * s[-1]:.2f} ms" for name, s in spent.items()}, flush=True)
        tokens = [[read_tokens(anserini, text) for text in texts]
                  for texts in ([p.text for p in passages], test.values())]  # fmt: skip
        every = lucene.search(index, test, CANDIDATES)
    least = {name: min(seconds[options.passes // 2 :]) for name, seconds in spent.items()}
    return {
        "questions": len(questions), "passages": len(passages), "aim": AIM["bm25"], "seconds": least,
        "first_seconds": spent["batches"][0], "lucene": least["analysis"] + least["search"],
        "ratio": round(least["pyserini"] / least["batches"], 2),
        "bm25s": apart(compare_peer, passages, test, every, tokens),
    }  # fmt: skip


def start_java() -> _Anserini:
    """Java in this process, so that pyserini finds it running: its own start needs a module that not every Java has."""
    os.environ["JAVA_HOME"] = str(find_java()[0])
    os.environ.setdefault("OPENAI_API_KEY", "none")  # pyserini's import makes a client
    anserini = _Anserini()
    anserini.start(**KNOBS.model_dump(exclude={"index"}))
    return anserini


def list_steps(
    anserini: _Anserini, index: str, texts: Sequence[str]
) -> tuple[dict[str, Callable[[], Any]], Callable[[], list[list[tuple[str, float]]]]]:
    """What a way does first, and what it does with one step more; and pyserini's way."""
    from pyserini.search.lucene import LuceneSearcher

    peer = LuceneSearcher(index)
    peer.set_bm25(KNOBS.k1, KNOBS.b)
    asked, names = _java_class("java.util.ArrayList")(), _java_class("java.util.ArrayList")()
    for i, text in enumerate(texts):
        asked.add(text)
        names.add(str(i))
    searcher, order = anserini._searcher(index)
    queries, k = [anserini._query(text) for text in texts], min(CANDIDATES, searcher.getIndexReader().maxDoc())
    steps: dict[str, Callable[[], Any]] = {
        "analysis": lambda: [anserini._query(text) for text in texts],
        "search": lambda: [searcher.search(query, k, order, False) for query in queries],
        "json": lambda: [anserini.to_json(searcher.search(query, k, order, False)) for query in queries],
        "process": lambda: anserini.search(index, texts, CANDIDATES),
        "pyserini_java": lambda: peer.object.batch_search(asked, names, k, 1),
    }
    return steps, lambda: [[(hit.docid, hit.score) for hit in peer.search(text, k)] for text in texts]


def ask_in_loop(lucene: Lucene, index: str, questions: Mapping[str, str]) -> Run:
    return {q: lucene.search(index, {q: text}, CANDIDATES)[q] for q, text in questions.items()}


def same_hits(theirs: Sequence[tuple[str, float]], ours: Sequence[tuple[str, float]]) -> bool:
    return len(theirs) == len(ours) and all(
        a == b and abs(s - t) < ROUNDED for (a, s), (b, t) in zip(theirs, ours, strict=True)
    )


def read_tokens(anserini: _Anserini, text: str) -> list[str]:
    analyze = _java_class("io.anserini.analysis.AnalyzerUtils").analyze
    return list(json.loads(anserini.to_json(analyze(anserini.analyzer, text))))


# bm25s


def has_peer() -> bool:
    try:
        return bool(importlib.metadata.version("bm25s") and importlib.metadata.version("PyStemmer"))
    except importlib.metadata.PackageNotFoundError:
        return False


def compare_peer(
    given: Sequence[Passage], questions: Mapping[str, str], ours: Run, lucene: Sequence[Any]
) -> dict[str, Any]:
    """Shares of the questions whose first passage, first ten and first hundred are others than Lucene's, as sets."""
    if not has_peer():
        return {}
    compared: dict[str, Any] = {"questions": len(questions)}
    names, own = (
        [p.id for p in given],
        [tokenize(texts, return_ids=False) for texts in ((p.text for p in given), questions.values())],
    )
    for whose, (passages, asked) in {"own_tokens": own, "lucene_tokens": lucene}.items():
        found, scores = index_by_peer(passages).retrieve(asked, k=min(CANDIDATES, len(names)), show_progress=False)
        theirs = [
            sorted(((names[i], s) for i, s in zip(f, at, strict=True) if s > 0), key=lambda hit: (-hit[1], hit[0]))
            for f, at in zip(found, scores.tolist(), strict=True)
        ]  # equal scores by id, as Lucene has them
        pairs = list(zip(theirs, ours.values(), strict=True))
        compared[whose] = {
            f"other_first_{k}": round(fmean({p for p, _ in a[:k]} != {p for p, _ in b[:k]} for a, b in pairs), 3)
            for k in (1, 10, CANDIDATES)
        }
    return compared


def grow_library(count: int) -> dict[str, float]:
    questions, start = ask_words(ASKED), read_memory("VmRSS")
    with tempfile.TemporaryDirectory() as index, Lucene(KNOBS) as lucene:
        return grow(lambda: lucene.build(index, generate(count)),
                    lambda _: lucene.search(index, questions, CANDIDATES), start, count)  # fmt: skip


def grow_peer(count: int) -> dict[str, float]:
    tokenize([""])  # imports are not counted
    questions, start = ask_words(ASKED), read_memory("VmRSS")

    def build() -> Any:
        return index_by_peer(tokenize(passage.text for passage in generate(count)))

    def search(index: Any) -> Any:
        tokens = tokenize(questions.values(), return_ids=False)
        return index.retrieve(tokens, k=CANDIDATES, show_progress=False)

    return grow(build, search, start, count)


def grow(build: Callable[[], Any], search: Callable[[Any], Any], start: int, count: int) -> dict[str, float]:
    """CPU seconds of both, less those of generating the texts; the second search counts, and its memory."""
    began = time.process_time()
    for _ in generate(count):
        pass
    generating = time.process_time() - began
    forget_peak()
    began = cpu_seconds()
    index = build()
    building, peak = cpu_seconds() - began - generating, read_memory("VmHWM")
    gc.collect()
    search(index)
    began = cpu_seconds()
    search(index)
    searching = (cpu_seconds() - began) / ASKED
    return {"index_seconds": round(building, 2), "index_mib": (peak - start) >> 20,
            "search_seconds": round(searching, 6), "search_mib": (read_memory("VmRSS") - start) >> 20}  # fmt: skip


def main(options: argparse.Namespace) -> dict[str, Any]:
    load, sizes = os.getloadavg()[0], []
    ways = {dataset: apart(measure_ways, dataset, options) for dataset in options.datasets}
    for count in options.passages:
        sizes.append({"passages": count, "library": apart(grow_library, count)})
        if has_peer():
            sizes[-1]["bm25s"] = apart(grow_peer, count)
        print(sizes[-1], flush=True)
    return {
        "benchmark": "bm25", "provenance": provenance(), "cores": psutil.cpu_count(), "threads": KNOBS.threads,
        "load": [round(l, 1) for l in (load, os.getloadavg()[0])],
        "bm25s": importlib.metadata.version("bm25s") if has_peer() else None, "ways": ways, "sizes": sizes,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=AIMS, help="without it all that --data-dir allows")
    parser.add_argument("--data-dir", help="folder with kard/ and kb/, for obqa and strategyqa")
    parser.add_argument("--questions", type=int, help="of a test set whose search is timed; without it all")
    parser.add_argument("--passes", type=int, default=8, help="of which the first half is left out")
    parser.add_argument("--passages", type=int, nargs="*", default=[10_000, 30_000, 100_000], help="generated")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    options.datasets = options.datasets or (list(AIMS) if options.data_dir else ["world"])
    if set(options.datasets) - {"world"} and not options.data_dir:
        parser.error("say with --data-dir where real questions are")
    tell(main(options), options.out)
