"""RAG: the marginal likelihood is the sum, its gradient reaches both encoders, and a killed run ends like any other."""

import os
import signal
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSeq2SeqLM, LlamaConfig, LlamaModel

from kardlib.data.files import Question
from kardlib.data.prompts import source_text
from kardlib.data.records import read_losses
from kardlib.errors import DataError
from kardlib.kard.rag import (
    DualEncoder,
    contrastive_loss,
    embed,
    load_retriever,
    marginal_log_likelihood,
    retrieve,
    score_found,
    target_log_likelihoods,
    train_rag,
    train_retriever,
)
from kardlib.kard.student import Examples, load_student
from kardlib.retrieval.dense import build_index
from kardlib.settings import RagSettings, StudentSettings
from tests.folders import ROOT
from tests.kard.test_student import save_causal

RAG = RagSettings(
    pooling="mean", tau=4.0, passages=3, refresh=2, lr=1e-4, epochs=1, batch=4,
    contrastive_lr=1e-3, contrastive_epochs=3, contrastive_batch=8,
)  # fmt: skip
STUDENT = StudentSettings(model="t5-nano-small", lr=1e-3, max_new_tokens=24)
NAMES = [f"{first}{last}" for first in ("Bal", "Den", "Zor", "Kam", "Tus") for last in ("kul", "fir", "lin", "vun")]
PASSAGES = {f"p{i:02}": f"{name} shows itself by sign {i}{' and rash' * (i % 4)}." for i, name in enumerate(NAMES)}
QUESTIONS = {
    f"q{i:02}": Question(f"q{i:02}", f"A patient has sign {i}. What is it?", (name, "Other"), 0)
    for i, name in enumerate(NAMES)
}
PROMPTS = {q: question.prompt for q, question in QUESTIONS.items()}
TARGETS = {f"q{i:02}": [f"It is {name}. The answer is A.", f"{name}. The answer is A."] for i, name in enumerate(NAMES)}
POSITIVES = {f"q{i:02}": [f"p{i:02}"] for i in range(len(NAMES))}
NEGATIVES = {f"q{i:02}": [f"p{i:02}", f"p{(i + 1) % len(NAMES):02}"] for i in range(len(NAMES))}

TABLE = st.lists(st.lists(st.floats(-60, 60), min_size=3, max_size=3), min_size=1, max_size=4)


# The equations


@given(TABLE, st.floats(-400, 0))
@settings(max_examples=100)
def test_the_marginal_likelihood_is_the_sum_over_passages(table, shift):
    scores = torch.tensor(table, dtype=torch.float64)
    log_likelihoods = (scores.flip(1) - 60).abs().neg() + shift  # as small as those of long targets
    prior = scores.exp() / scores.exp().sum(1, keepdim=True)
    explicit = (prior * log_likelihoods.exp()).sum(1).log()
    assert torch.allclose(marginal_log_likelihood(scores, log_likelihoods), explicit, rtol=1e-9)
    in_fp32 = marginal_log_likelihood(scores.float(), log_likelihoods.float() - 1000)  # where exp() alone is 0
    assert torch.allclose(in_fp32.double(), explicit - 1000, rtol=1e-4)


def test_the_gradient_of_a_score_is_posterior_minus_prior():
    scores = torch.tensor([[2.0, 0.5, -1.0]], dtype=torch.float64, requires_grad=True)
    log_likelihoods = torch.tensor([[-30.0, -22.0, -25.0]], dtype=torch.float64)
    marginal_log_likelihood(scores, log_likelihoods).sum().backward()
    prior = scores.detach().softmax(1)
    posterior = prior * log_likelihoods.exp() / (prior * log_likelihoods.exp()).sum()
    assert torch.allclose(scores.grad, posterior - prior)


def test_another_positive_of_the_question_is_no_negative():
    scores = torch.tensor([[1.0, 3.0, -2.0], [0.0, 1.0, 2.0]])
    positives = torch.tensor([[True, True, False], [False, False, True]])
    expected = -(torch.tensor([1.0, -2.0]).log_softmax(0)[0] + scores[1].log_softmax(0)[2]) / 2
    assert torch.isclose(contrastive_loss(scores, positives, torch.tensor([0, 2])), expected)


# The retriever


@pytest.fixture(scope="module")
def retriever():
    return load_retriever(RAG)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_vector_does_not_depend_on_padding(pooling):
    retriever = load_retriever(RAG.model_copy(update={"pooling": pooling}))
    together = embed(retriever, "passage", PASSAGES | {"long": "rash " * 200})
    alone = torch.stack([embed(retriever, "passage", {p: text})[0] for p, text in PASSAGES.items()])
    assert torch.allclose(together[:-1], alone, atol=1e-4)


def test_a_causal_encoder_is_not_asked_for_the_vector_of_its_first_token(retriever):
    encoder = LlamaModel(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    encoder.config.architectures = ["LlamaForCausalLM"]  # as of a checkpoint
    both = {"question": encoder, "passage": encoder}
    DualEncoder(both, retriever.tokenizer, RAG.model_copy(update={"pooling": "mean"}))
    with pytest.raises(DataError, match=r"first token has read nothing of the text: set rag\.pooling to mean"):
        DualEncoder(both, retriever.tokenizer, RAG.model_copy(update={"pooling": "cls"}))


def test_retrieval_is_exact_and_its_loss_is_over_all_passages(retriever):
    run, losses = retrieve(retriever, PROMPTS, PASSAGES, 5, {"q00": ["p00", "p07"]})
    scores = embed(retriever, "question", PROMPTS) @ embed(retriever, "passage", PASSAGES).T
    for row, question in zip(scores, run, strict=True):
        assert len(run[question]) == 5
        assert torch.allclose(row.topk(5).values, torch.tensor([s for _, s in run[question]]), atol=1e-3)
    p = (scores[0] / RAG.tau).softmax(0)
    assert losses.keys() == {"q00"} and losses["q00"] == pytest.approx(-float((p[0] + p[7]).log()), rel=1e-4)


def test_found_passages_are_scored_by_the_weights_of_now(retriever):
    stale = embed(retriever, "passage", PASSAGES).flip(0)  # an index of other vectors than the encoder's
    texts = list(PASSAGES.values())
    scores, found = score_found(retriever, build_index(stale.numpy(), "exact"), list(PROMPTS.values())[:2], texts)
    queries, now = embed(retriever, "question", PROMPTS)[:2], embed(retriever, "passage", PASSAGES)
    assert found == (queries @ stale.T).topk(3).indices.tolist()
    assert torch.allclose(scores, (queries @ now.T / RAG.tau).gather(1, torch.tensor(found)), atol=1e-4)


def test_contrastive_training_learns_and_is_saved(tmp_path):
    train_retriever(
        RAG.model_copy(update={"contrastive_epochs": 12}), PROMPTS, PASSAGES, POSITIVES, NEGATIVES, 0, tmp_path
    )
    before, after = (
        retrieve(load_retriever(RAG.model_copy(update={"model": m})), PROMPTS, PASSAGES, 1, POSITIVES)
        for m in (RAG.model, str(tmp_path))
    )
    assert sum(after[1].values()) < 0.5 * sum(before[1].values())
    assert not any(path.name == "student" for path in tmp_path.iterdir())
    for side in ("question", "passage"):
        AutoModel.from_pretrained(tmp_path / side)


# Student and retriever together


def test_likelihoods_are_those_of_each_target_alone():
    model, tokenizer = load_student("t5-nano-small")
    sources = [source_text(QUESTIONS[q], [PASSAGES[p]]) for q, p in zip(QUESTIONS, PASSAGES, strict=True)][:4]
    targets = [TARGETS[q][i % 2] for i, q in enumerate(QUESTIONS)][:4]
    together, tokens = target_log_likelihoods(model, tokenizer, sources, targets, STUDENT)
    for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
        labels = tokenizer(text_target=target, return_tensors="pt").input_ids
        mean = model(**tokenizer(source, return_tensors="pt", return_token_type_ids=False), labels=labels).loss
        assert together[i].item() == pytest.approx(-mean.item() * labels.shape[1], rel=1e-4)
        tokens = tokens - labels.shape[1]
    assert tokens == 0


@pytest.mark.parametrize("kind", ["llama", "gpt2"])  # the second one counts positions from the first column
def test_a_causal_students_likelihoods_are_those_of_each_target_alone(kind, tmp_path):
    model, tokenizer = load_student(str(save_causal(tmp_path, kind)))
    sources, targets = ["Question: who? A. one", "Question: why?"], ["The answer is A.", "It is so. The answer is B."]
    together, tokens = target_log_likelihoods(model, tokenizer, sources, targets, STUDENT)
    examples = Examples(sources, targets, tokenizer, STUDENT, model.config)
    for likelihood, example in zip(together, examples, strict=False):
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
        count = int((labels != -100).sum())
        mean = model(input_ids=ids, labels=labels).loss
        assert likelihood.item() == pytest.approx(-mean.item() * count, rel=1e-4)
        tokens = tokens - count
    assert tokens == 0


def test_the_students_likelihood_alone_moves_both_encoders(retriever):
    retriever.zero_grad()
    index = build_index(embed(retriever, "passage", PASSAGES).numpy(), "exact")
    scores, found = score_found(retriever, index, list(PROMPTS.values())[:4], list(PASSAGES.values()))
    marginal_log_likelihood(scores, torch.tensor([[-3.0, -9.0, -20.0]] * len(found))).sum().backward()
    for side in ("question", "passage"):
        moved = [w.grad.abs().sum() > 0 for w in retriever.encoders[side].parameters() if w.grad is not None]
        assert len(moved) > 10 and sum(moved) > 0.8 * len(moved), side


def test_joint_training_lowers_the_loss_and_refreshes_the_index(tmp_path, monkeypatch):
    encoded = []
    monkeypatch.setattr("kardlib.kard.rag.embed", lambda *a: encoded.append(embed(*a)) or encoded[-1])
    settings = RAG.model_copy(update={"epochs": 2})
    train_rag(settings, STUDENT, QUESTIONS, TARGETS, PASSAGES, 0, tmp_path)
    losses = [*read_losses(tmp_path).values()]
    assert len(losses) == 10 and sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert len(encoded) == 5  # every second step
    assert not any(torch.equal(a, b) for a, b in pairwise(encoded))
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "student")
    now = embed(load_retriever(settings.model_copy(update={"model": str(tmp_path)})), "passage", PASSAGES)
    assert not torch.equal(now, encoded[-1]) and torch.allclose(now, encoded[-1], atol=1.0)


TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.kard.test_rag import *
from kardlib.kard import rag
calls = []
def until_step_4(*given):  # passages are encoded before steps 0, 2, 4 and so on, each time after a checkpoint
    calls.append(1)
    return os.kill(os.getpid(), signal.SIGKILL) if len(calls) == 3 else embed(*given)
rag.embed = until_step_4
settings = RAG.model_copy(update={"epochs": 2})
train_rag(settings, STUDENT, QUESTIONS, TARGETS, PASSAGES, 0, Path(sys.argv[1]))
"""


def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(tmp_path):
    root = str(ROOT)
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "killed"), root]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # their number changes the last bits
    killed = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "killed" / "checkpoints" / "last.pt").exists()
    assert not (tmp_path / "killed" / "student").exists()
    settings = RAG.model_copy(update={"epochs": 2})
    for name in ("killed", "whole"):
        train_rag(settings, STUDENT, QUESTIONS, TARGETS, PASSAGES, 0, tmp_path / name)
    for part in ("student", "question", "passage"):
        whole, killed = (load_file(tmp_path / name / part / "model.safetensors") for name in ("whole", "killed"))
        assert all(torch.equal(whole[k], killed[k]) for k in whole), part
    assert (tmp_path / "whole" / "losses.json").read_bytes() == (tmp_path / "killed" / "losses.json").read_bytes()


# Bad input


def test_what_cannot_be_trained_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"rag\.passages = 3 passages, but the knowledge base has only 2"):
        train_rag(RAG, STUDENT, QUESTIONS, TARGETS, dict(list(PASSAGES.items())[:2]), 0, tmp_path)
    with pytest.raises(DataError, match="no rationales to learn from"):
        train_rag(RAG, STUDENT, QUESTIONS, {"q00": []}, PASSAGES, 0, tmp_path)
    with pytest.raises(DataError, match="the question 'q00' has no text"):
        train_rag(RAG, STUDENT, {}, TARGETS, PASSAGES, 0, tmp_path)
    with pytest.raises(DataError, match="no positives to learn from"):
        train_retriever(RAG, PROMPTS, PASSAGES, {"q00": []}, NEGATIVES, 0, tmp_path)
    with pytest.raises(DataError, match="the passage 'p00' has no text"):
        train_retriever(RAG, PROMPTS, {}, POSITIVES, NEGATIVES, 0, tmp_path)
    with pytest.raises(DataError, match="no encoder could be loaded from") as error:
        load_retriever(RAG.model_copy(update={"model": str(tmp_path)}))
    assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())
