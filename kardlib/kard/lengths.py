"""How much there is to read and to write: numbers of questions, characters and tokens, without a tokenizer."""

from itertools import islice
from statistics import fmean
from typing import NamedTuple

from kardlib.data.hub import HUB
from kardlib.data.prompts import SHOTS
from kardlib.errors import DataError
from kardlib.kard.experiment import SILVER, Experiment
from kardlib.settings import RunSettings

CHARACTERS = 4  # a token, in English; T5 splits medical words, so that MedQA has about a fifth more tokens
ANSWER = 6  # tokens of "The answer is A."
LONGEST = 2  # the longest one in a hundred texts is about twice as long as the mean one (KARD's recorded rationales)
RATIONALE = 500.0  # characters, about the mean of KARD's recorded rationales, for a teacher that has not written yet
PARAGRAPH = 472.0  # characters of a Wikipedia paragraph: the mean of StrategyQA's
UNCOUNTED = 10**9  # passages, where their number is not known


class Texts(NamedTuple):
    """How much there is to read: questions by split, mean lengths in characters."""

    train: int
    test: int
    silver: int  # held-out training questions, whose rationales only serve as queries
    question: float  # with its options
    rationale: float
    passage: float
    passages: int | None  # None where only an index or a file that stays on disk knows


ON_THE_HUB = {  # the questions there; lengths were counted on KARD's release
    "medqa_usmle_hf": Texts(9669, 1273, 509, 858, 474, PARAGRAPH, None),
    "obqa": Texts(4709, 500, 248, 127, 535, PARAGRAPH, None),
    "strategyqa": Texts(1522, 687, 81, 64, 759, PARAGRAPH, None),
}


def count_texts(experiment: Experiment) -> Texts:
    """From the questions at hand, or from `ON_THE_HUB` where they would have to be fetched. Raises DataError."""
    settings = experiment.settings
    if settings.data_dir is None and settings.dataset in HUB:
        return ON_THE_HUB[settings.dataset]._replace(passages=None if settings.knowledge.index else 0)
    splits, passages = experiment.data.splits, experiment.data.passages
    rationale, passage, known = RATIONALE, PARAGRAPH, None if settings.knowledge.index else 0
    if experiment.teacher and not settings.teacher.base_url and splits["train"]:
        number = max(settings.teacher.rationales, SILVER)
        rationale = fmean(len(r.text) for r in experiment.teacher(splits["train"], number))
    if not settings.knowledge.index and passages:
        lengths = [len(p.text) for p in islice(passages, 100_000)]
        if not lengths:
            raise DataError(f"{settings.dataset} comes with a file of passages that holds none: put one on each line")
        passage, known = fmean(lengths), len(lengths) if len(lengths) < 100_000 else None
    train, test, silver = (len(splits.get(split, ())) for split in ("train", "test", "silver"))
    question = fmean(len(q.prompt) for questions in splits.values() for q in questions)
    return Texts(train, test, silver, question, rationale, passage, known)


def count_examples(settings: RunSettings, texts: Texts, learns: str, reads: str = "") -> int:
    """Before the filter, which drops a few in a hundred rationales."""
    questions = max(1, round(texts.train * settings.student.share))
    explained = learns == "rationale" or reads == "bm25_rationale"
    examples = questions * (settings.teacher.rationales if explained else 1)
    return min(examples, settings.student.examples or examples)


def source_tokens(settings: RunSettings, texts: Texts, passages: int, shots: str = "", reads: str = "") -> float:
    """Mean length of what a student reads, cut at its limit; `shots` says what the examples before it show."""
    one = texts.question + passages * texts.passage
    shown = SHOTS * (one + (texts.rationale if shots == "rationale" else 0)) if shots else 0
    limit = settings.student.max_source_tokens * (SHOTS + 1 if shots else 1)
    return min(limit, (shown + one + (texts.rationale if reads == "rationale" else 0)) / CHARACTERS)


def target_tokens(settings: RunSettings, texts: Texts, writes: str, times: float = 1) -> float:
    """Mean length of what a student writes, or so many times as much, cut at its limit."""
    length = times * (ANSWER + (texts.rationale / CHARACTERS if writes == "rationale" else 0))
    return min(settings.student.max_new_tokens or length, length)
