"""One loop that can be killed at any step; parts that make up the batch, in the order of a run in one process."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import LengthGroupedSampler

from kardlib.artifacts.store import describe_files
from kardlib.data.records import say
from kardlib.errors import DataError, StoppedError
from kardlib.kard.student import train_student
from kardlib.models import training
from kardlib.models.training import STOP, EpochOrder, find_checkpoint, fit, linear_schedule, part_of
from kardlib.settings import StudentSettings


class Killed(Exception):
    """Stands for a kill in the middle of a step."""


def fit_dropout(checkpoint: Path, kill_at: int = -1) -> tuple[list[float], list[int], dict[str, torch.Tensor]]:
    """Losses, the steps at which `refresh` was called, and the weights; a frozen layer is left alone."""
    torch.manual_seed(0)
    frozen, trained = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)
    frozen.requires_grad_(False)
    model = torch.nn.Sequential(frozen, torch.nn.Dropout(0.5), trained).train()
    asked, refreshed = [], []

    def loss_of(step: int) -> torch.Tensor:
        if step == kill_at:
            raise Killed
        asked.append(step)
        return (model(torch.full((8, 4), float(step))) - 1).square().mean()

    losses, seconds = fit(
        "test", model, {model: 0.1}, linear_schedule(0.1, 12), 12, loss_of, seed=7, checkpoint=checkpoint,
        checkpoint_every=4, refresh=lambda: refreshed.append(asked[-1] + 1 if asked else None),
    )  # fmt: skip
    assert seconds > 0
    return losses, refreshed, model.state_dict()


@pytest.mark.parametrize("kill_at", [0, 3, 4, 7, 8, 11])
def test_a_run_killed_at_any_step_ends_with_the_same_bits(kill_at, tmp_path):
    losses, refreshed, weights = fit_dropout(tmp_path / "whole.pt")
    assert len(losses) == 12 and refreshed == [None, 4, 8]
    with pytest.raises(Killed):
        fit_dropout(tmp_path / "killed" / "last.pt", kill_at)
    again, refreshed, same = fit_dropout(tmp_path / "killed" / "last.pt")
    assert again == losses and refreshed == [None, *(step for step in (4, 8) if step > kill_at // 4 * 4)]
    assert all(torch.equal(weights[name], same[name]) for name in weights)


@given(items=st.lists(st.integers(), max_size=40), processes=st.integers(1, 9))
def test_parts_make_up_the_batch_and_differ_by_one_at_most(items, processes):
    parts = [part_of(items, rank, processes) for rank in range(processes)]
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_order_is_what_torch_and_transformers_draw_in_a_run_without_interruption():
    examples = [{"input_ids": [0] * (i * 7 % 23 + 1)} for i in range(45)]
    sampler = LengthGroupedSampler(8, dataset=examples, model_input_name="input_ids")
    loader = DataLoader(range(45), 8, sampler=sampler, collate_fn=list)
    torch.manual_seed(3)
    for epoch in range(3):
        drawn = [i for batch in loader for i in batch]
        assert drawn == list(EpochOrder(8, examples, 3, lambda epoch=epoch: epoch)), epoch


def test_a_training_stops_at_a_checkpoint_and_goes_on_to_the_same_weights(tmp_path):
    examples = [(f"Question {i}: is it true?", "The answer is A.") for i in range(64)]
    settings = StudentSettings(model="t5-nano-small", batch=8, epochs=1, lr=1e-3, max_new_tokens=8)
    train_student(examples, settings, 0, tmp_path / "whole")
    try:
        STOP.set()
        with pytest.raises(StoppedError, match="stopped after step 1 of 8"):
            train_student(examples, settings, 0, tmp_path / "stopped")
    finally:
        STOP.clear()
    train_student(examples, settings, 0, tmp_path / "stopped")
    hashes = {describe_files(tmp_path / name)["model.safetensors"]["sha256"] for name in ("whole", "stopped")}
    assert len(hashes) == 1


@pytest.mark.parametrize(("seconds", "kept"), [(300, None), (0, 2)])
def test_a_training_whose_steps_take_long_is_killed_and_loses_the_last_alone(seconds, kept, tmp_path, monkeypatch):
    def kill(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "SAVE_AFTER", seconds)
    monkeypatch.setattr(training.PlainProgress, "on_log", kill)
    examples = [(f"Question {i}: is it true?", "The answer is A.") for i in range(64)]
    with pytest.raises(KeyboardInterrupt):
        train_student(examples, StudentSettings(model="t5-nano-small", batch=8, max_new_tokens=8), 0, tmp_path)
    found = find_checkpoint(tmp_path / "checkpoints")
    assert found == (kept and str(tmp_path / "checkpoints" / f"checkpoint-{kept}"))


def test_a_loss_that_is_not_finite_ends_a_training_at_once(tmp_path):
    model = torch.nn.Linear(1, 1)

    def loss_of(step):
        return model.weight.sum() * (1.0 if step < 2 else torch.nan)

    with pytest.raises(DataError, match=r"toy: the loss is nan at step 3 of 9: lower the learning rate \(0\.5\)"):
        fit("toy", model, {model: 0.5}, linear_schedule(0, 9), 9, loss_of,
            seed=0, checkpoint=tmp_path / "last.pt", checkpoint_every=5)  # fmt: skip
    settings = StudentSettings(model="t5-nano-small", lr=1e30, epochs=20, batch=2, max_new_tokens=16)
    with pytest.raises(DataError, match=r"student: the loss is \w+ at step \d+ of 20: lower the learning rate"):
        train_student([("What?", "The answer is A."), ("Why?", "The answer is B.")], settings, 0, tmp_path / "student")


@pytest.mark.parametrize("rise", [-1, 1])
def test_a_loss_that_did_not_fall_is_said(rise, tmp_path, capsys):
    model = torch.nn.Linear(1, 1)
    loss_of = lambda step: model.weight.square().sum() + rise * step  # noqa: E731
    say.cache_clear()
    fit("toy", model, {model: 0.01}, linear_schedule(0, 30), 30, loss_of,
        seed=0, checkpoint=tmp_path / "last.pt", checkpoint_every=50)  # fmt: skip
    assert ("toy: the loss did not fall (" in capsys.readouterr().err) == (rise > 0)


def test_a_checkpoint_that_holds_its_state_alone_is_passed_over(tmp_path):
    for step, files in {5: ("trainer_state.json", "model.safetensors"), 10: ("trainer_state.json",)}.items():
        (tmp_path / f"checkpoint-{step}").mkdir()
        for name in files:
            (tmp_path / f"checkpoint-{step}" / name).touch()
    assert find_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")
    (tmp_path / "checkpoint-5" / "model.safetensors").unlink()
    assert find_checkpoint(tmp_path) is None
