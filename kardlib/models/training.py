"""One loop to fit, one checkpoint, one set of the Trainer's arguments; and what processes that train one model share.

Several processes cut every step's batch into a part for each of them. A step depends on its global batch alone, never
on how many processes work on it: examples come in an order that the seed and the epoch decide, a part's loss counts by
its tokens, and gradients are summed over the parts. So any number of processes goes on from the checkpoints of any
other. What differs is the last bits of a sum and, in a model with dropout, which units are dropped. `launch.py` starts
the processes.
"""

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

from kardlib.artifacts.device import pick_device
from kardlib.artifacts.disk import atomic_write
from kardlib.artifacts.store import check_begun
from kardlib.data.records import say_rise
from kardlib.errors import DataError, StoppedError
from kardlib.models.costs import LORA_RANK

T = TypeVar("T")
Schedule = Callable[[torch.optim.Optimizer], LambdaLR]

STOP = threading.Event()  # once it is set, a Trainer writes a checkpoint after its step and raises StoppedError
SAVE_AFTER = 300  # seconds: what a killed training loses at most and one step, which may take a minute on a CPU
# what TrainingArguments call computing activations again: the first name came with transformers 5.18 or later
CHECKPOINTING = next(n for n in ("activation_checkpointing", "gradient_checkpointing") if hasattr(TrainingArguments, n))


def linear_schedule(warmup: float, steps: int) -> Schedule:
    """From 0 to the learning rate over the share `warmup` of the steps, rounded down, and to 0 at the last one."""
    return lambda optimizer: get_linear_schedule_with_warmup(optimizer, int(warmup * steps), steps)


def fit(
    name: str, model: nn.Module, rates: Mapping[nn.Module, float], schedule: Schedule, steps: int,
    loss_of: Callable[[int], Tensor], *, seed: int, checkpoint: Path, checkpoint_every: int,
    refresh: Callable[[], object] = lambda: None,
) -> tuple[list[float], float]:  # fmt: skip
    """Train `model` in place for so many steps; the loss of each, and the seconds that all of them took.

    AdamW without decay, at the learning rates of the model's parts, gradient norm cut at 1. `loss_of(step)`, counted
    from 0, is the loss () of this process's part of the step; where that is empty, a 0 without gradient. It must depend
    on the step alone: torch draws with `seed + step`. A killed run goes on from `checkpoint`, written before every
    `checkpoint_every`-th step, and on a CPU ends with the same bits. `refresh` is called before the first step and
    after every checkpoint, so that it sees the same weights in a run that goes on. Raises StoreError for a full disk,
    and DataError for a loss that is not finite.
    """
    groups = [{"params": [w for w in part.parameters() if w.requires_grad], "lr": lr} for part, lr in rates.items()]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    scheduler = schedule(optimizer)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    first, began = read_rank()[0] == 0, time.monotonic()  # the first of the processes writes for all
    losses: list[float] = []
    if checkpoint.is_file():
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["weights"], strict=False)
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        losses, began = saved["losses"], began - saved["seconds"]
        print(f"{name}: goes on after step {len(losses)} of {steps}", flush=True)
    for step in range(len(losses), steps):
        if step % checkpoint_every == 0:
            if losses and first:
                saved = {"weights": weights, "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(),
                         "losses": losses, "seconds": time.monotonic() - began}  # fmt: skip
                with atomic_write(checkpoint) as temporary:
                    torch.save(saved, temporary)
            refresh()
        torch.manual_seed(seed + step)
        loss = loss_of(step)
        if loss.requires_grad:
            loss.backward()
        sum_over_processes(loss.detach(), weights.values())
        nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        losses.append(loss.item())
        check_loss(name, losses[-1], step + 1, steps, max(rates.values()))
        if first and (len(losses) % 50 == 0 or len(losses) == steps):
            seconds = time.monotonic() - began
            print(f"{name}: step {len(losses)}/{steps}, loss {fmean(losses[-50:]):.3f}, {seconds:.0f} s", flush=True)
    if first:
        say_rise(name, losses)
    return losses, time.monotonic() - began


@contextmanager
def checkpoint_in(folder: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    """The checkpoint of a training that ends with the block: then the folder is removed, so that another begins anew.

    Raises StoreError where a killed one began with other settings.
    """
    check_begun(folder, settings)
    yield folder / "checkpoints" / "last.pt"
    shutil.rmtree(folder)


def check_loss(name: str, loss: float, step: int, steps: int, lr: float) -> None:
    """Raise DataError for a loss that is not finite: what follows it is no training."""
    if not math.isfinite(loss):
        raise DataError(f"{name}: the loss is {loss} at step {step} of {steps}: lower the learning rate ({lr:g})")


# Several processes


def read_rank() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) where no process group was started."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def part_of(batch: Sequence[T], rank: int, processes: int) -> Sequence[T]:
    """A process's part of a batch: neighbours stay together; empty for some where a batch has fewer items."""
    return batch[len(batch) * rank // processes : len(batch) * (rank + 1) // processes]


def sum_over_processes(loss: Tensor, weights: Iterable[nn.Parameter]) -> None:
    """Replace the loss and the weights' gradients, those of this process's part, by the sums over all parts."""
    if read_rank()[1] > 1:
        distributed.all_reduce(loss)
        for weight in weights:
            if weight.grad is None:  # an empty part
                weight.grad = torch.zeros_like(weight)
            distributed.all_reduce(weight.grad)


# transformers' Trainer


def trainer_arguments(
    folder: Path, lr: float, batch: int, warmup: float, epochs: int, examples: int, seed: int,
    steps: int | None = None, bf16: bool = False, **others: Any,
) -> TrainingArguments:  # fmt: skip
    """Of a training on so many examples for so many epochs, or `steps`: `linear_schedule`, gradient norm cut at 1.

    `bf16` asks for bfloat16 where the device would compute in float32. AdamW decays weights only where `others` say
    so. Checkpoints lie in `folder/checkpoints`: one at every fifth of the steps, but at least 100 apart, and one where
    that takes long (`Checkpoints`). Every step's loss is logged (`mean_losses`).
    """
    device, total = pick_device(), steps or -(-examples // batch) * epochs
    return TrainingArguments(
        output_dir=str(folder / "checkpoints"), seed=seed, use_cpu=device.type == "cpu", bf16=device.bf16 or bf16,
        per_device_train_batch_size=batch, num_train_epochs=epochs, max_steps=steps or -1, learning_rate=lr,
        warmup_steps=int(warmup * total), lr_scheduler_type="linear", max_grad_norm=1.0, save_strategy="steps",
        save_steps=max(100, total // 5), save_total_limit=1, logging_steps=1, report_to=[],
        logging_nan_inf_filter=False, disable_tqdm=True, remove_unused_columns=False, ddp_find_unused_parameters=False,
        **others,
    )  # fmt: skip


class EpochOrder(LengthGroupedSampler):
    """Examples of about one length together, in an order that the seed and the epoch decide.

    The numbers drawn are those that a `DataLoader` with transformers' sampler takes from torch's global generator in a
    run that is never interrupted and drops no units. Taken from there, they would depend on where a killed run goes on.
    """

    def __init__(self, batch: int, dataset: Any, seed: int, epoch: Callable[[], int]):
        super().__init__(batch, dataset=dataset, model_input_name="input_ids")
        self.seed, self.epoch = seed, epoch

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(self.seed)
        order: list[int] = []
        for _ in range(self.epoch() + 1):
            torch.empty((), dtype=torch.int64).random_(generator=generator)  # the DataLoader's own seed
            order = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        return iter(order)


class PartTrainer(Trainer):
    """transformers' Trainer, whose processes each take their part of one global batch.

    `per_device_train_batch_size` is the batch of all of them here, so that a checkpoint fits any number of processes.
    The Trainer's own way gives every process batches of its own, repeats examples until the last ones are full, and
    multiplies a T5's loss by the number of processes: T5 averages over the tokens of its part, whatever all have.

    Of a causal LM logits are computed only where a label counts: those of sources and padding, mostly more, would be
    thrown away. Padded on the right it gets no mask, without which attention takes half the time.

    `loss` is a student's own, as `catalogue.register_student` takes it; it is given all logits.
    """

    def __init__(
        self, model: Any, args: TrainingArguments, loss: Callable[[Tensor, Tensor], Tensor] | None = None, **others: Any
    ):
        if args.n_gpu > 1:
            args._n_gpu = 1  # else one process takes all GPUs (DataParallel), and a batch for each of them
        super().__init__(model, args, callbacks=[PlainProgress(), Checkpoints()], **others)
        self.remove_callback(PrinterCallback)  # it prints what PlainProgress does, as a dictionary
        self.causal = hasattr(model, "config") and not model.config.is_encoder_decoder  # a classifier of ours has none
        self.own_loss = loss
        if args.world_size > 1 or self.causal or loss:
            self.compute_loss_func = self.part_of_loss

    def get_train_dataloader(self) -> DataLoader:
        """Batches of all processes, of which `collate` keeps this one's part."""
        data: Any = self.train_dataset
        batch = self.args.per_device_train_batch_size
        steps = -(-len(data) // batch)  # of an epoch; the state of a run that goes on is that of its checkpoint
        order = EpochOrder(batch, data, self.args.seed, lambda: self.state.global_step // steps)
        cuda = self.args.device.type == "cuda"
        return DataLoader(data, batch, sampler=order, collate_fn=self.collate, pin_memory=cuda)

    def collate(self, batch: Sequence[dict[str, Any]]) -> Mapping[str, Any]:
        """This process's part as tensors; where it is empty, an example without labels, which adds nothing."""
        part = list(part_of(batch, *read_rank()))
        if not part:
            part = [{**batch[0], "labels": [-100] * len(batch[0]["labels"])}]
        inputs = dict(self.data_collator(part))
        if self.causal and inputs["attention_mask"][:, 0].all():  # padding comes last, and nobody looks ahead
            del inputs["attention_mask"]
        return inputs

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **others: Any) -> Any:
        """The Trainer's, of which a causal LM's output layer sees the states that predict a label: (1, N, H) of N."""
        if not self.causal or self.own_loss:
            return super().compute_loss(model, inputs, *arguments, **others)
        counts = inputs["labels"][:, 1:] != -100
        layer: nn.Module = self.model.get_output_embeddings()  # type: ignore[union-attr, operator]
        hook = layer.register_forward_pre_hook(lambda _, states: states[0][:, :-1][counts][None])
        try:
            return super().compute_loss(model, inputs, *arguments, **others)
        finally:
            hook.remove()

    def part_of_loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
        """The part's summed loss over the number of tokens that all parts have: (B, T, V) logits, (B, T) labels.

        A causal LM's logits predict the next label; without a loss of its own they are (1, N, V), of the N that count.

        The Trainer multiplies it by the number of processes, by which their gradients' mean is then divided.
        """
        logits = outputs.logits.float()
        labels = labels[:, 1:] if self.causal else labels
        if self.own_loss:
            return self.own_loss(logits[:, :-1] if self.causal else logits, labels) / num_items_in_batch
        labels = labels[labels != -100] if self.causal else labels.flatten()
        return cross_entropy(logits.flatten(0, 1), labels, reduction="sum") / num_items_in_batch


def add_lora(model: PreTrainedModel) -> nn.Module:
    """Low-rank updates of the query and value projections, found by the model's type. Raises DataError."""
    try:
        from peft import LoraConfig, get_peft_model  # imported late: it is optional

        return get_peft_model(model, LoraConfig(r=LORA_RANK, lora_alpha=32, lora_dropout=0.1))
    except ImportError:
        raise DataError("LoRA needs the package peft: run pip install 'kardlib[lora]', or set lora to false") from None
    except ValueError as error:
        kind = model.config.model_type
        raise DataError(f"LoRA does not know the query and value layers of a {kind!r}: set lora to false") from error


def mean_losses(state: TrainerState) -> list[dict[str, Any]]:
    """The mean loss of every quarter of the steps that are done, but at least of 10: "loss" up to "step".

    It is taken of the steps' own losses, which a checkpoint holds: the Trainer's mean, where a killed run goes on,
    would be of the steps since then alone. Summed as the Trainer does, in float32.
    """
    losses = np.array([entry["loss"] for entry in state.log_history if "loss" in entry], np.float32)
    size = steps_of_a_mean(state)
    ends = range(size, len(losses) + 1, size)
    return [{"step": end, "loss": float(losses[end - size : end].cumsum()[-1]) / size} for end in ends]


def steps_of_a_mean(state: TrainerState) -> int:
    """Over how many steps `mean_losses` takes a mean."""
    return max(10, state.max_steps // 4)


class PlainProgress(TrainerCallback):
    """A line of text for each of `mean_losses`, as batch runs want it. Raises DataError for a loss not finite."""

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # type: ignore[no-untyped-def]
        """The Trainer's hook."""
        for name in {"loss", "train_loss"}.intersection(logs or ()):  # the step's, and at the end that of all
            check_loss("student", float(logs[name]), state.global_step, state.max_steps, args.learning_rate)
        due = logs and "loss" in logs and state.global_step % steps_of_a_mean(state) == 0
        if due and state.is_world_process_zero:
            loss = mean_losses(state)[-1]["loss"]
            print(f"  step {state.global_step}/{state.max_steps} loss {loss:.3f}", flush=True)


class Checkpoints(TrainerCallback):
    """Those besides the regular ones: after `SAVE_AFTER` seconds without any, and once `STOP` is set.

    The latter ends a training by StoppedError, but never between its last step and its end. Several processes write
    together, and their clocks differ: they keep to the regular ones.
    """

    def __init__(self) -> None:
        self.last = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        """The Trainer's hook: whether a checkpoint follows."""
        late = args.world_size == 1 and time.monotonic() - self.last > SAVE_AFTER
        control.should_save = control.should_save or STOP.is_set() or late

    def on_save(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        """The Trainer's hook, when a checkpoint is written. Raises StoppedError."""
        self.last = time.monotonic()
        if STOP.is_set() and state.global_step < state.max_steps:
            raise StoppedError(f"stopped after step {state.global_step} of {state.max_steps}")


def find_checkpoint(folder: Path) -> str | None:
    """The last whole checkpoint (its state comes last); one that has lost its weights is passed over."""
    states = folder.glob("checkpoint-*/trainer_state.json")
    whole = [s.parent for s in states if any("model" in file.name for file in s.parent.iterdir())]
    last = max(whole, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]), default=None)
    return str(last) if last else None
