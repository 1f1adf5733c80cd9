"""From settings to predictions: every stage of KARD as one artifact, made once and shared by all who ask for it.

    questions, passages -> index -> rationales -> runs -> reranker -> student -> predictions

A stage's artifact is named by the hash of what goes into it (texts and settings), so two methods, notebooks or grids
that need the same student find the same folder. Students and predictions are made in worker processes, one core each.
"""

import functools
import gc
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kardlib.artifacts.device import pick_device
from kardlib.artifacts.engine import Job, K, make_all
from kardlib.artifacts.store import Kind, Store, fingerprint, hash_file, write_json
from kardlib.data.answers import last_letter, majority_vote, parse_answer
from kardlib.data.files import (
    DataError,
    Dataset,
    PassageFile,
    Question,
    read_kard,
    read_own,
    read_own_rationales,
    read_passages,
    read_recorded_rationales,
    write_own,
    write_passages,
)
from kardlib.data.hub import HUB, read_hub
from kardlib.data.prompts import SHOTS, few_shot_text, source_text, target_text
from kardlib.data.world import World, build_world, judge_statements
from kardlib.kard.llm import server_teacher
from kardlib.kard.methods import DENSE as DENSE_READS
from kardlib.kard.methods import METHODS, Method, Reads, main_rows
from kardlib.kard.teacher import FilterYield, Rationale, Teacher, keep_correct, recorded_teacher, symbolic_teacher
from kardlib.models.catalogue import identify
from kardlib.retrieval.lucene import Lucene
from kardlib.retrieval.prebuilt import find_index, identify_index
from kardlib.retrieval.runs import Candidates, Run, read_run, write_run
from kardlib.settings import (
    RerankerSettings,
    RunSettings,
    StudentSettings,
    TeacherSettings,
    WorldSettings,
    preset,
)

DEPTH = 100  # passages kept of every question's search, more where kappa* is larger
HARD = 10  # of a question's first BM25 passages, those that no rationale finds are a dense retriever's hard negatives
NEIGHBOUR = 500  # what a neighbouring world's seed is away
SILVER = 3  # silver passages: the union of the top 3 of each of a question's first 3 rationales


EXAMPLES = {  # of your own data, by scale; of a seed that no other notebook uses
    "smoke": WorldSettings(seed=2, ailments=16, values=8, cases=40, notes=20, train=96, dev=24, test=24),
    "embedded": WorldSettings(seed=2, ailments=30, values=30, cases=150, notes=800, train=600, dev=50, test=200),
}

INDEX, TEXTS, RUN, SCORES, TIMING = map(Kind, ("index", "texts", "run", "scores", "timing"))
RERANKER = Kind("reranker", 1, "kardlib.kard.reranker:train_reranker", "reranker.batch or reranker.max_tokens")
RERANKED = Kind("reranked", 1, "kardlib.models.encoders:rank_and_write", "reranker.max_tokens")
RETRIEVER = Kind("retriever", 1, "kardlib.kard.rag:train_retriever", "rag.contrastive_batch or rag.max_tokens")
RAG = Kind("rag", 1, "kardlib.kard.rag:train_rag", "rag.batch or rag.passages")
DENSE = Kind("dense", 1, "kardlib.kard.rag:retrieve_and_write", "rag.max_tokens")
ADAPTED = Kind("adapted", 1, "kardlib.kard.student:adapt_student", "student.batch")
STUDENT = Kind("student", 1, "kardlib.kard.student:train_student", "student.batch")
PREDICTIONS = Kind("predictions", 1, "kardlib.kard.student:write_predictions", "student.generation_batch")
TOGETHER = (RERANKER, ADAPTED, STUDENT)  # which several processes can train together (`compute`)

Knobs = tuple[tuple[str, Any], ...]  # settings by their dotted names: (("student.share", 0.25),)


@dataclass(frozen=True)
class Cell:
    """One cell of a grid: a method with a student and a seed, and what differs from the experiment's settings."""

    method: str
    student: str
    seed: int
    knobs: Knobs = ()


@dataclass(frozen=True)
class Predictions:
    """What a student wrote for every question of a split, in the split's order."""

    questions: list[Question]
    passages: list[list[str]]  # ids of the passages that it read
    texts: list[list[str]]  # its samples; one if greedy
    answers: list[int | None]  # parsed, by majority vote; None where no sample concludes an option

    @property
    def correct(self) -> list[bool]:
        return [answer == question.answer for answer, question in zip(self.answers, self.questions, strict=True)]


class Experiment:
    """All stages for one dataset under one set of settings; attributes are made on first use and kept in the store."""

    def __init__(self, settings: RunSettings, store: Store | None = None):
        self.settings, self.store = settings, store or Store()
        self._variants: dict[Knobs, Experiment] = {(): self}
        # What every cell of a grid asks for again
        self.reranked = functools.cache(self._reranked)
        self._ranking_work = functools.cache(self._texts_to_rank)
        self.training_examples = functools.cache(self._training_examples)

    def at(self, knobs: Knobs) -> "Experiment":
        """The same experiment with single settings changed. Raises SettingsError."""
        if knobs not in self._variants:
            self._variants[knobs] = Experiment(self.settings.override(dict(knobs)), self.store)
        return self._variants[knobs]

    @property
    def student(self) -> str:
        """The middle one of the students: ablations that need only one take it."""
        return self.settings.students[len(self.settings.students) // 2]

    @property
    def suffix(self) -> str:
        """What figures of a real dataset add to their name."""
        return "" if self.settings.dataset == "world" else f"_{self.settings.dataset}"

    @property
    def silver_split(self) -> str:
        """Where silver passages are known without having been trained on."""
        return "test" if self.world else "silver"

    @property
    def methods(self) -> dict[str, Method]:
        """The rows of Tables 1 and 2 that can be run; no release has the oracles' rationales of test questions."""
        return main_rows(oracles=self.world is not None, rationales=self.teacher is not None)

    def chance_row(self, figure: str) -> dict[str, Any]:
        """The row of a figure's data that says how often guessing is right on the test questions."""
        questions = self.data.splits["test"]
        value = sum(1 / len(q.options) for q in questions) / len(questions)
        where = {"figure": figure, "dataset": self.settings.dataset, "scale": self.settings.scale, "split": "test"}
        return where | {"method": "chance", "metric": "accuracy", "value": value, "n": len(questions)}

    # Data

    @cached_property
    def world(self) -> World | None:
        """The closed world; None for a real dataset, whose truth nobody knows."""
        return _build_world(self.settings.world) if self.settings.dataset == "world" else None

    @cached_property
    def data(self) -> Dataset:
        """The dataset. Of a real one the last 5 % of the training questions are set aside as the split "silver"."""
        if self.world:
            return self.world.dataset()
        data = self._opened
        train = data.splits["train"]
        cut = int(len(train) * 0.95)
        return Dataset(data.name, data.splits | {"train": train[:cut], "silver": train[cut:]}, data.passages, data.gold)

    @cached_property
    def _opened(self) -> Dataset:
        if self.settings.dataset == "own":
            return read_own(self._data_dir)
        if self.settings.data_dir is None and self.settings.dataset in HUB:
            return read_hub(self.settings.dataset)
        return read_kard(self._data_dir, self.settings.dataset)

    @property
    def _data_dir(self) -> Path:
        if not self.settings.data_dir:
            files = "questions.jsonl and passages.jsonl" if self.settings.dataset == "own" else "kard/ and kb/"
            raise DataError(
                f"dataset {self.settings.dataset!r} is read from files: set data_dir to the folder that holds {files}"
            )
        return Path(self.settings.data_dir)

    @cached_property
    def passages(self) -> dict[str, str]:
        """Texts by id: of all passages or, where these stay on disk, of those in the run tables and the gold ones."""
        if not self.settings.knowledge.index and not isinstance(self.data.passages, PassageFile):
            return {p.id: p.text for p in self.data.passages}
        found = {p for run in self._runs for ranked in run.values() for p, _ in ranked}
        needed = sorted(found.union(*self.data.gold.values()))

        def build(folder: Path) -> None:
            with Lucene(self.settings.knowledge) as lucene:
                write_passages(folder / "passages.jsonl", lucene.texts(self.index, needed))

        spec = {"index": self._index_name, "passages": fingerprint(needed)}
        return {p.id: p.text for p in read_passages(self.store.make(TEXTS, spec, build) / "passages.jsonl")}

    @cached_property
    def _passages_hash(self) -> str:  # asked for with every ranking
        if self.settings.knowledge.index:
            return identify_index(self.settings.knowledge.index)
        passages = self.data.passages
        return hash_file(passages.path) if isinstance(passages, PassageFile) else fingerprint(self.passages)

    # Rationales

    @cached_property
    def teacher(self) -> Teacher | None:
        """A server if one is set, else who wrote the dataset's rationales; None where there are none."""
        if self.settings.teacher.base_url:
            return server_teacher(self.settings.teacher, self.store.root)
        if self.world:
            return symbolic_teacher(self.world, self.settings.teacher.flawed, self.settings.teacher.seed)
        if self.settings.dataset == "own":
            own = self._data_dir / "rationales.jsonl"
            known = {q.id for questions in self._opened.splits.values() for q in questions}
            return recorded_teacher(read_own_rationales(own, known), few=True) if own.exists() else None
        if self.settings.data_dir is None:
            return None
        file = self._data_dir / "kard" / self.settings.dataset / "rationales_train.jsonl.gz"
        questions = self._opened.splits["train"]
        recorded = read_recorded_rationales(file)
        return recorded_teacher({q.id: recorded.get(i, []) for i, q in enumerate(questions)})

    @cached_property
    def written(self) -> dict[str, list[Rationale]]:
        """All rationales by split: `l` for training questions, `SILVER` where they only serve as queries.

        Raises DataError where there is no teacher.
        """
        if not self.teacher:
            raise DataError(
                "nobody has written rationales for these questions: put rationales.jsonl beside your own, set "
                "data_dir to KARD's release or teacher.base_url to a server; without them only answers can be learnt"
            )
        counts = {"train": max(self.settings.teacher.rationales, SILVER)}
        counts |= dict.fromkeys(("dev", "test") if self.world else ("silver",), SILVER)
        return {split: self.teacher(self.data.splits[split], l) for split, l in counts.items()}

    @cached_property
    def filtered(self) -> tuple[list[Rationale], FilterYield]:
        """The rationales `r_ij`, `j < l`, that the student and the reranker learn from, and the filter's yield."""
        used = [r for r in self.written["train"] if r.number < self.settings.teacher.rationales]
        picked = self._verify(used, self.settings.teacher.verifier) if self.settings.teacher.verifier else None
        kept, counts = keep_correct(used, self.data.splits["train"], picked)
        return (kept if self.settings.teacher.correct_only else used), counts

    def _verify(self, rationales: Sequence[Rationale], verifier: str) -> list[int | None]:
        """The option that the LM `verifier` concludes when it reads each question with the rationale for a passage."""
        by_id = {q.id: q for q in self.data.splits["train"]}
        sources = [source_text(by_id[r.question_id], [r.text]) for r in rationales]
        settings = self.settings.student.model_copy(update={"model": verifier, "revision": None, "samples": 1})
        job = self._predictions_job(sources, settings, seed=0)
        texts = json.loads((self._make_all(PREDICTIONS, {"": job})[""] / "texts.json").read_text())
        return [parse_answer(text, by_id[r.question_id].options) for r, (text,) in zip(rationales, texts, strict=True)]

    @property
    def _learnt(self) -> list[Rationale]:
        """What training and few-shot examples are made from; without a teacher an empty rationale for each question."""
        return self.filtered[0] if self.teacher else [Rationale(q.id, 0, "", None) for q in self.data.splits["train"]]

    # Retrieval: every search is done once, in the knowledge base's own process, and kept as run tables

    @cached_property
    def index(self) -> Path:
        if self.settings.knowledge.index:
            return find_index(self.settings.knowledge.index)
        if not self.data.passages:
            raise DataError(
                f"dataset {self.settings.dataset!r} comes without passages: put passages.jsonl beside your own "
                'questions, or set knowledge.index to an index, e.g. "enwiki-paragraphs"'
            )

        def build(folder: Path) -> None:
            with Lucene(self.settings.knowledge) as lucene:
                lucene.build(folder / "lucene", self.data.passages)

        return self.store.make(INDEX, {"passages": self._passages_hash}, build) / "lucene"

    @property
    def _index_name(self) -> str:
        return self._passages_hash if self.settings.knowledge.index else self.index.parent.name

    @property
    def _bm25(self) -> dict[str, Any]:
        """What a search's result depends on besides its query and its index."""
        return self.settings.knowledge.model_dump(exclude={"threads", "index"})

    @property
    def _runs(self) -> list[Run]:
        return [self.by_question, self.by_rationale] if self.teacher else [self.by_question]

    def _run(self, kind: Kind, queries: Mapping[str, str], search: Callable[[Lucene], Run], **asked: Any) -> Run:
        """One run table: made by `search` in the knowledge base's process where the store has none."""
        spec = {"queries": fingerprint(queries), "index": self._index_name, "bm25": self._bm25} | asked

        def build(folder: Path) -> None:
            with Lucene(self.settings.knowledge) as lucene:
                write_run(folder / "run.tsv", search(lucene))

        return _read_run(self.store.make(kind, spec, build) / "run.tsv")

    def _search(self, queries: Mapping[str, str], depth: int) -> Run:
        return self._run(RUN, queries, lambda lucene: lucene.search(self.index, queries, depth), depth=depth)

    @cached_property
    def by_question(self) -> Run:
        """`topk(rho(d | x))` for every question of every split."""
        questions = {q.id: q.prompt for qs in self.data.splits.values() for q in qs}
        return self._search(questions, max(DEPTH, self.settings.retrieval.candidates))

    @cached_property
    def by_rationale(self) -> Run:
        """`topk(rho(d | r))` for every rationale; the first `SILVER` of a question are searched whatever `l` is."""
        retrieval = self.settings.retrieval
        depth = max(self.settings.reranker.rationale_candidates, retrieval.k, retrieval.k_training, SILVER)
        rationales = [r for rs in self.written.values() for r in rs]
        first = self._search({r.id: _query(r) for r in rationales if r.number < SILVER}, depth)
        more = {r.id: _query(r) for r in rationales if r.number >= SILVER}
        return first | (self._search(more, depth) if more else {})

    def silver(self, split: str) -> dict[str, set[str]]:
        """Question id -> its silver passages: what the first rationales find, and a question alone should find."""
        silver: dict[str, set[str]] = {q.id: set() for q in self.data.splits[split]}
        for rationale in self.written[split]:
            if rationale.number < SILVER:
                silver[rationale.question_id] |= {p for p, _ in self.by_rationale[rationale.id][:3]}
        return silver

    # Reranker

    @cached_property
    def candidates(self) -> list[Candidates]:
        """`D~_ij` with the rationale's own BM25 scores for all of it, also for what the question brought."""
        knobs = self.settings.reranker
        asking = {q.id for q in self.data.splits["train"][: knobs.questions]}
        rationales = {r.id: _query(r) for r in self.filtered[0] if r.question_id in asking}
        asked = {i: [p for p, _ in self.by_question[i][: knobs.question_candidates]] for i in asking}
        given = {i: asked[i.rpartition("/")[0]] for i in rationales}
        on_question = self._run(
            SCORES, rationales, lambda lucene: lucene.score(self.index, rationales, given), given=fingerprint(given)
        )
        candidates = []
        for i in rationales:
            found = dict(self.by_rationale[i][: knobs.rationale_candidates])
            if found:
                scores = dict(on_question[i]) | found
                candidates.append(Candidates(i.rpartition("/")[0], found, {p: scores[p] for p in given[i]}))
        return candidates

    def reranker(self, seed: int) -> Path:
        """The reranker trained with `seed`; those of all the settings' seeds are trained side by side."""
        return self.rerankers.get(seed) or self.train_rerankers([((), seed)])[(), seed]

    @cached_property
    def rerankers(self) -> dict[int, Path]:
        trained = self.train_rerankers(((), seed) for seed in self.settings.seeds)
        return {seed: folder for (_, seed), folder in trained.items()}

    def train_rerankers(self, variants: Iterable[tuple[Knobs, int]]) -> dict[tuple[Knobs, int], Path]:
        """By knobs and seed a trained reranker; those that are missing are trained side by side."""
        jobs = {(knobs, seed): self.at(knobs)._reranker_job(seed) for knobs, seed in variants}
        return self._make_all(RERANKER, jobs)

    def _reranker_job(self, seed: int) -> Job:
        spec, questions = self._reranker_work
        spec = spec | {"seed": seed}
        candidates = [] if self.store.has(RERANKER, spec) else self.candidates
        return spec, (self.settings.reranker, questions, self.passages, candidates, seed)

    @cached_property
    def _reranker_work(self) -> tuple[dict[str, Any], dict[str, str]]:
        settings, questions = self.settings.reranker, {q.id: q.prompt for q in self.data.splits["train"]}
        candidates = {  # what they are made of: hashing them takes seconds
            "rationales": fingerprint([(r.id, r.text) for r in self.filtered[0]]),
            "index": self._index_name,
            "bm25": self._bm25,
            "depths": [settings.rationale_candidates, settings.question_candidates, settings.questions],
        }
        spec = {"candidates": candidates, "passages": self._passages_hash,
                "questions": fingerprint(questions), "settings": reranker_knobs(settings)}  # fmt: skip
        return spec, questions

    def rank(self, split: str, variants: Iterable[tuple[Knobs, int]]) -> dict[tuple[Knobs, int], Run]:
        """By knobs and seed what `reranked` gives; what is missing is trained and ranked side by side."""
        variants = list(dict.fromkeys(variants))
        self.train_rerankers(variants)
        self._make_all(RERANKED, {v: self.at(v[0])._ranking_job(split, v[1]) for v in variants})
        return {(knobs, seed): self.at(knobs).reranked(split, seed) for knobs, seed in variants}

    def _reranked(self, split: str, seed: int | None) -> Run:
        """The kappa* BM25 candidates of every question, ordered by the reranker; `seed` None: before any training.

        A passage's score depends on no other candidate, so all that BM25 found is ranked once, whatever kappa* is.
        """
        seeds = self.settings.seeds if seed in self.settings.seeds else [seed]
        jobs = {s: self._ranking_job(split, s) for s in seeds}
        ranked = _read_run(self._make_all(RERANKED, jobs)[seed] / "run.tsv")
        kappa = self.settings.retrieval.candidates
        candidates = {q.id: {p for p, _ in self.by_question[q.id][:kappa]} for q in self.data.splits[split]}
        return {i: [(p, score) for p, score in ranked[i] if p in kept] for i, kept in candidates.items()}

    def _ranking_job(self, split: str, seed: int | None) -> Job:
        spec, work = self._ranking_work(split)
        settings = self._trained(seed)
        model = {"model": identify(settings.model, settings.revision), "max_tokens": settings.max_tokens}
        return spec | model, (settings, *work)

    def _texts_to_rank(self, split: str) -> Job:
        questions = {q.id: q.prompt for q in self.data.splits[split]}
        found = {i: self.by_question[i] for i in questions}
        texts = {"run": fingerprint(found), "questions": fingerprint(questions), "passages": self._passages_hash}
        return texts, (questions, found, self.passages)

    def ranking_milliseconds(self, questions: int = 20, repeats: int = 5) -> list[float]:
        """What ranking the kappa* candidates takes a test question, asked so many at once, in each of the repeats.

        On a CPU it is CPU time of one thread, which other work on the machine changes little.
        """
        first = {q.id: q.prompt for q in self.data.splits["test"][:questions]}
        run = {i: self.by_question[i][: self.settings.retrieval.candidates] for i in first}
        settings = self._trained(self.settings.seeds[0])
        model = identify(settings.model, settings.revision)
        spec = {"model": model, "run": fingerprint(run), "repeats": repeats, "threads": 1}

        def build(folder: Path) -> None:
            import torch

            from kardlib.models.encoders import load_reranker, rank

            reranker, milliseconds, threads = load_reranker(settings), [], torch.get_num_threads()
            clock = time.perf_counter if pick_device().type == "cuda" else time.process_time
            try:
                torch.set_num_threads(1)
                for _ in range(1 + repeats):
                    began = clock()
                    rank(reranker, first, run, self.passages)
                    milliseconds.append(1000 * (clock() - began) / len(first))
            finally:
                torch.set_num_threads(threads)
            write_json(folder / "milliseconds.json", milliseconds[1:])  # the first one warmed up

        folder = self.store.make(TIMING, spec, build)
        return [float(m) for m in json.loads((folder / "milliseconds.json").read_text())]

    def _trained(self, seed: int | None) -> RerankerSettings:
        model = self.settings.reranker.model if seed is None else str(self.reranker(seed))
        return self.settings.reranker.model_copy(update={"model": model})

    # RAG: a dense retriever and a student, trained together

    def retriever(self, seed: int) -> Path:
        """The dual encoder that RAG's warm variant starts from, trained on what the rationales retrieve."""
        return self.retrievers.get(seed) or self._train_retrievers([seed])[seed]

    @cached_property
    def retrievers(self) -> dict[int, Path]:
        return self._train_retrievers(self.settings.seeds)

    def _train_retrievers(self, seeds: Sequence[int]) -> dict[int, Path]:
        by_id = {q.id: q for q in self.data.splits["train"]}
        positives: dict[str, dict[str, None]] = {}
        for r in self.filtered[0]:
            positives.setdefault(r.question_id, {}).update(dict.fromkeys(p for p, _ in self.by_rationale[r.id][:3]))
        found = {q: list(p) for q, p in list(positives.items())[: self.settings.rag.contrastive_questions]}
        negatives = {q: [p for p, _ in self.by_question[q][:HARD]] for q in found}
        questions = {q: by_id[q].prompt for q in found}
        joint = {"lr", "epochs", "batch", "questions", "passages", "refresh", "contrastive_questions"}
        knobs = self.settings.rag.model_dump(exclude=joint) | {"model": identify(self.settings.rag.model)}
        texts = fingerprint([questions, found, negatives])
        spec = {"texts": texts, "passages": self._passages_hash, "settings": knobs}
        work = (self.settings.rag, questions, self.passages, found, negatives)
        jobs: dict[int, Job] = {seed: (spec | {"seed": seed}, (*work, seed)) for seed in seeds}
        return self._make_all(RETRIEVER, jobs)

    def rag(self, cells: Iterable[Cell]) -> dict[Cell, Path]:
        """By cell the folder of the retriever (`question`, `passage`) and the `student` that were trained together."""
        jobs = {cell: self.at(cell.knobs)._rag_job(cell) for cell in cells}
        return self._make_all(RAG, jobs)

    def _rag_job(self, cell: Cell) -> Job:
        warm = METHODS[cell.method].reads_in_training == "rag_warm"
        start = self.retriever(cell.seed) if warm else self.settings.rag.model
        settings, student = self.settings.rag.model_copy(update={"model": str(start)}), self._student_settings(cell)
        knobs = {n: v for n, v in settings.model_dump(exclude={"questions"}).items() if "contrastive" not in n}
        of_student = student.model_dump(include={"revision", "lr", "max_source_tokens", "max_new_tokens"})
        questions, targets = self._rag_targets
        texts = fingerprint([targets, {q: question.prompt for q, question in questions.items()}])
        spec = {"texts": texts, "passages": self._passages_hash, "seed": cell.seed,
                "settings": knobs | {"model": identify_retriever(start)},
                "student": of_student | {"model": identify(student.model)}}  # fmt: skip
        return spec, (settings, student, questions, targets, self.passages, cell.seed)

    @cached_property
    def _rag_targets(self) -> tuple[dict[str, Question], dict[str, list[str]]]:
        """The first `rag.questions` questions with a rationale, and the texts that may be written for each."""
        by_id = {q.id: q for q in self.data.splits["train"]}
        targets: dict[str, list[str]] = {}
        for r in self.filtered[0]:
            targets.setdefault(r.question_id, []).append(target_text(r.text, by_id[r.question_id].answer))
        targets = dict(list(targets.items())[: self.settings.rag.questions])
        return {q: by_id[q] for q in targets}, targets

    def dense(self, models: Iterable[str | Path], split: str) -> dict[str | Path, tuple[Run, dict[str, float]]]:
        """By retriever (folder or name of an encoder) its run table and its loss per question with silver passages."""
        questions = {q.id: q.prompt for q in self.data.splits[split]}
        silver = {q: sorted(p) for q, p in self.silver(split).items()} if split in self.written else {}
        depth = max(DEPTH, self.settings.retrieval.k)
        jobs: dict[str | Path, Job] = {}
        for model in dict.fromkeys(models):
            settings = self.settings.rag.model_copy(update={"model": str(model)})
            knobs = settings.model_dump(include={"revision", "pooling", "tau", "max_tokens"})
            spec = {"settings": knobs | {"model": identify_retriever(model)}, "passages": self._passages_hash,
                    "questions": fingerprint([questions, silver]), "depth": depth}  # fmt: skip
            jobs[model] = spec, (settings, questions, self.passages, depth, silver)
        folders = self._make_all(DENSE, jobs)
        return {m: (_read_run(f / "run.tsv"), json.loads((f / "losses.json").read_text())) for m, f in folders.items()}

    # What a student reads and learns

    def reads(self, source: Reads, split: str, seed: int, student: str = "") -> dict[str, list[str]]:
        """Question id -> ids of the passages that a student reads at test; of rationale queries the first one's.

        Only what RAG finds depends on the student.
        """
        ids, k = [q.id for q in self.data.splits[split]], self.settings.retrieval.k
        if source in ("", "rationale"):
            return {i: [] for i in ids}
        if source in DENSE_READS:
            cell = Cell(source, student, seed)
            folder = self.retriever(seed) if source == "dense" else self.rag([cell])[cell]
            run = self.dense([folder], split)[folder][0]
            return {i: [p for p, _ in run[i][:k]] for i in ids}
        run = {"bm25_question": lambda: self.by_question, "reranker": lambda: self.reranked(split, seed),
               "bm25_rationale": lambda: {i: self.by_rationale.get(f"{i}/0", []) for i in ids}}[source]()  # fmt: skip
        return {i: [p for p, _ in run[i][:k]] for i in ids}

    def _training_examples(self, method: Method, seed: int = 0) -> list[tuple[str, str]]:
        """Source and target texts: one for every rationale, or for every question where answers alone are learnt.

        `seed` draws the questions where the student learns from a share of them only.
        """
        k, train = self.settings.retrieval.k_training, self.data.splits["train"]
        drawn = random.Random(seed).sample(train, max(1, round(len(train) * self.settings.student.share)))
        by_id = {q.id: q for q in drawn}
        examples = []
        rationales = [r for r in self._learnt if r.question_id in by_id]
        if method.learns == "answer":
            rationales = list({r.question_id: r for r in rationales}.values())
        for r in rationales[: self.settings.student.examples]:
            question = by_id[r.question_id]
            by_rationale = self.by_rationale[r.id] if self.teacher else []
            ranked = {"": [], "bm25_question": self.by_question[question.id], "bm25_rationale": by_rationale}
            passages = [self.passages[p] for p, _ in ranked[method.reads_in_training][:k]]
            target = target_text(r.text if method.learns == "rationale" else "", question.answer)
            examples.append((source_text(question, passages), target))
        return examples

    def test_sources(
        self, method: Method, split: str, seed: int, student: str = ""
    ) -> tuple[list[list[str]], list[str]]:
        """Ids of the passages read and the source text, for every question of a split."""
        read = self.reads(method.reads_at_test, split, seed, student)
        written = self.written.get(split, []) if self.teacher else []
        explained = {r.question_id: r.text for r in written if r.number == 0}
        sources = []
        for question in self.data.splits[split]:
            texts = [self.passages[p] for p in read[question.id]]
            texts += [explained.get(question.id, "")] if method.reads_at_test == "rationale" else []
            sources.append(source_text(question, texts, self.settings.test_prompt == "passages_first"))
        if method.shots:
            explain, reads = method.shots == "rationale", bool(method.reads_at_test)
            shots = self._shots(explain, reads)
            sources = [few_shot_text(shots, source, explain, reads) for source in sources]
        return [read[q.id] for q in self.data.splits[split]], sources

    def _shots(self, explain: bool, reads: bool) -> list[tuple[str, str]]:
        """The examples of a few-shot prompt: the first training questions, read and answered as is asked."""
        rationales = {r.question_id: r.text for r in reversed(self._learnt)}
        shots = []
        for question in [q for q in self.data.splits["train"] if q.id in rationales][:SHOTS]:
            found = self.by_question[question.id][: self.settings.retrieval.k] if reads else []
            target = target_text(rationales[question.id] if explain else "", question.answer)
            shots.append((source_text(question, [self.passages[p] for p, _ in found]), target))
        return shots

    # Students

    def adapted(self, student: str) -> dict[int, Path]:
        """Seed -> the student after training to restore masked spans of a corpus (DAPT)."""
        dapt = self.settings.dapt
        passages = list(self.passages.values())
        if dapt.corpus == "neighbour":
            if not self.world:
                raise DataError("only the closed world has a neighbour: set dapt.corpus to own")
            seed = self.settings.world.seed + NEIGHBOUR
            passages = list(_build_world(self.settings.world.model_copy(update={"seed": seed})).texts.values())
        settings = self.settings.student.model_copy(update={"model": student})
        knobs = student_knobs(settings.model_copy(update={"lr": dapt.lr, "epochs": dapt.epochs, "steps": None}))
        spec = {"passages": fingerprint(passages), "settings": knobs, "dapt": dapt.model_dump(exclude={"corpus"})}
        jobs = {seed: (spec | {"seed": seed}, (passages, dapt, settings, seed)) for seed in self.settings.seeds}
        return self._make_all(ADAPTED, jobs)

    def run(self, cells: Iterable[Cell], split: str = "test") -> dict[Cell, Predictions]:
        """Train what is missing, let it write what is missing, read the answers; two students are made side by side."""
        cells = list(dict.fromkeys(cells))
        learners = [cell for cell in cells if METHODS[cell.method].learns]
        jobs = {c: self.at(c.knobs)._student_job(c) for c in learners if not METHODS[c.method].rag}
        students = {cell: str(folder) for cell, folder in self._make_all(STUDENT, jobs).items()}
        rags = self.rag(cell for cell in learners if METHODS[cell.method].rag)
        self.dense(rags.values(), split)  # side by side; below one after the other
        students |= {cell: str(folder / "student") for cell, folder in rags.items()}
        self.rank(split, ((c.knobs, c.seed) for c in cells if METHODS[c.method].reads_at_test == "reranker"))
        read: dict[Cell, list[list[str]]] = {}
        asked: dict[Cell, Job] = {}
        for cell in cells:
            variant = self.at(cell.knobs)
            read[cell], sources = variant.test_sources(METHODS[cell.method], split, cell.seed, cell.student)
            settings = variant._student_settings(cell).model_copy(update={"model": students.get(cell, cell.student)})
            asked[cell] = self._predictions_job(sources, settings, cell.seed)
        written = self._make_all(PREDICTIONS, asked)
        return {cell: self.at(cell.knobs)._read(split, read[cell], written[cell]) for cell in cells}

    def outcomes(self, rows: Iterable[tuple[str, str, Knobs]]) -> dict[tuple[str, str, Knobs], NDArray[np.float64]]:
        """Right (1) or wrong (0) per seed and test question, (seeds, questions), for methods, students and knobs."""
        rows = list(rows)
        seeds = self.settings.seeds
        answered = self.run(Cell(*row[:2], seed, row[2]) for row in rows for seed in seeds)
        return {
            row: np.array([answered[Cell(*row[:2], seed, row[2])].correct for seed in seeds], dtype=float)
            for row in rows
        }

    def _student_settings(self, cell: Cell) -> StudentSettings:
        settings = self.settings.student.model_copy(update={"model": cell.student})
        if METHODS[cell.method].shots:  # as many sources as its prompt holds; what is asked stands last and is kept
            room = (SHOTS + 1) * settings.max_source_tokens
            settings = settings.model_copy(update={"max_source_tokens": room, "truncation_side": "left"})
        return settings

    def _student_job(self, cell: Cell) -> Job:
        method, settings = METHODS[cell.method], self._student_settings(cell)
        if method.adapted:
            settings = settings.model_copy(update={"model": str(self.adapted(cell.student)[cell.seed])})
        examples = self.training_examples(method, cell.seed if settings.share < 1 else 0)  # all, whatever the seed
        spec = {"examples": fingerprint(examples), "settings": student_knobs(settings), "seed": cell.seed}
        return spec, (examples, settings, cell.seed)

    def _predictions_job(self, sources: list[str], settings: StudentSettings, seed: int) -> Job:
        spec: dict[str, Any] = {"student": identify(settings.model, settings.revision),
                                "sources": fingerprint(sources), "settings": settings.of_writing()}  # fmt: skip
        if settings.samples > 1 or settings.model == "random-t5":
            spec["seed"] = seed
        return spec, (sources, settings, seed)

    def _make_all(self, kind: Kind, jobs: Mapping[K, Job]) -> dict[K, Path]:
        return make_all(self.store, kind, jobs, self.settings.compute if kind in TOGETHER else None)

    def _read(self, split: str, read: list[list[str]], folder: Path) -> Predictions:
        questions = self.data.splits[split]
        texts = json.loads((folder / "texts.json").read_text())
        read_answer = parse_answer if self.settings.answer == "parsed" else last_letter
        answers = [
            majority_vote([read_answer(text, q.options) for text in samples])
            for q, samples in zip(questions, texts, strict=True)
        ]
        return Predictions(questions, read, texts, answers)


_build_world, _read_run = functools.cache(build_world), functools.cache(read_run)  # what variants share


def _query(rationale: Rationale) -> str:
    return rationale.text[:3000]  # an LLM can write without end


def student_knobs(settings: StudentSettings) -> dict[str, Any]:
    """The settings that a student's weights depend on, besides its examples and its seed."""
    return settings.of_training() | {"model": identify(settings.model)}


def reranker_knobs(settings: RerankerSettings) -> dict[str, Any]:
    """The settings that a reranker's weights depend on, besides its candidates and its seed."""
    unused = {"rationale_candidates", "question_candidates", "questions"}
    return settings.model_dump(exclude=unused) | {"model": identify(settings.model)}


def identify_retriever(model: str | Path) -> str:
    """As `identify`, for a dual encoder's folder or the encoder that it starts from."""
    if (Path(model) / "question").is_dir():
        return fingerprint([identify(str(Path(model) / side)) for side in ("question", "passage")])
    return identify(str(model))


# What notebooks begin and end with


def open_experiment(
    scale: str = "embedded",
    dataset: str = "world",
    data_dir: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Experiment:
    """The experiment of a scale's preset with single knobs changed. Raises SettingsError."""
    gc.set_threshold(50_000)  # run tables are a million objects without a cycle: looking for one takes a tenth of a run
    return Experiment(preset(scale, dataset, data_dir).override(overrides or {}))


def write_example(folder: Path, scale: str = "embedded") -> Path:
    """A small closed world in the layout of your own data, with the symbolic teacher's rationales as recorded ones."""
    world = build_world(EXAMPLES["smoke" if scale == "smoke" else "embedded"])
    teacher = symbolic_teacher(world, TeacherSettings().flawed, TeacherSettings().seed)
    rationales: dict[str, list[str]] = {}
    for rationale in teacher(world.splits["train"], SILVER):
        rationales.setdefault(rationale.question_id, []).append(rationale.text)
    write_own(folder, world.dataset(), rationales)
    return folder


def describe(settings: RunSettings) -> str:
    """One line on a run: scale, dataset, students, seeds, and what is read."""
    s = settings
    return (
        f"{s.scale} scale, dataset {s.dataset}, students {', '.join(s.students)}, "
        f"seeds {', '.join(map(str, s.seeds))}, "
        f"l = {s.teacher.rationales}, kappa* = {s.retrieval.candidates}, k = {s.retrieval.k}"
    )


def statement_shares(world: World, predictions: Predictions) -> tuple[list[float], list[float]]:
    """For every question the share of its rationale's statements that are true, and that the passages read support.

    A text without a statement has none that is true.
    """
    true, supported = [], []
    for texts, read in zip(predictions.texts, predictions.passages, strict=True):
        judged = judge_statements(world, texts[0], read) or [(False, False)]
        true.append(sum(t for t, _ in judged) / len(judged))
        supported.append(sum(s for _, s in judged) / len(judged))
    return true, supported
