"""From settings to predictions: every stage of KARD as one artifact, made once and shared by all who ask for it.

    questions, passages -> index -> rationales -> runs -> reranker -> student -> predictions

A stage's artifact is named by the hash of what goes into it (texts and settings), so two methods, notebooks or grids
that need the same student find the same folder. Students and predictions are made in worker processes, one core each.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from kardlib.data import DataError, Dataset, Question, read_kard, read_recorded_rationales
from kardlib.evaluate import majority_vote, parse_answer
from kardlib.knowledge import Lucene, Run, read_run, write_run
from kardlib.methods import METHODS, Method, Reads
from kardlib.nano import NANO
from kardlib.prompts import SHOTS, few_shot_text, source_text, target_text
from kardlib.reranker import Candidates, load_reranker, rank, train_reranker
from kardlib.settings import RunSettings, StudentSettings, preset
from kardlib.store import Store, hash_file
from kardlib.teacher import FilterYield, Rationale, Teacher, keep_correct, recorded_teacher, symbolic_teacher
from kardlib.world import World, build_world, judge_statements

DEPTH = 100  # passages kept of every question's search, more where kappa* is larger
SILVER = 3  # silver passages: the union of the top 3 of each of a question's first 3 rationales


Job = tuple[dict[str, Any], tuple[Any, ...]]  # what names an artifact, and what its builder is given


@dataclass(frozen=True)
class Cell:
    """One cell of a grid: a method with a student and a seed."""

    method: str
    student: str
    seed: int


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

    def __init__(self, settings: RunSettings, store: Store | None = None, workers: int = 2):
        self.settings, self.store, self.workers = settings, store or Store(), workers

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
        """The rows that can be run: the oracles need rationales of test questions, which no release has."""
        oracles = ("bm25_rationale", "rationale")
        return {name: m for name, m in METHODS.items() if self.world or m.reads_at_test not in oracles}

    def chance_row(self, figure: str) -> dict[str, Any]:
        """The row of a figure's data that says how often guessing is right on the test questions."""
        questions = self.data.splits["test"]
        value = sum(1 / len(q.options) for q in questions) / len(questions)
        row = {"figure": figure, "dataset": self.settings.dataset, "scale": self.settings.scale, "method": "chance"}
        return row | {"metric": "accuracy", "value": value, "n": len(questions)}

    # Data

    @cached_property
    def world(self) -> World | None:
        """The closed world; None for a real dataset, whose truth nobody knows."""
        return build_world(self.settings.world) if self.settings.dataset == "world" else None

    @cached_property
    def data(self) -> Dataset:
        """The dataset. Of a real one the last 5 % of the training questions are set aside as the split "silver"."""
        if self.world:
            return self.world.dataset()
        data = read_kard(self._data_dir, self.settings.dataset)
        train = data.splits["train"]
        cut = int(len(train) * 0.95)
        return Dataset(data.name, data.splits | {"train": train[:cut], "silver": train[cut:]}, data.passages, data.gold)

    @property
    def _data_dir(self) -> Path:
        if not self.settings.data_dir:
            raise DataError(
                f"dataset {self.settings.dataset!r} is read from files: "
                "set data_dir to the folder that holds kard/ and kb/"
            )
        return Path(self.settings.data_dir)

    @cached_property
    def passages(self) -> dict[str, str]:
        return {p.id: p.text for p in self.data.passages}

    @cached_property
    def _passages_hash(self) -> str:  # asked for with every ranking
        return fingerprint(self.passages)

    # Rationales

    @cached_property
    def teacher(self) -> Teacher:
        if self.world:
            return symbolic_teacher(self.world, self.settings.teacher.flawed, self.settings.teacher.seed)
        file = self._data_dir / "kard" / self.settings.dataset / "rationales_train.jsonl.gz"
        questions = read_kard(self._data_dir, self.settings.dataset).splits["train"]
        recorded = read_recorded_rationales(file)
        return recorded_teacher({q.id: recorded.get(i, []) for i, q in enumerate(questions)})

    @cached_property
    def written(self) -> dict[str, list[Rationale]]:
        """All rationales by split: `l` for training questions, `SILVER` where they only serve as queries."""
        counts = {"train": max(self.settings.teacher.rationales, SILVER)}
        counts |= dict.fromkeys(("dev", "test") if self.world else ("silver",), SILVER)
        return {split: self.teacher(self.data.splits[split], l) for split, l in counts.items()}

    @cached_property
    def filtered(self) -> tuple[list[Rationale], FilterYield]:
        """The rationales `r_ij`, `j < l`, that the student and the reranker learn from, and the filter's yield."""
        used = [r for r in self.written["train"] if r.number < self.settings.teacher.rationales]
        kept, counts = keep_correct(used, self.data.splits["train"])
        return (kept if self.settings.teacher.correct_only else used), counts

    # Retrieval: every search is done once, in the knowledge base's own process, and kept as run tables

    @cached_property
    def index(self) -> Path:
        def build(folder: Path) -> None:
            with Lucene(self.settings.knowledge) as lucene:
                lucene.build(folder / "lucene", self.data.passages)

        return self.store.make("index", {"passages": self._passages_hash}, build) / "lucene"

    @cached_property
    def _runs(self) -> Path:
        questions = {q.id: q.prompt for qs in self.data.splits.values() for q in qs}
        rationales = {r.id: r.text[:3000] for rs in self.written.values() for r in rs}
        knobs = self.settings.reranker
        depth = max(DEPTH, self.settings.retrieval.candidates)
        kappa_1, kappa_2 = max(knobs.rationale_candidates, self.settings.retrieval.k, SILVER), knobs.question_candidates
        spec = {
            "questions": fingerprint(questions),
            "rationales": fingerprint(rationales),
            "index": self.index.parent.name,
            "bm25": self.settings.knowledge.model_dump(exclude={"threads"}),
            "depths": [depth, kappa_1, kappa_2],
        }

        def build(folder: Path) -> None:
            with Lucene(self.settings.knowledge) as lucene:
                by_question = lucene.search(self.index, questions, depth)
                by_rationale = lucene.search(self.index, rationales, kappa_1)
                asked = {r.id: [p for p, _ in by_question[r.question_id][:kappa_2]] for r in self.written["train"]}
                given = lucene.score(self.index, {i: rationales[i] for i in asked}, asked)
            write_run(folder / "question.tsv", by_question)
            write_run(folder / "rationale.tsv", by_rationale)
            write_run(folder / "rationale_on_question.tsv", given)

        return self.store.make("runs", spec, build)

    @cached_property
    def by_question(self) -> Run:
        """`topk(rho(d | x))` for every question of every split."""
        return read_run(self._runs / "question.tsv")

    @cached_property
    def by_rationale(self) -> Run:
        """`topk(rho(d | r))` for every rationale."""
        return read_run(self._runs / "rationale.tsv")

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
        on_question = read_run(self._runs / "rationale_on_question.tsv")
        asking = {q.id for q in self.data.splits["train"][: knobs.questions]}
        candidates = []
        for r in (r for r in self.filtered[0] if r.question_id in asking):
            found = dict(self.by_rationale[r.id][: knobs.rationale_candidates])
            asked = [p for p, _ in self.by_question[r.question_id][: knobs.question_candidates]]
            if found:
                scores = dict(on_question[r.id]) | found
                candidates.append(Candidates(r.question_id, found, {p: scores[p] for p in asked}))
        return candidates

    @cached_property
    def _candidates_hash(self) -> str:  # a second or two, asked for with every ranking
        return fingerprint([asdict(c) for c in self.candidates])

    def reranker(self, seed: int) -> Path:
        questions = {q.id: q.prompt for q in self.data.splits["train"]}
        knobs = self.settings.reranker.model_dump(exclude={"rationale_candidates", "question_candidates", "questions"})
        knobs["model"] = identify(knobs["model"])
        spec = {"candidates": self._candidates_hash, "passages": self._passages_hash,
                "questions": fingerprint(questions), "settings": knobs, "seed": seed}  # fmt: skip

        def build(folder: Path) -> None:
            train_reranker(self.settings.reranker, questions, self.passages, self.candidates, seed=seed, folder=folder)

        return self.store.make("reranker", spec, build)

    def reranked(self, split: str, seed: int | None) -> Run:
        """The kappa* BM25 candidates of every question, ordered by the reranker; `seed` None: before any training."""
        kappa = self.settings.retrieval.candidates
        questions = {q.id: q.prompt for q in self.data.splits[split]}
        run = {i: self.by_question[i][:kappa] for i in questions}
        model = self.settings.reranker.model if seed is None else str(self.reranker(seed))
        spec = {
            "model": identify(model),
            "run": fingerprint(run),
            "passages": self._passages_hash,
            "questions": fingerprint(questions),
        }
        settings = self.settings.reranker.model_copy(update={"model": model})
        folder = self.store.make(
            "reranked", spec,
            lambda folder: write_run(folder / "run.tsv", rank(load_reranker(settings), questions, run, self.passages)),
        )  # fmt: skip
        return read_run(folder / "run.tsv")

    # What a student reads and learns

    def reads(self, source: Reads, split: str, seed: int) -> dict[str, list[str]]:
        """Question id -> ids of the passages that a student reads at test; of rationale queries the first one's."""
        ids, k = [q.id for q in self.data.splits[split]], self.settings.retrieval.k
        if source in ("", "rationale"):
            return {i: [] for i in ids}
        run = {"bm25_question": lambda: self.by_question, "reranker": lambda: self.reranked(split, seed),
               "bm25_rationale": lambda: {i: self.by_rationale[f"{i}/0"] for i in ids}}[source]()  # fmt: skip
        return {i: [p for p, _ in run[i][:k]] for i in ids}

    def training_examples(self, method: Method) -> list[tuple[str, str]]:
        """Source and target texts: one for every rationale, or for every question where answers alone are learnt."""
        k = self.settings.retrieval.k
        by_id = {q.id: q for q in self.data.splits["train"]}
        examples = []
        rationales = self.filtered[0]
        if method.learns == "answer":
            rationales = list({r.question_id: r for r in rationales}.values())
        for r in rationales[: self.settings.student.examples]:
            question = by_id[r.question_id]
            ranked = {"": [], "bm25_question": self.by_question[question.id], "bm25_rationale": self.by_rationale[r.id]}
            passages = [self.passages[p] for p, _ in ranked[method.reads_in_training][:k]]
            target = target_text(r.text if method.learns == "rationale" else "", question.answer)
            examples.append((source_text(question, passages), target))
        return examples

    def test_sources(self, method: Method, split: str, seed: int) -> tuple[list[list[str]], list[str]]:
        """Ids of the passages read and the source text, for every question of a split."""
        read = self.reads(method.reads_at_test, split, seed)
        explained = {r.question_id: r.text for r in self.written.get(split, []) if r.number == 0}
        shown = []
        if method.shots:
            first = {r.question_id: r.text for r in reversed(self.filtered[0])}
            examples = [q for q in self.data.splits["train"] if q.id in first][:SHOTS]
            shown = [(q, first[q.id] if method.shots == "rationale" else "") for q in examples]
        sources = []
        for question in self.data.splits[split]:
            texts = [self.passages[p] for p in read[question.id]]
            texts += [explained[question.id]] if method.reads_at_test == "rationale" else []
            sources.append(few_shot_text(shown, source_text(question, texts)))
        return [read[q.id] for q in self.data.splits[split]], sources

    # Students

    def run(self, cells: Iterable[Cell], split: str = "test") -> dict[Cell, Predictions]:
        """Train what is missing, let it write what is missing, read the answers; two students are made side by side."""
        cells = list(dict.fromkeys(cells))
        jobs = {cell: self._student_job(cell) for cell in cells if METHODS[cell.method].learns}
        made = self._make_all("student", list(jobs.values()))
        students = {cell: str(made[fingerprint(spec)]) for cell, (spec, _) in jobs.items()}
        asked: dict[Cell, tuple[list[list[str]], Job]] = {}
        for cell in cells:
            read, sources = self.test_sources(METHODS[cell.method], split, cell.seed)
            settings = self._student_settings(cell).model_copy(update={"model": students.get(cell, cell.student)})
            knobs = settings.model_dump(include={"max_source_tokens", "max_new_tokens", "samples", "top_k", "top_p"})
            spec: dict[str, Any] = {
                "student": identify(settings.model),
                "sources": fingerprint(sources),
                "settings": knobs,
            }
            if settings.samples > 1 or settings.model == "random-t5":
                spec["seed"] = cell.seed
            asked[cell] = (read, (spec, (sources, settings, cell.seed)))
        made = self._make_all("predictions", [job for _, job in asked.values()])
        return {cell: self._read(split, read, made[fingerprint(spec)]) for cell, (read, (spec, _)) in asked.items()}

    def _student_settings(self, cell: Cell) -> StudentSettings:
        return self.settings.student.model_copy(update={"model": cell.student})

    def _student_job(self, cell: Cell) -> Job:
        examples, settings = self.training_examples(METHODS[cell.method]), self._student_settings(cell)
        knobs = settings.model_dump(exclude={"examples", "generation_batch", "samples", "top_k", "top_p"})
        knobs["model"] = identify(settings.model)
        spec = {"examples": fingerprint(examples), "settings": knobs, "seed": cell.seed}
        return spec, (examples, settings, cell.seed)

    def _make_all(self, kind: str, jobs: Sequence[Job]) -> dict[str, Path]:
        """Artifacts by the fingerprint of their spec; the missing ones are made by `workers` processes."""
        jobs = list({fingerprint(spec): (spec, work) for spec, work in jobs}.values())
        missing = [job for job in jobs if not self.store.has(kind, job[0])]
        if missing:
            print(f"{len(missing)} of {len(jobs)} {kind} artifacts to make, {self.workers} at a time", flush=True)
            with ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"), initializer=one_core_each) as pool:
                done = [pool.submit(_make, self.store, kind, *job) for job in missing]
                for i, future in enumerate(done, 1):
                    print(f"{kind} {i}/{len(done)} {future.result().name}", flush=True)
        return {fingerprint(spec): self.store.make(kind, spec, refuse) for spec, _ in jobs}

    def _read(self, split: str, read: list[list[str]], folder: Path) -> Predictions:
        questions = self.data.splits[split]
        texts = json.loads((folder / "texts.json").read_text())
        answers = [
            majority_vote([parse_answer(text, q.options) for text in samples])
            for q, samples in zip(questions, texts, strict=True)
        ]
        return Predictions(questions, read, texts, answers)


def one_core_each() -> None:
    import torch

    torch.set_num_threads(1)


def _make(store: Store, kind: str, spec: Mapping[str, Any], work: tuple[Any, ...]) -> Path:
    """Runs in a worker process: train one student, or let one write."""
    builders: dict[str, Callable[..., None]] = {"student": _train, "predictions": _predict}
    return store.make(kind, spec, lambda folder: builders[kind](folder, *work))


def _train(folder: Path, examples: list[tuple[str, str]], settings: StudentSettings, seed: int) -> None:
    from kardlib.student import train_student

    train_student(examples, settings, seed, folder)


def _predict(folder: Path, sources: list[str], settings: StudentSettings, seed: int) -> None:
    from kardlib.student import load_student, write

    texts = write(*load_student(settings.model, settings.revision, seed), sources, settings, seed)
    (folder / "texts.json").write_text(json.dumps(texts))


def refuse(folder: Path) -> None:
    raise AssertionError(f"{folder} should have been made by a worker")


def identify(model: str) -> str:
    """What an artifact's name says of a model: the hash of its weights where they are here, else its name."""
    for place in (NANO / model, Path(model)):
        if (place / "model.safetensors").is_file():
            return _hash_weights(place / "model.safetensors")
    return model


@functools.cache
def _hash_weights(file: Path) -> str:
    return hash_file(file)[:16]


def fingerprint(value: Any) -> str:
    """A short hash of anything that JSON can write: what an artifact's name says of its inputs."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# What notebooks begin and end with


def open_experiment(
    scale: str = "embedded",
    dataset: str = "world",
    data_dir: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Experiment:
    """The experiment of a scale's preset with single knobs changed. Raises SettingsError."""
    return Experiment(preset(scale, dataset, data_dir).override(overrides or {}))


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
