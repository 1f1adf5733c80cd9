"""The script that makes the nano models: its batches, its loss, and that a killed run goes on."""

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import T5ForConditionalGeneration

from kardlib import NANO
from kardlib.errors import StoreError
from kardlib.models import pretraining
from kardlib.models.exercises import Exercise, draw_world
from kardlib.models.nano import RERANKER, build_student, build_tokenizer
from kardlib.models.pretraining import (
    FIRST_WORLD,
    Recipe,
    collate,
    pretrain_all,
    pretrain_reranker,
    pretrain_student,
    student_batch,
    weighted_loss,
    widen,
)
from kardlib.presets import preset
from kardlib.settings import SettingsError


def test_no_notebook_uses_a_world_of_pretraining():
    seeds = {preset(scale).world.seed for scale in ("smoke", "embedded", "paper")}
    assert max(seeds) < pretraining.HELD_OUT < FIRST_WORLD


def test_a_batch_depends_on_seed_and_step_alone():
    recipe = Recipe(lr=1e-3, steps=12, drill=2)
    batches = [student_batch(0, recipe, step) for step in range(12)]
    assert batches[9:] == [student_batch(0, recipe, step) for step in (9, 10, 11)]
    assert batches[9] != student_batch(1, recipe, 9) and batches[9] != batches[10]
    assert {len(batch) for batch in batches} == {pretraining.BATCH}


def test_no_loss_is_taken_in_what_is_begun_and_letters_weigh_ten_tokens():
    tokenizer = build_tokenizer()
    inputs = collate(tokenizer, [Exercise("Copy: Balmek", "Balmek has fever.", "Choice: B"), Exercise("x", "", "yes")])
    first = inputs["labels"][0]
    assert tokenizer.decode(first[first != -100]) == "Choice: B </s>"
    assert tokenizer.decode(inputs["decoder_input_ids"][0]).startswith("<pad> Balmek has fever. Choice")
    torch.manual_seed(0)
    logits = torch.randn(*inputs["labels"].shape, len(tokenizer))
    letters = torch.tensor(tokenizer.convert_tokens_to_ids(list("ABCD")))
    losses, weights = [], []
    for row, labels in zip(logits, inputs["labels"], strict=True):
        for scores, label in zip(row, labels, strict=True):
            if label != -100:
                weights.append(10.0 if label in letters else 1.0)
                losses.append(weights[-1] * cross_entropy(scores, label))
    assert sorted(weights)[-2:] == [1.0, 10.0]
    torch.testing.assert_close(weighted_loss(logits, inputs["labels"], letters), sum(losses) / sum(weights))


class Killed(Exception):
    """Stands for a kill in the middle of the training."""


@pytest.mark.parametrize("name", ["t5-nano-small", RERANKER])
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(pretraining, "BATCH", 4)
    monkeypatch.setattr(pretraining, "CHECKPOINT", 4)
    monkeypatch.setitem(pretraining.RECIPES, "t5-nano-small", Recipe(lr=1e-3, steps=6, drill=2, decay=2))
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
    checkpoint = tmp_path / "killed" / f"{name}-begun" / "checkpoints" / "last.pt"
    assert len(torch.load(checkpoint, weights_only=True)["losses"]) == 4
    with pytest.raises(StoreError, match="was begun with seed = 0 and cannot go on with 1: take the same settings"):
        (pretrain_reranker if name == RERANKER else partial(pretrain_student, name))(tmp_path / "killed", seed=1)
    killed = train(tmp_path / "killed")
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [name]
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("size", ["t5-nano-base", "t5-nano-large"])
def test_a_student_that_is_made_wider_says_what_the_narrow_one_says(size: str):
    narrow = T5ForConditionalGeneration.from_pretrained(NANO / "t5-nano-small")
    wide = build_student(size, narrow.config.vocab_size)
    torch.manual_seed(0)
    ids, labels = torch.randint(2, 500, (3, 30)), torch.randint(2, 500, (3, 12))
    before = narrow(input_ids=ids, labels=labels).logits
    assert not torch.allclose(wide(input_ids=ids, labels=labels).logits, before, atol=1.0)
    widen(narrow, wide)
    torch.testing.assert_close(wide(input_ids=ids, labels=labels).logits, before, atol=1e-4, rtol=0)


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
