"""The models of the papers as data, and what a model costs: FLOPs, memory of training and writing, room on a device.

Every estimate is one function of a `Shape`: the numbers of a model's config that decide it. They are checked against
transformers in `tests/test_models.py`: parameters exactly, activations within the error that their function names.
Nothing here imports torch until it must.
"""

import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kardlib.data import DataError
from kardlib.errors import TooLargeError
from kardlib.settings import NANO, StudentSettings

# Else transformers would have an outside service convert a model without safetensors, and load what that service
# proposes to its repository
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"

Kind = Literal["encoder-decoder", "causal", "encoder"]
RANK = 16  # of LoRA's updates


@dataclass(frozen=True)
class Shape:
    """What decides a model's memory and FLOPs. Layers are 0 on the side that a model does not have."""

    kind: Kind
    parameters: int
    encoder_layers: int
    decoder_layers: int
    width: int
    feed_forward: int
    heads: int
    head_size: int
    vocabulary: int
    gated: bool = False  # a third matrix in the feed-forward layer

    @property
    def attention(self) -> int:
        """Weights of one attention: query, key, value and output."""
        return 4 * self.width * self.heads * self.head_size

    @property
    def dense(self) -> int:
        """Weights of one feed-forward layer."""
        return (3 if self.gated else 2) * self.width * self.feed_forward


class Model(NamedTuple):
    """A model on the Hub. `config` holds the fields of its config.json that differ from the defaults of its type.

    Its revision is a commit that others' public code names too. None where none was found: then the commit that the
    model has at its first use on a machine is taken, and named by all that is made with it (`pinned`). OPT and LinkBERT
    may have no safetensors there: `load_weights` says how to convert them once. Pull requests with some are anybody's.
    """

    name: str
    revision: str | None
    kind: Kind
    parameters: int
    bytes_per_weight: int  # as stored
    config: dict[str, Any]

    @property
    def shape(self) -> Shape:
        return read_shape(self.config, self.parameters)

    @property
    def download(self) -> int:
        """Bytes of the weights; a tokenizer is a few megabytes more."""
        return self.parameters * self.bytes_per_weight


T5 = {"model_type": "t5", "vocab_size": 32128, "d_kv": 64, "decoder_start_token_id": 0}
FLAN = {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
OPT = {"model_type": "opt", "vocab_size": 50272, "max_position_embeddings": 2048, "num_hidden_layers": 24}
BERT = {"model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12}  # fmt: skip

MODELS = {
    m.name: m
    for m in (
        # students of MedQA: KARD, Table 1
        Model("google/flan-t5-base", "7bcac572ce56db69c1ea7c8af255c5d7c9672fc2", "encoder-decoder", 247_577_856, 4,
              FLAN | {"d_model": 768, "d_ff": 2048, "num_heads": 12, "num_layers": 12}),
        Model("google/flan-t5-large", "0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a", "encoder-decoder", 783_150_080, 4,
              FLAN | {"d_model": 1024, "d_ff": 2816, "num_heads": 16, "num_layers": 24}),
        Model("google/flan-t5-xl", "7d6315df2c2fb742f0f5b556879d730926ca9001", "encoder-decoder", 2_849_757_184, 4,
              FLAN | {"d_model": 2048, "d_ff": 5120, "num_heads": 32, "num_layers": 24}),
        Model("facebook/opt-350m", "08ab08cc4b72ff5593870b5d527cf4230323703c", "causal", 331_196_416, 2,
              OPT | {"hidden_size": 1024, "ffn_dim": 4096, "num_attention_heads": 16, "word_embed_proj_dim": 512,
                     "do_layer_norm_before": False}),
        Model("facebook/opt-iml-1.3b", None, "causal", 1_315_758_080, 2,
              OPT | {"hidden_size": 2048, "ffn_dim": 8192, "num_attention_heads": 32}),
        # students of StrategyQA and OpenbookQA: KARD, Table 2
        Model("google-t5/t5-base", "a9723ea7f1b39c1eae772870f3b547bf6ef7e6c1", "encoder-decoder", 222_903_552, 4,
              T5 | {"d_model": 768, "d_ff": 3072, "num_heads": 12, "num_layers": 12}),
        Model("google-t5/t5-large", "150ebc2c4b72291e770f58e6057481c8d2ed331a", "encoder-decoder", 737_668_096, 4,
              T5 | {"d_model": 1024, "d_ff": 4096, "num_heads": 16, "num_layers": 24}),
        Model("google-t5/t5-3b", "bed96aab9ee46012a5046386105ee5fd0ac572f0", "encoder-decoder", 2_851_598_336, 4,
              T5 | {"d_model": 1024, "d_ff": 16384, "d_kv": 128, "num_heads": 32, "num_layers": 24}),
        # rerankers: LinkBERT, for MedQA BioLinkBERT
        Model("michiyasunaga/LinkBERT-base", None, "encoder", 108_310_272, 4, BERT | {"vocab_size": 28996}),
        Model("michiyasunaga/BioLinkBERT-base", "b71f5d70f063d1c8f1124070ce86f1ee463ca1fe", "encoder", 108_232_704, 4,
              BERT | {"vocab_size": 28895}),
        # not the paper's: the reranker of real questions on a CPU, and where RAG's retriever starts
        Model("sentence-transformers/all-MiniLM-L6-v2", "c9745ed1d9f207416be6d2e6f8de32d1f16199bf", "encoder",
              22_713_216, 4, BERT | {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}),
        Model("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594", "encoder", 109_482_240, 4,
              BERT),
    )
}  # fmt: skip


def find_model(name: str) -> Model | None:
    """The table's entry; "minilm" is short for its own."""
    return MODELS.get("sentence-transformers/all-MiniLM-L6-v2" if name == "minilm" else name)


def pinned(name: str) -> str | None:
    """The commit of a model on the Hub: the table's, else what "main" was at its first use. None for what lies here.

    Raises DataError where the Hub has no such model or is out of reach, unless `without_network`.
    """
    if name in ("random-t5", "minilm") or (NANO / name).is_dir() or Path(name).exists() or Path(name).is_absolute():
        return None
    return (MODELS[name].revision if name in MODELS else None) or _resolve(name, _ask)


_ask = True


@contextmanager
def without_network() -> Iterator[None]:
    """Within it `pinned` knows only the table's commits and those resolved before."""
    global _ask
    before, _ask = _ask, False
    try:
        yield
    finally:
        _ask = before


@functools.cache
def _resolve(name: str, ask: bool) -> str | None:
    """What "main" meant at the first use: the Hub's cache on this machine keeps it for other processes and runs."""
    from huggingface_hub import HfApi, hf_hub_download  # imported late: it takes half a second
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "config.json", local_files_only=True)).parent.name
    except (LocalEntryNotFoundError, ValueError):  # the latter: no name that the Hub allows
        if not ask:
            return None
    try:
        HfApi().model_info(name, timeout=5)  # fails at once without a network; a download tries again and again
        commit = Path(hf_hub_download(name, "config.json")).parent.name
    except Exception as error:  # whatever the Hub client's HTTP library raises
        raise DataError(
            f"the Hub has no model {name!r}, or is out of reach ({str(error).strip().splitlines()[0]}): correct the "
            "name, check the network, or give a folder with config.json and model.safetensors"
        ) from None
    print(f"{name} is taken at the commit {commit}", flush=True)
    return commit


def load_weights(kind: Any, place: str | Path, revision: str | None) -> Any:
    """`kind` is a class of transformers that loads models; weights in fp32, from safetensors alone.

    Raises what transformers raises, and ValueError for a model without safetensors.
    """
    try:
        return kind.from_pretrained(place, revision=revision, use_safetensors=True, dtype="float32")
    except OSError as error:
        if "cannot be loaded with `safetensors`" not in str(error):
            raise
        take = f"from_pretrained('{place}', revision='{revision}'"
        raise ValueError(
            f"its commit {revision} has no safetensors, and nothing else is loaded: convert it once with "
            f'DISABLE_SAFETENSORS_CONVERSION=1 python -c "import transformers as t; t.{kind.__name__}.{take}, '
            f"use_safetensors=False).save_pretrained('FOLDER'); t.AutoTokenizer.{take}).save_pretrained('FOLDER')\" "
            "(it reads tensors only, no code), and give FOLDER instead"
        ) from None


def read_shape(config: Mapping[str, Any], parameters: int) -> Shape:
    """The shape that a config.json describes, in T5's names or in those that other models share.

    What it does not say counts as nothing, so that estimates come out low rather than fail.
    """

    def first(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), 0)

    width, heads = first("d_model", "hidden_size"), first("num_heads", "num_attention_heads") or 1
    layers = first("num_layers", "num_hidden_layers")
    both = config.get("model_type") == "t5" or config.get("is_encoder_decoder", False)
    encoder = not both and "bert" in config.get("model_type", "")
    return Shape(
        "encoder-decoder" if both else "encoder" if encoder else "causal", parameters,
        encoder_layers=layers if both or encoder else 0,
        decoder_layers=0 if encoder else first("num_decoder_layers") or layers,
        width=width, feed_forward=first("d_ff", "ffn_dim", "encoder_ffn_dim", "intermediate_size"), heads=heads,
        head_size=first("d_kv", "head_dim") or width // heads, vocabulary=first("vocab_size"),
        gated="gated" in config.get("feed_forward_proj", "") or config.get("hidden_act") == "silu",
    )  # fmt: skip


def find_shape(name: str) -> Shape | None:
    """Of a model in the table, a nano model or a model's folder; None where only loading it would tell."""
    if model := find_model(name):
        return model.shape
    folder = NANO / ("t5-nano-base" if name == "random-t5" else name)
    folder = folder if folder.is_dir() else Path(name)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        bytes_per_weight = 2 if config.get("dtype") in ("bfloat16", "float16") else 4
        stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        return read_shape(config, stored // bytes_per_weight)
    except (OSError, ValueError, KeyError):
        return None


# Costs. A training example has `source` and `target` tokens; a causal model reads them as one sequence.


def forward_flops(shape: Shape, source: float, target: float) -> float:
    """Of one example: 2 per weight and token (Kaplan et al. 2020, Section 2.1), each weight with the tokens it sees.

    Left out: embeddings, which are looked up, and attention's products of tokens with tokens.
    """
    layer, output = shape.attention + shape.dense, shape.vocabulary * shape.width
    if shape.kind == "encoder":
        return 2 * source * shape.encoder_layers * layer
    if shape.kind == "causal":
        return 2 * (source + target) * (shape.decoder_layers * layer + output)
    half = shape.attention / 2  # of attention to the source: keys and values see the source, the rest the target
    by_source = shape.encoder_layers * layer + shape.decoder_layers * half
    return 2 * (source * by_source + target * (shape.decoder_layers * (layer + half) + output))


def training_flops(
    shape: Shape, source: float, target: float, *, lora: bool = False, checkpointing: bool = False
) -> float:
    """Of one example: the backward pass costs two forward passes, 6 N in all; for frozen weights it costs one.

    Gradient checkpointing runs the forward pass twice.
    """
    return forward_flops(shape, source, target) * ((2 if lora else 3) + (1 if checkpointing else 0))


# Bytes for the backward pass by token and layer: so many times the width, so many times the feed-forward's width
SAVED: dict[str, dict[str, tuple[float, float]]] = {
    "encoder-decoder": {"bf16": (57, 6), "fp32": (64, 12)},
    "causal": {"bf16": (28, 2), "fp32": (40, 4)},
    "encoder": {"bf16": (34, 4), "fp32": (40, 8)},
}
SAVED_BY_GATE = {"bf16": 10.5, "fp32": 20}  # and times the feed-forward's width again where it is gated
OUTPUT_BYTES = 12  # by predicted token and word of the vocabulary: logits, their softmax and its gradient in fp32
SURE = 0.8  # of an estimate: what is refused would not have fit even if the estimate is a fifth too high


def activation_bytes(
    shape: Shape, batch: int, source: int, target: int, *, bf16: bool, checkpointing: bool = False, gpu: bool = True
) -> float:
    """What a training step keeps for its backward pass, and the output layer at its peak.

    Linear in tokens, width and feed-forward, quadratic in length where attention keeps its scores: the form of
    Korthikanti et al. 2022 (Reducing Activation Recomputation, eq. 2), whose constants hold for fused layers. Ours are
    what transformers 5.23 saves by torch's saved-tensor hooks, in models of width 64 and 128 with dropout; on other
    shapes they are within 10 %. Not measured on a GPU: there only T5's position bias is as large as the scores.
    """
    precision = "bf16" if bf16 else "fp32"
    by_width, by_dense = SAVED[shape.kind][precision]
    by_dense += SAVED_BY_GATE[precision] if shape.gated else 0
    by_token = by_width * shape.width + by_dense * shape.feed_forward
    layers, tokens, predicted = shape.decoder_layers, source + target, target
    scores: float = source**2 + target**2 + source * target
    by_score = (2 if bf16 else 4) if gpu else 12
    if shape.kind == "causal":
        scores, predicted = 0, tokens
    elif shape.kind == "encoder":
        layers, tokens, predicted, scores = shape.encoder_layers, source, 0, 0 if gpu else source**2
    layer = tokens * by_token + shape.heads * scores * by_score
    kept = layers * tokens * 4 * shape.width + layer if checkpointing else layers * layer
    return batch * (kept + predicted * shape.vocabulary * OUTPUT_BYTES)


def lora_parameters(shape: Shape, rank: int = RANK) -> int:
    """Weights of the low-rank updates of every query and value projection (Hu et al. 2022)."""
    attentions = shape.encoder_layers + shape.decoder_layers * (2 if shape.kind == "encoder-decoder" else 1)
    return attentions * 2 * rank * (shape.width + shape.heads * shape.head_size)


def training_bytes(
    shape: Shape, batch: int, source: int, target: int, *, bf16: bool, lora: bool = False, checkpointing: bool = False,
    gpu: bool = True,
) -> float:  # fmt: skip
    """Peak of training: weights in fp32, their gradients and Adam's two moments (16 bytes a parameter; Rajbhandari et
    al. 2020, ZeRO, Section 3.1), autocast's copy of the weights in bf16, activations. With LoRA the weights are frozen.

    Of the resident memory that two steps of a small T5 and a small OPT take on a CPU (16 and 12 million parameters,
    T5's vocabulary) it is 1.05 to 1.24 times where the allocator gives memory back at once, else 0.86 to 1.01 times.
    """
    trained = lora_parameters(shape) if lora else shape.parameters
    state = shape.parameters * (6 if bf16 else 4) + trained * 12
    return state + activation_bytes(shape, batch, source, target, bf16=bf16, checkpointing=checkpointing, gpu=gpu)


def writing_bytes(shape: Shape, questions: int, samples: int, source: int, target: int, *, bf16: bool) -> float:
    """Peak of writing `samples` texts for each of a batch of questions: weights, keys and values of all tokens (Pope et
    al. 2022, Section 2.1), one layer while the questions are read, the logits in fp32 with sampling's copies of them.
    """
    size, inner, texts = 2 if bf16 else 4, shape.heads * shape.head_size, questions * samples
    cache = texts * shape.decoder_layers * (source + target) * 2 * inner
    reading = (texts if shape.kind == "causal" else questions) * source * (4 * inner + 3 * shape.feed_forward)
    return size * (shape.parameters + cache + reading) + texts * 16 * shape.vocabulary


def check_memory(
    shape: Shape,
    settings: StudentSettings,
    batch: int,
    source: int,
    target: int,
    *,
    bf16: bool,
    free: float,
    place: str,
) -> None:
    """Raise TooLargeError unless training `settings.model` fits into the `free` bytes of "the GPU" or "this machine".

    `source` and `target` are the longest example's tokens, `batch` is how many are taken at once. The sentence names
    what would fit: the first of gradient checkpointing, LoRA and a smaller batch that suffices, and the largest of the
    family's smaller models.
    """

    def needed(shape: Shape, batch: int, lora: bool, checkpointing: bool) -> float:
        options = {"bf16": bf16, "lora": lora, "checkpointing": checkpointing, "gpu": place == "the GPU"}
        return training_bytes(shape, batch, source, target, **options)

    lora, checkpointing = settings.lora, settings.gradient_checkpointing
    asked = needed(shape, batch, lora, checkpointing)
    if asked * SURE <= free:
        return
    again, updates = "student.gradient_checkpointing=true", "student.lora=true"
    choices = {
        again: needed(shape, batch, lora, True),
        updates: needed(shape, batch, True, checkpointing),
        f"{updates} with {again}": needed(shape, batch, True, True),
    }
    for fewer in (batch >> halvings for halvings in range(1, batch.bit_length())):
        choices[f"{updates} with {again} and student.batch={fewer}"] = needed(shape, fewer, True, True)
    family = [m for m in MODELS.values() if (m.kind, m.shape.gated) == (shape.kind, shape.gated)]
    smaller = sorted((m for m in family if m.parameters < shape.parameters), key=lambda m: -m.parameters)
    models = {f"{m.name} with {again}": needed(m.shape, batch, lora, True) for m in smaller}
    fits = [
        next((f"{words} ({size / 1e9:.1f} GB)" for words, size in sizes.items() if size <= min(free, 0.99 * asked)), "")
        for sizes in (choices, models)
    ]
    raise TooLargeError(
        f"{settings.model} needs about {asked / 1e9:.1f} GB to train on {batch} examples of up to "
        f"{source + target} tokens at once, and {place} has {free / 1e9:.1f} GB free: "
        + (f"{' or '.join(filter(None, fits))} would fit" if any(fits) else "take a smaller model or a larger device")
    )
