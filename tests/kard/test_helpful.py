"""Rerankers that learn what helps the student: their target is the student's own likelihood."""

import pytest
import torch

from kardlib.data.prompts import gold_text, source_text
from kardlib.kard import helpful
from kardlib.kard.experiment import Cell
from kardlib.kard.methods import METHODS, main_rows
from kardlib.kard.pipeline import answer, train_students
from kardlib.kard.prepare import find_candidates
from kardlib.kard.rankings import rank
from kardlib.kard.student import load_student


@torch.inference_mode()
def test_a_passage_helps_as_much_as_the_student_finds_the_target_likely_after_it(experiment, prepared):
    likely = helpful.weigh_candidates(prepared, 0)
    candidates = find_candidates(prepared)
    assert likely.keys() == {(c.rationale_id, p) for c in candidates for p in {**c.from_rationale, **c.from_question}}
    cell = Cell("kard_bm25", experiment.student, 0)
    model, tokenizer = load_student(str(train_students(experiment, {cell: prepared})[cell]))
    told = {r.id: r for r in prepared.rationales.kept}
    for c in candidates[:2]:
        question = next(q for q in experiment.data.splits["train"] if q.id == c.question_id)
        target = gold_text(question, "letter", told[c.rationale_id].text)
        said = tokenizer(target, add_special_tokens=False, return_tensors="pt").input_ids
        written = torch.cat([torch.tensor([[model.config.decoder_start_token_id]]), said[:, :-1]], 1)
        for p in list(c.from_rationale)[:2]:
            read = tokenizer(source_text(question, [prepared.runs.passages[p]]), return_tensors="pt")
            log_p = model(**read, decoder_input_ids=written).logits.double().log_softmax(2)
            assert likely[c.rationale_id, p] == pytest.approx(log_p.gather(2, said[:, :, None]).sum().item(), abs=1e-3)


def test_the_targets_are_the_students_softmax_and_its_product_with_bm25s(experiment, prepared):
    likely, known = helpful.weigh_candidates(prepared, 0), find_candidates(prepared)
    tau_1 = experiment.settings.reranker.tau_1
    for target, tau in helpful.TAU.items():
        _, (_, _, _, learnt, _) = helpful._helpful_job(prepared, 0, target)
        for c, one in zip(known[:20], learnt, strict=False):
            assert (one.question_id, one.rationale_id) == (c.question_id, c.rationale_id)
            assert one.from_rationale.keys() == c.from_rationale.keys()
            assert one.from_question.keys() == c.from_question.keys()
            known_by, learnt_by = {**c.from_rationale, **c.from_question}, {**one.from_rationale, **one.from_question}
            logs = torch.tensor([likely[c.rationale_id, p] / tau for p in known_by], dtype=torch.double)
            if target == "both":
                logs += torch.tensor([*known_by.values()], dtype=torch.double) / tau_1
            scores = torch.tensor([*learnt_by.values()], dtype=torch.double)
            torch.testing.assert_close((scores / tau_1).softmax(0), logs.softmax(0))


def test_a_student_reads_what_such_a_reranker_ranks_first(experiment, prepared):
    cells = [Cell(method, experiment.student, 0) for method in ("kard_reranker", "kard_helpful", "kard_helpful_both")]
    read = [given.passages for given in answer(experiment, cells).values()]
    k, test = experiment.settings.retrieval.k, experiment.data.splits["test"]
    for passages, target in zip(read[1:], ("student", "both"), strict=True):
        folder = helpful.train_helpful(experiment, {0: (prepared, 0)}, target)[0]
        run = rank(experiment, "test", {0: (prepared, folder)})[0]
        assert passages == [[p for p, _ in run[q.id][:k]] for q in test]
    assert all(len(passages) == experiment.settings.retrieval.k for given in read for passages in given)
    assert read[0] != read[1] != read[2]
    assert not {"kard_helpful", "kard_helpful_both"} & {*main_rows(True, True)} and "kard_helpful" in METHODS
