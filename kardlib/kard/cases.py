"""Case studies (Table 6 of KARD): what students wrote beside what they read, and why wrong answers are wrong.

Everything shown is HTML in which texts are escaped, since a dataset or a model may write anything. Statements bear a
colour and signs, so that nothing is lost in print: ✓ true or ✗ false, ▣ stated by the passages that were read.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from itertools import zip_longest
from typing import Any

import pandas as pd

from kardlib.data.files import LETTERS, Question
from kardlib.data.world import Fact, World, conclude, judge_statements, read_statements
from kardlib.kard.experiment import Cell, Experiment
from kardlib.kard.pipeline import Predictions, answer
from kardlib.kard.prepare import Prepared

MISSED, FAILED, UNPARSABLE = CAUSES = "reranker missed", "student failed with the passages", "unparsable"
PAPERS_CAUSES = "no relevant passage", "student failed with one"  # KARD, "Failure analysis"
COLOURS = {"✓▣": "#cfe3f5", "✓": "#d5eedd", "✗": "#f8d5cf"}  # of statements, by their signs
MEANING = {"✓▣": "true and stated by a passage that was read", "✓": "true, but not read", "✗": "false"}
MARK = '<span style="background:{};color:#222">{} {}</span>'
STAR = "★ a gold passage"
LEGEND = f"<p>{' · '.join(MARK.format(COLOURS[s], s, said) for s, said in MEANING.items())} · {STAR}</p>"
GOLD_READ = "all gold", "some gold", "no gold", "gold unknown"  # of a real question's gold passages

# Causes


def has_read_all(experiment: Experiment, question: Question, read: Iterable[str]) -> bool:
    """Whether passages (ids) hold what the answer takes.

    In the closed world: they state the whole chain of facts, so of a two-hop question a passage for each hop, in
    any wording. Of a real dataset: all that the annotators named are among them.
    """
    if world := experiment.world:
        return world.chains[question.id].facts <= frozenset[Fact]().union(*(world.stated[i] for i in read))
    return experiment.data.gold[question.id] <= set(read)


def judge_reading(experiment: Experiment, reads: Iterable[Mapping[str, Sequence[str]]]) -> dict[str, list[list[bool]]]:
    """What passages read (for every seed: question -> ids) hold of the answers' chains, (seeds, questions) by metric.

    "whole_chain": all that the answer takes (`has_read_all`). In the closed world "doubled_hop" too: one hop is stated
    by several passages and another by none. Of questions whose gold passages are known; nothing if none are.
    """
    if not (asked := [q for q in experiment.data.splits["test"] if experiment.data.gold.get(q.id)]):
        return {}
    reads = list(reads)
    judged = {"whole_chain": [[has_read_all(experiment, q, read[q.id]) for q in asked] for read in reads]}
    if world := experiment.world:
        judged["doubled_hop"] = [[_is_doubled(world, q, read[q.id]) for q in asked] for read in reads]
    return judged


def _is_doubled(world: World, question: Question, read: Iterable[str]) -> bool:
    chain = world.chains[question.id].facts
    told = Counter(relation for i in read for relation in {fact.relation for fact in world.stated[i] & chain})
    return max(told.values(), default=0) > 1 and len(told) < len({fact.relation for fact in chain})


def name_reading(experiment: Experiment, question: Question, read: Iterable[str]) -> str:
    """What of an answer's needs was read: in the closed world "all it takes" or "less", else one of `GOLD_READ`."""
    if experiment.world:
        return "all it takes" if has_read_all(experiment, question, read) else "less"
    if not (gold := experiment.data.gold.get(question.id)):
        return "gold unknown"
    return "all gold" if gold <= {*read} else "no gold" if gold.isdisjoint(read) else "some gold"


def name_readings(experiment: Experiment, predictions: Predictions) -> list[str]:
    """The same of every question of these predictions."""
    asked = zip(predictions.questions, predictions.passages, strict=True)
    return [name_reading(experiment, question, read) for question, read in asked]


def find_causes(experiment: Experiment, predictions: Predictions) -> list[str]:
    """Of every question the first step at which its answer went wrong, one of `CAUSES`.

    Retrieval comes before writing: an answer that names no option after passages that lack something counts as missed.
    Empty where the answer is right, where nothing was read, and where no gold passage is known.
    """
    causes = []
    for question, read, given in zip(predictions.questions, predictions.passages, predictions.answers, strict=True):
        if given == question.answer or not read or not experiment.data.gold.get(question.id):
            causes.append("")
        elif not has_read_all(experiment, question, read):
            causes.append(MISSED)
        else:
            causes.append(UNPARSABLE if given is None else FAILED)
    return causes


def find_papers_causes(experiment: Experiment, predictions: Predictions) -> list[str]:
    """The paper's cause of every failure that `find_causes` knows: whether a relevant passage was read, one of two.

    One relevant passage is enough: any that states a fact of the chain, or that annotators named.
    """
    gold, found = experiment.data.gold, find_causes(experiment, predictions)
    missed, failed = PAPERS_CAUSES
    return [
        cause and (missed if gold[question.id].isdisjoint(read) else failed)
        for cause, question, read in zip(found, predictions.questions, predictions.passages, strict=True)
    ]


def list_answers(experiment: Experiment, cells: Iterable[Cell]) -> pd.DataFrame:
    """Every test question and what each cell's student answered, one row each, for an analysis of errors.

    In the closed world a question is of one or two hops and of a stratum. `read` are the ids of passages in their
    order, `text` is the first sample, and `cause` says why a wrong answer is wrong (`find_causes`).
    """
    cells, lines = list(cells), []
    variants = {knobs: experiment.at(knobs) for knobs in {cell.knobs for cell in cells}}  # facts may differ
    for cell, p in answer(experiment, cells).items():
        here = variants[cell.knobs]
        told = zip(p.questions, p.passages, p.texts, p.answers, find_causes(here, p), strict=True)
        for question, read, texts, given, cause in told:
            lines.append({
                "method": cell.method, "student": cell.student, "seed": cell.seed, "settings": dict(cell.knobs) or "",
                "question": question.id, "asked": question.prompt, **describe(here, question),
                "read": " ".join(read), "text": texts[0], "answer": "" if given is None else LETTERS[given],
                "gold": LETTERS[question.answer], "right": given == question.answer, "cause": cause,
            })  # fmt: skip
    return pd.DataFrame(lines)


def describe(experiment: Experiment, question: Question) -> dict[str, Any]:
    """The hops that a question takes and its stratum; empty texts where a dataset does not say."""
    chain = experiment.world and experiment.world.chains[question.id]
    return {"hops": bool(chain.signs) + bool(chain.relation) if chain else "", "stratum": question.stratum}


def count_outcomes(experiment: Experiment, predictions: Iterable[Predictions]) -> pd.DataFrame:
    """How many answers are right, wrong or none, by what was read (`name_reading`)."""
    counted = [
        (name, _judge(question, given))
        for p in predictions
        for name, question, given in zip(name_readings(experiment, p), p.questions, p.answers, strict=True)
    ]
    table = pd.DataFrame(counted, columns=["read", "answer"])
    counts = pd.crosstab(table["read"], table["answer"], margins=True, margins_name="all")
    return counts.loc[[name for name in ("all it takes", "less", *GOLD_READ, "all") if name in counts.index]]


def _judge(question: Question, answer: int | None) -> str:
    return "none" if answer is None else "right" if answer == question.answer else "wrong"


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


def read_conclusions(predictions: Predictions) -> Predictions:
    """The same with the options that rationales conclude, whatever letters follow: those their last statements name.

    Where nothing is stated, as by a student that learnt answers alone, the letter stays.
    """
    asked = zip(predictions.questions, predictions.texts, predictions.answers, strict=True)
    return replace(predictions, answers=[_find_conclusion(q, texts[0], letter) for q, texts, letter in asked])


def _find_conclusion(question: Question, text: str, letter: int | None) -> int | None:
    statements = read_statements(text)
    if not statements:
        return letter
    values = {fact.subject if fact.relation == "sign" else fact.object for fact in statements[-1]}
    return conclude(question, *values) if len(values) == 1 else None


# One case


def won_by_reading(experiment: Experiment, recalled: Predictions, read: Predictions) -> list[bool]:
    """Of every question whether who recalls answers it wrongly and who reads rightly, with all that it takes before it.

    The paper's Table 6 shows such a case; the first of them is ours. None where no gold passage is known.
    """
    return [
        was != q.answer == given and bool(experiment.data.gold.get(q.id)) and has_read_all(experiment, q, passages)
        for q, was, given, passages in zip(read.questions, recalled.answers, read.answers, read.passages, strict=True)
    ]


def case_rows(asked: Prepared, written: Mapping[Cell, Predictions], i: int, figure: str) -> list[dict[str, Any]]:
    """Rows of a figure's data: question `i` under several methods, each text with what is to be said of it, 0 or 1.

    The knob says what a text (`at`) is and `x` which: the "question" is answered "right"; an "option" is "gold", and
    "answered"; a "passage" that was read is "gold"; a "sentence" of the first sample is "judged" (`judge_sentences`),
    and then "true" and "supported".
    """
    rows, experiment = [], asked.experiment
    for cell, p in written.items():
        q, read, given = p.questions[i], p.passages[i], p.answers[i]
        who = {"method": cell.method, "student": cell.student, "seed": cell.seed, "k": len(read) or None}
        texts = [("question", 1, q.text, {"right": given == q.answer})]
        for n, option in enumerate(q.options):
            texts.append(("option", n + 1, option, {"gold": n == q.answer, "answered": n == given}))
        for rank, passage in enumerate(read, 1):
            is_gold = passage in experiment.data.gold.get(q.id, ())
            texts.append(("passage", rank, asked.runs.passages[passage], {"gold": is_gold}))
        for n, (sentence, signs) in enumerate(judge_sentences(experiment.world, p.texts[i][0], read), 1):
            judged = {"true": "✓" in signs, "supported": "▣" in signs} if signs else {}
            texts.append(("sentence", n, sentence, {"judged": bool(signs)} | judged))
        for knob, x, text, said_of_it in texts:
            if said := " ".join(text.split()):
                about = experiment.place(figure) | who | {"knob": knob, "x": x, "at": said}
                rows += [about | {"metric": metric, "value": float(holds)} for metric, holds in said_of_it.items()]
    return rows


# HTML


def judge_sentences(world: World | None, text: str, read: Sequence[str]) -> list[tuple[str, str]]:
    """A generated text's sentences, each with the signs of what `judge_statements` says: a key of `COLOURS`.

    Openers and the conclusion state nothing, and nobody knows what is true of a real dataset (`world` None): no sign.
    """
    parts = []
    for sentence in re.split(r"(?<=\.)", text):
        signs = ""
        if world and (judged := judge_statements(world, sentence, read)):
            true, supported = judged[0]  # of a sentence that states more than one thing, the first
            signs = ("✓" if true else "✗") + ("▣" if supported else "")
        parts.append((sentence, signs))
    return parts


def mark_statements(world: World | None, text: str, read: Sequence[str]) -> str:
    """A generated text, each of its statements with its colour and its signs."""
    judged = [(escape(sentence), signs) for sentence, signs in judge_sentences(world, text, read)]
    return "".join(MARK.format(COLOURS[signs], said, signs) if signs else said for said, signs in judged)


def show_legend(dataset: str) -> str:
    """What the signs mean; of a real dataset the star alone, since nobody knows which statements are true."""
    return LEGEND if dataset == "world" else f"<p>{STAR}</p>"


def show_question(question: Question) -> str:
    """The question and its options, the gold one in bold."""
    options = [f"{LETTERS[i]}. {escape(option)}" for i, option in enumerate(question.options)]
    options[question.answer] = f"<b>{options[question.answer]}</b>"
    return f"{escape(question.text)}<br>{' '.join(options)}"


def show_passage(prepared: Prepared, question: Question, passage: str) -> str:
    """A passage; a gold one with a star and what it states."""
    text = escape(prepared.runs.passages[passage])
    is_gold = passage in prepared.experiment.data.gold.get(question.id, ())
    return f"<b>★ {name_gold(prepared.experiment, passage)}</b> {text}" if is_gold else text


def name_gold(experiment: Experiment, passage: str) -> str:
    """What a gold passage states: in the closed world signs or a relation."""
    world = experiment.world
    return ", ".join(sorted({fact.relation for fact in world.stated[passage]})) if world else "gold"


def show_side_by_side(prepared: Prepared, written: Mapping[str, Predictions], i: int) -> str:
    """Question `i` with, for each method (label -> predictions), what it read, wrote first and answered."""
    question = next(iter(written.values())).questions[i]
    rows = []
    for label, p in written.items():
        read, answer, text = p.passages[i], p.answers[i], p.texts[i][0]
        items = "".join(f"<li>{show_passage(prepared, question, passage)}" for passage in read)
        said = "no answer" if answer is None else f"{LETTERS[answer]}, {_judge(question, answer)}"
        wrote = f"{mark_statements(prepared.experiment.world, text, read)} <b>[{said}]</b>"
        rows.append((f"<b>{escape(label)}</b>", f"<ol>{items}</ol>" if items else "<i>reads nothing</i>", wrote))
    return f"<p>{show_question(question)}</p>" + as_table(("method", "read", "wrote"), rows)


def show_rankings(
    prepared: Prepared, question: Question, found: Mapping[str, Sequence[tuple[str, float]]], depth: int = 5
) -> str:
    """The first passages of several rankings of a question's, side by side; by heading, passages with their scores."""
    columns = [[show_passage(prepared, question, p) for p, _ in ranked[:depth]] for ranked in found.values()]
    rows = enumerate(zip_longest(*columns, fillvalue=""), 1)
    return as_table(("rank", *found), ((str(rank), *cells) for rank, cells in rows))


def show_tokens(tokens: Sequence[str], probabilities: Sequence[float]) -> str:
    """Each token below its probability in per cent; the less likely, the redder."""
    shown = []
    for token, p in zip(tokens, probabilities, strict=True):
        style = f"background:rgba(213,94,0,{0.75 * (1 - p):.2f});padding:0 2px;ruby-align:center"
        shown.append(f'<ruby style="{style}">{escape(token)}<rt>{100 * p:.0f}</rt></ruby>')
    return f'<p style="line-height:2.6">{" ".join(shown)}</p>'


def as_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; its cells are HTML already."""
    left = 'style="text-align:left;vertical-align:top"'
    head = "".join(f"<th {left}>{cell}" for cell in header)
    body = "".join("<tr>" + "".join(f"<td {left}>{cell}" for cell in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"
