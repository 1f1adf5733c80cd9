"""What students are asked: the texts that they write, and how likely they find options.

A causal LM reads a source as the beginning of the sequence that it goes on with; what all sources begin with, as
few-shot prompts do, it reads once.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    set_seed,
)

from kardlib.artifacts.disk import write_text
from kardlib.data.answers import answer_end
from kardlib.data.prompts import NEW_TOKENS, Source
from kardlib.kard.prompting import fit_sources, source_limit
from kardlib.kard.student import load_student, prepare_to_ask

if TYPE_CHECKING:
    from kardlib.settings import StudentSettings

SHARED = 64  # tokens, at least, that all sources begin with for these to be read once: a few-shot prompt's examples
STRETCH = 16  # tokens that a causal LM writes before it is seen which texts of a batch are out
PATIENCE = 60  # seconds between two lines on how far an asking is


class Answered:
    """What was found for every source, a list each, kept in `checkpoint` as it comes: a killed run goes on from it.

    `all` are these lists; `open` are the sources (their indices) that had none at the start. Every `PATIENCE` seconds
    it says how much is done, and the time left if every token of a source takes as long; `lengths` are in tokens.
    """

    def __init__(self, lengths: Sequence[int], checkpoint: Path | None):
        self.lengths, self.checkpoint = lengths, checkpoint
        self.all: list[list[Any]] = [[] for _ in lengths]
        if checkpoint and checkpoint.is_file():
            self.all = json.loads(checkpoint.read_text("utf-8"))
        self.open = [i for i, found in enumerate(self.all) if not found]
        self.began = self.told = time.monotonic()

    def add(self, batch: Sequence[int], found: Sequence[list[Any]]) -> None:
        """Keep what was found for some sources. Raises StoreError for a full disk."""
        for i, each in zip(batch, found, strict=True):
            self.all[i] = each
        if self.checkpoint:
            write_text(self.checkpoint, json.dumps(self.all))
        if time.monotonic() - self.told > PATIENCE:
            self.told = time.monotonic()
            work, done = sum(self.lengths[i] for i in self.open), sum(self.lengths[i] for i in self.open if self.all[i])
            left = (self.told - self.began) * (work - done) / done / 60
            print(f"  {sum(map(bool, self.all))}/{len(self.all)} sources answered, {left:.0f} min left", flush=True)


class AnswerIsOut(StoppingCriteria):
    """Ends a sequence once its answer is sure (`answer_end`): what a pretrained LM goes on to say is not read.

    Decoding costs, so it looks at every `every`-th step only, and never at the first `start` tokens: the padded source.
    What is written beyond the answer by then is for the caller to cut.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, start: int, every: int = 8):
        self.tokenizer, self.start, self.every = tokenizer, start, every

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if (input_ids.shape[1] - self.start) % self.every == 0:
            texts = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
            done |= torch.tensor([answer_end(text) is not None for text in texts], device=done.device)
        return done


@torch.inference_mode()
def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    settings: StudentSettings,
    seed: int,
    checkpoint: Path | None = None,
) -> list[list[str]]:
    """For every source the student's texts: one if greedy, else `settings.samples` (top-k, top-p).

    A text ends with its first sure answer (`docs/answers.md`). Sources are taken in order of
    length, so that a batch holds little padding; in float32 greedy texts do not depend on the batch. They are kept in
    `checkpoint` after every batch, from which a killed run goes on; samples are not, for they depend on what was drawn
    before. Raises StoreError for a full disk.
    """
    model, has_encoder = prepare_to_ask(model, settings), model.config.is_encoder_decoder
    set_seed(seed)
    limit = source_limit(model.config, settings)
    tokenizer.truncation_side = settings.truncation_side
    ids = tokenizer(list(sources), truncation=True, max_length=limit).input_ids
    sampling: dict[str, Any] = {"do_sample": False}
    if settings.samples > 1:
        sampling = {"do_sample": True, "top_k": settings.top_k, "top_p": settings.top_p,
                    "num_return_sequences": settings.samples}  # fmt: skip
    in_stretches = not has_encoder and settings.samples == 1
    start = _shared_start(ids) if in_stretches else []
    cache = _read_start(model, start)
    texts = Answered(list(map(len, ids)), checkpoint if settings.samples == 1 else None)
    order = sorted(texts.open, key=lambda i: (len(ids[i]), i))
    for first in range(0, len(order), settings.generation_batch):
        batch = order[first : first + settings.generation_batch]
        read = {"input_ids": [ids[i][len(start) :] for i in batch]}
        inputs = tokenizer.pad(read, return_tensors="pt").to(model.device)
        if in_stretches:
            decoded = _write_on(model, tokenizer, start, cache, inputs, settings.max_new_tokens or NEW_TOKENS)
        else:
            source = 0 if has_encoder else inputs.input_ids.shape[1]  # a causal LM repeats its source
            stops = StoppingCriteriaList([AnswerIsOut(tokenizer, source)])
            written = model.generate(  # type: ignore[operator]
                **inputs, max_new_tokens=settings.max_new_tokens, **sampling, stopping_criteria=stops
            )
            decoded = tokenizer.batch_decode(written[:, source:], skip_special_tokens=True)
        decoded = [text[: answer_end(text)] for text in decoded]
        texts.add(batch, [decoded[row * settings.samples :][: settings.samples] for row in range(len(batch))])
    return texts.all


def _shared_start(ids: list[list[int]]) -> list[int]:
    """The tokens that all sources begin with, where they are many; each has at least one more."""
    first, last = min(ids, default=[]), max(ids, default=[])  # what these two share, all share
    room = min((len(i) - 1 for i in ids), default=0)
    shared = next((n for n in range(room) if first[n] != last[n]), room)
    return first[:shared] if shared >= SHARED else []


def _read_start(model: Any, start: list[int]) -> Any:
    """A causal LM's cache of these tokens, of one row; None where there are none."""
    if not start:
        return None
    return model.get_decoder()(input_ids=torch.tensor([start], device=model.device), use_cache=True).past_key_values


def _repeat(cache: Any, rows: int) -> Any:
    """A copy of a cache of one row, for so many."""
    cache = copy.deepcopy(cache)
    if cache is not None:
        cache.batch_repeat_interleave(rows)
    return cache


def _write_on(model: Any, tokenizer: Any, start: list[int], cache: Any, inputs: Any, limit: int) -> list[str]:
    """A causal LM's greedy texts after `start`, which its cache holds, and input_ids (B, S).

    It writes a stretch at a time: a text that is out leaves the batch. Real rationales differ in length by far: kept to
    the end of the longest, half of all steps would be of texts that are out (docs/LOG.md).
    """
    rows, cache = list(range(len(inputs.input_ids))), _repeat(cache, len(inputs.input_ids))
    texts = [""] * len(rows)
    ids = torch.cat([torch.tensor([start] * len(rows), dtype=torch.long, device=model.device), inputs.input_ids], 1)
    mask = torch.nn.functional.pad(inputs.attention_mask, (len(start), 0), value=1)
    read = ids.shape[1]
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    while rows and (left := read + limit - ids.shape[1]) > 0:
        written = model.generate(
            input_ids=ids, attention_mask=mask, past_key_values=cache, do_sample=False, eos_token_id=ends,
            max_new_tokens=min(left, STRETCH), return_dict_in_generate=True,
        )  # fmt: skip
        new, cache = written.sequences[:, read:], written.past_key_values
        for row, text in zip(rows, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            texts[row] = text
        out = torch.isin(new, torch.tensor(ends, device=new.device)).any(1)
        out |= torch.tensor([answer_end(texts[row]) is not None for row in rows], device=out.device)
        under_way = (~out).nonzero()[:, 0]
        rows, ids = [rows[i] for i in under_way.tolist()], written.sequences[under_way]
        mask = torch.nn.functional.pad(mask[under_way], (0, ids.shape[1] - mask.shape[1]), value=1)
        if len(rows) < len(out):
            cache.batch_select_indices(under_way)
    return texts


def write_predictions(sources: Sequence[Source], settings: StudentSettings, seed: int, folder: Path) -> None:
    """What the student that `settings.model` names writes for every source: `folder/texts.json`. Raises DataError."""
    model, tokenizer = load_student(settings.model, settings.revision, seed)
    settings = _with_limit(model, settings)
    fitted, checkpoint = fit_sources(sources, tokenizer, settings, model.config), folder / "checkpoints" / "texts.json"
    texts = write(model, tokenizer, fitted, settings, seed, checkpoint=checkpoint)
    (folder / "texts.json").write_text(json.dumps(texts))


@torch.inference_mode()
def score_options(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Source],
    begun: Sequence[str],
    options: Sequence[Sequence[str]],
    settings: StudentSettings,
    checkpoint: Path | None = None,
) -> list[list[float]]:
    """For every source the log-likelihood of each of its options: `log p(option | source, begun)`.

    `begun` is what the student has written before the option, e.g. "The answer is"; an option follows after a space.
    Where nothing is begun the option is the whole text. What all options of a source share is read once, in batches of
    nearly one length; logits are computed at the options' tokens alone. Values do not depend on the batch, up to the
    last bits; a killed run goes on from `checkpoint`, in the same batches. Where products are computed in bfloat16,
    so are the logits: of OpenbookQA's 500 questions up to 7 have two best options that are equal to the last bit, of
    which the first counts. Raises StoreError for a full disk.
    """
    from kardlib.models.encoders import TOKENS, length_batches  # its settings need pydantic, which `work` does without

    model, has_encoder = prepare_to_ask(model, settings), model.config.is_encoder_decoder
    tokenizer.truncation_side = settings.truncation_side
    limit = source_limit(model.config, settings)
    read = tokenizer(
        fit_sources(sources, tokenizer, settings, model.config), truncation=True, max_length=limit
    ).input_ids
    line = "\n" if not has_encoder and settings.prompt == "plain" else ""
    texts = [f"{line}{b}" for b in begun]
    words = tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
    prefixes = [
        [model.config.decoder_start_token_id, *w] if has_encoder else r + w for r, w in zip(read, words, strict=True)
    ]
    whole = {str(i): prefix + (read[i] if has_encoder else []) for i, prefix in enumerate(prefixes)}
    start = [] if has_encoder else _shared_start(prefixes)
    cache = _read_start(model, start)
    scores = Answered([len(ids) for ids in whole.values()], checkpoint)
    for names in length_batches(whole, TOKENS):
        batch = [int(name) for name in names]
        if scores.all[batch[0]]:  # kept, and its whole batch with it
            continue
        rows = [row for row, i in enumerate(batch) for _ in options[i]]
        pairs = [f"{texts[i]}{' ' if begun[i] else ''}{option}" for i in batch for option in options[i]]
        ends = tokenizer(pairs, add_special_tokens=False, verbose=False).input_ids
        ends = [end[len(words[batch[row]]) :] for end, row in zip(ends, rows, strict=True)]
        encoded = [read[i] for i in batch] if has_encoder else []
        found: list[list[float]] = [[] for _ in batch]
        own = [prefixes[i][len(start) :] for i in batch]
        shared = _repeat(cache, len(batch))
        for row, score in zip(rows, _score_ends(model, shared, own, encoded, rows, ends), strict=True):
            found[row].append(score)
        scores.add(batch, found)
    return scores.all


def _score_ends(
    model: Any, cache: Any, prefixes: list[list[int]], encoded: list[list[int]], rows: list[int], ends: list[list[int]]
) -> list[float]:
    """`log p(end | prefix)` of N ends, each after the prefix of its row; `encoded` is what a T5's encoder reads.

    `cache` is of what a causal LM has read before the prefixes.
    """
    device, others = model.device, {}
    ids, mask = _pad([p[:-1] for p in prefixes], "left", device)  # (B, P)
    mask = torch.nn.functional.pad(mask, (0 if cache is None else cache.get_seq_length(), 0), value=1)
    index = torch.tensor(rows, device=device)
    if encoded:
        texts, seen = _pad(encoded, "right", device)
        hidden = model.get_encoder()(input_ids=texts, attention_mask=seen).last_hidden_state
        others = {"encoder_hidden_states": hidden, "encoder_attention_mask": seen}
    else:
        others = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, mask.shape[1] - ids.shape[1] :]}
    if ids.shape[1]:
        read = model.get_decoder()(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **others)
        cache = read.past_key_values
    if cache is not None:
        cache.reorder_cache(index)  # a row of its own for each end
    last = [[prefixes[row][-1], *end[:-1]] for row, end in zip(rows, ends, strict=True)]
    ids, written = _pad(last, "right", device)  # (N, T)
    mask = torch.cat([mask[index], written], 1)
    if encoded:
        others = {"encoder_outputs": (hidden[index],), "attention_mask": seen[index], "decoder_input_ids": ids,
                  "decoder_attention_mask": mask}  # fmt: skip
    else:
        others = {"input_ids": ids, "attention_mask": mask, "position_ids": mask.cumsum(1)[:, -ids.shape[1] :] - 1}
    logits = model(past_key_values=cache, **others).logits.float()  # (N, T, V)
    said, _ = _pad(ends, "right", device)
    log_p = logits.gather(2, said[:, :, None])[:, :, 0] - logits.logsumexp(2)  # (N, T)
    return (log_p * written).sum(1).tolist()


def _pad(ids: Sequence[Sequence[int]], side: str, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (N, T) padded with 0 on one side, and their mask (N, T)."""
    tensors = [torch.tensor(i, dtype=torch.long, device=device) for i in ids]
    masks = [torch.ones_like(t) for t in tensors]
    return pad_sequence(tensors, True, 0, side), pad_sequence(masks, True, 0, side)


def write_likelihoods(
    sources: Sequence[Source],
    begun: Sequence[str],
    options: Sequence[Sequence[str]],
    settings: StudentSettings,
    seed: int,
    folder: Path,
) -> None:
    """`score_options` of the student that `settings.model` names, and the same for a character of each option.

    They are written into `folder/likelihoods.json`. Raises DataError.
    """
    model, tokenizer = load_student(settings.model, settings.revision, seed)
    asked, checkpoint = (model, tokenizer, sources, begun, options), folder / "checkpoints" / "likelihoods.json"
    total = score_options(*asked, _with_limit(model, settings), checkpoint)
    found = {"total": total, "per_character": per_character(total, options)}
    (folder / "likelihoods.json").write_text(json.dumps(found))


def per_character(total: Sequence[Sequence[float]], options: Sequence[Sequence[str]]) -> list[list[float]]:
    """The log-likelihoods of every source's options for a character of each.

    A long option that stands in the prompt is cheap once it is begun, so that mostly the longest one is found likeliest
    (`benchmarks/option_length.py`).
    """
    return [
        [score / len(option) for score, option in zip(scores, texts, strict=True)]
        for scores, texts in zip(total, options, strict=True)
    ]


def _with_limit(model: Any, settings: StudentSettings) -> StudentSettings:
    """The settings of what a student writes: where they leave it open, as much as it learnt to write."""
    limit = settings.max_new_tokens or model.generation_config.max_new_tokens or NEW_TOKENS
    return settings.model_copy(update={"max_new_tokens": limit})
