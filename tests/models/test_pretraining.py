"""The script that makes the nano models: what it trains on, its loss, and that a killed run goes on."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from kardlib import NANO
from kardlib.data.answers import parse_answer
from kardlib.models import pretraining
from kardlib.models.nano import RERANKER, build_student, build_tokenizer
from kardlib.models.pretraining import (
    WORLDS,
    Recipe,
    draw_passages,
    draw_world,
    pretrain_all,
    pretrain_reranker,
    pretrain_student,
    student_batch,
    take_layers,
    weighted_loss,
)
from kardlib.settings import SettingsError, preset


@pytest.fixture(scope="module")
def world():
    return draw_world(WORLDS)


def test_no_notebook_uses_a_world_of_pretraining():
    seeds = {preset(scale).world.seed for scale in ("smoke", "embedded", "paper")}
    assert max(seeds) < pretraining.HELD_OUT < WORLDS


def test_passages_hold_the_whole_chain_or_one_hop_less(world):
    rng = random.Random(0)
    for question in world.splits["train"][:100]:
        chain = world.chains[question.id]
        hops = bool(chain.signs) + bool(chain.relation)
        ids = {text: id for id, text in world.texts.items()}
        for complete in (1.0, 0.0):
            texts = draw_passages(world, question, 5, rng, complete)
            assert len(texts) == len(set(texts)) == 5
            if complete:
                stated = {frozenset(world.stated[ids[t]]) for t in texts if world.states(ids[t], chain)}
                assert len(stated) >= hops


def test_a_batch_depends_on_seed_and_step_alone():
    recipe = Recipe(steps=12)
    batches = [student_batch(0, recipe, step) for step in range(12)]
    assert batches[9:] == [student_batch(0, recipe, step) for step in (9, 10, 11)]
    assert batches[9] != student_batch(1, recipe, 9) and batches[9] != batches[10]
    sources, targets = batches[0]
    assert len(sources) == len(targets) == pretraining.BATCH
    assert all(parse_answer(target, ("a", "b", "c", "d")) is not None for target in targets)


def test_the_letter_weighs_as_many_tokens_as_asked():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 6, 9), torch.tensor([[4, 5, 6, 7, 2, 1], [5, 8, 2, 1, -100, -100]])
    losses, weights = [], []
    for row, letter in ((0, 3), (1, 1)):  # before the full stop and the end
        for t, label in enumerate(labels[row]):
            if label != -100:
                weights.append(10.0 if t == letter else 1.0)
                losses.append(weights[-1] * cross_entropy(logits[row, t], label))
    torch.testing.assert_close(weighted_loss(logits, labels, 10.0), sum(losses) / sum(weights))


def test_additional_layers_add_nothing_at_first():
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    base, large = (build_student(f"t5-nano-{size}", len(tokenizer)).eval() for size in ("base", "large"))
    inputs = tokenizer(["Which remedy will help?"], return_tensors="pt", return_token_type_ids=False)
    labels = tokenizer(["The answer is A."], return_tensors="pt").input_ids
    before = large(**inputs, labels=labels).logits
    take_layers(base, large)
    expected = base(**inputs, labels=labels).logits
    torch.testing.assert_close(large(**inputs, labels=labels).logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, expected, atol=1e-2)


class Killed(Exception):
    """Stands for a kill in the middle of the training."""


@pytest.mark.parametrize("name", ["t5-nano-small", RERANKER])
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(pretraining, "BATCH", 4)
    monkeypatch.setattr(pretraining, "CHECKPOINT", 4)
    monkeypatch.setitem(pretraining.RECIPES, "t5-nano-small", Recipe(steps=6, decay=2))
    monkeypatch.setattr(pretraining, "draw_world", draw_world.__wrapped__)  # called in every step

    def train(folder: Path) -> Path:
        return (pretrain_reranker(folder, steps=6) if name == RERANKER else pretrain_student(name, folder))[0]

    def stop(seed: int):
        steps.append(seed)
        if len(steps) == 6:  # after the checkpoint of step 4
            raise Killed
        return draw_world(seed)

    steps: list[int] = []
    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pretraining, "draw_world", stop)
        train(tmp_path / "killed")
    checkpoint = tmp_path / "killed" / f"{name}.pt"
    assert len(torch.load(checkpoint, weights_only=True)["losses"]) == 4
    killed = train(tmp_path / "killed")
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_cards_are_written_anew_without_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pretraining, "NANO", tmp_path)
    monkeypatch.setattr(pretraining, "score_reranker", lambda folder: {"two-hop": 0.5})
    (tmp_path / RERANKER).mkdir()
    (tmp_path / RERANKER / "README.md").write_text("old\n\nMade by hand.\n")
    pretrain_all(tmp_path / "work", [RERANKER], cards_only=True)
    card = (tmp_path / RERANKER / "README.md").read_text()
    assert "| two-hop | 50.0% |" in card and card.endswith("\n\nMade by hand.\n") and "old" not in card


def test_every_shipped_model_has_a_card_with_scores():
    for folder in NANO.iterdir():
        card = (folder / "README.md").read_text()
        assert f"# {folder.name}" in card and "%" in card
        assert card.splitlines()[-1].startswith(f"Made by `kard pretrain-nano --models {folder.name}")


def test_an_unknown_model_is_one_sentence(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"^there is no nano model 't5-huge': name one of t5-nano-small, t5"):
        pretrain_all(tmp_path, ["t5-huge"])
