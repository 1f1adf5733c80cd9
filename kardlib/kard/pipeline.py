"""What students learn and answer: from what there is to read to right and wrong answers.

    prepared, rankings -> sources -> students -> predictions -> outcomes

Every stage takes the cells of a grid, each with its variant of the settings, and gives by cell what it made; cells that
agree in their key (`keys.py`) share one artifact. `answer` goes the whole way.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kardlib.artifacts.engine import Job, make_all
from kardlib.artifacts.store import Kind, fingerprint
from kardlib.data.answers import last_letter, majority_vote, parse_answer, parse_option, score
from kardlib.data.files import Question
from kardlib.data.prompts import (
    CONCLUSION,
    CUT,
    NEW_TOKENS,
    SHOTS,
    Source,
    answer_text,
    few_shot_turns,
    gold_text,
    source_text,
)
from kardlib.data.records import read_losses, say_rise
from kardlib.data.world import build_world
from kardlib.errors import DataError
from kardlib.kard.experiment import Cell, Experiment, Knobs, weigh_texts, write_texts
from kardlib.kard.keys import PredictionKey, prediction_key, student_key, student_settings, student_spec
from kardlib.kard.methods import METHODS, Method
from kardlib.kard.prepare import Prepared, prepare
from kardlib.kard.rankings import (
    RETRIEVERS,
    Reading,
    find_retriever,
    identify_retriever,
    read_passages,
    train_retrievers,
)
from kardlib.kard.teacher import Rationale
from kardlib.models.catalogue import LOADERS, identify, needs_this_process
from kardlib.retrieval.runs import Run
from kardlib.settings import RunSettings, StudentSettings

NEIGHBOUR = 500  # what a neighbouring world's seed is away
ADAPTED = Kind("adapted", 1, "kardlib.kard.student:adapt_student", "student.batch")
STUDENT = Kind("student", 1, "kardlib.kard.student:train_student", "student.batch")
RAG = Kind("rag", 2, "kardlib.kard.rag:train_rag", "rag.batch or rag.passages")
CONCLUDES = re.compile(rf"(?i)(?:\b(?:so|thus|therefore),? )?\b{CONCLUSION}")  # where a rationale ends

PreparedCells = Mapping[Cell, Prepared]  # cells of a grid, each with its variant of the settings
Example = tuple[str, str]  # source and target text
MakeAll = Callable[..., dict[Any, Path]]  # `make_all`, or who has the missing artifacts made elsewhere (`bundle.py`)


# What students learn from and are asked


def training_examples(prepared: Prepared, cell: Cell) -> list[Example]:
    """Source and target texts: one for every rationale, or for every question where answers alone are learnt.

    Raises DataError where no question that the student learns from has a rationale.
    """
    method, settings = METHODS[cell.method], student_settings(prepared.experiment.settings, cell)
    reads = RETRIEVERS.get(method.reads_in_training)
    drawn = settings.share < 1 or (reads and reads.seeded)  # else all seeds have the same texts
    return _examples(prepared, method, settings.form, cell.seed if drawn else 0)


@functools.lru_cache(maxsize=64)  # every seed of a grid asks again
def _examples(prepared: Prepared, method: Method, form: str, seed: int) -> list[Example]:
    experiment, settings, passages = prepared.experiment, prepared.experiment.settings, prepared.runs.passages
    by_id = {q.id: q for q in experiment.learns_from(seed)}
    rationales = [r for r in learnt_rationales(prepared, method) if r.question_id in by_id]
    if not rationales:
        raise DataError(
            f"there is nothing to learn from: of {len(experiment.data.splits['train'])} training questions "
            f"student.share draws {len(by_id)}, and none of them has a rationale; add some or raise it"
        )
    ranked: Run = {}
    if method.reads_in_training == "bm25_rationale":
        ranked = prepared.runs.by_rationale
    elif method.reads_in_training:  # whoever searches with the question finds the same for all of its rationales
        cell = Cell(method.id, experiment.student, seed)
        reading = Reading(experiment, "train", {cell: prepared}, {})
        by_question = find_retriever(method.reads_in_training).retrieve(reading)[cell]
        ranked = {r.id: by_question[r.question_id] for r in rationales}
    examples = []
    for r in rationales[: settings.student.examples]:
        read = [passages[p] for p, _ in ranked.get(r.id, [])[: settings.retrieval.k_training]]
        question, rationale = by_id[r.question_id], r.text if method.learns == "rationale" else ""
        examples.append((source_text(question, read), gold_text(question, form, rationale)))
    return examples


def learnt_rationales(prepared: Prepared, method: Method) -> list[Rationale]:
    """What examples are made from; for answers alone an empty one for each training question.

    Raises DataError where a method cannot do without rationales.
    """
    if "rationale" in (method.learns, method.shots) or method.reads_in_training == "bm25_rationale":
        return prepared.rationales.need().kept
    return [Rationale(q.id, 0, "", None) for q in prepared.experiment.data.splits["train"]]


def source_texts(prepared: Prepared, cell: Cell, split: str, read: Mapping[str, Sequence[str]]) -> list[Source]:
    """What a student is asked for every question of a split; `read` are the ids of the passages that it reads."""
    method, experiment, passages = METHODS[cell.method], prepared.experiment, prepared.runs.passages
    explained = {r.question_id: r.text for r in prepared.rationales.written.get(split, []) if r.number == 0}
    sources = []
    for question in experiment.data.splits[split]:
        texts = [passages[p] for p in read[question.id]]
        texts += [explained.get(question.id, "")] if method.reads_at_test == "rationale" else []
        sources.append(source_text(question, texts, experiment.settings.test_prompt == "passages_first"))
    if method.shots:
        explain, reads = method.shots == "rationale", bool(method.reads_at_test)
        shots, form = few_shots(prepared, cell), student_settings(experiment.settings, cell).form
        return [few_shot_turns(shots, source, explain, reads, form) for source in sources]
    return [*sources]


def few_shots(prepared: Prepared, cell: Cell) -> list[Example]:
    """The examples of a few-shot prompt: the first training questions, read and answered as is asked."""
    method, experiment, runs = METHODS[cell.method], prepared.experiment, prepared.runs
    form = student_settings(experiment.settings, cell).form
    explain, reads = method.shots == "rationale", bool(method.reads_at_test)
    rationales = {r.question_id: r.text for r in reversed(learnt_rationales(prepared, method))}
    shots = []
    for question in [q for q in experiment.data.splits["train"] if q.id in rationales][:SHOTS]:
        found = runs.by_question[question.id][: experiment.settings.retrieval.k] if reads else []
        target = gold_text(question, form, rationales[question.id] if explain else "")
        shots.append((source_text(question, [runs.passages[p] for p, _ in found]), target))
    return shots


# Students


def train_students(experiment: Experiment, asked: PreparedCells, make: MakeAll = make_all) -> dict[Cell, Path]:
    """By cell the folder of its trained student, for methods that train one; cells of one key share it.

    Raises DataError where a student that has a loss of its own would be trained by another one.
    """
    learners = {cell: p for cell, p in asked.items() if METHODS[cell.method].learns}
    together = {cell: p for cell, p in learners.items() if METHODS[cell.method].rag}
    alone = {cell: p for cell, p in learners.items() if cell not in together}
    begun = {cell: p for cell, p in alone.items() if METHODS[cell.method].adapted}
    for cell in [*together, *begun]:
        if (own := LOADERS.get(cell.student)) and own.loss:
            raise DataError(f"{cell.method} trains {cell.student} by other losses than its own: leave it out")
    adapted = adapt_students(experiment, begun, make)
    keys = {cell: student_key(p.experiment.settings, cell) for cell, p in alone.items()}
    first = {key: cell for cell, key in reversed(keys.items())}
    jobs = {key: student_job(alone[cell], cell, adapted.get(cell)) for key, cell in first.items()}
    here = any(needs_this_process(cell.student) for cell in alone)
    trained = make(experiment.store, STUDENT, jobs, experiment.settings.compute, here)
    for folder in (*adapted.values(), *trained.values()):
        if folder.is_dir():  # a bundle's student is trained elsewhere
            say_rise(folder.name, [*read_losses(folder).values()])
    folders = {cell: trained[key] for cell, key in keys.items()}
    return folders | {cell: folder / "student" for cell, folder in train_rag(experiment, together).items()}


def student_job(prepared: Prepared, cell: Cell, start: Path | None = None) -> Job:
    """What names a student, and what trains it; `start` is the folder of an adapted one."""
    settings = student_settings(prepared.experiment.settings, cell)
    if start:
        settings = settings.model_copy(update={"model": str(start)})
    examples = training_examples(prepared, cell)
    spec = {"examples": fingerprint(examples)} | student_spec(settings, cell.seed)
    return spec, (examples, settings, cell.seed)


def describe_training(asked: PreparedCells) -> list[dict[str, Any]]:
    """How each cell's student is trained: learning rate, epochs, steps, and examples seen, repeated ones too."""
    told = []
    for cell, prepared in asked.items():
        method, settings = METHODS[cell.method], student_settings(prepared.experiment.settings, cell)
        if method.learns and not method.rag:
            count = len(training_examples(prepared, cell))
            told.append({
                "method": cell.method, "student": cell.student, "learning rate": settings.lr, "epochs": settings.epochs,
                "steps": settings.count_steps(count), "examples seen": settings.count_seen(count),
            })  # fmt: skip
    return told


def adapt_students(experiment: Experiment, asked: PreparedCells, make: MakeAll = make_all) -> dict[Cell, Path]:
    """By cell its student after training to restore masked spans of a corpus (DAPT). Raises DataError."""
    jobs = {cell: _adapted_job(p, cell) for cell, p in asked.items()}
    here = any(needs_this_process(cell.student) for cell in asked)
    return make(experiment.store, ADAPTED, jobs, experiment.settings.compute, here)


def _adapted_job(prepared: Prepared, cell: Cell) -> Job:
    settings = prepared.experiment.settings
    dapt, passages = settings.dapt, list(prepared.runs.pool.values())
    if dapt.corpus == "neighbour":
        if not prepared.experiment.world:
            raise DataError("only the closed world has a neighbour: set dapt.corpus to own")
        seed = settings.world.seed + NEIGHBOUR
        passages = list(build_world(settings.world.model_copy(update={"seed": seed})).texts.values())
    student = settings.student.of(cell.student)
    first = student.model_copy(update={"lr": dapt.lr, "epochs": dapt.epochs, "steps": None})
    spec = {"passages": fingerprint(passages), "dapt": dapt.model_dump(exclude={"corpus"})}
    return spec | student_spec(first, cell.seed), (passages, dapt, student, cell.seed)


def train_rag(experiment: Experiment, asked: PreparedCells) -> dict[Cell, Path]:
    """By cell the folder of the retriever (`question`, `passage`) and the `student` that are trained together."""
    warm = {cell: (p, cell.seed) for cell, p in asked.items() if METHODS[cell.method].reads_in_training == "rag_warm"}
    starts = train_retrievers(experiment, warm)
    here = any(needs_this_process(cell.student) for cell in asked)
    jobs = {cell: _rag_job(p, cell, starts.get(cell)) for cell, p in asked.items()}
    return make_all(experiment.store, RAG, jobs, here=here)


def _rag_job(prepared: Prepared, cell: Cell, start: Path | None) -> Job:
    experiment, settings = prepared.experiment, prepared.experiment.settings.rag
    settings = settings.model_copy(update={"model": str(start or settings.model)})
    student = student_settings(experiment.settings, cell)
    knobs = {n: v for n, v in settings.model_dump(exclude={"questions"}).items() if "contrastive" not in n}
    if student.lora:
        raise DataError("RAG trains all weights of its student: leave out student.lora, or the methods rag, rag_warm")
    named = ("revision", "lr", "max_source_tokens", "max_new_tokens", "prompt", "truncation_side", "bf16")
    usual = (("truncation_side", "right"), ("bf16", False))
    learner = {n: v for n, v in student.of_training().items() if n in named and (n, v) not in usual}
    by_id = {q.id: q for q in experiment.learns_from(cell.seed)}
    written: dict[str, list[str]] = {}
    for r in prepared.rationales.need().kept:
        if question := by_id.get(r.question_id):
            written.setdefault(question.id, []).append(gold_text(question, student.form, r.text))
    targets = dict(list(written.items())[: settings.questions])
    questions = {q: by_id[q] for q in targets}
    texts = fingerprint([targets, {q.id: q.prompt for q in questions.values()}])
    spec = {"texts": texts, "passages": prepared.runs.pool_name, "seed": cell.seed,
            "settings": knobs | {"model": identify_retriever(settings.model)},
            "student": learner | {"model": identify(student.model, student.revision)}}  # fmt: skip
    return spec, (settings, student, questions, targets, prepared.runs.pool, cell.seed)


# Predictions


@dataclass(frozen=True)
class Predictions:
    """What a student wrote for every question of a split, in the split's order."""

    questions: list[Question]
    passages: list[list[str]]  # ids of the passages that it read
    texts: list[list[str]]  # its samples; one if greedy
    answers: list[int | None]  # parsed, by majority vote; None where no sample concludes an option

    @property
    def correct(self) -> list[bool]:
        """Whether each answer is the gold one; no answer is a wrong one."""
        return [value > 0 for value in self.scores]

    @property
    def scores(self) -> list[float]:
        """The same as 1 and 0, where an answer that could not be read is known by its sign (`data.answers.UNREAD`)."""
        return [score(answer, question.answer) for answer, question in zip(self.answers, self.questions, strict=True)]


def answer(experiment: Experiment, cells: Iterable[Cell], split: str = "test") -> dict[Cell, Predictions]:
    """Prepare, train and ask for the cells of a grid; what is in the store is not made again."""
    asked = prepare_all(experiment, cells)
    students = train_students(experiment, asked)
    read = read_passages(Reading(experiment, split, asked, students))
    return predict(experiment, split, asked, students, read)


def prepare_all(experiment: Experiment, cells: Iterable[Cell]) -> dict[Cell, Prepared]:
    """By cell its variant of the settings, each prepared once."""
    cells = list(dict.fromkeys(cells))
    variants = {knobs: prepare(experiment, knobs) for knobs in dict.fromkeys(cell.knobs for cell in cells)}
    return {cell: variants[cell.knobs] for cell in cells}


def predict(
    experiment: Experiment, split: str, asked: PreparedCells, students: Mapping[Cell, Path],
    read: Mapping[Cell, Mapping[str, Sequence[str]]],
) -> dict[Cell, Predictions]:  # fmt: skip
    """By cell what its student answers after reading these passages (ids by question); cells of one key ask once."""
    texts = write_texts(experiment, list_writings(split, asked, students, read))
    keys = {cell: prediction_key(p.experiment.settings, cell) for cell, p in asked.items()}
    return {cell: _parse(p, cell, split, read[cell], texts[keys[cell]]) for cell, p in asked.items()}


def list_writings(
    split: str, asked: PreparedCells, students: Mapping[Cell, Path], read: Mapping[Cell, Mapping[str, Sequence[str]]]
) -> dict[PredictionKey, tuple[list[Source], StudentSettings, int]]:
    """By key the sources, the settings with the student's folder, and the seed of what is written.

    Students that read the same share one list of sources: else those of a large grid would not fit into memory.
    """
    keys = {cell: prediction_key(p.experiment.settings, cell) for cell, p in asked.items()}
    work, shared = {}, dict[Any, list[Source]]()
    for key, cell in {key: cell for cell, key in reversed(keys.items())}.items():
        settings = student_settings(asked[cell].experiment.settings, cell)
        settings = settings.model_copy(update={"model": str(students.get(cell, cell.student))})
        if METHODS[cell.method].shots == "rationale" and not settings.max_new_tokens:  # it learnt no length
            settings = settings.model_copy(update={"max_new_tokens": prompted_limit(asked[cell])})
        told = (asked[cell], cell.method, settings.form, tuple((id, *found) for id, found in read[cell].items()))
        if told not in shared:
            shared[told] = source_texts(asked[cell], cell, split, read[cell])
        work[key] = (shared[told], settings, cell.seed)
    return work


def prompted_limit(prepared: Prepared) -> int:
    """Tokens that a student may write which only a prompt shows rationales: all but 1 % of the teacher's would fit.

    A tokenizer of a language model makes hardly more than a token of three characters.
    """
    lengths = [len(r.text) for r in prepared.rationales.need().kept]
    return max(NEW_TOKENS, int(np.quantile(lengths, 1 - CUT)) // 3)


def answer_reader(settings: RunSettings, cell: Cell) -> Callable[[str, Sequence[str]], int | None]:
    """What finds the option that a cell's text names: by its words where it was shown to answer so."""
    if settings.answer == "last_letter":
        return last_letter
    by_words = METHODS[cell.method].is_shown_answers and student_settings(settings, cell).form == "option"
    return parse_option if by_words else parse_answer


def _parse(
    prepared: Prepared, cell: Cell, split: str, read: Mapping[str, Sequence[str]], texts: list[list[str]]
) -> Predictions:
    questions, read_answer = prepared.experiment.data.splits[split], answer_reader(prepared.experiment.settings, cell)
    answers = [majority_vote([read_answer(t, q.options) for t in ts]) for q, ts in zip(questions, texts, strict=True)]
    return Predictions(questions, [list(read[q.id]) for q in questions], texts, answers)


# Likelihoods


@dataclass(frozen=True)
class Likelihoods:
    """How likely a student finds each option of every question of a split, in the split's order."""

    questions: list[Question]
    total: list[list[float]]  # log-likelihood of each option
    per_character: list[list[float]]

    def correct(self, per_character: bool = True) -> list[bool]:
        """Whether the likeliest option is the gold one, by one of the two readings."""
        values = self.per_character if per_character else self.total
        return [int(np.argmax(v)) == q.answer for v, q in zip(values, self.questions, strict=True)]


def weigh_options(
    experiment: Experiment, split: str, asked: PreparedCells, students: Mapping[Cell, Path],
    predictions: Mapping[Cell, Predictions],
) -> dict[Cell, Likelihoods]:  # fmt: skip
    """By cell how likely its student finds the options after what it read and its own rationale, where it wrote one.

    An option is named as the student's targets name it or, where nothing ever showed it targets, by its words.
    """
    work = {}
    for cell, prepared in asked.items():
        method, settings = METHODS[cell.method], student_settings(prepared.experiment.settings, cell)
        settings = settings.model_copy(update={"model": str(students.get(cell, cell.student))})
        given = predictions[cell]
        read = {q.id: ids for q, ids in zip(given.questions, given.passages, strict=True)}
        sources = source_texts(prepared, cell, split, read)
        written = [CONCLUDES.split(texts[0]) for texts in given.texts]
        reasons = [parts[0] if len(parts) > 1 or method.writes == "rationale" else "" for parts in written]
        begun = [f"{reason.strip()} {CONCLUSION}".strip() for reason in reasons]
        options = [_name_options(q, method, settings) for q in given.questions]
        work[cell] = sources, begun, options, settings, cell.seed
    found = weigh_texts(experiment, work)
    return {cell: Likelihoods(predictions[cell].questions, **values) for cell, values in found.items()}


def _name_options(question: Question, method: Method, settings: StudentSettings) -> list[str]:
    if not method.is_shown_answers:
        return list(question.options)
    return [answer_text(question, i, settings.form) for i in range(len(question.options))]


class Row(NamedTuple):
    """One line of a grid: a method with a student under changed settings, for every seed.

    `knob`, `x` and `at` are what a figure's data call these settings (`report.rows`).
    """

    method: str
    student: str
    knobs: Knobs = ()
    knob: str = ""
    x: float | None = None
    at: str = ""


class Gain(NamedTuple):
    """A comparison: how far one row is above another; with `less`, by how much more than in these two."""

    above: Row
    below: Row
    less: "Gain | None" = None


class Grid(NamedTuple):
    """The rows of a notebook, and which of them it compares."""

    rows: list[Row]
    gains: Sequence[Gain] = ()


def list_cells(rows: Iterable[Row], seeds: Sequence[int]) -> list[Cell]:
    """The cells of some lines of a grid."""
    return [Cell(row.method, row.student, seed, row.knobs) for row in rows for seed in seeds]


def score_rows(
    answered: Mapping[Cell, Predictions], rows: Iterable[Row], seeds: Sequence[int]
) -> dict[Row, NDArray[np.float64]]:
    """Scores per seed and question, (seeds, questions), for the lines of a grid: right (1) or wrong (0)."""
    return {row: np.array([answered[cell].scores for cell in list_cells([row], seeds)]) for row in rows}


def outcomes(experiment: Experiment, rows: Sequence[Row]) -> dict[Row, NDArray[np.float64]]:
    """The same of all seeds and test questions, answered where they were not yet."""
    seeds = experiment.settings.seeds
    return score_rows(answer(experiment, list_cells(rows, seeds)), rows, seeds)
