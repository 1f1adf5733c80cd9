"""Estimates of costs against what transformers and torch measure."""

import functools
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel

from kardlib.errors import TooLargeError
from kardlib.kard.student import train_student
from kardlib.models.catalogue import MODELS, read_shape
from kardlib.models.costs import (
    activation_bytes,
    check_memory,
    forward_flops,
    lora_parameters,
    spare_memory,
    training_bytes,
    training_flops,
    writing_bytes,
)
from kardlib.models.nano import build_tokenizer
from kardlib.settings import StudentSettings
from tests.kard.test_student import save_causal
from tests.models.test_catalogue import build


def test_flops_are_two_per_weight_and_token() -> None:
    model = MODELS["facebook/opt-iml-1.3b"]
    matrices = model.parameters - 2050 * 2048  # all but the positions; the words' table is the output layer
    assert forward_flops(model.shape, 0, 120) == pytest.approx(2 * matrices * 120, rel=0.002)
    words = model.shape.vocabulary * model.shape.width  # the output layer, which is asked where something is written
    assert forward_flops(model.shape, 0, 120) - forward_flops(model.shape, 100, 20) == 2 * words * 100
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


@pytest.mark.parametrize(
    "name", ["google/flan-t5-xl", "google-t5/t5-3b", "facebook/opt-iml-1.3b", "michiyasunaga/LinkBERT-base"]
)
@pytest.mark.parametrize("bf16", [True, False])
def test_activations_are_estimated_within_a_tenth(name: str, bf16: bool) -> None:
    t5 = {"d_model": 96, "d_ff": 320, "d_kv": 16, "num_heads": 6, "num_layers": 3, "vocab_size": 100}
    other = {"hidden_size": 96, "ffn_dim": 384, "intermediate_size": 384, "num_attention_heads": 6,
             "num_hidden_layers": 3, "vocab_size": 100, "word_embed_proj_dim": 96}  # fmt: skip
    model = build(MODELS[name], **(t5 if MODELS[name].config["model_type"] == "t5" else other))
    shape = read_shape(model.config.to_dict(), model.num_parameters())
    source, target = {"encoder-decoder": (56, 40), "causal": (0, 56), "encoder": (56, 0)}[shape.kind]
    expected = activation_bytes(shape, 2, source, target, bf16=bf16, gpu=False)
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
        check_memory(shape, settings, 32, 512, 250, bf16=True, free=free, device="the GPU")
    message = str(error.value)
    needed = "65.0" if checkpointing else "194.4"
    assert message.startswith(f"google/flan-t5-xl needs about {needed} GB to train on 32 examples of up to 762 tokens")
    assert fits in message and "\n" not in message


def test_activations_are_computed_again_where_a_jobs_share_of_memory_does_not_hold_them(capsys) -> None:
    settings = StudentSettings(model="google/flan-t5-base", batch=16)
    fit = functools.partial(spare_memory, MODELS[settings.model].shape, settings, 16, 512, 330, bf16=True)
    assert fit(share=1e12) is settings and not capsys.readouterr().out
    spared = fit(share=12e9)
    assert spared.gradient_checkpointing and spared.of_training() == settings.of_training()
    assert "more than a job's share of the memory (12.0): activations are computed again" in capsys.readouterr().out
    assert spare_memory(MODELS[settings.model].shape, spared, 16, 512, 330, bf16=True, share=1) is spared


def test_what_is_learnt_is_the_same_to_the_bit_where_activations_are_computed_again(tmp_path, monkeypatch, capsys):
    settings = StudentSettings(
        model=str(save_causal(tmp_path / "llama", "llama")), lr=1e-3, epochs=1, batch=2, max_new_tokens=24
    )
    for name, share in (("kept", math.inf), ("again", 0.0)):
        monkeypatch.setattr("kardlib.kard.student.slot_memory", lambda share=share: share)
        train_student([("Which remedy?", "The answer is A.")] * 8, settings, 0, tmp_path / name)
        assert ("computed again" in capsys.readouterr().out) == (name == "again")
    kept, again = (load_file(tmp_path / name / "model.safetensors") for name in ("kept", "again"))
    assert all(torch.equal(kept[weight], again[weight]) for weight in kept)


def test_what_fits_is_let_through() -> None:
    for settings in (StudentSettings(model="google/flan-t5-xl", lora=True, gradient_checkpointing=True),
                     StudentSettings(model="google/flan-t5-xl", batch=2, gradient_checkpointing=True)):  # fmt: skip
        check_memory(
            MODELS[settings.model].shape, settings, settings.batch, 512, 250, bf16=True, free=80e9, device="the GPU"
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
        train_student([("word " * 400, "word " * 30 + "The answer is A.")] * 512, settings, 0, tmp_path / "trained")
    assert not (tmp_path / "trained").exists()
