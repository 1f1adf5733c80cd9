"""What of a source and a target a student is shown: the form of its prompt, and the limits of its length.

A source is one text, or the turns of a few-shot prompt: an example's source, its target, the next one's, at last what
is asked. A prompt that is too long loses its first examples, then the end of its passages, the last passage first, and
never its question or an option. A limit that cuts more than a few texts is said in one line; one that takes the answers
or the options away is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from kardlib.data.prompts import CONCLUSION, CUT, NEW_TOKENS, Source, split_source
from kardlib.errors import DataError
from kardlib.models.training import read_rank

if TYPE_CHECKING:
    from kardlib.settings import StudentSettings

MARGIN = 1.1  # on the length that keeps all but the share `CUT` of the targets whole
SPARE = 2  # tokens that two parts of a text may have more together than alone


def source_limit(config: PreTrainedConfig, settings: StudentSettings) -> int:
    """Tokens of a source that are read: a causal LM's positions must also hold what it writes. Raises DataError."""
    positions = None if config.is_encoder_decoder else getattr(config, "max_position_embeddings", None)
    written = settings.max_new_tokens or NEW_TOKENS
    limit = min(settings.max_source_tokens, (positions or 10**9) - written)
    if limit < 1:
        raise DataError(
            f"student.max_new_tokens = {written} leaves no room for a question in the {positions} positions of a "
            f"{config.model_type}: lower it"
        )
    return limit


def target_ids(
    targets: Sequence[str], tokenizer: PreTrainedTokenizerBase, settings: StudentSettings, config: PreTrainedConfig
) -> list[list[int]]:
    """Every target's tokens with its end; a causal LM's begins a new line, which a chat's prompt has begun already."""
    if config.is_encoder_decoder:
        return list(tokenizer(text_target=list(targets), verbose=False).input_ids)
    begun = "" if settings.prompt == "chat" else "\n"
    ids = tokenizer([f"{begun}{t}" for t in targets], add_special_tokens=False, verbose=False).input_ids
    return [[*i, tokenizer.eos_token_id] for i in ids]


def limit_targets(
    targets: Sequence[str], tokenizer: PreTrainedTokenizerBase, settings: StudentSettings, config: PreTrainedConfig
) -> StudentSettings:
    """The settings with `max_new_tokens`; where it is None, so many that 99 % of the targets are whole, and a tenth.

    Prints how many targets it cuts if they are more than 1 %. Raises DataError where most lose their answer by it,
    except for the student "random-t5", which learns nothing anyway.
    """
    lengths = [len(ids) for ids in target_ids(targets, tokenizer, settings, config)]
    enough = max(2, math.ceil(MARGIN * _percentile(lengths)))
    limit = settings.max_new_tokens or enough
    cut = [target for target, length in zip(targets, lengths, strict=True) if length > limit]
    if len(cut) > CUT * len(targets):
        said = f"student.max_new_tokens = {limit} cuts {len(cut)} of {len(targets)} targets"
        lost = sum(CONCLUSION in target for target in cut)
        if lost > len(targets) / 2 and settings.model != "random-t5":
            raise DataError(
                f"{said}, so that {lost} lose their answer and no student could learn it: raise student.max_new_tokens "
                f"to {enough}, or set it to null to let it follow the data"
            )
        _say(f"{said}; {enough} would keep 99 % of them whole")
    return settings.model_copy(update={"max_new_tokens": limit})


def fit_sources(
    sources: Sequence[Source],
    tokenizer: PreTrainedTokenizerBase,
    settings: StudentSettings,
    config: PreTrainedConfig,
    say: bool = True,
) -> list[str]:
    """The prompts of sources, in the form that `settings.prompt` names, short enough for the student.

    Prints how many were cut, and of how many no passage is left, if they are more than 1 % or lose options, unless told
    not to; and how many are shown fewer examples. Raises DataError where more than 1 % would lose options, and where
    the tokenizer has no chat template.
    """
    limit, form = source_limit(config, settings), _chat if settings.prompt == "chat" else _lines
    around = len(tokenizer(form([""], tokenizer)).input_ids) + (SPARE if form is _chat else 0)
    room = limit - around
    given = [[source] if isinstance(source, str) else [*source] for source in sources]
    turns = [_fit_examples(one, limit, form, tokenizer) for one in given]
    fewer = sum(len(kept) < len(shown) for kept, shown in zip(turns, given, strict=True))
    fitted, lost, blind = [kept[-1] for kept in turns], [], 0
    lengths = [len(ids) for ids in tokenizer(fitted, add_special_tokens=False, verbose=False).input_ids]
    over = [i for i, length in enumerate(lengths) if length > room and len(turns[i]) == 1]
    for i in over:
        before, question, after = split_source(fitted[i])
        asked = _count(question, tokenizer)
        left = room - asked - SPARE
        lost += [asked] if question and asked > room else []
        blind += left < 1 and bool(f"{before}{after}".strip())
        if form is _chat or before or settings.truncation_side == "left":
            after = _trim(after, left, tokenizer)
            before = _trim(before, left - _count(after, tokenizer), tokenizer, settings.truncation_side)
            fitted[i] = " ".join(part for part in (before.strip(), question.strip(), after.strip()) if part)
    few = CUT * len(sources)
    if len(lost) > few:
        raise DataError(
            f"a student that reads {limit} tokens would not see all options of {len(lost)} of {len(sources)} questions:"
            f" set student.max_source_tokens to {max(lost) + around}, or take a model with more positions"
        )
    if say and (lost or len(over) > few):
        cut = f", of {blind} none at all" if blind else ""
        cut += f" and loses options of {len(lost)}" if lost else ""
        _say(
            f"a student that reads {limit} tokens (student.max_source_tokens) does not see all passages of {len(over)} "
            f"of {len(sources)} sources{cut}; with {_percentile(lengths) + around} it would read 99 % of them whole"
        )
    if say and fewer > few:
        _say(
            f"a student that reads {limit} tokens, student.max_source_tokens for each example and the question, is "
            f"shown fewer examples in {fewer} of {len(sources)} prompts"
        )
    return [form([*kept[:-1], source], tokenizer) for kept, source in zip(turns, fitted, strict=True)]


def _lines(turns: Sequence[str], tokenizer: Any) -> str:
    """Turns as plain text: an example's target stands on the line after its source, an empty line after it."""
    return "\n\n".join("\n".join(turns[i : i + 2]) for i in range(0, len(turns), 2))


def _chat(turns: Sequence[str], tokenizer: Any) -> str:
    """Turns as the user's and the student's of a chat whose next turn is the student's."""
    if not tokenizer.chat_template:
        raise DataError("student.prompt = chat needs a model with a chat template, e.g. smollm2: set it to plain")
    chat = [{"role": "assistant" if i % 2 else "user", "content": turn} for i, turn in enumerate(turns)]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    first = tokenizer("").input_ids  # what the tokenizer puts before every text, a template need not
    return str(text).removeprefix(tokenizer.bos_token) if first and first[0] == tokenizer.bos_token_id else str(text)


def _fit_examples(turns: Sequence[str], limit: int, form: Callable[..., str], tokenizer: Any) -> list[str]:
    """The turns without the first examples where all are too long; the task stands before those that are left."""
    kept, (task, blank, _) = [*turns], turns[0].partition("\n\n")
    while len(kept) > 1 and len(tokenizer(form(kept, tokenizer), verbose=False).input_ids) > limit:
        kept = kept[2:]
        if len(kept) > 1:
            kept[0] = f"{task}{blank}{kept[0]}"
    return kept


def _count(text: str, tokenizer: Any) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _trim(text: str, tokens: int, tokenizer: Any, side: str = "right") -> str:
    """A text without the tokens at one end that are too many."""
    if tokens < 1:
        return ""
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False).offset_mapping
    if len(spans) <= tokens:
        return text
    return text[: spans[tokens - 1][1]] if side == "right" else text[spans[-tokens][0] :]


def _percentile(lengths: Sequence[int]) -> int:
    """The least length that all but the share `CUT` of the texts do not exceed."""
    return sorted(lengths)[math.ceil((1 - CUT) * len(lengths)) - 1]


def _say(sentence: str) -> None:
    if read_rank()[0] == 0:  # one of the processes speaks for all
        print(sentence, flush=True)
