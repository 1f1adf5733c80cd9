"""Rationales `r_ij = LLM(p, x_i, y_i)`: a teacher sees the question and its gold answer and explains it, `l` times.

A teacher is a function from questions and `l` to rationales. Two stand here: the closed world's symbolic teacher and
recorded rationales in the layout of KARD's release. What follows (retrieval, reranker, student) knows only `Rationale`.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from kardlib.data.answers import parse_answer
from kardlib.data.files import DataError, Question
from kardlib.data.world import Chain, World, conclude, write_rationale

EMPTY_WORDS = (
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

DIFFERENT = 10  # rationales of one question: in some worlds a one-hop question has no more than 12 different texts


@dataclass(frozen=True)
class Rationale:
    """One explanation of one question; `answer` is the option that it concludes, None where it names none."""

    question_id: str
    number: int  # j
    text: str
    answer: int | None

    @property
    def id(self) -> str:
        """What a run table calls the query that this rationale is."""
        return f"{self.question_id}/{self.number}"


Teacher = Callable[[Sequence[Question], int], list[Rationale]]


def symbolic_teacher(world: World, flawed: float, seed: int) -> Teacher:
    """The teacher of the closed world: knows the truth, and errs in a share `flawed` of its rationales.

    A flawed rationale is one of three that LLMs are known to write: the chain of a near miss with its own, wrong
    conclusion; a false chain with the gold conclusion; words without content. Only the first is caught by the filter.
    It writes up to `DIFFERENT` of a question and raises DataError if more are asked for.
    """

    def write(questions: Sequence[Question], l: int) -> list[Rationale]:
        if l > DIFFERENT:
            raise DataError(
                f"the closed world's teacher writes up to {DIFFERENT} different rationales of a question, {l} were "
                "asked for: lower teacher.rationales"
            )
        written = []
        for question in questions:
            rng = random.Random(f"{seed} {question.id}")
            texts: dict[str, int | None] = {}
            while len(texts) < l:
                err = flawed and rng.random() < flawed
                text, answer = _err(world, question, rng) if err else _explain(world.chains[question.id], question, rng)
                texts.setdefault(text, answer)
            written += [Rationale(question.id, j, text, answer) for j, (text, answer) in enumerate(texts.items())]
        return written

    return write


def _explain(chain: Chain, question: Question, rng: random.Random) -> tuple[str, int | None]:
    return write_rationale(chain, rng), question.answer


def _err(world: World, question: Question, rng: random.Random) -> tuple[str, int | None]:
    chain = world.chains[question.id]
    wrong = [a for a in world.signs if a != chain.ailment]
    if chain.signs:  # a near miss shares as many signs as any other ailment does
        shared = {a: len({*chain.signs}.intersection(world.signs[a])) for a in wrong}
        most = max(shared.values())
        wrong = [a for a in wrong if shared[a] == most]
    near = rng.choice(wrong)
    kind = rng.choice(("wrong conclusion", "false chain", "empty"))
    if kind == "empty":
        return rng.choice(EMPTY_WORDS), question.answer
    if kind == "false chain":
        return write_rationale(replace(chain, ailment=near), rng), question.answer
    value = world.value(near, chain.relation) if chain.relation else near
    options = [i for i in range(len(question.options)) if i != question.answer]
    concluded = conclude(question, value) if chain.relation else None
    text = write_rationale(replace(chain, ailment=near, value=value), rng)
    return text, rng.choice(options) if concluded is None else concluded


def recorded_teacher(recorded: Mapping[str, Sequence[str]], few: bool = False) -> Teacher:
    """Rationales that were written earlier, by question id.

    Raises DataError where a question has fewer than `l`; with `few` it may have fewer, or none.
    """

    def write(questions: Sequence[Question], l: int) -> list[Rationale]:
        written = []
        for question in questions:
            texts = recorded.get(question.id, ())
            if len(texts) < l and not few:
                raise DataError(
                    f"question {question.id!r} has {len(texts)} recorded rationales, {l} were asked for: "
                    "lower teacher.rationales"
                )
            for j, text in enumerate(texts[:l]):
                written.append(Rationale(question.id, j, text, parse_answer(text, question.options)))
        return written

    return write


@dataclass(frozen=True)
class FilterYield:
    """What the correctness filter let through."""

    written: int
    correct: int  # concluded the gold option, or let the verifier pick it
    wrong: int  # did not: dropped
    silent: int  # concluded no option: kept where no verifier is asked, since nothing contradicts the gold answer
    questions: int
    questions_left: int  # with at least one rationale

    @property
    def kept(self) -> int:
        return self.correct + self.silent


def keep_correct(
    rationales: Sequence[Rationale], questions: Sequence[Question], picked: Sequence[int | None] | None = None
) -> tuple[list[Rationale], FilterYield]:
    """Drop the rationales that conclude another option than the gold one.

    This plain filter needs no verifier and cannot see a false chain under a right conclusion. The released code keeps
    a rationale only if a verifier LM, given question and rationale, picks the gold option: `picked` holds what it
    picked for every rationale, and None is then not enough.
    """
    gold = {q.id: q.answer for q in questions}
    if picked is None:
        kept = [r for r in rationales if r.answer in (None, gold[r.question_id])]
        silent = sum(r.answer is None for r in kept)
    else:
        kept = [r for r, option in zip(rationales, picked, strict=True) if option == gold[r.question_id]]
        silent = 0
    counts = FilterYield(
        len(rationales),
        len(kept) - silent,
        len(rationales) - len(kept),
        silent,
        len(gold),
        len({r.question_id for r in kept}),
    )
    return kept, counts
