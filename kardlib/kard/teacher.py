"""Rationales `r_ij = LLM(p, x_i, y_i)` (KARD, Section 4): a teacher explains the gold answer of a question, `l` times.

A teacher is a function from questions and `l` to rationales. This file has two, the closed world's symbolic teacher and
recorded rationales, and the filter that drops rationales with a wrong conclusion.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from kardlib.data.answers import parse_answer
from kardlib.data.files import Question
from kardlib.data.records import say
from kardlib.data.world import World, conclude, write_rationale
from kardlib.errors import DataError

MAX_RATIONALES = 10  # of one question: in some worlds a one-hop question has no more than 12 different ones
EMPTY_RATIONALES = (
    "This question has been asked before.",
    "The other options are wrong.",
    "This follows from what is known.",
    "The right option is plain to see.",
    "No more needs to be said.",
    "One option fits better than the rest.",
    "As explained above, one option is right.",
    "The question answers itself.",
    "We refer to what was said before.",
    "Every healer knows this.",
)


@dataclass(frozen=True)
class Rationale:
    """One explanation of one question; `answer` is the option that it concludes (an index), None if it names none."""

    question_id: str
    number: int  # j
    text: str
    answer: int | None

    @property
    def id(self) -> str:
        """The query's id in a run table."""
        return f"{self.question_id}/{self.number}"


Teacher = Callable[[Sequence[Question], int], list[Rationale]]


def symbolic_teacher(world: World, flawed: float, seed: int) -> Teacher:
    """The teacher of the closed world: it knows the truth, and a share `flawed` of its rationales is flawed.

    A flawed rationale is of one of three kinds that LLMs write: the chain of a near miss with its wrong conclusion, a
    false chain with the gold conclusion, or words without content. The filter catches only the first kind. Asked for
    more than `MAX_RATIONALES` of a question it raises DataError.
    """

    def write(questions: Sequence[Question], l: int) -> list[Rationale]:
        if l > MAX_RATIONALES:
            most = f"the closed world's teacher writes up to {MAX_RATIONALES} different rationales of a question"
            raise DataError(f"{most}, {l} were asked for: lower teacher.rationales")
        written = []
        for question in questions:
            rng = random.Random(f"{seed} {question.id}")
            texts: dict[str, int | None] = {}
            while len(texts) < l:
                if flawed and rng.random() < flawed:
                    text, answer = _write_flawed(world, question, rng)
                else:
                    text, answer = write_rationale(world.chains[question.id], rng), question.answer
                texts.setdefault(text, answer)
            written += [Rationale(question.id, j, text, answer) for j, (text, answer) in enumerate(texts.items())]
        return written

    return write


def _write_flawed(world: World, question: Question, rng: random.Random) -> tuple[str, int | None]:
    """A flawed rationale and the option that it concludes; it speaks of an ailment that training shows as often."""
    chain = world.chains[question.id]
    wrong = [a for a in world.strata[question.stratum] if a != chain.ailment]
    if chain.signs:  # a near miss is one of the ailments that share most signs
        shared = {a: len({*chain.signs}.intersection(world.signs[a])) for a in wrong}
        most = max(shared.values())
        wrong = [a for a in wrong if shared[a] == most]
    near = rng.choice(wrong)
    kind = rng.choice(("wrong conclusion", "false chain", "empty"))
    if kind == "empty":
        return rng.choice(EMPTY_RATIONALES), question.answer
    if kind == "false chain":
        return write_rationale(replace(chain, ailment=near), rng), question.answer
    value = world.value(near, chain.relation) if chain.relation else near
    options = [i for i in range(len(question.options)) if i != question.answer]
    concluded = conclude(question, value) if chain.relation else None
    text = write_rationale(replace(chain, ailment=near, value=value), rng)
    return text, rng.choice(options) if concluded is None else concluded


def recorded_teacher(recorded: Mapping[str, Sequence[str]], few: bool = False) -> Teacher:
    """The teacher that gives recorded rationales, by question id; how many questions have fewer than `l` is said.

    It raises DataError where all of them have fewer, unless `few` allows it.
    """

    def write(questions: Sequence[Question], l: int) -> list[Rationale]:
        texts = {q.id: recorded.get(q.id, ())[:l] for q in questions}
        short = [i for i, given in texts.items() if len(given) < l]
        if short and len(short) == len(texts) and not few:
            has = f"question {short[0]!r} has {len(texts[short[0]])} recorded rationales"
            raise DataError(f"{has}, {l} were asked for, and no other has as many: lower teacher.rationales")
        if short:
            say(
                f"{len(short)} of {len(texts)} questions have fewer than {l} recorded rationales: what there is is read"
            )
        asked = ((q, j, text) for q in questions for j, text in enumerate(texts[q.id]))
        return [Rationale(q.id, j, text, parse_answer(text, q.options)) for q, j, text in asked]

    return write


@dataclass(frozen=True)
class FilterYield:
    """Counts of rationales, and of questions, before and after the correctness filter."""

    written: int
    correct: int  # that conclude the gold option, or let the verifier pick it
    wrong: int  # that do not, and are dropped
    silent: int  # that conclude no option, and are kept where no verifier is asked: nothing contradicts the gold answer
    questions: int
    questions_left: int  # with at least one rationale

    @property
    def kept(self) -> int:
        """Rationales that the filter leaves."""
        return self.correct + self.silent


def keep_correct(
    rationales: Sequence[Rationale], questions: Sequence[Question], picked: Sequence[int | None] | None = None
) -> tuple[list[Rationale], FilterYield]:
    """The rationales without those that conclude another option than the gold one, and the filter's counts.

    This filter needs no verifier, and does not see a false chain with a right conclusion. The released code keeps a
    rationale only if a verifier LM, given question and rationale, picks the gold option: `picked` holds its pick for
    every rationale, and a rationale without a pick is then dropped.
    """
    gold = {q.id: q.answer for q in questions}
    if picked is None:
        kept = [r for r in rationales if r.answer in (None, gold[r.question_id])]
        silent = sum(r.answer is None for r in kept)
    else:
        kept = [r for r, option in zip(rationales, picked, strict=True) if option == gold[r.question_id]]
        silent = 0
    written, left = len(rationales), len({r.question_id for r in kept})
    return kept, FilterYield(written, len(kept) - silent, written - len(kept), silent, len(gold), left)
