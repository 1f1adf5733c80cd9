"""What a model costs: FLOPs and memory of training and of writing, and whether that fits into a device.

Every estimate is a function of a `Shape`. A training example has `source` and `target` tokens; a causal model reads
them as one sequence. `tests/models/test_costs.py` compares the estimates with transformers: parameters exactly,
activations within the error that their docstring names. Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kardlib.errors import TooLargeError
from kardlib.models.catalogue import MODELS, Shape

if TYPE_CHECKING:
    from kardlib.settings import StudentSettings

LORA_RANK = 16  # of LoRA's updates
# Bytes for the backward pass by token and layer: (factor of the width, factor of the feed-forward's width)
SAVED: dict[str, dict[str, tuple[float, float]]] = {
    "encoder-decoder": {"bf16": (57, 6), "fp32": (64, 12)},
    "causal": {"bf16": (28, 2), "fp32": (40, 4)},
    "encoder": {"bf16": (34, 4), "fp32": (40, 8)},
}
SAVED_BY_GATE = {"bf16": 10.5, "fp32": 20}  # added to the second factor if the feed-forward layer is gated
OUTPUT_BYTES = 12  # by predicted token and word of the vocabulary: logits, their softmax and its gradient in fp32
CERTAIN = 0.8  # share of an estimate that must fit: an estimate may be a fifth too high


def forward_flops(shape: Shape, source: float, target: float) -> float:
    """FLOPs of one example: 2 per weight and each token that it multiplies (Kaplan et al. 2020, Section 2.1).

    Embeddings, which are looked up, and attention's products of tokens with tokens do not count; the output layer does
    for targets.
    """
    layer, output = shape.attention + shape.dense, shape.vocabulary * shape.width
    if shape.kind == "encoder":
        return 2 * source * shape.encoder_layers * layer
    if shape.kind == "causal":
        return 2 * ((source + target) * shape.decoder_layers * layer + target * output)
    half = shape.attention / 2  # of cross-attention: keys and values multiply source tokens, the rest target tokens
    by_source = shape.encoder_layers * layer + shape.decoder_layers * half
    return 2 * (source * by_source + target * (shape.decoder_layers * (layer + half) + output))


def training_flops(
    shape: Shape, source: float, target: float, *, lora: bool = False, checkpointing: bool = False
) -> float:
    """Of one example: backward costs two forward passes, one with LoRA's frozen weights; checkpointing repeats one."""
    return forward_flops(shape, source, target) * ((2 if lora else 3) + (1 if checkpointing else 0))


def activation_bytes(
    shape: Shape, batch: int, source: int, target: int, *, bf16: bool, checkpointing: bool = False, gpu: bool = True
) -> float:
    """Bytes that a training step keeps for its backward pass, and of the output layer at its peak.

    They are linear in tokens, width and feed-forward's width, and quadratic in length if attention keeps its scores:
    the form of Korthikanti et al. 2022 (Reducing Activation Recomputation, eq. 2), whose constants hold for fused
    layers. Ours were measured by torch's saved-tensor hooks on transformers 5.23, in models of width 64 and 128 with
    dropout; on other shapes they are within 10 %. They were not measured on a GPU, where only T5's position bias is as
    large as the scores.
    """
    precision = "bf16" if bf16 else "fp32"
    by_width, by_dense = SAVED[shape.kind][precision]
    by_dense += SAVED_BY_GATE[precision] if shape.gated else 0
    by_token = by_width * shape.width + by_dense * shape.feed_forward
    layers, tokens, predicted = shape.decoder_layers, source + target, target
    scores: float = source**2 + target**2 + source * target
    by_score = (2 if bf16 else 4) if gpu else 12
    if shape.kind == "causal":
        scores = 0
    elif shape.kind == "encoder":
        layers, tokens, predicted, scores = shape.encoder_layers, source, 0, 0 if gpu else source**2
    layer = tokens * by_token + shape.heads * scores * by_score
    kept = layers * tokens * 4 * shape.width + layer if checkpointing else layers * layer
    return batch * (kept + predicted * shape.vocabulary * OUTPUT_BYTES)


def lora_parameters(shape: Shape) -> int:
    """Weights of the low-rank updates of every query and value projection (Hu et al. 2022)."""
    attentions = shape.encoder_layers + shape.decoder_layers * (2 if shape.kind == "encoder-decoder" else 1)
    return attentions * 2 * LORA_RANK * (shape.width + shape.heads * shape.head_size)


def training_bytes(
    shape: Shape, batch: int, source: int, target: int, *, bf16: bool, lora: bool = False, checkpointing: bool = False,
    gpu: bool = True,
) -> float:  # fmt: skip
    """Bytes at the peak of training: weights in fp32, their gradients and Adam's two moments (16 bytes a parameter;
    Rajbhandari et al. 2020, ZeRO, Section 3.1), autocast's copy of the weights in bf16, and activations. LoRA freezes
    the weights.

    On a CPU, two steps of a small T5 and a small OPT (16 and 12 million parameters, T5's vocabulary) took a resident
    memory of which this is 1.05 to 1.24 times if the allocator returns memory at once, else 0.86 to 1.01 times.
    """
    trained = lora_parameters(shape) if lora else shape.parameters
    state = shape.parameters * (6 if bf16 else 4) + trained * 12
    return state + activation_bytes(shape, batch, source, target, bf16=bf16, checkpointing=checkpointing, gpu=gpu)


def writing_bytes(shape: Shape, questions: int, samples: int, source: int, target: int, *, bf16: bool) -> float:
    """Bytes at the peak of writing `samples` texts for each question of a batch: weights, the cache of keys and values
    (Pope et al. 2022, Section 2.1), one layer that reads the questions, and logits in fp32 with sampling's copies.
    """
    size, inner, texts = 2 if bf16 else 4, shape.heads * shape.head_size, questions * samples
    cache = texts * shape.decoder_layers * (source + target) * 2 * inner
    reading = (texts if shape.kind == "causal" else questions) * source * (4 * inner + 3 * shape.feed_forward)
    return size * (shape.parameters + cache + reading) + texts * 16 * shape.vocabulary


def spare_memory(
    shape: Shape, settings: StudentSettings, batch: int, source: int, target: int, *, bf16: bool, share: float
) -> StudentSettings:
    """The settings, with activations computed again where a job's `share` of the memory would not hold them all.

    Else two students that are trained side by side would both want what was free when they looked. What is learnt is
    the same to the bit on a CPU; a step takes a seventh longer.
    """
    kept, again = (
        training_bytes(shape, batch, source, target, bf16=bf16, lora=settings.lora, checkpointing=c, gpu=False)
        for c in (False, True)
    )
    if settings.gradient_checkpointing or kept <= share:
        return settings
    print(
        f"{kept / 1e9:.1f} GB would be more than a job's share of the memory ({share / 1e9:.1f}): activations are "
        f"computed again (student.gradient_checkpointing; {again / 1e9:.1f} GB)", flush=True,
    )  # fmt: skip
    return settings.model_copy(update={"gradient_checkpointing": True})


def check_memory(
    shape: Shape, settings: StudentSettings, batch: int, source: int, target: int, *, bf16: bool, free: float,
    device: str,
) -> None:  # fmt: skip
    """Raise TooLargeError if training `settings.model` needs more than the `free` bytes of "the GPU" or "this machine".

    `source` and `target` are the longest example's tokens, `batch` examples are read at once. The sentence names what
    would fit: the first of gradient checkpointing, LoRA and a smaller batch, and the largest smaller model.
    """

    def needed(shape: Shape, batch: int, lora: bool, checkpointing: bool) -> float:
        options = {"bf16": bf16, "lora": lora, "checkpointing": checkpointing, "gpu": device == "the GPU"}
        return training_bytes(shape, batch, source, target, **options)

    lora, checkpointing = settings.lora, settings.gradient_checkpointing
    asked = needed(shape, batch, lora, checkpointing)
    if asked * CERTAIN <= free:
        return
    again, with_lora = "student.gradient_checkpointing=true", "student.lora=true"
    both = f"{with_lora} with {again}"
    changes = {
        again: needed(shape, batch, lora, True),
        with_lora: needed(shape, batch, True, checkpointing),
        both: needed(shape, batch, True, True),
    }
    for fewer in (batch >> halvings for halvings in range(1, batch.bit_length())):
        changes[f"{both} and student.batch={fewer}"] = needed(shape, fewer, True, True)
    family = [m for m in MODELS.values() if (m.shape.kind, m.shape.gated) == (shape.kind, shape.gated)]
    smaller = sorted((m for m in family if m.parameters < shape.parameters), key=lambda m: -m.parameters)
    models = {f"{m.name} with {again}": needed(m.shape, batch, lora, True) for m in smaller}
    enough = min(free, 0.99 * asked)
    fits = []
    for sizes in (changes, models):  # the first of each
        fits += [f"{name} ({size / 1e9:.1f} GB)" for name, size in sizes.items() if size <= enough][:1]
    raise TooLargeError(
        f"{settings.model} needs about {asked / 1e9:.1f} GB to train on {batch} examples of up to "
        f"{source + target} tokens at once, and {device} has {free / 1e9:.1f} GB free: "
        + (f"{' or '.join(fits)} would fit" if fits else "take a smaller model or a larger device")
    )
