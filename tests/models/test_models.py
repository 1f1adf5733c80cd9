"""The table of models agrees with transformers, its estimates with what is measured; every model in it works small."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from kardlib.errors import TooLargeError
from kardlib.kard.reranker import train_reranker
from kardlib.kard.student import load_student, train_student, write
from kardlib.models.catalogue import MODELS, Model, identify, without_network
from kardlib.models.costs import (
    activation_bytes,
    check_memory,
    find_shape,
    forward_flops,
    lora_parameters,
    read_shape,
    training_bytes,
    training_flops,
    writing_bytes,
)
from kardlib.models.encoders import load_reranker, rank
from kardlib.models.nano import build_tokenizer
from kardlib.retrieval.runs import Candidates
from kardlib.settings import StudentSettings, preset

CLASSES = {"encoder-decoder": AutoModelForSeq2SeqLM, "causal": AutoModelForCausalLM, "encoder": AutoModel}
PAPERS = [m for m in MODELS.values() if m.name.split("/")[0] not in ("sentence-transformers", "google-bert")]
STUDENTS = [m for m in PAPERS if m.kind != "encoder"]
RERANKERS = [m for m in PAPERS if m.kind == "encoder"]


def build(model: Model, **changes: Any) -> PreTrainedModel:
    """The model's class with random weights; Flan-T5's output layer is its own, as in its checkpoints.

    transformers 5 ties the output layer of every T5 unless it loads two different ones.
    """
    config = {name: value for name, value in (model.config | changes).items() if name != "model_type"}
    built = CLASSES[model.kind].from_config(CONFIG_MAPPING[model.config["model_type"]](**config))
    if model.config.get("tie_word_embeddings") is False:
        built.lm_head.weight = torch.nn.Parameter(torch.randn_like(built.lm_head.weight))
        built.all_tied_weights_keys.pop("lm_head.weight")
    return built


# The table


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_transformers_counts_as_many_parameters(model: Model) -> None:
    with torch.device("meta"):
        built = build(model)
    assert sum({id(p): p.numel() for p in built.parameters()}.values()) == model.parameters
    assert read_shape(built.config.to_dict(), model.parameters) == model.shape


def test_the_paper_preset_takes_the_papers_models() -> None:
    medqa, obqa, strategyqa = (preset("paper", name) for name in ("medqa_usmle_hf", "obqa", "strategyqa"))
    assert {*medqa.students} == {m.name for m in STUDENTS if "flan" in m.name or "opt" in m.name}
    assert {*obqa.students} == {*strategyqa.students} == {m.name for m in STUDENTS if m.name.startswith("google-t5/")}
    assert medqa.reranker.model == "michiyasunaga/BioLinkBERT-base" and medqa.reranker.lora
    assert obqa.reranker.model == strategyqa.reranker.model == "michiyasunaga/LinkBERT-base" and obqa.reranker.lora
    for settings in (medqa, obqa):
        sizes = [MODELS[name].parameters for name in settings.students]
        assert sizes == sorted(sizes)  # the middle one is what ablations take, the last one the largest
        assert "large" in settings.students[len(sizes) // 2]
        assert settings.knowledge.index == "enwiki-paragraphs"
    assert preset("paper", "obqa", "somewhere").knowledge.index is None  # where passages lie beside the questions


def test_an_artifact_names_the_revision_of_a_pinned_model() -> None:
    model = MODELS["google-t5/t5-base"]
    assert identify(model.name) == f"{model.name}@{model.revision}"
    assert identify(model.name, "v2") == f"{model.name}@v2"
    with without_network():
        assert identify("someone/new-model") == "someone/new-model"


def test_every_model_is_pinned_by_a_commit_or_known_to_be_looked_up() -> None:
    looked_up = {m.name for m in MODELS.values() if m.revision is None}
    assert looked_up == {"facebook/opt-iml-1.3b", "michiyasunaga/LinkBERT-base"}
    assert all(len(bytes.fromhex(m.revision)) == 20 for m in MODELS.values() if m.revision)


def test_nobody_converts_models_for_us() -> None:
    """transformers' own switch, which this package sets before it loads anything."""
    from transformers.utils.import_utils import is_env_variable_true

    assert is_env_variable_true("DISABLE_SAFETENSORS_CONVERSION")


def test_shapes_of_what_is_here() -> None:
    small, nano = find_shape("t5-nano-small"), find_shape("bert-nano")
    assert (small.encoder_layers, small.decoder_layers, small.width) == (2, 2, 96)
    assert nano.kind == "encoder" and find_shape("random-t5") == find_shape("t5-nano-base")
    assert small.parameters == pytest.approx(load_student("t5-nano-small")[0].num_parameters(), rel=0.01)
    assert find_shape("minilm").width == 384 and find_shape("someone/new-model") is None


# The estimates


def test_flops_are_two_per_weight_and_token() -> None:
    model = MODELS["facebook/opt-iml-1.3b"]
    matrices = model.parameters - 2050 * 2048  # all but the positions; the words' table is the output layer
    assert forward_flops(model.shape, 100, 20) == pytest.approx(2 * matrices * 120, rel=0.002)
    t5 = MODELS["google-t5/t5-large"].shape
    assert forward_flops(t5, 100, 0) + forward_flops(t5, 0, 20) == forward_flops(t5, 100, 20)
    # an encoder-decoder shows each token about half of its weights
    assert forward_flops(t5, 100, 100) == pytest.approx(2 * t5.parameters * 100, rel=0.05)
    assert training_flops(t5, 9, 9) == 3 * forward_flops(t5, 9, 9) == 1.5 * training_flops(t5, 9, 9, lora=True)


def saved_bytes(model: PreTrainedModel, source: int, target: int, bf16: bool) -> int:
    """What torch keeps for the backward pass of two examples, weights and their copies in bf16 left out."""
    weights = {p.data_ptr() for p in model.parameters()}
    shapes = {tuple(sorted(p.shape)) for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights and tuple(sorted(tensor.shape)) not in shapes:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(3, 100, (2, source))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if hasattr(model, "lm_head"):
        inputs["labels"] = torch.randint(3, 100, (2, target)) if model.config.is_encoder_decoder else ids
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", enabled=bf16):
        model.train()(**inputs)
    return sum(t.untyped_storage().nbytes() for t in kept.values())


@pytest.mark.parametrize("name", ["google/flan-t5-xl", "google-t5/t5-3b", "facebook/opt-iml-1.3b", RERANKERS[0].name])
@pytest.mark.parametrize("bf16", [True, False])
def test_activations_are_estimated_within_a_tenth(name: str, bf16: bool) -> None:
    t5 = {"d_model": 96, "d_ff": 320, "d_kv": 16, "num_heads": 6, "num_layers": 3, "vocab_size": 100}
    other = {"hidden_size": 96, "ffn_dim": 384, "intermediate_size": 384, "num_attention_heads": 6,
             "num_hidden_layers": 3, "vocab_size": 100, "word_embed_proj_dim": 96}  # fmt: skip
    model = build(MODELS[name], **(t5 if MODELS[name].config["model_type"] == "t5" else other))
    shape = read_shape(model.config.to_dict(), model.num_parameters())
    target = 40 if shape.kind == "encoder-decoder" else 0
    expected = activation_bytes(shape, 2, 56, target, bf16=bf16, gpu=False)
    assert expected == pytest.approx(saved_bytes(model, 56, target, bf16), rel=0.1)


def test_memory_of_training_and_writing_at_the_papers_sizes() -> None:
    xl = MODELS["google/flan-t5-xl"].shape
    at_least = 18 * xl.parameters  # fp32 weights, gradients, two moments, a copy in bf16
    whole, again, updates = (
        training_bytes(xl, 32, 512, 256, bf16=True, lora=lora, checkpointing=checkpointing)
        for lora, checkpointing in ((False, False), (False, True), (True, True))
    )
    assert whole > again > at_least > updates > 6 * xl.parameters
    assert training_bytes(xl, 1, 1, 1, bf16=True) == pytest.approx(at_least, rel=0.01)
    assert lora_parameters(xl) == 9_437_184  # as PEFT counts them: r 16, query and value
    alone, many = (writing_bytes(xl, n, 5, 512, 256, bf16=True) for n in (1, 33))
    cache = 32 * 5 * 24 * (512 + 256) * 2 * 2048 * 2  # bytes of keys and values
    assert many - alone == pytest.approx(cache, rel=0.3) and alone > 2 * xl.parameters


@pytest.mark.parametrize(
    "free, checkpointing, fits",
    [
        (80e9, False, "the GPU has 80.0 GB free: student.gradient_checkpointing=true (65"),
        (40e9, True, "the GPU has 40.0 GB free: student.lora=true (3"),
        (40e9, False, "free: student.lora=true with student.gradient_checkpointing=true (3"),
        (24e9, True, "student.batch=8 (20.6 GB) or google/flan-t5-large with student.gradient_checkpointing=true (22."),
        (4e9, True, "the GPU has 4.0 GB free: take a smaller model or a larger device"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_what_would(free: float, checkpointing: bool, fits: str) -> None:
    settings = StudentSettings(model="google/flan-t5-xl", gradient_checkpointing=checkpointing)
    shape = MODELS[settings.model].shape
    with pytest.raises(TooLargeError) as error:
        check_memory(shape, settings, 32, 512, 250, bf16=True, free=free, place="the GPU")
    message = str(error.value)
    needed = "65.0" if checkpointing else "194.4"
    assert message.startswith(f"google/flan-t5-xl needs about {needed} GB to train on 32 examples of up to 762 tokens")
    assert fits in message and "\n" not in message


def test_what_fits_is_let_through() -> None:
    for settings in (StudentSettings(model="google/flan-t5-xl", lora=True, gradient_checkpointing=True),
                     StudentSettings(model="google/flan-t5-xl", batch=2, gradient_checkpointing=True)):  # fmt: skip
        check_memory(
            MODELS[settings.model].shape, settings, settings.batch, 512, 250, bf16=True, free=80e9, place="the GPU"
        )


def test_training_asks_whether_the_student_fits(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    words = 1_000_000  # the logits of 512 long examples take terabytes, though the model is small
    OPTForCausalLM(
        OPTConfig(vocab_size=words, hidden_size=2, ffn_dim=4, num_hidden_layers=1, num_attention_heads=1,
                  word_embed_proj_dim=2, max_position_embeddings=512)
    ).save_pretrained(tmp_path)  # fmt: skip
    tokenizer.save_pretrained(tmp_path)
    settings = StudentSettings(model=str(tmp_path), batch=512)
    with pytest.raises(
        TooLargeError, match=r"GB to train on 512 examples of up to \d+ tokens at once, and this machine has"
    ):
        train_student([("word " * 400, "The answer is A.")] * 512, settings, 0, tmp_path / "trained")
    assert not (tmp_path / "trained").exists()


# Every model, shrunken


SMALL = {
    "t5": {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_heads": 4, "num_layers": 2},
    "opt": {"hidden_size": 32, "ffn_dim": 64, "num_attention_heads": 4, "num_hidden_layers": 2},
    "bert": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2},
}
QUESTION = "Question: Which remedy will help? A. Balkul B. Denfir"


def shrink(model: Model, folder: Path) -> Path:
    """The model's class and particulars with random weights, and the nano models' tokenizer."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    changes = SMALL[model.config["model_type"]] | {"vocab_size": len(tokenizer), "eos_token_id": 1, "pad_token_id": 0}
    if "word_embed_proj_dim" in model.config:
        changes["word_embed_proj_dim"] = 16  # half of the width, as it is
    elif model.kind == "causal":
        changes["word_embed_proj_dim"] = 32
    build(model, **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("model", STUDENTS, ids=lambda m: m.name)
def test_a_shrunken_student_is_trained_saved_loaded_and_asked(model: Model, lora: bool, tmp_path: Path) -> None:
    settings = StudentSettings(
        model=str(shrink(model, tmp_path / "start")), steps=2, batch=2, lr=0.1, warmup=0, lora=lora,
        gradient_checkpointing=lora, max_new_tokens=8, samples=2,
    )  # fmt: skip
    examples = [(f"{QUESTION} Passage: Bal{i} cures it.", "Balkul cures it. The answer is A.") for i in range(4)]
    train_student(examples, settings, seed=0, folder=tmp_path / "trained")
    (start, _), (trained, tokenizer) = (load_student(str(tmp_path / name)) for name in ("start", "trained"))
    weights = dict(trained.named_parameters())
    changed = [name for name, weight in start.named_parameters() if not torch.equal(weight, weights[name])]
    assert changed and (not lora or all(".q" in name or ".v" in name for name in changed))
    for name in ("feed_forward_proj", "scale_decoder_outputs", "word_embed_proj_dim", "do_layer_norm_before"):
        assert getattr(trained.config, name, None) == getattr(start.config, name, None)
    if "tie_word_embeddings" in model.config:
        assert (
            not torch.equal(trained.lm_head.weight, trained.shared.weight) and not trained.config.scale_decoder_outputs
        )
    texts = write(trained, tokenizer, [QUESTION, f"{QUESTION} Passage: Bal cures it."], settings, seed=0)
    assert [len(samples) for samples in texts] == [2, 2] and any(text for samples in texts for text in samples)


@pytest.mark.parametrize("model", RERANKERS, ids=lambda m: m.name)
def test_a_shrunken_reranker_is_trained_saved_loaded_and_ranks(model: Model, tmp_path: Path) -> None:
    settings = preset("paper").reranker.model_copy(
        update={"model": str(shrink(model, tmp_path / "start")), "epochs": 1, "batch": 2, "warmup": 0, "lr": 0.1}
    )
    questions = {f"q{i}": f"Which remedy helps Bal{i}?" for i in range(4)}
    passages = {f"p{i}": f"Bal{i} is cured by Denfir." for i in range(4)}
    candidates = [Candidates(q, {"p0": 2.0, "p1": 1.0}, {"p2": 0.5, "p3": 0.1}) for q in questions]
    folder = train_reranker(settings, questions, passages, candidates, seed=0, folder=tmp_path / "trained")
    asked = {q: [(p, 0.0) for p in passages] for q in questions}
    ranked = [
        rank(load_reranker(settings.model_copy(update={"model": str(place)})), questions, asked, passages)
        for place in (tmp_path / "start", folder)
    ]
    assert {q: {p for p, _ in found} for q, found in ranked[1].items()} == {q: {*passages} for q in questions}
    assert ranked[0] != ranked[1] and all(math.isfinite(s) for found in ranked[1].values() for _, s in found)
