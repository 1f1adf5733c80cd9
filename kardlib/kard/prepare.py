"""What is there before anything is trained: rationales, what BM25 finds with them and without, the texts to read.

    experiment -> rationales -> runs = prepared -> candidates

Every search is done once, in the knowledge base's own process, and kept as a run table. A variant of the settings is
prepared anew; what it shares with others is found in the store.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kardlib.artifacts.disk import hash_once
from kardlib.artifacts.store import Kind, fingerprint
from kardlib.data.answers import parse_answer
from kardlib.data.files import LETTERS, PassageFile, read_passages, write_passages
from kardlib.data.prompts import CONCLUSION, few_shot_turns, source_text, target_text
from kardlib.errors import DataError
from kardlib.kard.experiment import SILVER, Experiment, Knobs, weigh_texts, write_texts
from kardlib.kard.teacher import FilterYield, Rationale, keep_correct
from kardlib.retrieval.lucene import Lucene
from kardlib.retrieval.prebuilt import find_index, identify_index
from kardlib.retrieval.runs import Candidates, Run, read_run, write_run

DEPTH = 100  # passages kept of every question's search, more where kappa* is larger
VERIFIER_SHOTS = 5
QUERY_LIMIT = 3000  # characters of a rationale as a query: an LLM can write without end
INDEX, TEXTS, RUN, SCORES = map(Kind, ("index", "texts", "run", "scores"))


@dataclass(frozen=True, eq=False)
class Rationales:
    """Everything that the teacher wrote, and what is learnt from it. All is empty where there is no teacher."""

    written: dict[str, list[Rationale]]  # by split; at least `SILVER` of a question, which serve as queries
    kept: list[Rationale]  # r_ij, j < l, of the training questions, that the filter keeps
    counts: FilterYield

    def need(self) -> "Rationales":
        """Itself. Raises DataError where there are none, or none is left to learn from."""
        if self.written and not self.kept:
            raise DataError(
                f"of {self.counts.written} rationales of training questions none is left to learn from: where they "
                "conclude other options than the gold ones, correct either or set teacher.correct_only to false"
            )
        if not self.written:
            raise DataError(
                "nobody has written rationales for these questions: put rationales.jsonl beside your own, set "
                "data_dir to KARD's release or teacher.base_url to a server; without them only answers can be learnt"
            )
        return self


class Index(NamedTuple):
    """A Lucene index, and what artifacts' names say of it."""

    folder: Path
    name: str


@dataclass(frozen=True, eq=False)
class Runs:
    """What BM25 finds, and the texts of all that may be read."""

    by_question: Run  # topk(rho(d | x)) of every question of every split
    by_rationale: Run  # topk(rho(d | r)) of every rationale
    passages: dict[str, str]  # all texts or, where these stay on disk, those of the two runs and of the gold passages
    index: Index
    passages_name: str  # what artifacts' names say of the passages
    pool: dict[str, str]  # what others than BM25 search: all texts or, where these stay on disk, those of the two runs
    pool_name: str


@dataclass(frozen=True, eq=False)
class Prepared:
    """One variant of an experiment's settings with all that is there before anything is trained."""

    experiment: Experiment
    rationales: Rationales
    runs: Runs


def prepare(experiment: Experiment, knobs: Knobs = ()) -> Prepared:
    """The experiment with single settings changed, its rationales and its runs. Raises DataError, KnowledgeError."""
    variant = experiment.at(knobs)
    rationales = write_rationales(variant)
    return Prepared(variant, rationales, search(variant, rationales))


# Rationales


def write_rationales(experiment: Experiment) -> Rationales:
    """What the teacher writes for the training questions and, as queries, for those that silver passages are known of.

    Raises DataError, and TeacherError where a server is asked.
    """
    settings, splits = experiment.settings.teacher, experiment.data.splits
    if not experiment.teacher:
        return Rationales({}, [], FilterYield(0, 0, 0, 0, len(splits["train"]), 0))
    numbers = {"train": max(settings.rationales, SILVER)}
    numbers |= dict.fromkeys(("dev", "test") if experiment.world else ("silver",), SILVER)
    written = {split: experiment.teacher(splits[split], number) for split, number in numbers.items()}
    used = [r for r in written["train"] if r.number < settings.rationales]
    picked = verify(experiment, used) if settings.verifier and used else None
    kept, counts = keep_correct(used, splits["train"], picked)
    return Rationales(written, kept if settings.correct_only else used, counts)


def verify(experiment: Experiment, rationales: Sequence[Rationale]) -> list[int | None]:
    """The option that the LM `teacher.verifier` concludes from each question with its rationale.

    Asked "zero_shot" it reads the rationale as a passage, and its own words are read. Asked "five_shot" it reads five
    training questions, each with a rationale and its answer, then the question and the rationale, and picks the letter
    that it finds likeliest to follow "The answer is". The released code's filter (Flan-T5-large) asks so, except that
    its prompt ends in "So, the answer is " and the letter comes first in what is written.
    """
    train, teacher = {q.id: q for q in experiment.data.splits["train"]}, experiment.settings.teacher
    assert teacher.verifier
    settings = experiment.settings.student.of(teacher.verifier)
    settings = settings.model_copy(update={"revision": None, "samples": 1})
    asked = [train[r.question_id] for r in rationales]
    if teacher.verifier_prompt == "zero_shot":
        sources = [source_text(q, [r.text]) for q, r in zip(asked, rationales, strict=True)]
        texts = write_texts(experiment, {"": (sources, settings, 0)})[""]
        return [parse_answer(text, q.options) for q, (text,) in zip(asked, texts, strict=True)]
    first = {r.question_id: r for r in reversed(keep_correct(rationales, asked)[0])}
    shown = [(q, r) for i, q in train.items() if (r := first.get(i))][: VERIFIER_SHOTS + 1]
    shots = {q.id: (source_text(q), target_text(r.text, LETTERS[q.answer])) for q, r in shown}
    prompts = []
    for q, r in zip(asked, rationales, strict=True):
        others = [shot for i, shot in shots.items() if i != q.id][:VERIFIER_SHOTS]  # its own would tell the answer
        prompts.append(few_shot_turns(others, f"{source_text(q)} {r.text}", explain=True, read=False))
    room = (VERIFIER_SHOTS + 1) * settings.max_source_tokens
    settings = settings.model_copy(update={"max_source_tokens": room})
    begun, options = [CONCLUSION] * len(asked), [list(LETTERS[: len(q.options)]) for q in asked]
    scores = weigh_texts(experiment, {"": (prompts, begun, options, settings, 0)})[""]["total"]
    return [max(range(len(letters)), key=letters.__getitem__) for letters in scores]


# Retrieval


def search(experiment: Experiment, rationales: Rationales) -> Runs:
    """Search with every question and every rationale. Raises DataError and KnowledgeError."""
    settings, data, retrieval = experiment.settings, experiment.data, experiment.settings.retrieval
    passages_name = name_passages(experiment)
    index = build_index(experiment, passages_name)

    def find(queries: Mapping[str, str], depth: int) -> Run:
        asked = {"depth": depth}
        return run_table(experiment, RUN, index, queries, lambda it: it.search(index.folder, queries, depth), asked)

    questions = {q.id: q.prompt for split in data.splits.values() for q in split}
    by_question = find(questions, max(DEPTH, retrieval.candidates, settings.reranker.question_candidates))
    depth = max(settings.reranker.rationale_candidates, retrieval.k, retrieval.k_training, SILVER)
    written = [r for split in rationales.written.values() for r in split]
    first = [r for r in written if r.number < SILVER]  # these are searched whatever `l` is, so in a table of their own
    more = [r for r in written if r.number >= SILVER]
    by_rationale: Run = {}
    for part in filter(None, (first, more)):
        by_rationale |= find(query_texts(experiment, part), depth)
    if not settings.knowledge.index and not isinstance(data.passages, PassageFile):
        texts = pool = data.texts
        pool_name = passages_name
    else:
        found = {p for run in (by_question, by_rationale) for ranked in run.values() for p, _ in ranked}
        needed = sorted(found.union(*data.gold.values()))

        def fetch(folder: Path) -> None:
            with Lucene(settings.knowledge) as lucene:
                write_passages(folder / "passages.jsonl", lucene.texts(index.folder, needed))

        spec = {"index": index.name, "passages": fingerprint(needed)}
        texts = read_texts(experiment.store.make(TEXTS, spec, fetch) / "passages.jsonl")
        pool = {p: texts[p] for p in sorted(found)}
        pool_name = fingerprint([passages_name, sorted(found)])
    return Runs(by_question, by_rationale, texts, index, passages_name, pool, pool_name)


def build_index(experiment: Experiment, passages_name: str) -> Index:
    """The Lucene index that the settings name, else one of the dataset's passages. Raises DataError, KnowledgeError."""
    settings, passages = experiment.settings, experiment.data.passages
    if settings.knowledge.index:
        return Index(find_index(settings.knowledge.index), passages_name)
    if not passages:
        raise DataError(
            f"dataset {settings.dataset!r} comes without passages: put passages.jsonl beside your own "
            'questions, or set knowledge.index to an index, e.g. "enwiki-paragraphs"'
        )

    def build(folder: Path) -> None:
        with Lucene(settings.knowledge) as lucene:
            lucene.build(folder / "lucene", passages)

    folder = experiment.store.make(INDEX, {"passages": passages_name}, build)
    return Index(folder / "lucene", folder.name)


def name_passages(experiment: Experiment) -> str:
    """What artifacts' names say of the passages: of a prebuilt index its name or commit, else a hash of the texts.

    Variants share it, so that a corpus is read once however many there are, and again when its file has changed.
    """
    passages = experiment.data.passages
    if experiment.settings.knowledge.index:
        return identify_index(experiment.settings.knowledge.index)
    if isinstance(passages, PassageFile):
        return hash_once(passages.path)
    return experiment.data.texts_name


def bm25_knobs(experiment: Experiment) -> dict[str, Any]:
    """What a search's result depends on besides its query and its index."""
    return experiment.settings.knowledge.model_dump(exclude={"threads", "index"})


def run_table(
    experiment: Experiment, kind: Kind, index: Index, queries: Mapping[str, str], ask: Callable[[Lucene], Run],
    asked: dict[str, Any],
) -> Run:  # fmt: skip
    """One run table: made by `ask` in the knowledge base's process where the store has none."""
    spec: dict[str, Any] = {"queries": fingerprint(queries), "index": index.name, "bm25": bm25_knobs(experiment)}

    def build(folder: Path) -> None:
        with Lucene(experiment.settings.knowledge) as lucene:
            write_run(folder / "run.tsv", ask(lucene))

    return read_run_once(experiment.store.make(kind, spec | asked, build) / "run.tsv")


read_run_once = functools.cache(read_run)  # variants share tables


@functools.cache  # and texts
def read_texts(path: Path) -> dict[str, str]:
    """Passage id -> text, from a file that `write_passages` wrote."""
    return {p.id: p.text for p in read_passages(path)}


def query_texts(experiment: Experiment, rationales: Iterable[Rationale]) -> dict[str, str]:
    """Rationales as queries, by id; with `retrieval.answer_in_query` those of training questions name the gold answer.

    So does the released code, whose reranker and students read what such queries find; its silver queries do not.
    """
    named = experiment.settings.retrieval.answer_in_query
    ends = {q.id: f"\nAnswer: {LETTERS[q.answer]}" for q in experiment.data.splits["train"] if named}
    return {r.id: r.text[:QUERY_LIMIT] + ends.get(r.question_id, "") for r in rationales}


def find_silver(prepared: Prepared, split: str) -> dict[str, set[str]]:
    """Question id -> its silver passages: what the first rationales find, and a question alone should find."""
    silver: dict[str, set[str]] = {q.id: set() for q in prepared.experiment.data.splits[split]}
    for rationale in prepared.rationales.need().written[split]:
        if rationale.number < SILVER:
            silver[rationale.question_id] |= {p for p, _ in prepared.runs.by_rationale[rationale.id][:SILVER]}
    return silver


@functools.lru_cache(maxsize=2)  # every seed of a reranker learns from the same
def find_candidates(prepared: Prepared, split: str = "train") -> list[Candidates]:
    """`D~_ij` with the rationale's own BM25 scores for all of it, also for what the question brought.

    A reranker learns from those of the training questions, whose rationales are filtered; those of another split show
    what it makes of questions that it did not learn from. Raises DataError where no rationale found a passage.
    """
    experiment, runs = prepared.experiment, prepared.runs
    knobs, known = experiment.settings.reranker, prepared.rationales.need()
    asking = {q.id for q in experiment.data.splits[split][: knobs.questions]}
    given_by = known.kept if split == "train" else known.written[split]
    rationales = {r.id: r for r in given_by if r.question_id in asking}
    queries = query_texts(experiment, rationales.values())
    asked = {i: [p for p, _ in runs.by_question[i][: knobs.question_candidates]] for i in asking}
    given = {i: asked[r.question_id] for i, r in rationales.items()}
    on_question = run_table(
        experiment, SCORES, runs.index, queries,
        lambda lucene: lucene.score(runs.index.folder, queries, given, knobs.rare_terms),
        {"given": fingerprint(given)} | ({} if knobs.rare_terms else {"rare_terms": False}),
    )  # fmt: skip
    candidates = []
    for i, rationale in rationales.items():
        found = dict(runs.by_rationale[i][: knobs.rationale_candidates])
        if found:
            scores = dict(on_question[i]) | found
            candidates.append(Candidates(rationale.question_id, found, {p: scores[p] for p in given[i]}, i))
    if not candidates:
        raise DataError(
            f"none of {len(rationales)} rationales of the reranker's {len(asking)} questions found a passage: raise "
            "reranker.questions, or add passages that share words with the rationales"
        )
    return candidates
