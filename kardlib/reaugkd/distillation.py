"""ReAugKD's losses, classifiers and training: what a teacher and its students learn, and from what.

B texts in a batch, C labels, d the student's embedding size. `experiment.py` says what of it is sourced.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, huber_loss, kl_div, normalize
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from kardlib.artifacts.device import pick_device
from kardlib.artifacts.disk import write_json
from kardlib.artifacts.store import check_begun
from kardlib.data.records import say_rise
from kardlib.errors import DataError
from kardlib.models.catalogue import identify
from kardlib.models.encoders import (
    TOKENS,
    check_pooling,
    count_positions,
    length_batches,
    load_encoder,
    pool,
    say_cut,
)
from kardlib.models.training import PartTrainer, find_checkpoint, mean_losses, trainer_arguments
from kardlib.reaugkd import memory
from kardlib.reaugkd.memory import Array, Outputs
from kardlib.reaugkd.tasks import Example, Task
from kardlib.retrieval.dense import build_index
from kardlib.settings import Losses, ReAugKDSettings

HEAD, HEAD_FACTS = "head.safetensors", "classifier.json"

# The equations


def contrastive_loss(z: Tensor, labels: Tensor, tau: float) -> Tensor:
    """Supervised contrastive loss of the projection: z (B, d) of length 1, labels (B,).

    `-1/|P(i)| sum_{p in P(i)} log softmax_{a != i}(z_i . z_a / tau)_p`, `P(i)` the others with the label of `i`; mean
    over those that have others (Khosla et al. 2020, L_out; that ReAugKD uses this loss is sourced, its form is not).
    Raises DataError where no two examples share a label.
    """
    same = labels[:, None] == labels[None, :]
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = same & ~itself
    counts = positive.sum(1)
    if not counts.any():
        raise DataError("the contrastive loss needs two examples with the same label in a batch: enlarge the batch")
    log_softmax = (z @ z.T / tau).masked_fill(itself, -torch.inf).log_softmax(1)
    per_anchor = -log_softmax.masked_fill(~positive, 0.0).sum(1) / counts.clamp(min=1)
    return per_anchor[counts > 0].mean()


def soft_label_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(softmax(teacher / T) || softmax(student / T))`, mean over the batch; both (B, C) (Hinton et al. 2015)."""
    target, own = ((logits / temperature).log_softmax(1) for logits in (teacher_logits, student_logits))
    return temperature**2 * kl_div(own, target, reduction="batchmean", log_target=True)


def relational_loss(s: Tensor, z: Tensor, tau: float) -> Tensor:
    """`KL(q_i || p_i)`, mean over the batch (formula **reconstructed**); s and z are (B, d) of length 1.

    `q_ij = softmax_{j != i}(z_i . z_j / tau)` between teacher embeddings, `p_ij = softmax_{j != i}(s_i . z_j / tau)`
    from the student's to the teacher's: a student's text should stand to the memory as its teacher's embedding does.
    """
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_q, log_p = ((x @ z.T / tau).masked_fill(itself, -torch.inf).log_softmax(1) for x in (z, s))
    return (log_q.exp() * (log_q - log_p)).masked_fill(itself, 0.0).sum(1).mean()


def rkd_loss(s: Tensor, t: Tensor) -> Tensor:
    """Relational knowledge distillation (Park et al., CVPR 2019): distances plus twice the angles.

    s (B, d) and t (B, d_t) are embeddings of any length. Huber loss between the distances of all pairs, each side
    divided by its mean, and between the cosines of the angles at the middle of all triplets.
    """
    distances_s, distances_t = (_distances(x) / _mean_distance(x) for x in (s, t))
    return huber_loss(distances_s, distances_t) + 2 * huber_loss(_angles(s), _angles(t))


def _distances(x: Tensor) -> Tensor:
    """(B, B), 0 on the diagonal; the root of 0 has no gradient, so it is taken of the others alone."""
    squares = (x[:, None] - x[None, :]).square().sum(2)
    return torch.where(squares > 0, squares.where(squares > 0, 1.0).sqrt(), 0.0)


def _mean_distance(x: Tensor) -> Tensor:
    distances = _distances(x)
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return mean.clamp(min=1e-12)  # 0 for texts that are all alike, or one alone: what is left over at an epoch's end


def _angles(x: Tensor) -> Tensor:
    """(B, B, B): the cosine at `j` between the directions to `i` and to `k`."""
    directions = normalize(x[None, :] - x[:, None], dim=2)  # (j, i, d)
    return directions @ directions.transpose(1, 2)


# Encoders that classify


class Classifier(nn.Module):
    """An encoder and a linear head: tokens to an embedding (B, d) and logits (B, C).

    Raises DataError for a causal encoder whose first token is to stand for the text.
    """

    accepts_loss_kwargs = False  # what the Trainer would hand it beside tokens means nothing to the encoder

    def __init__(
        self, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, labels: int, pooling: str, seed: int = 0
    ):
        super().__init__()
        check_pooling(encoder, pooling, "reaugkd.pooling")
        self.encoder: Any = encoder
        self.tokenizer, self.pooling = tokenizer, pooling
        self.head = nn.Linear(encoder.config.hidden_size, labels)
        nn.init.normal_(self.head.weight, std=0.02, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.head.bias)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, d) and logits (B, C) of tokens (B, T) and their mask."""
        hidden = self.encoder(**inputs).last_hidden_state  # (B, T, d)
        embedding = pool(hidden, inputs["attention_mask"], self.pooling)
        return embedding, self.head(embedding)

    def tokenize(self, examples: Sequence[Example], max_tokens: int) -> list[dict[str, list[int]]]:
        """What the encoder is given for every example; the longer text of a pair is cut first, or the second."""
        texts, pairs = [e.text for e in examples], [e.pair for e in examples]
        if any(pairs) and not self.tokenizer.num_special_tokens_to_add(pair=True):  # a causal model's would join them
            texts, pairs = ["\n".join(pair) for pair in zip(texts, pairs, strict=True)], []
        limit = min(max_tokens, count_positions(self.encoder))
        tokens = self.tokenizer(
            texts, pairs if any(pairs) else None, truncation=True, max_length=limit,
            return_token_type_ids=getattr(self.encoder.config, "type_vocab_size", 0) > 1,
        )  # fmt: skip
        say_cut("reaugkd.max_tokens", limit, tokens["input_ids"])
        return [dict(zip(tokens, values, strict=True)) for values in zip(*tokens.values(), strict=True)]

    def save(self, folder: Path) -> None:
        """Encoder and tokenizer as an ordinary `transformers` checkpoint, the head beside them."""
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_file(self.head.state_dict(), folder / HEAD)
        write_json(folder / HEAD_FACTS, {"pooling": self.pooling})


def keep_layers(encoder: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """The encoder with the given ones of its layers alone, counted from 0. Raises DataError."""
    count = encoder.config.num_hidden_layers
    stacks = [(n, m) for n, m in encoder.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not stacks:
        raise DataError(f"a {encoder.config.model_type!r} encoder has no list of {count} layers to choose from")
    if not layers or not all(0 <= i < count for i in layers):
        raise DataError(f"layers {list(layers)} cannot be kept of {count}: give numbers from 0 to {count - 1}")
    name, stack = stacks[0]
    parent, _, attribute = name.rpartition(".")
    setattr(encoder.get_submodule(parent), attribute, nn.ModuleList(copy.deepcopy(stack[i]) for i in layers))
    encoder.config.num_hidden_layers = len(layers)
    return encoder


def build_teacher(settings: ReAugKDSettings, labels: int, seed: int) -> Classifier:
    """The teacher before fine-tuning. Raises DataError."""
    encoder, tokenizer = load_encoder(settings.teacher, settings.revision, "teacher")
    if settings.teacher_layers is not None:
        encoder = keep_layers(encoder, settings.teacher_layers)
    return Classifier(encoder, tokenizer, labels, settings.pooling, seed)


def build_student(settings: ReAugKDSettings, labels: int, seed: int) -> Classifier:
    """The student before training: its own backbone, or layers of the teacher's, every second one unless said.

    They are the teacher's as it was before fine-tuning: a student that is trained alone must not know the task.
    """
    layers = settings.student_layers
    if settings.student is None:
        student = build_teacher(settings, labels, seed)
        layers = layers or tuple(range(0, student.encoder.config.num_hidden_layers, 2))
    else:
        encoder, tokenizer = load_encoder(settings.student, settings.student_revision, "student")
        student = Classifier(encoder, tokenizer, labels, settings.pooling, seed)
    if layers is not None:
        student.encoder = keep_layers(student.encoder, layers)
    return student


@torch.inference_mode()
def run_classifier(classifier: Classifier, examples: Sequence[Example], max_tokens: int) -> Outputs:
    """Outputs for every example, in order; batches of nearly one length."""
    device = pick_device()
    classifier = classifier.to(device.type).eval()
    tokens = classifier.tokenize(examples, max_tokens)
    order, parts = list[int](), []
    for batch in length_batches({str(i): t["input_ids"] for i, t in enumerate(tokens)}, TOKENS):
        padded = classifier.tokenizer.pad([tokens[int(i)] for i in batch], return_tensors="pt").to(device.type)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.bf16):
            parts.append([array.float().cpu() for array in classifier(**padded)])
        order += map(int, batch)
    return Outputs(*(torch.cat(column)[np.argsort(order)].numpy() for column in zip(*parts, strict=True)))


# Training

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # embeddings, logits and numbers of a batch's examples -> loss


def train_classifier(
    classifier: Classifier, examples: Sequence[Example], objective: Objective, settings: ReAugKDSettings, lr: float,
    epochs: int, seed: int, folder: Path,
) -> None:  # fmt: skip
    """Train in place, in one process, since the embeddings of a batch are compared.

    A run that was killed goes on from `folder/checkpoints` and ends with the same weights. Raises StoreError for
    checkpoints of other settings.
    """
    set_seed(seed)
    knobs = settings.model_dump(include={"batch", "max_tokens", "train_words", "warmup"})
    check_begun(folder, knobs | {"lr": lr, "epochs": epochs, "seed": seed, "number of examples": len(examples)})
    classifier.encoder.get_input_embeddings().requires_grad_(settings.train_words)
    tokens = enumerate(classifier.tokenize(examples, settings.max_tokens))
    trainer = PartTrainer(
        classifier,
        trainer_arguments(folder, lr, settings.batch, settings.warmup, epochs, len(examples), seed, weight_decay=0.01),
        train_dataset=[{**inputs, "labels": number} for number, inputs in tokens],  # the Trainer's name for a target
        data_collator=DataCollatorWithPadding(classifier.tokenizer),
        compute_loss_func=lambda outputs, number, **_: objective(outputs[0].float(), outputs[1].float(), number),
    )
    trainer.train(resume_from_checkpoint=find_checkpoint(folder / "checkpoints"))
    say_rise(folder.name, [mean["loss"] for mean in mean_losses(trainer.state)])


def label_objective(labels: Tensor) -> Objective:
    """Cross-entropy with the gold labels (N,)."""
    return lambda embeddings, logits, number: cross_entropy(logits, labels.to(logits.device)[number])


def student_objective(
    losses: Losses, labels: Tensor, teacher: Outputs, keys: Array, settings: ReAugKDSettings
) -> Objective:
    """The weighted sum of a method's losses; `teacher` and `keys` (N, d) hold what the teacher says of training texts.

    Label + soft-label + relational loss is ReAugKD's sum (sourced); the weights are not public.
    """
    device = pick_device().type
    labels, logits_t, embeddings_t, z = (
        torch.as_tensor(x, device=device) for x in (labels, teacher.logits, teacher.embeddings, keys)
    )

    def objective(s: Tensor, logits: Tensor, number: Tensor) -> Tensor:
        loss = cross_entropy(logits, labels[number]) if "label" in losses else logits.new_zeros(())
        if "soft" in losses:
            loss = loss + settings.soft_weight * soft_label_loss(logits, logits_t[number], settings.temperature)
        if "relational" in losses:
            loss = loss + settings.relational_weight * relational_loss(normalize(s, dim=1), z[number], settings.tau)
        if "rkd" in losses:
            loss = loss + settings.rkd_weight * rkd_loss(s, embeddings_t[number])
        return loss

    return objective


def train_projection(
    embeddings: Array, labels: NDArray[np.int64], dim: int, count: int, settings: ReAugKDSettings, seed: int
) -> Callable[[Array], Array]:
    """A linear layer from the teacher's embedding to `dim`, trained alone; maps (N, d_t) to unit vectors (N, dim).

    It learns from the teacher's outputs, so the teacher cannot change. `count` is the number of labels. Raises
    DataError for a label without training examples.
    """
    present = np.bincount(labels, minlength=count)
    if not present.all():
        raise DataError(
            f"{(present == 0).sum()} of {count} labels have no training example, so that the contrastive loss has an "
            "empty class: train on more examples (reaugkd.train) or remove the label"
        )
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(embeddings), torch.from_numpy(labels)
    projection = nn.Linear(x.shape[1], dim)
    nn.init.zeros_(projection.bias)
    if dim == x.shape[1]:
        nn.init.eye_(projection.weight)
    else:
        nn.init.orthogonal_(projection.weight, generator=generator)
    optimizer = torch.optim.AdamW(projection.parameters(), lr=settings.projection_lr)
    for _ in range(settings.projection_steps):
        drawn = torch.randperm(len(x), generator=generator)[: settings.projection_batch]
        loss = contrastive_loss(normalize(projection(x[drawn]), dim=1), y[drawn], settings.tau)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    projection.requires_grad_(False)
    return lambda array: normalize(projection(torch.from_numpy(array)), dim=1).numpy()


def train_teacher(task: Task, settings: ReAugKDSettings, seed: int, folder: Path) -> None:
    """Fine-tune the teacher, and keep what it says of all splits."""
    teacher = build_teacher(settings, len(task.labels), seed)
    objective = label_objective(torch.from_numpy(task.gold("train")))
    lr, epochs = settings.teacher_lr, settings.teacher_epochs
    train_classifier(teacher, task.splits["train"], objective, settings, lr, epochs, seed, folder)
    finish(teacher, task, ("train", "dev", "test"), settings, folder)


def build_base(task: Task, settings: ReAugKDSettings, teacher: Path, dim: int, seed: int, folder: Path) -> None:
    """The knowledge base of the training split: projected embeddings, soft labels, HNSW graph."""
    outputs = memory.read_outputs(teacher)["train"]
    project = train_projection(outputs.embeddings, task.gold("train"), dim, len(task.labels), settings, seed)
    keys = project(outputs.embeddings)
    base = memory.KnowledgeBase(build_index(keys), outputs.probabilities)
    memory.save_knowledge_base(folder, base, keys, identify(str(teacher)))


def distill_student(
    task: Task, settings: ReAugKDSettings, teacher: Path, base: Path, losses: Losses, seed: int, folder: Path
) -> None:
    """One student, and what it says where something is chosen or reported."""
    student = build_student(settings, len(task.labels), seed)
    labels = torch.from_numpy(task.gold("train"))
    keys = memory.load_knowledge_base(base, identify(str(teacher)), student.encoder.config.hidden_size)[1]
    objective = student_objective(losses, labels, memory.read_outputs(teacher)["train"], keys, settings)
    train_classifier(student, task.splits["train"], objective, settings, settings.lr, settings.epochs, seed, folder)
    finish(student, task, ("dev", "test"), settings, folder)


def finish(classifier: Classifier, task: Task, splits: Sequence[str], settings: ReAugKDSettings, folder: Path) -> None:
    """Save a trained classifier and what it says of some splits."""
    classifier.save(folder)
    said = {split: run_classifier(classifier, task.splits[split], settings.max_tokens) for split in splits}
    memory.write_outputs(folder, said)
