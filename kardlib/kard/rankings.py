"""What is trained to rank passages, and what a student reads at test: rerankers, dense retrievers, and yours.

    prepared -> reranker -> rankings -> passages read

Every stage takes by key what it needs and gives by key what it made, side by side where several are missing. A method
names its retriever; the built-in ones are registered at the end of this file, by the same call as yours.
"""

import functools
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kardlib.artifacts.device import describe_device, on_threads, pick_device
from kardlib.artifacts.disk import write_json
from kardlib.artifacts.engine import Job, K, make_all
from kardlib.artifacts.store import Kind, fingerprint, read_manifest
from kardlib.data.records import say
from kardlib.errors import KardError, suggest
from kardlib.kard.experiment import SILVER, Cell, Experiment
from kardlib.kard.methods import BUILT_IN, METHODS, READS
from kardlib.kard.prepare import (
    DEPTH,
    Prepared,
    bm25_knobs,
    find_candidates,
    find_silver,
    query_texts,
    read_run_once,
)
from kardlib.models.catalogue import ELSEWHERE, identify
from kardlib.retrieval.runs import Run
from kardlib.settings import RerankerSettings

HARD_NEGATIVES = 10  # of a question's first BM25 passages, those that no rationale finds: a dense retriever's negatives
TIMING = Kind("timing")
RERANKER = Kind("reranker", 1, "kardlib.kard.reranker:train_reranker", "reranker.batch or reranker.max_tokens")
ENCODER = Kind("encoder")
RERANKED = Kind("reranked", 1, "kardlib.models.encoders:rank_and_write", "reranker.max_tokens")
RETRIEVER = Kind("retriever", 1, "kardlib.kard.rag:train_retriever", "rag.contrastive_batch or rag.max_tokens")
DENSE = Kind("dense", 1, "kardlib.kard.rag:retrieve_and_write", "rag.max_tokens")
Variants = Mapping[K, tuple[Prepared, int]]  # by key a variant of the settings and a seed


# Rerankers


def train_rerankers(experiment: Experiment, asked: Variants[K]) -> dict[K, Path]:
    """By key the reranker of a variant and a seed. Raises DataError where no rationale found a passage."""
    jobs = {key: reranker_job(*one) for key, one in asked.items()}
    return make_all(experiment.store, RERANKER, jobs, experiment.settings.compute)


def reranker_job(prepared: Prepared, seed: int) -> Job:
    """What names a reranker, and what trains it; candidates are empty where it is trained already."""
    spec, questions = _reranker_spec(prepared)
    spec = spec | {"seed": seed}
    experiment = prepared.experiment
    candidates = [] if experiment.store.has(RERANKER, spec) else find_candidates(prepared)
    return spec, (experiment.settings.reranker, questions, prepared.runs.passages, candidates, seed)


@functools.lru_cache(maxsize=8)
def _reranker_spec(prepared: Prepared) -> tuple[dict[str, Any], dict[str, str]]:
    settings, runs = prepared.experiment.settings.reranker, prepared.runs
    questions = {q.id: q.prompt for q in prepared.experiment.data.splits["train"]}
    candidates = {  # what they are made of: hashing them takes seconds
        "rationales": fingerprint([*query_texts(prepared.experiment, prepared.rationales.need().kept).items()]),
        "index": runs.index.name,
        "bm25": bm25_knobs(prepared.experiment),
        "depths": [settings.rationale_candidates, settings.question_candidates, settings.questions],
    }
    spec = {"candidates": candidates, "passages": runs.passages_name, "questions": fingerprint(questions),
            "settings": reranker_knobs(settings)}  # fmt: skip
    return spec, questions


def reranker_knobs(settings: RerankerSettings) -> dict[str, Any]:
    """The settings that a reranker's weights depend on, besides its candidates and its seed."""
    unused = {"rationale_candidates", "question_candidates", "questions"}
    return settings.model_dump(exclude=unused) | {"model": identify(settings.model, settings.revision)}


def draw_encoder(experiment: Experiment, seed: int = 0) -> Path:
    """The folder of an encoder in the shape of `reranker.model` that has seen nothing: its weights are random."""
    settings = experiment.settings.reranker

    def build(folder: Path) -> None:
        import torch
        from transformers import AutoModel

        from kardlib.models.encoders import load_encoder

        encoder, tokenizer = load_encoder(settings.model, settings.revision, "reranker")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            AutoModel.from_config(encoder.config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return experiment.store.make(ENCODER, {"shape": identify(settings.model, settings.revision), "seed": seed}, build)


def rank(experiment: Experiment, split: str, asked: Mapping[K, tuple[Prepared, Path | str]]) -> dict[K, Run]:
    """By key the kappa* BM25 candidates of every question of a split, ordered by a reranker.

    It is named by its folder or, where it is not trained yet, as `reranker.model` is.
    """
    jobs = {key: _ranking_job(p, split, model) for key, (p, model) in asked.items()}
    folders = make_all(experiment.store, RERANKED, jobs)
    return {key: keep_candidates(asked[key][0], split, read_run_once(f / "run.tsv")) for key, f in folders.items()}


def _ranking_job(prepared: Prepared, split: str, model: Path | str) -> Job:
    from kardlib.models.encoders import LINEAR  # imported late: torch is slow

    spec, work = _texts_to_rank(prepared, split)
    settings = prepared.experiment.settings.reranker.model_copy(update={"model": str(model)})
    named = {"model": identify(settings.model, settings.revision), "max_tokens": settings.max_tokens}
    if not any(Path(model, name).is_file() for name in (LINEAR, ELSEWHERE)):  # untrained: its linear layer is drawn so
        named |= {"similarity": settings.similarity, "dim": settings.dim}
    return spec | named, (settings, *work)


@functools.lru_cache(maxsize=8)
def _texts_to_rank(prepared: Prepared, split: str) -> Job:
    """A passage's score depends on no other candidate, so all that BM25 found is ranked once, whatever kappa* is."""
    questions, runs = {q.id: q.prompt for q in prepared.experiment.data.splits[split]}, prepared.runs
    found = {i: runs.by_question[i] for i in questions}
    texts = {"run": fingerprint(found), "questions": fingerprint(questions), "passages": runs.passages_name}
    return texts, (questions, found, runs.passages)


def keep_candidates(prepared: Prepared, split: str, ranked: Run) -> Run:
    """Of a run the passages that are among the kappa* BM25 candidates of their question."""
    kappa, kept = prepared.experiment.settings.retrieval.candidates, {}
    for question in prepared.experiment.data.splits[split]:
        candidates = {p for p, _ in prepared.runs.by_question[question.id][:kappa]}
        kept[question.id] = [(p, score) for p, score in ranked[question.id] if p in candidates]
    return kept


def time_ranking(prepared: Prepared, reranker: Path, questions: int = 20, repeats: int = 5) -> list[float]:
    """Milliseconds that ranking the kappa* candidates takes a test question, so many at once, in each of the repeats.

    On a CPU it is CPU time of one thread, which other work on the machine changes little.
    """
    experiment = prepared.experiment
    first = {q.id: q.prompt for q in experiment.data.splits["test"][:questions]}
    run = {i: prepared.runs.by_question[i][: experiment.settings.retrieval.candidates] for i in first}
    settings = experiment.settings.reranker.model_copy(update={"model": str(reranker)})
    model = identify(settings.model, settings.revision)
    spec = {"model": model, "run": fingerprint(run), "repeats": repeats, "threads": 1}

    def build(folder: Path) -> None:
        from kardlib.models import encoders

        loaded, milliseconds = encoders.load_reranker(settings), []
        clock = time.perf_counter if pick_device().type == "cuda" else time.process_time
        with on_threads(1):
            for _ in range(1 + repeats):
                began = clock()
                encoders.rank(loaded, first, run, prepared.runs.passages)
                milliseconds.append(1000 * (clock() - began) / len(first))
        write_json(folder / "milliseconds.json", milliseconds[1:])  # the first one warmed up

    folder, here = experiment.store.make(TIMING, spec, build), describe_device()
    if (there := read_manifest(folder)["provenance"]["device"]) != here:
        say(f"ranking was timed on {there}, and this is {here}: the milliseconds are that machine's")
    return list(json.loads((folder / "milliseconds.json").read_text()))


# Dense retrievers


def train_retrievers(experiment: Experiment, asked: Variants[K]) -> dict[K, Path]:
    """By key the dual encoder that RAG's warm variant starts from, trained on what the rationales retrieve."""
    return make_all(experiment.store, RETRIEVER, {key: _retriever_job(*one) for key, one in asked.items()})


def _retriever_job(prepared: Prepared, seed: int) -> Job:
    settings, runs = prepared.experiment.settings.rag, prepared.runs
    positives: dict[str, dict[str, None]] = {}
    for r in prepared.rationales.need().kept:
        positives.setdefault(r.question_id, {}).update(dict.fromkeys(p for p, _ in runs.by_rationale[r.id][:SILVER]))
    found = {q: list(p) for q, p in list(positives.items())[: settings.contrastive_questions]}
    negatives = {q: [p for p, _ in runs.by_question[q][:HARD_NEGATIVES]] for q in found}
    by_id = {q.id: q for q in prepared.experiment.data.splits["train"]}
    questions = {q: by_id[q].prompt for q in found}
    joint = {"lr", "epochs", "batch", "questions", "passages", "refresh", "contrastive_questions"}
    spec = {
        "texts": fingerprint([questions, found, negatives]),
        "passages": runs.passages_name,
        "seed": seed,
        "settings": settings.model_dump(exclude=joint) | {"model": identify(settings.model, settings.revision)},
    }
    return spec, (settings, questions, runs.passages, found, negatives, seed)


def identify_retriever(model: str | Path) -> str:
    """As `identify`, for a dual encoder's folder or the encoder that it starts from."""
    if (Path(model) / "question").is_dir():
        return fingerprint([identify(str(Path(model) / side)) for side in ("question", "passage")])
    return identify(str(model))


def search_dense(
    experiment: Experiment, split: str, asked: Mapping[K, tuple[Prepared, Path | str]]
) -> dict[K, tuple[Run, dict[str, float]]]:
    """By key the run table of a retriever (its folder, or an encoder's name) and its loss per question.

    The loss is that of questions whose silver passages are known.
    """
    folders = make_all(experiment.store, DENSE, {key: _dense_job(p, split, model) for key, (p, model) in asked.items()})
    return {k: (read_run_once(f / "run.tsv"), json.loads((f / "losses.json").read_text())) for k, f in folders.items()}


def _dense_job(prepared: Prepared, split: str, model: Path | str) -> Job:
    experiment = prepared.experiment
    questions = {q.id: q.prompt for q in experiment.data.splits[split]}
    known = split in prepared.rationales.written
    silver = {q: sorted(p) for q, p in find_silver(prepared, split).items()} if known else {}
    depth = max(DEPTH, experiment.settings.retrieval.k)
    settings = experiment.settings.rag.model_copy(update={"model": str(model)})
    knobs = settings.model_dump(include={"revision", "pooling", "tau", "max_tokens"})
    spec = {"settings": knobs | {"model": identify_retriever(model)}, "passages": prepared.runs.pool_name,
            "questions": fingerprint([questions, silver]), "depth": depth}  # fmt: skip
    return spec, (settings, questions, prepared.runs.pool, depth, silver)


# What is read at test: a method names one of these retrievers


class Reading(NamedTuple):
    """Cells that read with one retriever on a split: their variants of the settings, and the students that read."""

    experiment: Experiment
    split: str
    cells: Mapping[Cell, Prepared]
    students: Mapping[Cell, Path]  # without those that were not trained


Retrieve = Callable[[Reading], Mapping[Cell, Run]]


class Retriever(NamedTuple):
    """What finds passages for cells, and whether the seed makes a difference to it."""

    retrieve: Retrieve
    seeded: bool


RETRIEVERS: dict[str, Retriever] = {}


def register_retriever(name: str, retrieve: Retrieve, seeded: bool = True) -> None:
    """Let methods read by `name` what `retrieve(reading)` finds, which gives a run by cell.

    `from_texts` makes one of a plain function. One of yours is replaced by the same name, so that a cell can be run
    again. Raises KardError for the name of a built-in one.
    """
    if name in ("", "rationale") or name in BUILT_IN & RETRIEVERS.keys():
        raise KardError(f"there is a retriever {name!r} already: choose another name")
    RETRIEVERS[name] = Retriever(retrieve, seeded)
    READS.add(name)


def register_reranker(name: str, rank_all: Callable[..., Mapping[Any, Run]], seeded: bool = True) -> None:
    """Let methods read by `name` the kappa* BM25 candidates in the order of `rank_all(experiment, split, variants)`.

    It gives a run for every one of the `Variants`; `from_candidates` makes one of a plain function.
    """

    def retrieve(reading: Reading) -> dict[Cell, Run]:
        variants = {(cell.knobs, cell.seed): (p, cell.seed) for cell, p in reading.cells.items()}
        ranked = rank_all(reading.experiment, reading.split, variants)
        return {c: keep_candidates(p, reading.split, ranked[c.knobs, c.seed]) for c, p in reading.cells.items()}

    register_retriever(name, retrieve, seeded)


def from_texts(find: Callable[[Mapping[str, str], Mapping[str, str], int], Run]) -> Retrieve:
    """A retriever of `find(questions, passages, depth)`, texts by id; it is asked once, whatever student and seed."""

    def retrieve(reading: Reading) -> dict[Cell, Run]:
        runs: dict[tuple[str, str, int], Run] = {}
        found = {}
        for cell, p in reading.cells.items():
            questions = {q.id: q.prompt for q in p.experiment.data.splits[reading.split]}
            depth = max(DEPTH, p.experiment.settings.retrieval.k)
            texts = fingerprint(questions), p.runs.pool_name, depth
            if texts not in runs:
                runs[texts] = find(questions, p.runs.pool, depth)
            found[cell] = runs[texts]
        return found

    return retrieve


def from_candidates(order: Callable[[Mapping[str, str], Run, Mapping[str, str]], Run]) -> Callable[..., dict[Any, Run]]:
    """A reranker of `order(questions, candidates, passages)`: BM25's run in another order, with other scores.

    It is asked once, whatever student and seed.
    """

    def rank_all(experiment: Experiment, split: str, variants: Variants[K]) -> dict[K, Run]:
        asked = {key: _texts_to_rank(p, split) for key, (p, _) in variants.items()}
        names = {key: fingerprint(spec) for key, (spec, _) in asked.items()}
        runs = {}
        for name, key in {name: key for key, name in names.items()}.items():
            questions, found, passages = asked[key][1]
            runs[name] = order(questions, {i: list(run) for i, run in found.items()}, passages)  # `order` may sort them
        return {key: runs[name] for key, name in names.items()}

    return rank_all


def find_retriever(name: str) -> Retriever:
    """The retriever that a method names. Raises KardError where none is registered by that name."""
    if name not in RETRIEVERS:
        raise KardError(
            f"there is no retriever {name!r}{suggest(name, RETRIEVERS)}: call register_retriever first, or name one of "
            f"{[*RETRIEVERS]}"
        )
    return RETRIEVERS[name]


def read_passages(reading: Reading) -> dict[Cell, dict[str, list[str]]]:
    """By cell, question id -> ids of the `k` passages that its student reads; nothing where its method reads none."""
    ids = {cell: [q.id for q in p.experiment.data.splits[reading.split]] for cell, p in reading.cells.items()}
    sources = {cell: METHODS[cell.method].reads_at_test for cell in reading.cells}
    read: dict[Cell, dict[str, list[str]]] = {cell: {i: [] for i in ids[cell]} for cell in reading.cells}
    for name in dict.fromkeys(source for source in sources.values() if source not in ("", "rationale")):
        cells = {cell: p for cell, p in reading.cells.items() if sources[cell] == name}
        for cell, run in find_retriever(name).retrieve(reading._replace(cells=cells)).items():
            k = cells[cell].experiment.settings.retrieval.k
            read[cell] = {i: [p for p, _ in run[i][:k]] for i in ids[cell]}
    return read


def by_question(reading: Reading) -> dict[Cell, Run]:
    """`topk(rho(d | x))`."""
    return {cell: p.runs.by_question for cell, p in reading.cells.items()}


def by_rationale(reading: Reading) -> dict[Cell, Run]:
    """`topk(rho(d | r))` of every question's first rationale: the oracle that the paper calls silver knowledge."""
    found = {}
    for cell, p in reading.cells.items():
        asked = p.experiment.data.splits[reading.split]
        found[cell] = {q.id: p.runs.by_rationale.get(f"{q.id}/0", []) for q in asked}
    return found


def by_gold(reading: Reading) -> dict[Cell, Run]:
    """A question's gold passages before those of BM25, so that as many are read as by others: an oracle."""
    found = {}
    for cell, p in reading.cells.items():
        run: Run = {}
        for q in p.experiment.data.splits[reading.split]:
            first = sorted(p.experiment.data.gold.get(q.id, ()))
            others = [(i, score) for i, score in p.runs.by_question[q.id] if i not in first]
            run[q.id] = [(i, math.inf) for i in first] + others
        found[cell] = run
    return found


def by_untrained(experiment: Experiment, split: str, variants: Variants[K]) -> dict[K, Run]:
    """The order of the encoder that rerankers start from."""
    return rank(experiment, split, {key: (p, p.experiment.settings.reranker.model) for key, (p, _) in variants.items()})


def by_trained(train: Callable[[Experiment, Variants[Any]], dict[Any, Path]]) -> Callable[..., dict[Any, Run]]:
    """`topk(f_phi(d, x))` of rerankers that `train(experiment, variants)` trains first."""

    def rank_all(experiment: Experiment, split: str, variants: Variants[K]) -> dict[K, Run]:
        trained = train(experiment, variants)
        return rank(experiment, split, {key: (p, trained[key]) for key, (p, _) in variants.items()})

    return rank_all


def by_dual_encoder(reading: Reading, folders: Mapping[Cell, Path]) -> dict[Cell, Run]:
    """`topk(q(x) . d)` of the dual encoder in each cell's folder."""
    retrievers = {cell: (p, folders[cell]) for cell, p in reading.cells.items()}
    return {cell: run for cell, (run, _) in search_dense(reading.experiment, reading.split, retrievers).items()}


def by_rag(reading: Reading) -> dict[Cell, Run]:
    """By the dual encoder that a cell's student was trained with."""
    return by_dual_encoder(reading, {cell: reading.students[cell].parent for cell in reading.cells})


def by_warm_start(reading: Reading) -> dict[Cell, Run]:
    """By the dual encoder that RAG's warm variant starts from."""
    starts = {cell: (p, cell.seed) for cell, p in reading.cells.items()}
    return by_dual_encoder(reading, train_retrievers(reading.experiment, starts))


register_retriever("bm25_question", by_question, seeded=False)
register_retriever("bm25_rationale", by_rationale, seeded=False)
register_retriever("gold", by_gold, seeded=False)
register_reranker("untrained", by_untrained, seeded=False)
register_reranker("reranker", by_trained(train_rerankers))
register_retriever("rag", by_rag)
register_retriever("rag_warm", by_rag)
register_retriever("dense", by_warm_start)
