"""Rerankers that learn what helps a student: another target than KARD's, all else the same.

KARD's reranker learns the order that BM25 gives the candidates for the rationale, `Q(d | r) = softmax(rho(d | r) /
tau_1)`. What is to be written is likelier after some passages than after others, and a trained student tells how likely:
`Q(d | x, r, y) = softmax(log p_theta(r, y | x, d) / tau)`, after reading `d` alone. That is the target of perplexity
distillation in Atlas (Izacard et al. 2023, Section 2.2) and of REPLUG (Shi et al. 2023, Section 4). Their product, made
to sum to one, is the third target: what both the words and the student say.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from kardlib.artifacts.engine import K, Job, make_all
from kardlib.artifacts.store import fingerprint
from kardlib.data.prompts import source_text
from kardlib.kard.experiment import Cell, Experiment, weigh_texts
from kardlib.kard.methods import METHODS
from kardlib.kard.pipeline import student_settings, train_students, write_target
from kardlib.kard.prepare import Prepared, find_candidates
from kardlib.kard.rankings import RERANKER, Variants, rank, register_reranker, reranker_job
from kardlib.retrieval.runs import Candidates, Run

Target = Literal["student", "both"]
TAU = 1.0  # of the student's likelihoods, which are of whole texts, in nats
TEACHES = METHODS["kard_bm25"]  # the student that is asked: KARD's, which has learnt to read


def weigh_candidates(prepared: Prepared, seed: int) -> list[Candidates]:
    """`D~_ij` with `log p_theta(r_ij, y_i | x_i, d)` in place of BM25's scores: the seed's student reads `d` alone.

    The student is KARD's middle one; it is trained where it was not yet. Raises DataError.
    """
    experiment, passages = prepared.experiment, prepared.runs.passages
    cell = Cell(TEACHES.id, experiment.student, seed)
    student = train_students(experiment, {cell: prepared})[cell]
    settings = student_settings(experiment.settings, cell).model_copy(update={"model": str(student)})
    questions = {q.id: q for q in experiment.data.splits["train"]}
    written = {r.id: r.text for r in prepared.rationales.need().kept}
    candidates = find_candidates(prepared)
    pairs = [(c, p) for c in candidates for p in {**c.from_rationale, **c.from_question}]
    sources = [source_text(questions[c.question_id], [passages[p]]) for c, p in pairs]
    targets = [[write_target(experiment.settings, written[c.rationale_id], questions[c.question_id])] for c, _ in pairs]
    work = sources, [""] * len(pairs), targets, settings, seed
    told = weigh_texts(experiment, {cell: work})[cell]["total"]
    likely = {(c.rationale_id, p): total for (c, p), (total,) in zip(pairs, told, strict=True)}
    return [
        replace(c, **{kind: {p: likely[c.rationale_id, p] for p in found} for kind, found in kinds_of(c).items()})
        for c in candidates
    ]


def kinds_of(candidates: Candidates) -> dict[str, Mapping[str, float]]:
    """Passages and scores by which query found them."""
    return {"from_rationale": candidates.from_rationale, "from_question": candidates.from_question}


def train_helpful(experiment: Experiment, asked: Variants[K], target: Target) -> dict[K, Path]:
    """By key a reranker that learns the target from the same candidates in as many steps as KARD's. Raises DataError."""
    jobs = {key: _helpful_job(prepared, seed, target) for key, (prepared, seed) in asked.items()}
    return make_all(experiment.store, RERANKER, jobs, experiment.settings.compute)


def _helpful_job(prepared: Prepared, seed: int, target: Target) -> Job:
    """Scores are divided by `tau_1` in training (`reranker.kl_loss`): log Q comes times `tau_1`."""
    spec, (settings, questions, passages, _, _) = reranker_job(prepared, seed)
    learnt = []
    for known, likely in zip(find_candidates(prepared), weigh_candidates(prepared, seed), strict=True):
        scores = {}
        for kind, found in kinds_of(likely).items():
            rho = kinds_of(known)[kind] if target == "both" else dict.fromkeys(found, 0.0)
            scores[kind] = {p: rho[p] + settings.tau_1 * total / TAU for p, total in found.items()}
        learnt.append(replace(known, **scores))
    named = {"target": target, "scores": fingerprint([[*kinds_of(c).values()] for c in learnt])}
    return spec | named, (settings, questions, passages, learnt, seed)


def by_helpful(experiment: Experiment, split: str, variants: Variants[K]) -> dict[K, Run]:
    """`topk(f_phi(d, x))` of rerankers that learn what helps the student."""
    trained = train_helpful(experiment, variants, "student")
    return rank(experiment, split, {key: (p, trained[key]) for key, (p, _) in variants.items()})


def by_both(experiment: Experiment, split: str, variants: Variants[K]) -> dict[K, Run]:
    """The same of rerankers that learn the product of the two targets."""
    trained = train_helpful(experiment, variants, "both")
    return rank(experiment, split, {key: (p, trained[key]) for key, (p, _) in variants.items()})


register_reranker("helpful", by_helpful)
register_reranker("helpful_both", by_both)
