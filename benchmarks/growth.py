"""How time and memory grow with questions, passages, candidates and students: CPU seconds and peaks with exponents.

    python benchmarks/growth.py [--passages 1000000] [--only "students: plan"] [--out benchmarks/results/growth.json]

Every point is a process of its own, which first does the work once in small, so that nothing is loaded later. Then
CPU seconds are counted, those of the Lucene process that it holds with them, and by how much the memory of both rises
at its peak; of curves marked as `traced`, what Python allocates, since new objects may lie where others were freed, so
that a process does not grow. Without Lucene runs under a second are repeated, and the median is taken. Passages are
generated (`index_million.py`) or, where a nano model reads them, the closed world's; what a student would write is made
up, as no student is trained.

An exponent is the slope of the line through the upper half of a curve, both axes logarithmic: 1 says that ten times as
much takes ten times as long. Memory that never rises by `FLAT` MiB has none. The last line is JSON.
"""

import argparse
import contextlib
import gc
import json
import os
import random
import re
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
from index_million import draw_words, generate
from official import cpu_seconds

from kardlib.artifacts.disk import atomic_write, hash_file, write_text
from kardlib.artifacts.provenance import provenance
from kardlib.artifacts.store import Store
from kardlib.data.files import Dataset, PassageFile, Question, read_own, write_own, write_passages
from kardlib.data.world import build_world
from kardlib.kard.cases import count_outcomes, find_causes, statement_shares
from kardlib.kard.experiment import PREDICTIONS, Cell, Experiment, open_settings, writing_job
from kardlib.kard.pipeline import STUDENT, Predictions, list_writings, predict, student_job, train_students
from kardlib.kard.plan import describe_plan, plan
from kardlib.kard.prepare import INDEX, Index, Prepared, Runs, prepare, write_rationales
from kardlib.kard.rankings import Reading, read_passages
from kardlib.kard.reranker import draw_steps
from kardlib.models.catalogue import NANO
from kardlib.models.encoders import load_reranker, rank
from kardlib.presets import preset
from kardlib.report.claims import format_claims, judge, read_claims, read_rows
from kardlib.report.drawings.accuracy import plot_main
from kardlib.report.evaluate import gain_row, hits, summary_rows
from kardlib.report.explorer import collect, make_page
from kardlib.report.figures import save_figure
from kardlib.report.rows import long_form
from kardlib.report.statistics import ratio_interval
from kardlib.retrieval.lucene import Lucene
from kardlib.retrieval.runs import Candidates, Run, read_run, write_run
from kardlib.settings import RunSettings, WorldSettings

FLAT = 8  # MiB: less says nothing of a process that holds torch
LONG = 1.0  # seconds from which on a run is not repeated
KAPPA, WORDS_ASKED, SEEDS = 100, 12, (0, 1, 2)
CORPUS = 10_000  # passages of an index that does not grow
METHODS = ("fine_tuning", "reasoning_distillation", "undistilled_bm25", "kard_bm25")  # of the grid of students
VARIANTS = [(), *((("retrieval.k", k),) for k in (1, 2)), *((("retrieval.candidates", k),) for k in (10, 50))]
Setup = Callable[[int, Path], AbstractContextManager[Callable[[], object]]]  # size, folder of inputs -> the work


class Curve(NamedTuple):
    """A kind of work, and the sizes at which it is measured."""

    axis: str
    name: str
    sizes: Sequence[int]
    setup: Setup
    java: bool = False  # it holds a Lucene process, which is warmed by the setup, for starting one takes seconds
    traced: bool = False  # its memory is that of Python's objects, and is counted as they are allocated


# Inputs


def write_texts(count: int, folder: Path) -> Path:
    """The first so many generated passages as a file, cut from a longer one that is there."""
    path = folder / f"passages-{count}.jsonl"
    longer = (int(p.stem.split("-")[1]) for p in folder.glob("passages-*.jsonl"))
    if not path.exists() and (source := min((n for n in longer if n > count), default=None)):
        with open(folder / f"passages-{source}.jsonl") as lines, atomic_write(path) as file, open(file, "w") as cut:
            cut.writelines(islice(lines, count))
    elif not path.exists():
        write_passages(path, generate(count))
    return path


def ask_words(count: int, seed: int = 1) -> dict[str, str]:
    rng = np.random.default_rng(seed)
    return {f"q{i}": " ".join(draw_words(rng, WORDS_ASKED)) for i in range(count)}


def index_texts(count: int, folder: Path) -> Path:
    index = folder / f"index-{count}"
    if not index.exists():
        with Lucene(preset().knowledge) as lucene:
            lucene.build(index, PassageFile(write_texts(count, folder)))
    return index


def make_questions(count: int) -> list[Question]:
    return [Question(id, f"{text}?", ("one", "two", "three", "four"), i % 4)
            for i, (id, text) in enumerate(ask_words(count).items())]  # fmt: skip


def write_data(questions: int, passages: Path | None, folder: Path) -> Path:
    """One's own data, with three rationales and a gold passage of every question; passages are linked to."""
    asked, own = make_questions(questions), folder / f"own-{questions}-{passages.stem if passages else ''}"
    shutil.rmtree(own, ignore_errors=True)
    splits = {"train": asked[: questions // 2], "dev": [], "test": asked[questions // 2 :]}
    gold = {q.id: frozenset({"p0000000"}) for q in asked}
    data = Dataset("own", splits, [*generate(1)], gold)
    write_own(own, data, {q.id: [f"{q.text} The answer is A."] * 3 for q in asked})
    if passages:
        (own / "passages.jsonl").unlink()
        (own / "passages.jsonl").symlink_to(passages)
    return own


def make_run(questions: int, depth: int, passages: int) -> Run:
    rng = random.Random(0)
    found = {f"q{i}": enumerate(rng.sample(range(passages), depth)) for i in range(questions)}
    return {id: [(f"p{p:07d}", 20 - j / 64) for j, p in ranked] for id, ranked in found.items()}


# Questions


@contextlib.contextmanager
def search_questions(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    with Lucene(preset().knowledge) as lucene:
        index, queries = index_texts(CORPUS, folder), ask_words(count)
        lucene.search(index, dict(islice(queries.items(), 50)), KAPPA)
        yield lambda: lucene.search(index, queries, KAPPA)


@contextlib.contextmanager
def rank_questions(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    reranker, world = load_reranker(preset().reranker), build_world(WorldSettings(test=count))
    names, rng = [*world.texts], random.Random(0)
    queries = {q.id: q.prompt for q in world.splits["test"]}
    run = {id: [(p, 0.0) for p in rng.sample(names, 20)] for id in queries}
    yield lambda: rank(reranker, queries, run, world.texts)


@contextlib.contextmanager
def evaluate(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    right = (np.random.default_rng(0).random((2, len(SEEDS), count)) < 0.5).astype(float)
    run, relevant = make_run(count, 20, 1000), {f"q{i}": frozenset({f"p{i % 1000:07d}"}) for i in range(count)}

    def work() -> None:
        summary_rows(right[0], SEEDS)
        gain_row(*right, over="other")
        ratio_interval("f1", right[0], right[1][0])
        ratio_interval("matthews", right[0], right[1][0])
        hits(run, relevant, 10)

    yield work


@contextlib.contextmanager
def read_data(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    yield lambda: read_own(write_data(count, None, folder))


@contextlib.contextmanager
def keep_run(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    run, path = make_run(count, KAPPA, CORPUS), folder / "run.tsv"
    yield lambda: (write_run(path, run), read_run(path))


@contextlib.contextmanager
def explore(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    settings = preset().override({"world.test": count})
    experiment = open_settings(settings, Store(folder / "store"))
    prepared, test = make_prepared(experiment), experiment.data.splits["test"]
    told = [r.text for r in prepared.rationales.written["test"] if r.number == 0]
    read = [[p for p, _ in prepared.runs.by_question[q.id][:3]] for q in test]
    cells = {Cell("kard_bm25", "t5-nano-base", seed): Predictions(test, read, [[text] for text in told],
             [(q.answer + seed) % 2 for q in test]) for seed in SEEDS}  # fmt: skip

    def work() -> None:
        make_page(collect(dict.fromkeys(cells, prepared), cells), settings)
        count_outcomes(experiment, cells.values())
        for predictions in cells.values():
            find_causes(experiment, predictions)
            statement_shares(prepared.experiment.world, predictions)

    yield work


def make_prepared(experiment: Experiment) -> Prepared:
    """As `prepare` makes it, but for the runs, which are drawn."""
    rationales, texts = write_rationales(experiment), {p.id: p.text for p in experiment.data.passages}
    names, rng = [*texts], random.Random(0)

    def draw(ids: Sequence[str]) -> Run:
        return {i: [(p, 20 - j / 64) for j, p in enumerate(rng.sample(names, 10))] for i in ids}

    by_question = draw([q.id for split in experiment.data.splits.values() for q in split])
    by_rationale = draw([r.id for split in rationales.written.values() for r in split])
    found = by_question, by_rationale
    return Prepared(experiment, rationales, Runs(*found, texts, Index(Path(), "index"), "texts", texts, "texts"))


# Passages


@contextlib.contextmanager
def build_index(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    passages = PassageFile(write_texts(count, folder))
    with Lucene(preset().knowledge) as lucene:
        lucene.build(folder / "small", generate(100))
        yield lambda: lucene.build(folder / f"index-{count}", passages)


@contextlib.contextmanager
def search_passages(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    with Lucene(preset().knowledge) as lucene:
        index, queries = index_texts(count, folder), ask_words(400)
        lucene.search(index, dict(islice(queries.items(), 50)), KAPPA)
        yield lambda: lucene.search(index, queries, KAPPA)


@contextlib.contextmanager
def open_data(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    own = write_data(1000, write_texts(count, folder), folder)
    yield lambda: sum(len(passage.text) for passage in read_own(own).passages)


@contextlib.contextmanager
def prepare_variants(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    """Variants of the settings, whose runs are in the store: what they cost besides has no part in the passages."""
    own, store = write_data(200, passages := write_texts(count, folder), folder), Store(folder / "store")
    index, spec = index_texts(count, folder), {"passages": hash_file(passages)}
    store.make(INDEX, spec, lambda made: shutil.copytree(index, made / "lucene"))
    experiment = open_settings(preset("embedded", "own", str(own)), store)
    prepare(experiment)
    yield lambda: [prepare(experiment, knobs) for knobs in VARIANTS]


# Candidates


@contextlib.contextmanager
def search_candidates(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    with Lucene(preset().knowledge) as lucene:
        index, queries = index_texts(CORPUS, folder), ask_words(400)
        lucene.search(index, queries, count)
        yield lambda: lucene.search(index, queries, count)


@contextlib.contextmanager
def rank_candidates(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    """No two questions have a candidate in common, else passages would be encoded once for many of them."""
    reranker, world = load_reranker(preset().reranker), build_world(WorldSettings(test=8, notes=8 * count))
    names, queries = iter(world.texts), {q.id: q.prompt for q in world.splits["test"]}
    run = {id: [(p, 0.0) for p in islice(names, count)] for id in queries}
    yield lambda: rank(reranker, queries, run, world.texts)


@contextlib.contextmanager
def draw_candidates(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    rng, known = random.Random(0), []
    for i in range(200):
        found, asked = ({f"p{rng.randrange(10**6)}": 1.0 for _ in range(count)} for _ in range(2))
        known.append(Candidates(f"q{i // 3}", found, asked))
    yield lambda: sum(map(len, draw_steps(known, preset().reranker, 0)))


# Students


def name_students(count: int, folder: Path) -> list[str]:
    """So many folders that hold the smallest nano student."""
    names = [folder / "students" / f"student-{i:03d}" for i in range(count)]
    for name in names:
        name.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            name.symlink_to(NANO / "t5-nano-small")
    return [str(name) for name in names]


def open_students(count: int, folder: Path, scale: str) -> tuple[RunSettings, Path]:
    """Settings with so many students, and the folder of a store of their own."""
    settings = preset(scale).override({"students": name_students(count, folder), "seeds": SEEDS})
    return settings, folder / f"store-{count}"


def pretend(spec: dict[str, Any], store: Store, kind: Any, **files: object) -> None:
    """Put an artifact into a store that holds these files, without making it."""

    def build(made: Path) -> None:
        for name, value in files.items():
            (made / name.replace("_", ".")).write_text(json.dumps(value))

    store.make(kind, spec, build)


@contextlib.contextmanager
def plan_students(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    settings, place = open_students(count, folder, "smoke")
    for student, i in product(settings.students, range(30)):
        pretend({"examples": i, "settings": {"model": student}, "seed": 0}, Store(place), STUDENT, model_json=i)
    yield lambda: describe_plan(plan(settings, store=Store(place)))


@contextlib.contextmanager
def look_up_students(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    """What a second run does before it draws: keys, names and checks of artifacts, sources, texts, answers."""
    settings, place = open_students(count, folder, "smoke")
    experiment = open_settings(settings, Store(place))
    prepared = make_prepared(experiment)
    asked = {Cell(*cell): prepared for cell in product(METHODS, settings.students, SEEDS)}
    for cell in asked:
        if cell.method in METHODS[:2] or cell.method.startswith("kard"):
            pretend(student_job(prepared, cell)[0], experiment.store, STUDENT, model_safetensors=repr(cell))
    students = train_students(experiment, asked)
    read = read_passages(Reading(experiment, "test", asked, students))
    for work in list_writings("test", asked, students, read).values():
        texts = [["The answer is A."] for _ in work[0]]
        pretend(writing_job(*work)[0], experiment.store, PREDICTIONS, texts_json=texts)

    def work() -> object:
        again = Experiment(settings, Store(place), experiment.data, experiment.world, experiment.teacher)
        students = train_students(again, asked)
        return predict(again, "test", asked, students, read_passages(Reading(again, "test", asked, students)))

    yield work


def make_rows(students: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a main table: means of seeds and over them, and what each method gains over another."""
    rows, rng = [], np.random.default_rng(0)
    place = {"figure": "04_main", "dataset": "world", "scale": "embedded", "split": "test", "metric": "accuracy"}
    ways = ("fine_tuning", "ka_fine_tuning", "reasoning_distillation", "kard_bm25", "kard_reranker", "kard_silver")
    for student in students:
        right = {way: (rng.random((len(SEEDS), 200)) < 0.5).astype(float) for way in ways}
        for way, rival in zip(ways, ways[1:] + ways[:1], strict=True):
            rows += summary_rows(right[way], SEEDS, **place, method=way, student=student)
            rows.append(gain_row(right[way], right[rival], rival, **place | {"method": way, "student": student}))
    return rows


@contextlib.contextmanager
def judge_students(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    rows, figures = make_rows([f"student-{i:03d}" for i in range(count)]), folder / f"figures-{count}"
    figures.mkdir(exist_ok=True)

    def work() -> None:
        long_form(rows).to_csv(figures / "04_main.csv", index=False)
        format_claims(judge(read_claims(), read_rows([figures])))

    yield work


@contextlib.contextmanager
def draw_students(count: int, folder: Path) -> Iterator[Callable[[], object]]:
    import matplotlib.pyplot as plt

    rows = long_form(make_rows([f"s{i:02d}" for i in range(count)]))

    def work() -> None:
        save_figure(plot_main(rows), "04_main", rows, folder / "drawn", {})
        plt.close("all")

    yield work


# All of them

TEN, MILLION, KAPPAS = (1, 3, 10), (10_000, 100_000, 1_000_000), (20, 140, 1000)
CURVES = [
    Curve("questions", "BM25 search", [200 * n for n in TEN], search_questions, java=True),
    Curve("questions", "reranking, 20 candidates", [200 * n for n in TEN], rank_questions),
    Curve("questions", "evaluation", [2_000 * n for n in TEN], evaluate),
    Curve("questions", "own data, written and read", [1_000 * n for n in TEN], read_data),
    Curve("questions", "run table, written and read", [2_000 * n for n in TEN], keep_run, traced=True),
    Curve("questions", "explorer, case studies", [200 * n for n in TEN], explore),
    Curve("passages", "index", MILLION, build_index, java=True),
    Curve("passages", "search, 400 questions", MILLION, search_passages, java=True),
    Curve("passages", "own data, read", MILLION, open_data),
    Curve("passages", "variants, five of the settings", MILLION, prepare_variants, java=True),
    Curve("candidates", "BM25 search, 400 questions", KAPPAS, search_candidates, java=True),
    Curve("candidates", "reranking, 8 questions", KAPPAS, rank_candidates),
    Curve("candidates", "draws, for a reranker's training", KAPPAS, draw_candidates),
    Curve("students", "plan", [5 * n for n in TEN], plan_students),
    Curve("students", "keys and store", [5 * n for n in TEN], look_up_students),
    Curve("students", "tables and claims", [20 * n for n in TEN], judge_students),
    Curve("students", "figure", [5 * n for n in TEN], draw_students),
]


def exponent(sizes: Sequence[int], values: Sequence[float], least: float = 0.0) -> float | None:
    """The slope of log(value) over log(size), least squares over the upper half; None if no value is above `least`."""
    upper = len(sizes) // 2
    if max(values) <= least or len(set(sizes[upper:])) < 2:
        return None
    logs = np.log(sizes[upper:]), np.log(np.maximum(values[upper:], max(least / 8, 1e-9)))
    return round(float(np.polyfit(*logs, 1)[0]), 2)


def read_memory(field: str) -> int:
    """Bytes of this process and those that it started: VmRSS now, or VmHWM at the peak."""
    processes, size = [p.pid for p in (psutil.Process(), *psutil.Process().children(recursive=True))], 0
    for id in processes:
        with contextlib.suppress(OSError):
            size += int(re.findall(rf"{field}:\s+(\d+)", Path(f"/proc/{id}/status").read_text())[0]) << 10
    return size


def forget_peak() -> None:
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def measure(curve: Curve, size: int, repeats: int, folder: Path) -> tuple[float, float]:
    """In a process of its own: CPU seconds of the work, and MiB that it needs above what there was before."""
    gc.set_threshold(50_000)  # as a run has it
    if not curve.java:
        with curve.setup(max(2, curve.sizes[0] // 10), folder) as work:
            work()
    seconds, mib = [], []
    while not seconds or (len(seconds) < repeats and seconds[0] < LONG and not curve.java):
        with curve.setup(size, folder) as work:
            gc.collect()
            forget_peak()
            before, began = read_memory("VmRSS"), cpu_seconds()
            work()
            seconds.append(cpu_seconds() - began)
            mib.append((read_memory("VmHWM") - before) / 2**20)
    if curve.traced:  # after the time is taken, which it would double
        with curve.setup(size, folder) as work:
            tracemalloc.start()
            work()
            mib = [tracemalloc.get_traced_memory()[1] / 2**20]
    return median(seconds), median(mib)


def measure_curve(curve: Curve, share: float, repeats: int, folder: Path) -> dict[str, Any]:
    curve = curve._replace(sizes=sorted({max(2, round(share * size)) for size in curve.sizes}))
    points = []
    for size in reversed(curve.sizes):  # the largest first: passages of the others are cut from its own
        with ProcessPoolExecutor(1, get_context("fork")) as pool:
            points.append(pool.submit(measure, curve, size, repeats, folder).result())
        print(f"{curve.axis}, {curve.name}, {size:,}: {points[-1][0]:.3f} s, {points[-1][1]:.0f} MiB", flush=True)
    seconds, mib = (list(values) for values in zip(*reversed(points), strict=True))
    return {
        "axis": curve.axis, "work": curve.name, "sizes": [*curve.sizes],
        "seconds": [round(s, 4) for s in seconds], "mib": [round(m, 1) for m in mib],
        "seconds_exponent": exponent(curve.sizes, seconds), "mib_exponent": exponent(curve.sizes, mib, FLAT),
    }  # fmt: skip


def add_curves(file: Path, line: dict[str, Any]) -> dict[str, Any]:
    """What stands in the file with these curves anew, which say themselves when they were measured."""
    kept = json.loads(file.read_text())
    new = {(c["axis"], c["work"]): c | {"provenance": line["provenance"]} for c in line["curves"]}
    return dict(kept) | {"curves": [new.pop((c["axis"], c["work"]), c) for c in kept["curves"]] + [*new.values()]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=MILLION[-1], help="the most that there are")
    parser.add_argument("--repeats", type=int, default=3, help="of a short run")
    parser.add_argument("--share", type=float, default=1.0, help="of all sizes, to try it out")
    parser.add_argument("--only", nargs="+", help="these curves alone, as AXIS: WORK; in --out others stay")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    load, curves = os.getloadavg()[0], {f"{curve.axis}: {curve.name}": curve for curve in CURVES}
    if unknown := set(options.only or []) - curves.keys():
        parser.error(f"there is no curve {min(unknown)!r}; there are {', '.join(curves)}")
    with tempfile.TemporaryDirectory() as place:
        measured = []
        for name in options.only or curves:
            fewer = options.passages / MILLION[-1] if curves[name].axis == "passages" else 1
            measured.append(measure_curve(curves[name], fewer * options.share, options.repeats, Path(place)))
            line = {
                "benchmark": "growth", "provenance": provenance(), "cores": psutil.cpu_count(), "threads": 1,
                "load": [round(l, 1) for l in (load, os.getloadavg()[0])], "share": options.share,
                "repeats": options.repeats, "curves": measured,
            }  # fmt: skip
            if options.only and options.out and options.out.exists():
                line = add_curves(options.out, line)
            if options.out:  # after every curve: all of them take long
                write_text(options.out, json.dumps(line) + "\n")
    print(json.dumps(line))
