"""The table of models agrees with transformers; every model in it works small."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from kardlib import NANO, is_nano
from kardlib.kard.answering import write
from kardlib.kard.reranker import train_reranker
from kardlib.kard.student import load_student, train_student
from kardlib.models.catalogue import (
    MODELS,
    Model,
    find_folder,
    find_shape,
    identify,
    read_shape,
    without_network,
)
from kardlib.models.encoders import load_reranker, rank
from kardlib.models.nano import build_tokenizer
from kardlib.presets import preset
from kardlib.retrieval.runs import Candidates
from kardlib.settings import StudentSettings

CLASSES = {"encoder-decoder": AutoModelForSeq2SeqLM, "causal": AutoModelForCausalLM, "encoder": AutoModel}
PAPERS = [
    m for m in MODELS.values() if m.name.split("/")[0] not in ("sentence-transformers", "google-bert", "HuggingFaceTB")
]
STUDENTS = [m for m in PAPERS if m.shape.kind != "encoder"]
RERANKERS = [m for m in PAPERS if m.shape.kind == "encoder"]


def build(model: Model, **changes: Any) -> PreTrainedModel:
    """The model's class with random weights; Flan-T5's output layer is its own, as in its checkpoints.

    transformers 5 ties the output layer of every T5 unless it loads two different ones.
    """
    config = {name: value for name, value in (model.config | changes).items() if name != "model_type"}
    built = CLASSES[model.shape.kind].from_config(CONFIG_MAPPING[model.config["model_type"]](**config))
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


def test_a_folder_of_ones_own_is_named_by_all_that_decides_what_it_says(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(NANO / "t5-nano-small", tmp_path / "mine"))
    names = {identify("t5-nano-small"), identify(str(folder))}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dropout_rate": 0.3}))
    names.add(identify(str(folder)))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")  # as of a model in parts
    names.add(identify(str(folder)))
    (folder / "model-00001-of-00001.safetensors").write_bytes(b"others")
    names.add(identify(str(folder)))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    names.add(identify(str(folder)))
    assert len(names) == 6


@pytest.mark.parametrize("name", ["t5-nano-base/", "./t5-nano-base", "..", ""])
def test_a_nano_model_is_known_by_its_name_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another spelling would load its weights with the settings of another kind of model."""
    assert find_folder("t5-nano-base") == NANO / "t5-nano-base" and not is_nano(name)
    assert find_folder(name) != NANO / "t5-nano-base" and preset().student.of(name).lr != 3e-3


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
    assert (small.encoder_layers, small.decoder_layers, small.width) == (2, 2, 64)
    assert nano.kind == "encoder" and find_shape("random-t5") == find_shape("t5-nano-base")
    assert small.parameters == pytest.approx(load_student("t5-nano-small")[0].num_parameters(), rel=0.01)
    assert find_shape("minilm").width == 384 and find_shape("someone/new-model") is None


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
    elif model.shape.kind == "causal":
        changes["word_embed_proj_dim"] = 32
    build(model, **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("model", STUDENTS, ids=lambda m: m.name)
def test_a_shrunken_student_is_trained_saved_loaded_and_asked(model: Model, lora: bool, tmp_path: Path) -> None:
    settings = StudentSettings(
        model=str(shrink(model, tmp_path / "start")), steps=2, batch=2, lr=0.1, warmup=0, lora=lora,
        gradient_checkpointing=lora, max_new_tokens=24, samples=2,
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
        rank(load_reranker(settings.model_copy(update={"model": str(path)})), questions, asked, passages)
        for path in (tmp_path / "start", folder)
    ]
    assert {q: {p for p, _ in found} for q, found in ranked[1].items()} == {q: {*passages} for q in questions}
    assert ranked[0] != ranked[1] and all(math.isfinite(s) for found in ranked[1].values() for _, s in found)
