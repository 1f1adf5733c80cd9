"""`kard plan`: what a run would download, ask, train and write, and what that costs; nothing is started or fetched.

Students and texts are counted from the notebooks' grids, each once, however many notebooks share it. Tokens are
characters divided by four, hours are FLOPs (`models/costs.py`) divided by an assumed share of the device's peak. So
counts are exact, but for rationales that the filter drops and settings that turn out to change no text; hours are right
within a factor of two or three, no more.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from kardlib import NANO
from kardlib.artifacts.device import SLOTS
from kardlib.artifacts.store import Kind, Store, canonical_json
from kardlib.data.files import Dataset
from kardlib.data.hub import HUB
from kardlib.data.prompts import TEACHER_PROMPT, teacher_text
from kardlib.errors import DataError, suggest
from kardlib.kard.downloads import INDEXES, list_downloads
from kardlib.kard.experiment import SILVER, Experiment, Knobs, describe_run, open_settings
from kardlib.kard.grids import all_grids, numbers_at
from kardlib.kard.helpful import TARGETS
from kardlib.kard.keys import PredictionKey, StudentKey, prediction_key, student_key, student_spec
from kardlib.kard.lengths import (
    CHARACTERS,
    LONGEST,
    UNCOUNTED,
    Texts,
    count_examples,
    count_texts,
    source_tokens,
    target_tokens,
)
from kardlib.kard.llm import estimate, server_teacher
from kardlib.kard.methods import METHODS, main_rows
from kardlib.kard.pipeline import STUDENT, Row, list_cells
from kardlib.kard.prepare import DEPTH, VERIFIER_SHOTS
from kardlib.kard.rankings import RERANKER, reranker_knobs
from kardlib.models.catalogue import SHORT, find_shape, without_network
from kardlib.models.costs import forward_flops, training_bytes, training_flops, writing_bytes
from kardlib.retrieval.prebuilt import UNPACKED
from kardlib.settings import GLUE_TASKS, RunSettings, TeacherSettings

TRAINED = ("reranker", *TARGETS)  # what trains a reranker
Origin = tuple[str, RunSettings]  # the first notebook that asks for something, and its settings there


class Hardware(NamedTuple):
    """What computes. The shares of its peak are assumptions: in training what this project aims at, in writing what is
    left of a GPU that makes one token of every text at a time. The CPU's give 0.9 hours for the embedded scale, whose
    first run is known to take one to two, retrieval and RAG with it.
    """

    name: str
    flops: float  # a second at the peak, bf16 on a GPU
    memory: float | None  # bytes; None: what this machine has
    training: float
    writing: float


DEVICES = {
    "a100": Hardware("one NVIDIA A100 80 GB", 312e12, 80e9, 0.4, 0.02),
    "h100": Hardware("one NVIDIA H100 80 GB", 989e12, 80e9, 0.4, 0.01),
    "h200": Hardware("one NVIDIA H200 141 GB", 989e12, 141e9, 0.4, 0.01),
    "cpu": Hardware("two CPU cores", 200e9, None, 0.4, 0.1),
}


class Work(NamedTuple):
    """One line of the plan. The last three are None where the model's shape is not known."""

    what: str
    model: str
    artifacts: int
    here: int | None  # of them in the store already; None: not looked for
    steps: int | None
    tokens: int
    hours: float | None = None
    memory: float | None = None  # bytes on the device at the peak
    disk: float | None = None  # bytes of all artifacts


def list_work(
    variants: Mapping[Knobs, RunSettings], grid: Mapping[str, Sequence[Row]]
) -> tuple[dict[StudentKey, Origin], dict[PredictionKey, Origin]]:
    """Every student and everything that is written, with the notebook that asks for it first, and its settings there.

    `variants` are the settings of the grid's rows, by their knobs. Students of RAG are trained together with their
    retriever: they are written here, but not among the trainings.
    """
    trainings: dict[StudentKey, Origin] = {}
    writings: dict[PredictionKey, Origin] = {}
    for number, rows in grid.items():
        for row in rows:
            variant = variants[row.knobs]
            for cell in list_cells([row], variant.seeds):
                writings.setdefault(prediction_key(variant, cell), (number, variant))
                student = student_key(variant, cell)
                if student and not METHODS[row.method].rag:
                    trainings.setdefault(student, (number, variant))
    return trainings, writings


# The plan


class Basis(NamedTuple):
    """What every line of the plan is reckoned from."""

    experiment: Experiment
    texts: Texts
    device: Hardware

    @property
    def settings(self) -> RunSettings:
        """Of the experiment."""
        return self.experiment.settings

    @property
    def gpu(self) -> bool:
        """Whether a GPU computes, where models are trained and asked in bf16."""
        return self.device.memory is not None

    def of(self, student: str) -> "Basis":
        """The same, with the student's settings as the model itself would have them."""
        settings = self.settings.model_copy(update={"student": self.settings.student.of(student)})
        return self._replace(experiment=replace(self.experiment, settings=settings))

    @property
    def longest(self) -> tuple[int, int]:
        """About the tokens of a fine-tuned student's longest source and target."""
        source = LONGEST * source_tokens(self.settings, self.texts, self.settings.retrieval.k_training)
        target = target_tokens(self.settings, self.texts, "rationale", LONGEST)
        return min(self.settings.student.max_source_tokens, round(source)), round(target)


def plan(settings: RunSettings, device: str | None = None, store: Store | None = None) -> dict[str, Any]:
    """What `kard reproduce` with these settings would do, as plain JSON values. Raises DataError, SettingsError.

    On a task of GLUE only ReAugKD runs, whose work is not counted: its plan holds what is downloaded, and no work.
    """
    with without_network():
        on = DEVICES[device or ("a100" if settings.scale == "paper" else "cpu")]
        experiment, downloads = open_unread(settings, store or Store()), list_downloads(settings)
        planned = {
            "run": f"{settings.scale} scale, dataset {settings.dataset}, ReAugKD",
            "device": on._asdict(), "questions": None, "downloads": downloads, "teacher": None, "work": [],
            "hours": None, "notebooks": {}, "searches": 0, "disk": measure_disk(experiment.store, downloads, []),
            "notes": [f"on {settings.dataset} only ReAugKD runs, whose trainings are not counted"],
        }  # fmt: skip
        return planned if settings.dataset in GLUE_TASKS else planned | _plan_kard(experiment, on, downloads)


def open_unread(settings: RunSettings, store: Store) -> Experiment:
    """The experiment, without the questions where they would have to be fetched or are no part of the plan."""
    if settings.dataset not in GLUE_TASKS and not (settings.data_dir is None and settings.dataset in HUB):
        return open_settings(settings, store)
    if settings.data_dir and not Path(settings.data_dir).is_dir():
        raise DataError(f"there is no folder {settings.data_dir}: correct data_dir")
    server = server_teacher(settings.teacher, store.root) if settings.teacher.base_url else None
    return Experiment(settings, store, Dataset(settings.dataset, {}, [], {}), None, server)


def _plan_kard(experiment: Experiment, on: Hardware, downloads: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    settings, texts = experiment.settings, count_texts(experiment)
    basis, three = Basis(experiment, texts, on), settings.override(dict(numbers_at(settings)[3]))
    middle = three.student.of(experiment.student, "rationale", reads=True)
    steps = middle.count_steps(count_examples(three, texts, "rationale"))
    rows = main_rows(experiment.world is not None, True, bool(experiment.data.gold), settings.methods)
    grid = all_grids(settings, rows, steps)
    knobs = dict.fromkeys(row.knobs for part in grid.values() for row in part)
    variants = {one: settings.override(dict(one)) for one in knobs}
    trainings, writings = list_work(variants, grid)
    stored = list_stored(experiment.store, STUDENT)
    work = [training_work(basis, name, trainings, stored) for name in settings.students]
    work += [writing_work(basis, name, writings) for name in settings.students]
    work += [*reranker_work(basis, writings), *weighing_work(basis, writings)]
    teachers = dict.fromkeys(variant.teacher for variant in variants.values())
    work += [verifier_work(basis, name, teachers) for name in dict.fromkeys(t.verifier for t in teachers if t.verifier)]
    disk = measure_disk(experiment.store, downloads, work)
    students, predictions = (Counter(number for number, _ in part.values()) for part in (trainings, writings))
    return {
        "run": describe_run(settings),
        "questions": texts._asdict(),
        "teacher": teacher_work(basis, variants.values()),
        "work": [row._asdict() for row in work],
        "hours": sum(row.hours for row in work if row.hours is not None),
        "notebooks": {number: {"students": students[number], "predictions": predictions[number]} for number in grid},
        "searches": texts.train + texts.test + texts.silver + SILVER * (texts.train + texts.silver),
        "disk": disk,
        "notes": list_notes(basis, work, disk),
    }


def training_work(basis: Basis, student: str, trainings: Mapping[StudentKey, Origin], stored: Counter[str]) -> Work:
    """Training one student in all the ways that are asked for; `stored` are the students that there are."""
    settings, basis, shape = basis.settings, basis.of(student), find_shape(student)
    texts, knobs = basis.texts, basis.settings.student
    options = {"lora": knobs.lora, "checkpointing": knobs.gradient_checkpointing}
    ways = [(key, variant) for key, (_, variant) in trainings.items() if key.student == student]
    steps, tokens, flops, planned = 0, 0.0, 0.0, Counter[str]()
    for key, variant in ways:
        taught = variant.student.of(student, key.learns, key.reads)
        variant = variant.model_copy(update={"student": taught})
        asked_of = texts._replace(train=variant.world.train) if settings.dataset == "world" else texts
        examples = count_examples(variant, asked_of, key.learns, key.reads)
        seen = taught.count_seen(examples)
        source = source_tokens(variant, texts, variant.retrieval.k_training if key.reads else 0)
        target = target_tokens(variant, texts, key.learns)
        steps += taught.count_steps(examples)
        tokens += seen * (source + target)
        flops += seen * training_flops(shape, source, target, **options) if shape else 0
        if not key.corpus:  # else its settings name weights that are not there yet
            planned[canonical_json(student_spec(taught, key.seed))] += 1
    here = (planned & stored).total()
    work = Work("train", student, len(ways), here, steps, round(tokens))
    if not shape:
        return work
    memory = training_bytes(shape, knobs.batch, *basis.longest, bf16=basis.gpu, gpu=basis.gpu, **options)
    hours = flops / basis.device.flops / basis.device.training / 3600
    return work._replace(hours=hours, memory=memory, disk=4.0 * shape.parameters * len(ways))


def writing_work(basis: Basis, student: str, writings: Collection[PredictionKey]) -> Work:
    """What all copies of one student write for the test questions."""
    basis = basis.of(student)
    settings, texts = basis.settings, basis.texts
    asked = []
    for writing in (writing for writing in writings if writing.model == student):
        source = source_tokens(settings, texts, writing.passages, writing.shots, writing.reads)
        asked.append((texts.test, source, target_tokens(settings, texts, writing.writes)))
    return asking_work(basis, "write", student, len(asked), asked, settings.student.samples)


def verifier_work(basis: Basis, verifier: str, teachers: Iterable[TeacherSettings]) -> Work:
    """The LM that filters rationales answers from every one of them, once for each way and each `l` in the grids."""
    basis, asked = basis.of(verifier), []
    for teacher in (t for t in teachers if t.verifier == verifier):
        few = teacher.verifier_prompt == "five_shot"  # answers by the letter that is likeliest, and writes nothing
        source = source_tokens(basis.settings, basis.texts, 0, reads="rationale") * (VERIFIER_SHOTS + 1 if few else 1)
        target = target_tokens(basis.settings, basis.texts, "answer" if few else "rationale")
        asked.append((teacher.rationales * basis.texts.train, source, target))
    return asking_work(basis, "verify", verifier, len(asked), asked)


def asking_work(
    basis: Basis, what: str, model: str, artifacts: int, asked: Iterable[tuple[int, float, float]], samples: int = 1
) -> Work:
    """Writing `samples` texts for each question; `asked`: how many questions, mean tokens of source and of target."""
    device, shape, tokens, seconds = basis.device, find_shape(model), 0.0, 0.0
    for questions, source, target in asked:
        tokens += questions * samples * target
        if shape:
            read = source * (samples if shape.kind == "causal" else 1)  # generate has a causal one read for each sample
            share = forward_flops(shape, read, 0) / device.training
            share += forward_flops(shape, 0, samples * target) / device.writing
            seconds += questions * share / device.flops
    work = Work(what, model, artifacts, None, None, round(tokens))
    if not shape:
        return work
    memory = writing_bytes(shape, basis.settings.student.generation_batch, samples, *basis.longest, bf16=basis.gpu)
    return work._replace(hours=seconds / 3600, memory=memory, disk=0.0)


def reranker_work(basis: Basis, writings: Mapping[PredictionKey, Origin]) -> list[Work]:
    """Training one for every seed and every way that is asked for, and ranking with each, with the one that they
    start from and, in the closed world, with random weights.

    A text is encoded once, so where the passages are few they bound the work.
    """
    settings, texts, device = basis.settings, basis.texts, basis.device
    knobs, shape, many = settings.reranker, find_shape(settings.reranker.model), texts.passages or UNCOUNTED
    question, passage = (min(knobs.max_tokens, n / CHARACTERS) for n in (texts.question, texts.passage))
    ways = {(w.reads, w.ranked_by): variant.reranker for w, (_, variant) in writings.items() if w.reads in TRAINED}
    each = [reranker_knobs(way) for way in ways.values()]
    names = Counter(canonical_json({"settings": way, "seed": seed}) for way in each for seed in settings.seeds)
    steps = -(-count_learnt(basis) // knobs.batch) * knobs.epochs * names.total()
    drawn = min(2 * knobs.sampled * knobs.batch, many)  # passages of a step, at most
    seen = steps * (knobs.batch * question + drawn * passage)
    # notebook 03 ranks held-out questions too, before training and after
    untrained = 1 + bool(basis.experiment.world)
    tables = [(texts.test, untrained + names.total()), (texts.silver, (1 + len(settings.seeds)) * bool(texts.silver))]
    depth = max(DEPTH, settings.retrieval.candidates)
    ranked = sum(times * (asked * question + min(asked * depth, many) * passage) for asked, times in tables)
    here = (names & list_stored(basis.experiment.store, RERANKER)).total()
    train = Work("train", knobs.model, names.total(), here, steps, round(seen))
    rank = Work("rank", knobs.model, sum(times for _, times in tables), None, None, round(ranked))
    if shape:
        flops, speed = training_flops(shape, seen, 0, lora=knobs.lora), device.flops * 3600 * device.training
        longest = min(knobs.max_tokens, round(LONGEST * passage))
        memory = training_bytes(shape, drawn, longest, 0, bf16=basis.gpu, lora=knobs.lora, gpu=basis.gpu)
        train = train._replace(hours=flops / speed, memory=memory, disk=4.0 * shape.parameters * names.total())
        rank = rank._replace(hours=forward_flops(shape, ranked, 0) / speed, disk=0.0)
    return [train, rank]


def weighing_work(basis: Basis, writings: Iterable[PredictionKey]) -> list[Work]:
    """How likely each rationale is to the middle student after each candidate: what both of `TARGETS` learn from."""
    knobs, name = basis.settings.reranker, basis.experiment.student
    times = len({w.ranked_by for w in writings if w.reads in TARGETS}) * len(basis.settings.seeds)
    candidates = min(knobs.rationale_candidates + knobs.question_candidates, basis.texts.passages or UNCOUNTED)
    pairs, settings, shape = times * count_learnt(basis) * candidates, basis.of(name).settings, find_shape(name)
    source, target = source_tokens(settings, basis.texts, 1), target_tokens(settings, basis.texts, "rationale")
    speed = basis.device.flops * basis.device.training * 3600
    hours = pairs * forward_flops(shape, source, target) / speed if shape else None
    return [Work("weigh", name, times, None, None, round(pairs * (source + target)), hours, disk=0.0)] if times else []


def count_learnt(basis: Basis) -> int:
    """Rationales that a reranker learns from, before the filter."""
    asked = basis.settings.reranker.questions or basis.texts.train
    return min(basis.texts.train, asked) * basis.settings.teacher.rationales


def list_stored(store: Store, kind: Kind) -> Counter[str]:
    """How many artifacts of a kind there are, by settings and seed; only a run can tell from which texts."""
    return Counter(
        canonical_json({name: spec.get(name) for name in ("settings", "seed")}) for spec in store.specs(kind)
    )


def teacher_work(basis: Basis, variants: Iterable[RunSettings]) -> dict[str, Any]:
    """Who writes the rationales and, where a server does or would have to, what it is asked at most."""
    experiment, settings, texts = basis.experiment, basis.settings, basis.texts
    l = max(SILVER, *(variant.teacher.rationales for variant in variants))
    if experiment.teacher and not settings.teacher.base_url:
        return {"who": "the closed world's own" if experiment.world else "recorded rationales", "rationales": l}
    prompts = [teacher_text(q) for split in ("train", "silver") for q in experiment.data.splits.get(split, [])]
    if settings.data_dir is None and settings.dataset in HUB:
        prompts = [TEACHER_PROMPT + "x" * round(texts.question)] * (texts.train + texts.silver)
    ends = [l] * texts.train + [SILVER] * texts.silver
    expected = estimate(settings.teacher, ((p, j) for p, end in zip(prompts, ends, strict=True) for j in range(end)))
    asked = {"who": settings.teacher.model or "nobody yet", "rationales": l} | asdict(expected)
    return asked if settings.teacher.price_in or settings.teacher.price_out else asked | {"dollars": None}


def measure_disk(store: Store, downloads: Sequence[Mapping[str, Any]], work: Sequence[Work]) -> dict[str, float]:
    """Bytes: what is fetched and unpacked, what is made, the largest checkpoints on the way (weights and Adam's
    moments, for each of the models that are trained side by side), what is free.
    """
    missing = [d for d in downloads if not d["here"] and d["bytes"]]
    unpacked = sum(UNPACKED * d["bytes"] for d in missing if d["what"] == "index")
    made = sum(row.disk or 0 for row in work)
    one = max((row.disk / row.artifacts for row in work if row.disk and row.artifacts), default=0.0)
    fetched = sum(d["bytes"] for d in missing) + unpacked
    return {"fetched": fetched, "made": made, "on_the_way": SLOTS * 3 * one, "free": store.measure_free()}


def list_notes(basis: Basis, work: Sequence[Work], disk: Mapping[str, float]) -> list[str]:
    """What would stop the run, and what the numbers leave out."""
    index, memory = basis.settings.knowledge.index, basis.device.memory or math.inf
    lacking = disk["fetched"] + disk["made"] + disk["on_the_way"] - disk["free"]
    unmeasured = index and index not in INDEXES and not Path(index).expanduser().is_dir()
    unknown = sorted({row.model for row in work if row.hours is None})
    near = suggest(unknown[0], [*SHORT, *(folder.name for folder in NANO.iterdir())]) if unknown else ""
    writing = "student.generation_batch"
    smaller = {"train": "student.batch, or use student.lora", "write": writing, "verify": writing}
    large = [
        f"{row.model} needs about {row.memory / 1e9:.0f} GB to {row.what}, more than the {memory / 1e9:.0f} GB of "
        f"{basis.device.name}: lower {smaller[row.what]}"
        for row in work
        if row.memory and row.memory > memory
    ]
    notes = [
        (not basis.texts.train, "there are no training questions in data_dir: nothing can be trained"),
        (not basis.experiment.teacher, "nobody has written rationales, which is counted as if it were done: set "
         "teacher.base_url to a server, or give a data_dir that holds them"),
        (not index and basis.texts.passages == 0,
         'there are no passages: set knowledge.index, e.g. to "enwiki-paragraphs"'),
        *((True, note) for note in large),
        (lacking > 0, f"about {lacking / 1e9:.0f} GB of disk are missing: set KARD_STORE to a folder on another disk, "
         "or plan for fewer seeds or students"),
        (unmeasured, f"the size of the index {index} is not known and left out; it is shown before it is fetched"),
        (unknown, f"hours, memory and disk of {', '.join(unknown)} are not known and left out{near}"),
        (True, "not counted: BM25 and its index (CPU), training on passages alone (10), retrievers trained with the "
         "student (11: RAG), rerankers of other worlds (17, 21), notebooks 01, 13 and 18, and the example of 15"),
    ]  # fmt: skip
    return [note for applies, note in notes if applies]


# The page


def describe_plan(planned: Mapping[str, Any]) -> str:
    """The plan as a page of text."""
    lines = [planned["run"], "", _table(
        ("download", "revision", "GB", "here"),
        [(d["name"], (d["revision"] or "")[:9], _gigabytes(d["bytes"]), "yes" if d["here"] else "no")
         for d in planned["downloads"]],
    )]  # fmt: skip
    if planned["work"]:
        lines += ["", *_describe_work(planned)]
    fetched, made, on_the_way, free = map(_gigabytes, planned["disk"].values())
    lines += [
        f"disk: {fetched} GB to fetch and unpack, {made} GB made and up to {on_the_way} GB of checkpoints on the way; "
        f"{free} GB are free", "", *(f"- {note}" for note in planned["notes"]),
    ]  # fmt: skip
    return "\n".join(lines)


def _describe_work(planned: Mapping[str, Any]) -> list[str]:
    on, teacher, texts = planned["device"], planned["teacher"], planned["questions"]
    asked = f"teacher: {teacher['who']}, up to {teacher['rationales']} a question"
    if "requests" in teacher:
        cost = "no prices are set" if teacher["dollars"] is None else f"at most ${teacher['dollars']:.2f}"
        read, wrote = teacher["prompt_tokens"] / 1e6, teacher["completion_tokens"] / 1e6
        asked = (
            f"teacher ({teacher['who']}): {teacher['requests']:,} requests, about {read:.1f} million tokens to read, "
            f"at most {wrote:.1f} to write ({cost})"
        )
    counts = {number: n for number, n in planned["notebooks"].items() if n["students"] or n["predictions"]}
    first = [f"{number}: {n['students']} students, {n['predictions']} predictions" for number, n in counts.items()]
    share = f"{on['training']:.0%} of its peak in training and ranking, {on['writing']:.0%} in writing"
    lines = [f"questions: {texts['train']} to train on, {texts['test']} to test on", asked]
    lines += ["", f"on {on['name']}, at {share}:", _table(
        ("work", "model", "times", "here", "steps", "million tokens", "hours", "GB of memory"),
        [(w["what"], w["model"], w["artifacts"], w["here"], w["steps"], f"{w['tokens'] / 1e6:.1f}",
          None if w["hours"] is None else f"{w['hours']:.{1 if w['hours'] >= 1 else 2}f}", _gigabytes(w["memory"]))
         for w in planned["work"]],
    )]  # fmt: skip
    lines += [f"together {planned['hours']:.1f} hours", "", f"first needed by notebook: {'; '.join(first)}"]
    return [*lines, f"searches with BM25: {planned['searches']:,}"]


def _gigabytes(size: float | None) -> str | None:
    return None if size is None else f"{size / 1e9:.{2 if size < 1e10 else 1}f}"


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table whose first two columns are texts, the others numbers. "-" is what is not known."""
    sides = ["left", "left", *["right"] * (len(names) - 2)]
    return tabulate(rows, names, "plain", missingval="-", disable_numparse=True, colalign=sides if rows else None)
