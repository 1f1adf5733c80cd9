"""What students are asked: batches, order and what is read once change nothing, a killed asking goes on."""

import functools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import BPE, Unigram
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import PreTrainedTokenizerFast

import kardlib.kard.answering
from kardlib.data.answers import answer_end, parse_answer
from kardlib.kard.answering import AnswerIsOut, score_options, write
from kardlib.kard.student import load_student, train_student
from kardlib.models.nano import build_tokenizer
from tests.kard.test_student import SETTINGS, save_causal


@pytest.fixture(scope="module")
def written():
    model, tokenizer = load_student("t5-nano-base")
    sources = [
        f"Question: Which remedy will help? A. Balkul B. Denfir {'Passage: Balkul cures it. ' * (i % 5)}"
        for i in range(11)
    ]
    return model, tokenizer, sources


@pytest.mark.parametrize(("asked", "multiplies"), [(True, True), (True, False), (False, True)])
def test_texts_are_written_in_bfloat16_where_it_is_asked_for_and_the_cpu_has_it(
    asked: bool, multiplies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kardlib.kard.student.multiplies_bf16", lambda: multiplies)
    model, tokenizer = load_student("t5-nano-small")
    write(model, tokenizer, ["Question: Which? A. Balkul B. Denfir"], SETTINGS.model_copy(update={"bf16": asked}), 0)
    assert model.dtype == (torch.bfloat16 if asked and multiplies else torch.float32)


def test_greedy_texts_do_not_depend_on_batch_or_order(written):
    model, tokenizer, sources = written
    settings = SETTINGS.model_copy(update={"max_source_tokens": 512})
    alone = write(model, tokenizer, sources, settings.model_copy(update={"generation_batch": 1}), seed=0)
    together = write(model, tokenizer, sources, settings.model_copy(update={"generation_batch": 11}), seed=0)
    backwards = write(model, tokenizer, sources[::-1], settings.model_copy(update={"generation_batch": 4}), seed=0)
    assert alone == together == backwards[::-1]


def test_samples_are_as_many_as_asked_and_repeat_with_their_seed(written):
    model, tokenizer, sources = written
    settings = SETTINGS.model_copy(update={"samples": 4})
    once, again, other = (write(model, tokenizer, sources[:3], settings, seed) for seed in (0, 0, 1))
    assert [len(texts) for texts in once] == [4, 4, 4]
    assert once == again != other


@pytest.mark.parametrize("samples", [1, 2])
def test_a_killed_asking_goes_on_with_the_texts_that_it_has(samples, written, tmp_path, monkeypatch, capsys):
    model, tokenizer, sources = written
    settings = SETTINGS.model_copy(update={"generation_batch": 2, "samples": samples})
    whole, asked, generate = write(model, tokenizer, sources[:7], settings, 0), [], model.generate
    monkeypatch.setattr("kardlib.kard.answering.PATIENCE", 0)

    def die_at_third(**inputs):
        asked.append(len(inputs["input_ids"]))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", die_at_third)
    with pytest.raises(KeyboardInterrupt):
        write(model, tokenizer, sources[:7], settings, 0, checkpoint=tmp_path / "texts.json")
    assert "4/7 sources answered, " in capsys.readouterr().out
    assert write(model, tokenizer, sources[:7], settings, 0, checkpoint=tmp_path / "texts.json") == whole
    assert asked == [2, 2, 2] + ([2, 1] if samples == 1 else [2, 2, 2, 1])  # samples depend on those drawn before


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    return save_causal(tmp_path_factory.mktemp("opt"), "opt")


@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama"])
def test_causal_greedy_texts_do_not_depend_on_batch_or_order(kind, tmp_path, written):
    model, tokenizer = load_student(str(save_causal(tmp_path, kind)))
    assert tokenizer.padding_side == "left"
    sources = written[2]
    one, all_, four = (SETTINGS.model_copy(update={"generation_batch": size}) for size in (1, 11, 4))
    alone = write(model, tokenizer, sources, one, seed=0)
    assert alone == write(model, tokenizer, sources, all_, seed=0)
    assert alone == write(model, tokenizer, sources[::-1], four, seed=0)[::-1]
    assert not any(text.startswith("Question") for (text,) in alone), "a source is not a part of what is written"


def test_what_is_written_on_after_an_answer_does_not_depend_on_the_batch(opt, tmp_path, monkeypatch):
    going_on = " ".join(f"The answer is {letter}." for letter in "ABCABC")
    sources = [
        "Which remedy?",
        "Which remedy will help? A. Bal B. Den",
        "Which remedy will help him now? A. Bal B. Den C. Zor",
    ]
    settings = SETTINGS.model_copy(
        update={"model": str(opt), "epochs": 80, "lr": 1e-2, "batch": 16, "max_new_tokens": 40}
    )
    train_student([(source, going_on) for source in sources] * 8, settings, seed=0, folder=tmp_path)
    model, tokenizer = load_student(str(tmp_path))
    with monkeypatch.context() as no_end:
        no_end.setattr("kardlib.kard.answering.answer_end", lambda text: None)
        whole = write(model, tokenizer, sources, settings, seed=0)
    assert all(text.strip().startswith("The answer is A. The answer is B.") for (text,) in whole)
    together = write(model, tokenizer, sources, settings, seed=0)
    assert [text.strip() for (text,) in together] == ["The answer is A."] * 3
    assert together == [write(model, tokenizer, [source], settings, seed=0)[0] for source in sources]


def test_a_text_that_is_out_leaves_the_batch(opt, tmp_path, monkeypatch):
    """Short, long, and cut at the limit: the same texts as generated in one go, with fewer rows the longer it takes."""
    said = {"Which?": "The answer is A.", "Who is it?": "cures " * 4 + "it.", "Who will help him?": "cures " * 20}
    settings = SETTINGS.model_copy(update={"model": str(opt), "epochs": 160, "lr": 1e-2, "max_new_tokens": 40})
    train_student([*said.items()] * 8, settings, seed=0, folder=tmp_path)
    model, tokenizer = load_student(str(tmp_path))
    inputs = tokenizer([*said], padding=True, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=40, do_sample=False)[:, inputs.input_ids.shape[1] :]
    at_once = tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert len({len(text) for text in at_once}) == 3
    rows, generate = [], model.generate
    monkeypatch.setattr("kardlib.kard.answering.STRETCH", 3)
    monkeypatch.setattr(model, "generate", lambda **given: rows.append(len(given["input_ids"])) or generate(**given))
    for end in (model.generation_config.eos_token_id, None):  # a checkpoint may leave it to its tokenizer
        model.generation_config.eos_token_id = end
        assert write(model, tokenizer, [*said], settings, 0) == [[text] for text in at_once]
    assert rows[0] == 3 and rows[-1] == 1 and rows == [*sorted(rows[: len(rows) // 2], reverse=True)] * 2


SAID = {  # the answer that is first sure
    "word Therefore, the answer is (B) no. The answer is C.": 1,
    "The answer is A. It cures. The answer is C.": 0,
    "Balkul cures it. The answer is (C) Denfir because of rash. The end.": 2,
    "The answer is A or B. No: the answer is B. The end.": 1,
    "Is the answer A? The answer is E. coli. The answer is D. The end is here.": 3,
    "Zorlin für Bäume: the answer is (B) Grün. Ärzte sagen es. The end.": 1,
}


@functools.cache
def train_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """The world's own; one as GPT-2's, of bytes and their pairs; one as T5's, of pieces that may begin with a space."""
    if kind == "nano":
        return build_tokenizer()
    special = ["<pad>", "</s>", "<unk>"]
    if kind == "byte-level":
        tokenizer = Tokenizer(BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
        trainer = BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=ByteLevel.alphabet())
    else:
        tokenizer = Tokenizer(Unigram())
        tokenizer.pre_tokenizer, tokenizer.decoder = Metaspace(), MetaspaceDecoder()
        trainer = UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator([*SAID] * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


@pytest.mark.parametrize("kind", ["nano", "byte-level", "unigram"])
@given(st.lists(st.sampled_from([*SAID, "Balkul cures it.", "The answer is not B."]), max_size=4), st.integers(1, 20))
def test_where_a_text_ends_does_not_depend_on_tokens_or_on_when_it_is_looked_at(kind, said, every):
    tokenizer = train_tokenizer(kind)
    ids = tokenizer(" ".join(said), add_special_tokens=False).input_ids
    whole, padding = tokenizer.decode(ids), [tokenizer.pad_token_id] * 3
    stop = AnswerIsOut(tokenizer, start=len(padding), every=every)
    stops = (n for n in range(1, len(ids) + 1) if stop(torch.tensor([padding + ids[:n]]), None).item())
    written = tokenizer.decode(ids[: next(stops, len(ids))])
    assert written[: answer_end(written)] == whole[: answer_end(whole)]
    answers = [SAID[text] for text in said if text in SAID]
    assert parse_answer(written[: answer_end(written)], ["o"] * 4) == (answers[0] if answers else None)


# Likelihoods


def score_plainly(model, tokenizer, source, begun, option):
    """One option at a time, without a cache."""
    ids, end = (tokenizer(t, add_special_tokens=False).input_ids for t in (begun, f"{begun} {option}".lstrip()))
    if model.config.is_encoder_decoder:
        written = torch.tensor([[model.config.decoder_start_token_id, *end]])
        logits = model(**tokenizer(source, return_tensors="pt"), decoder_input_ids=written).logits[0]
    else:
        line = tokenizer("\n", add_special_tokens=False).input_ids
        written = torch.tensor([[*tokenizer(source).input_ids, *line, *end]])
        logits = model(input_ids=written).logits[0]
    log_p = logits.double().log_softmax(1)[:-1].gather(1, written[0, 1:, None])
    return log_p[len(ids) - len(end) :].sum().item()


@pytest.mark.parametrize("kind", ["t5", "opt", "gpt2", "llama"])
@torch.inference_mode()
def test_options_likelihoods_are_those_of_a_plain_loop(kind, tmp_path, written):
    name = "t5-nano-small" if kind == "t5" else str(save_causal(tmp_path, kind))
    model, tokenizer = load_student(name)
    sources = [source.replace("Passage: Balkul cures it. ", "It cures. ") for source in written[2]]
    begun = ["The answer is" if i % 3 else "Balkul cures fever. The answer is" for i in range(len(sources))]
    begun[-3:] = [""] * 3  # the whole text
    options = [["A", "B"] if i % 2 else ["Balkul", "Denfir and more", "rash"] for i in range(len(sources))]
    checkpoint = tmp_path / "checkpoints" / "likelihoods.json"
    scores = score_options(model, tokenizer, sources, begun, options, SETTINGS, checkpoint)
    assert json.loads(checkpoint.read_text()) == scores
    assert [len(s) for s in scores] == [len(o) for o in options]
    for i, source in enumerate(sources):
        plain = [score_plainly(model, tokenizer, source, begun[i], option) for option in options[i]]
        assert scores[i] == pytest.approx(plain, abs=2e-4)


def test_a_killed_weighing_goes_on_to_the_same_bits(tmp_path, written, monkeypatch, capsys):
    monkeypatch.setattr("kardlib.models.encoders.TOKENS", 60)  # several batches
    monkeypatch.setattr("kardlib.kard.answering.PATIENCE", 0)
    count = len(written[2])
    asked = (*load_student("t5-nano-small"), written[2], [""] * count, [["A", "B"]] * count, SETTINGS)
    whole, checkpoint, weigh = score_options(*asked), tmp_path / "likelihoods.json", kardlib.kard.answering._score_ends
    calls = []

    def killed_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return weigh(*arguments)

    monkeypatch.setattr("kardlib.kard.answering._score_ends", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        score_options(*asked, checkpoint)
    assert "sources answered, " in capsys.readouterr().out
    kept = sum(map(bool, json.loads(checkpoint.read_text())))
    assert 0 < kept < count
    assert score_options(*asked, checkpoint) == whole
    assert sum(len(prefixes) for _, _, prefixes, *_ in calls[3:]) == count - kept


# What all sources begin with


@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama"])
def test_what_all_sources_begin_with_is_read_once_and_changes_nothing(kind, tmp_path, written, monkeypatch):
    model, tokenizer = load_student(str(save_causal(tmp_path, kind)))
    sources = [f"Question: Which sign? The answer is A. {'fever rash ' * 4}{source[:90]}" for source in written[2]]
    asked = [SETTINGS.model_copy(update={"generation_batch": size, "max_source_tokens": 100}) for size in (1, 4, 11)]
    weighed = sources, ["The answer is"] * 11, [["A", "Balkul"]] * 11, asked[0]
    apart = write(model, tokenizer, sources, asked[0], 0), score_options(model, tokenizer, *weighed)
    read = []
    model.get_decoder().register_forward_pre_hook(
        lambda _, given, named: read.append((given[0] if given else named["input_ids"]).numel()), with_kwargs=True
    )
    monkeypatch.setattr("kardlib.kard.answering.SHARED", 8)
    start = kardlib.kard.answering._shared_start(tokenizer(sources).input_ids)
    assert tokenizer.decode(start).startswith("Question: Which sign?") and 15 < len(start) <= 40
    assert [write(model, tokenizer, sources, settings, 0) for settings in asked] == [apart[0]] * 3
    assert read[0] == len(start) and max(read[1:12]) < 90, "the start, then what each source has besides"
    scores = score_options(model, tokenizer, *weighed)
    assert [s for one in scores for s in one] == pytest.approx([s for one in apart[1] for s in one], abs=2e-4)


def test_a_short_start_is_not_read_once_and_every_source_keeps_a_token_of_its_own(monkeypatch):
    find = kardlib.kard.answering._shared_start
    assert find([[7] * 63 + [1, 2], [7] * 63 + [3, 2]]) == [] and find([[7] * 64 + [1], [7] * 64 + [3]]) == [7] * 64
    monkeypatch.setattr("kardlib.kard.answering.SHARED", 1)
    assert find([[5, 6, 1], [5, 6], [5, 6, 2]]) == [5] and find([[1, 2, 3]]) == [1, 2] and find([[1], [1, 2]]) == []
