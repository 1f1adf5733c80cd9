"""Students: what is trained is what was asked, padding and batches change nothing, a killed run ends like any other."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertModel,
    DataCollatorForSeq2Seq,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    T5ForConditionalGeneration,
)

import kardlib
from kardlib.data.records import read_losses
from kardlib.errors import DataError, StoreError
from kardlib.kard.answering import write
from kardlib.kard.student import (
    Examples,
    adapt_student,
    load_student,
    mask_spans,
    train_student,
)
from kardlib.models.nano import STUDENTS, build_tokenizer
from kardlib.models.training import PartTrainer, trainer_arguments
from kardlib.settings import DaptSettings, StudentSettings
from tests.folders import ROOT

SETTINGS = StudentSettings(model="random-t5", lr=1e-3, epochs=2, batch=8, max_new_tokens=24, max_source_tokens=64)
EXAMPLES = [
    (f"Question: Which remedy will help? A. Bal{i % 7} B. Denfir", f"The answer is {'AB'[i % 2]}.") for i in range(48)
]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_nano_students_load_like_any_other_checkpoint():
    for name in STUDENTS:
        model, tokenizer = load_student(name)
        assert isinstance(model, T5ForConditionalGeneration) and len(tokenizer) == model.config.vocab_size


def test_text_of_the_world_survives_the_tokenizer():
    tokenizer = build_tokenizer()
    text = "Patients with fever, rash and edema have Zorlin. The answer is B."
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace("Zor lin", "Zorlin") == text
    assert tokenizer.unk_token_id not in tokenizer("Any other wörd: 4,5 (really)!").input_ids


def test_sources_and_targets_are_cut_to_their_limits_and_not_padded():
    model, tokenizer = load_student("random-t5")
    examples = Examples(["word " * 100, "B"], ["B", "word " * 100], tokenizer, SETTINGS, model.config)
    assert [len(e["input_ids"]) for e in (examples[0], examples[1])] == [64, 2]
    assert [len(e["labels"]) for e in (examples[0], examples[1])] == [2, 24]


def test_training_lowers_the_loss_and_leaves_an_ordinary_checkpoint(tmp_path):
    train_student(EXAMPLES * 4, SETTINGS, seed=0, folder=tmp_path)
    losses = [*read_losses(tmp_path).values()]
    assert losses[-1] < losses[0]
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path)


def test_a_seed_decides_the_weights(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_student(EXAMPLES, SETTINGS, seed=seed, folder=tmp_path / name)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


# Causal LMs: small ones with random weights, of three ways to count positions


def save_causal(folder: Path, kind: str, **changes: int) -> Path:
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    shape = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128, **shape))
    elif kind == "llama":
        shape |= {"max_position_embeddings": 128} | changes
        model = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                             num_attention_heads=2, **shape))  # fmt: skip
    else:
        shape |= {"max_position_embeddings": 128} | changes
        model = OPTForCausalLM(OPTConfig(hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2,
                                         word_embed_proj_dim=32, dropout=0.0, **shape))  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    return save_causal(tmp_path_factory.mktemp("opt"), "opt")


def test_a_source_can_be_cut_where_it_begins(opt):
    for name in ("random-t5", str(opt)):
        model, tokenizer = load_student(name)
        source, settings = "word " * 100 + "Question", SETTINGS.model_copy(update={"truncation_side": "left"})
        cut, whole = (
            Examples([source], ["B"], tokenizer, s, model.config)[0]["input_ids"] for s in (settings, SETTINGS)
        )
        last = tokenizer.convert_tokens_to_ids("Question")
        assert last in cut and last not in whole


def test_a_causal_loss_is_on_the_target_only(opt):
    model, tokenizer = load_student(str(opt))
    source, target = "Question: Which remedy will help?", "The answer is B."
    (example,) = Examples([source], [target], tokenizer, SETTINGS, model.config)
    ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
    learnt = labels[labels != -100]
    assert learnt[-1] == tokenizer.eos_token_id and len(learnt) < labels.shape[1]
    assert tokenizer.decode(learnt, skip_special_tokens=True) == target
    log_p = model(input_ids=ids).logits.double().log_softmax(2)[0, :-1]
    expected = -log_p[torch.arange(ids.shape[1] - 1), ids[0, 1:]][-len(learnt) :].mean()
    loss = model(input_ids=ids, labels=labels).loss
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_trainers_causal_loss_is_that_of_all_logits(side, opt, tmp_path):
    model, tokenizer = load_student(str(opt))
    tokenizer.padding_side = side
    pairs = [
        ("Which remedy will help?", "The answer is B."),
        ("It cures " * 9, "Balkul. The answer is A."),
        ("So", "A"),
    ]
    data = Examples(*zip(*pairs, strict=True), tokenizer, SETTINGS, model.config)
    batch = DataCollatorForSeq2Seq(tokenizer, model)([data[i] for i in range(3)])
    counted, shapes = (batch["labels"] != -100).sum(), []

    def own_loss(logits, labels):
        shapes.append((*logits.shape[:2], *labels.shape))
        return cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")

    expected = model.eval()(**batch).loss
    for loss in (None, own_loss):
        trainer = PartTrainer(model, trainer_arguments(tmp_path, 1e-3, 3, 0, 1, 3, 0), loss, train_dataset=data,
                              data_collator=DataCollatorForSeq2Seq(tokenizer, model))  # fmt: skip
        inputs = trainer.collate([data[i] for i in range(3)])
        assert ("attention_mask" in inputs) == (side == "left")
        got = trainer.compute_loss(model, inputs, num_items_in_batch=counted)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert shapes == [(3, batch["labels"].shape[1] - 1) * 2]


def test_a_causal_student_learns_to_answer(opt, tmp_path):
    examples = [(f"Question: Which remedy will help? A. Bal{i}", f"The answer is {'AB'[i % 2]}.") for i in range(2)]
    settings = SETTINGS.model_copy(update={"model": str(opt), "epochs": 80, "lr": 1e-2, "batch": 16})
    train_student(examples * 16, settings, seed=0, folder=tmp_path)
    AutoModelForCausalLM.from_pretrained(tmp_path)
    texts = write(*load_student(str(tmp_path)), [source for source, _ in examples], settings, seed=0)
    assert [text.strip(" .") for (text,) in texts] == ["The answer is A", "The answer is B"]


def test_a_causal_student_is_adapted_to_whole_passages(opt, tmp_path):
    settings = SETTINGS.model_copy(update={"model": str(opt)})
    adapt_student(["Balkul cures it. " * 3] * 8, DaptSettings(epochs=20, lr=1e-2), settings, seed=0, folder=tmp_path)
    model, tokenizer = load_student(str(tmp_path))
    start, adapted = (m(**(i := tokenizer("Balkul cures it.", return_tensors="pt")), labels=i.input_ids).loss
                      for m in (load_student(str(opt))[0], model))  # fmt: skip
    assert adapted < start / 2


@pytest.mark.parametrize("model", ["random-t5", "opt"])
def test_lora_and_checkpointed_activations_leave_an_ordinary_checkpoint(model, opt, tmp_path):
    model = str(opt) if model == "opt" else model
    settings = SETTINGS.model_copy(update={"model": model, "lora": True})
    before = load_student(model)[0].state_dict()
    for name, checkpointing in (("kept", False), ("again", True)):
        changed = settings.model_copy(update={"gradient_checkpointing": checkpointing})
        train_student(EXAMPLES, changed, seed=0, folder=tmp_path / name)
    kept = load_student(str(tmp_path / "kept"))[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], kept[name])}
    assert changed and all(re.search(r"(q|v|q_proj|v_proj)\.weight$", name) for name in changed)
    losses = [read_losses(tmp_path / name) for name in ("kept", "again")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_model_that_is_neither_kind_is_one_sentence(tmp_path):
    BertModel(BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                         intermediate_size=8)).save_pretrained(tmp_path)  # fmt: skip
    build_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(DataError, match="a BertModel is neither an encoder-decoder nor a causal LM"):
        load_student(str(tmp_path))


def test_a_tokenizer_without_padding_pads_with_its_end_and_needs_one(opt, tmp_path):
    model, tokenizer = load_student(str(opt))
    for end in ("</s>", None):
        folder = tmp_path / str(bool(end))
        model.save_pretrained(folder)
        tokenizer.pad_token, tokenizer.eos_token = None, end
        tokenizer.save_pretrained(folder)
    assert load_student(str(tmp_path / "True"))[1].pad_token == "</s>"
    with pytest.raises(DataError, match="its tokenizer has no end token, so that no text would ever end"):
        load_student(str(tmp_path / "False"))


def test_a_causal_student_without_room_for_a_question_is_one_sentence(tmp_path):
    model, tokenizer = load_student(str(save_causal(tmp_path, "opt", max_position_embeddings=16)))
    with pytest.raises(DataError, match=r"student\.max_new_tokens = 24 leaves no room for a question in the 16 pos"):
        write(model, tokenizer, ["Question: why?"], SETTINGS, seed=0)


def test_a_missing_model_is_one_sentence():
    with pytest.raises(DataError, match="no student could be loaded from 'no-such-folder'") as error:
        load_student("no-such-folder")
    assert "\n" not in str(error.value)


TRAIN = """
import os, signal, sys
from pathlib import Path
from kardlib.kard.student import train_student
from kardlib.models import training
if len(sys.argv) > 3:
    class Killed(training.PlainProgress):
        def on_step_end(self, args, state, control, **more):
            if state.global_step == 150:
                os.kill(os.getpid(), signal.SIGKILL)
    training.PlainProgress = Killed
sys.path.insert(0, sys.argv[2])
from tests.kard.test_student import EXAMPLES, SETTINGS
train_student(EXAMPLES * 20, SETTINGS.model_copy(update={"epochs": 3}), seed=0, folder=Path(sys.argv[1]))
"""


def test_a_killed_training_ends_with_the_weights_and_losses_of_one_that_was_not(tmp_path):
    root = str(ROOT)
    command = [sys.executable, "-c", TRAIN]
    subprocess.run([*command, str(tmp_path / "whole"), root], cwd=root, check=True, capture_output=True)
    killed = subprocess.run([*command, str(tmp_path / "killed"), root, "kill"], cwd=root, stdout=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "killed").glob("checkpoints/checkpoint-*/trainer_state.json"))
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    again = subprocess.run(
        [*command, str(tmp_path / "killed"), root], cwd=root, check=True, capture_output=True, text=True
    )
    assert "step" in again.stdout
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[k], killed[k]) for k in whole)
    assert (tmp_path / "whole" / "losses.json").read_bytes() == (tmp_path / "killed" / "losses.json").read_bytes()


def test_checkpoints_of_other_settings_are_refused_and_kept(tmp_path):
    train_student(EXAMPLES, SETTINGS, seed=0, folder=tmp_path)
    before = weights(tmp_path)
    for changed, seed, said in (
        ({"lr": 2e-3}, 0, r"was begun with lr = 0\.001 and cannot go on with 0\.002: take the same settings again or"),
        ({}, 1, "was begun with seed = 0 and cannot go on with 1"),
    ):
        with pytest.raises(StoreError, match=said):
            train_student(EXAMPLES, SETTINGS.model_copy(update=changed), seed=seed, folder=tmp_path)
    assert all(torch.equal(before[name], weight) for name, weight in weights(tmp_path).items())
    train_student(EXAMPLES, SETTINGS.model_copy(update={"generation_batch": 7}), seed=0, folder=tmp_path)


@given(
    words=st.lists(st.sampled_from(["cure", "tower", "lies", "near"]), min_size=1, max_size=30),
    seed=st.integers(0, 10**6),
)
def test_masked_spans_and_what_is_left_make_up_the_text(words, seed):
    source, target = mask_spans(" ".join(words), DaptSettings(), ["<extra_id_0>", "<extra_id_1>"], random.Random(seed))
    *spans, closed = [part.split() for part in re.split("<extra_id_[01]>", target)[1:]]
    assert closed == []
    gaps = [part.split() for part in re.split("<extra_id_[01]>", source)]
    assert len(spans) == len(gaps) - 1 and all(spans)
    restored = gaps[0] + [word for span, gap in zip(spans, gaps[1:], strict=True) for word in [*span, *gap]]
    assert restored == words


def test_a_damaged_model_is_named_by_its_file(tmp_path):
    shutil.copytree(kardlib.NANO / "t5-nano-small", tmp_path / "mine")
    weights = tmp_path / "mine" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"mine' .*: model.safetensors is damaged \(.*\): fetch or copy it"):
        load_student(str(tmp_path / "mine"))


def test_a_model_that_brings_code_is_refused_and_asks_nothing(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine"}}))
    (tmp_path / "code.py").write_text("raise SystemExit")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    with pytest.raises(DataError, match="no student could be loaded"):
        load_student(str(tmp_path))
