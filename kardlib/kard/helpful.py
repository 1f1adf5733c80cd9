"""Rerankers that learn what helps a student: another target than KARD's, all else the same.

KARD's reranker learns the order that BM25 gives the candidates for the rationale, `Q(d | r) = softmax(rho(d | r) /
tau_1)`. What is to be written is likelier after some passages than after others, and a trained student tells how
likely: `Q(d | x, r, y) = softmax(log p_theta(r, y | x, d) / tau)`, after reading `d` alone. That is the target of
perplexity distillation in Atlas (Izacard et al. 2023, Section 2.2) and of REPLUG (Shi et al. 2023, Section 4). The
product of both, the second with a tau of its own, made to sum to one, is the third target: what both say.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from kardlib.artifacts.engine import Job, K, make_all
from kardlib.artifacts.store import fingerprint
from kardlib.data.prompts import gold_text, source_text
from kardlib.kard.experiment import Cell, Experiment, weigh_texts
from kardlib.kard.keys import student_settings
from kardlib.kard.methods import METHODS
from kardlib.kard.pipeline import train_students
from kardlib.kard.prepare import Prepared, find_candidates
from kardlib.kard.rankings import RERANKER, Variants, by_trained, register_reranker, reranker_job
from kardlib.retrieval.runs import Candidates

Target = Literal["student", "both"]
TARGETS: dict[str, Target] = {"helpful": "student", "helpful_both": "both"}  # by the reranker that learns it
TAU: dict[Target, float] = {"student": 0.3, "both": 3.0}  # of log-likelihoods of whole texts, in nats
TEACHES = METHODS["kard_bm25"]  # the student that is asked: KARD's, which has learnt to read


@functools.lru_cache(maxsize=4)  # both targets ask, and whoever shows them
def weigh_candidates(prepared: Prepared, seed: int) -> dict[tuple[str, str], float]:
    """`log p_theta(r_ij, y_i | x_i, d)` by rationale and passage (ids), of all of `D~_ij`.

    The student that reads `d` is KARD's middle one of that seed; it is trained where it was not yet. Raises DataError.
    """
    experiment, passages = prepared.experiment, prepared.runs.passages
    cell = Cell(TEACHES.id, experiment.student, seed)
    student = train_students(experiment, {cell: prepared})[cell]
    settings = student_settings(experiment.settings, cell).model_copy(update={"model": str(student)})
    questions = {q.id: q for q in experiment.data.splits["train"]}
    written = {r.id: r.text for r in prepared.rationales.need().kept}
    pairs = [(c, p) for c in find_candidates(prepared) for p in {**c.from_rationale, **c.from_question}]
    sources = [source_text(questions[c.question_id], [passages[p]]) for c, p in pairs]
    targets = [[gold_text(questions[c.question_id], settings.form, written[c.rationale_id])] for c, _ in pairs]
    work = sources, [""] * len(pairs), targets, settings, seed
    told = weigh_texts(experiment, {cell: work})[cell]["total"]
    return {(c.rationale_id, p): total for (c, p), (total,) in zip(pairs, told, strict=True)}


def train_helpful(experiment: Experiment, asked: Variants[K], target: Target) -> dict[K, Path]:
    """By key a reranker that learns the target from KARD's candidates in as many steps. Raises DataError."""
    jobs = {key: _helpful_job(prepared, seed, target) for key, (prepared, seed) in asked.items()}
    return make_all(experiment.store, RERANKER, jobs, experiment.settings.compute)


def _helpful_job(prepared: Prepared, seed: int, target: Target) -> Job:
    spec, (settings, questions, passages, _, _) = reranker_job(prepared, seed)
    likely = weigh_candidates(prepared, seed)

    def scores(rationale: str, found: Mapping[str, float]) -> dict[str, float]:
        """The training divides them by `tau_1` (`reranker.kl_loss`), so that log Q comes times `tau_1`."""
        return {p: (rho if target == "both" else 0) + settings.tau_1 * likely[rationale, p] / TAU[target]
                for p, rho in found.items()}  # fmt: skip

    learnt = [
        Candidates(c.question_id, scores(c.rationale_id, c.from_rationale), scores(c.rationale_id, c.from_question),
                   c.rationale_id)
        for c in find_candidates(prepared)
    ]  # fmt: skip
    named = {"target": target, "scores": fingerprint([[c.from_rationale, c.from_question] for c in learnt])}
    return spec | named, (settings, questions, passages, learnt, seed)


for name, target in TARGETS.items():
    register_reranker(name, by_trained(functools.partial(train_helpful, target=target)))
