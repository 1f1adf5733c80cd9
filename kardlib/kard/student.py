"""Students: encoder-decoder and causal LMs, nano or from the Hub: load, train, write.

Training minimises `-(1/(n l)) sum_ij log p_theta(r_ij, y_i | x_i, D^_ij)` (KARD, Section 4): the loss is on the target
text alone, whatever the source holds. An encoder-decoder reads the source in its encoder; a causal LM reads it as the
beginning of one sequence that the target ends.
"""

from __future__ import annotations

import json
import pkgutil
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from kardlib.artifacts.device import free_memory, multiplies_bf16, pick_device, slot_memory
from kardlib.artifacts.store import check_begun
from kardlib.data.prompts import NEW_TOKENS
from kardlib.errors import DataError, first_line
from kardlib.kard.prompting import fit_sources, limit_targets, source_limit, target_ids
from kardlib.models.catalogue import LOADERS, find_folder, find_revision, load_weights, read_shape, refuse_elsewhere
from kardlib.models.costs import check_memory, spare_memory
from kardlib.models.nano import build_student, build_tokenizer
from kardlib.models.training import (
    CHECKPOINTING,
    PartTrainer,
    add_lora,
    find_checkpoint,
    mean_losses,
    read_rank,
    trainer_arguments,
)

if TYPE_CHECKING:
    from kardlib.settings import DaptSettings, StudentSettings

transformers_logging.disable_progress_bar()  # of loading and saving, which takes no time

Example = tuple[str, str]  # source and target text


def load_student(
    name: str, revision: str | None = None, seed: int = 0
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer: a nano model's name, "smollm2", a folder, a Hub id, or a registered name.

    A model of the paper comes at the revision that `models/catalogue.py` pins unless another is given.
    Raises DataError where there is no such model, it is neither an encoder-decoder nor a causal LM, or its tokenizer
    knows no end.
    """
    if name in LOADERS:
        load = LOADERS[name].load
        return (load if callable(load) else pkgutil.resolve_name(load))(revision, seed)
    source = find_folder(name) or name
    refuse_elsewhere(source)
    try:
        revision = revision or find_revision(name)
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        architectures = config.architectures or [config.model_type]
        if not config.is_encoder_decoder and set(architectures).isdisjoint(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
            raise ValueError(f"a {architectures[0]} is neither an encoder-decoder nor a causal LM")
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = load_weights(kind, source, revision)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        if tokenizer.eos_token is None:
            raise ValueError("its tokenizer has no end token, so that no text would ever end")
    except (OSError, ValueError) as error:
        raise DataError(
            f"no student could be loaded from {name!r} (a nano model, a folder with config.json and model.safetensors, "
            f"or a Hub id): {first_line(error)}"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # masks and labels say what is padding, so any token will do
    if not config.is_encoder_decoder:
        tokenizer.padding_side = "left"  # what is written must follow the source's last token
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def draw_student(revision: str | None, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The student "random-t5": of the middle nano size, drawn from `seed`. It runs on any text, knowing nothing."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    return build_student("t5-nano-base", len(tokenizer)), tokenizer


def takes_bf16(settings: StudentSettings) -> bool:
    """Whether products are computed in bfloat16: on GPUs that do and, if the settings say so, on CPUs that do."""
    return pick_device().bf16 or (settings.bf16 and multiplies_bf16())


@torch.inference_mode(False)
def prepare_to_ask(model: PreTrainedModel, settings: StudentSettings) -> PreTrainedModel:
    """The model on the device that computes, in the number type that it is asked in.

    Weights that are made anew stay ordinary ones even where no gradient is taken: an inference tensor would be copied
    once for every row of a batch that its output layer takes the last states of, nine seconds for 64 rows.
    """
    return model.to(pick_device().type, torch.bfloat16 if takes_bf16(settings) else torch.float32).eval()  # type: ignore[arg-type]


class Examples(torch.utils.data.Dataset):
    """Tokenised sources and targets, each cut to its limit; padded per batch, never here.

    A causal LM's `input_ids` hold both, with -100 for the source in `labels`, where no loss is taken.
    """

    def __init__(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        settings: StudentSettings,
        config: PreTrainedConfig,
    ):
        tokenizer.truncation_side = settings.truncation_side
        self.inputs = tokenizer(
            list(sources), truncation=True, max_length=source_limit(config, settings), return_token_type_ids=False
        ).input_ids
        limit = settings.max_new_tokens or NEW_TOKENS
        ids = target_ids(targets, tokenizer, settings, config)
        self.labels = [i if len(i) <= limit else [*i[: limit - 1], i[-1]] for i in ids]
        if not config.is_encoder_decoder:
            both = list(zip(self.inputs, self.labels, strict=True))
            self.inputs = [source + target for source, target in both]
            self.labels = [[-100] * len(source) + target for source, target in both]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i: int) -> dict[str, list[int]]:
        return {"input_ids": self.inputs[i], "attention_mask": [1] * len(self.inputs[i]), "labels": self.labels[i]}


def train_student(examples: Sequence[Example], settings: StudentSettings, seed: int, folder: Path) -> None:
    """Fine-tune `settings.model` on the examples and save it in `folder`, LoRA's updates merged into the weights.

    A run that was killed goes on from `folder/checkpoints` and ends with the same weights. In each of several processes
    (`launch.py`) it takes a part of every batch. Raises DataError, also where limits take away answers or options,
    StoreError for checkpoints of other settings, and TooLargeError before anything is trained if the device's memory
    cannot hold it.
    """
    set_seed(seed)
    free, device = free_memory()
    model, tokenizer = load_student(settings.model, settings.revision, seed)
    trained = add_lora(model) if settings.lora else model
    sources, targets = zip(*examples, strict=True)
    fitted = limit_targets(targets, tokenizer, settings, model.config)
    read = fit_sources(sources, tokenizer, fitted, model.config)
    data = Examples(read, targets, tokenizer, fitted, model.config)
    settings = fit_memory(model, data, settings, free, device)
    check_begun(folder, settings.of_training() | {"seed": seed, "number of examples": len(examples)})
    assert settings.lr and settings.epochs, "`of` leaves nothing open"
    arguments = trainer_arguments(
        folder, settings.lr, settings.batch, settings.warmup, settings.epochs, len(examples), seed,
        settings.steps, bf16=takes_bf16(settings),
        **{CHECKPOINTING: settings.gradient_checkpointing, f"{CHECKPOINTING}_kwargs": {"use_reentrant": False}},
    )  # fmt: skip
    own = LOADERS.get(settings.model)
    tokenizer.padding_side = "right"  # so that a causal LM needs no mask (`PartTrainer`)
    trainer = PartTrainer(
        trained, arguments, own and own.loss, train_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model), processing_class=tokenizer,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=find_checkpoint(folder / "checkpoints"))
    if not trainer.is_world_process_zero():
        return
    if settings.lora:
        model = trained.merge_and_unload()  # type: ignore[operator]
    save_student(model, tokenizer, settings, fitted, folder)
    (folder / "losses.json").write_text(json.dumps(mean_losses(trainer.state)))


def fit_memory(
    model: PreTrainedModel, data: Examples, settings: StudentSettings, free: int, device: str
) -> StudentSettings:
    """The settings, with activations computed again where a job's share of the memory would not hold them all.

    `free` are the bytes of `device` before the model was loaded. Raises TooLargeError where they cannot hold a step.
    """
    target = max(sum(i >= 0 for i in labels) for labels in data.labels)
    source = max(map(len, data.inputs)) - (0 if model.config.is_encoder_decoder else target)  # a causal LM reads both
    shape = read_shape(model.config.to_dict(), model.num_parameters())
    batch, bf16 = -(-min(settings.batch, len(data)) // read_rank()[1]), takes_bf16(settings)
    settings = spare_memory(shape, settings, batch, source, target, bf16=bf16, share=slot_memory())
    check_memory(shape, settings, batch, source, target, bf16=bf16, free=free, device=device)
    return settings


def save_student(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: StudentSettings, fitted: StudentSettings,
    folder: Path,
) -> None:  # fmt: skip
    """Write model and tokenizer, and where the settings leave it open, how much the student learnt to write (`fitted`).

    It is as much as it writes when it is asked.
    """
    if settings.max_new_tokens is None:
        model.generation_config.max_new_tokens = fitted.max_new_tokens
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def mask_spans(text: str, settings: DaptSettings, sentinels: Sequence[str], rng: random.Random) -> Example:
    """Span corruption (T5, Section 3.1.4): spans of words become sentinels; the target restores them in order.

    A share `settings.masked` of the words or more, in spans drawn with a mean of `settings.span` words; `sentinels` are
    used in turn, the last of them again and again. One more sentinel closes the target. At least one word is masked,
    the last span may be more than is missing, and a text's end cuts spans: of the closed world's sentences, of seven or
    eight words, 31 % are masked in spans of 1.7, of texts of a hundred 17 % in spans of 3.1.
    """
    words = text.split()
    masked = {rng.randrange(len(words))}
    while len(masked) < settings.masked * len(words):
        start, length = rng.randrange(len(words)), max(1, round(rng.expovariate(1 / settings.span)))
        masked |= set(range(start, min(start + length, len(words))))
    source, target, spans = [], [], 0
    for i, word in enumerate(words):
        if i in masked and i - 1 not in masked:
            sentinel = sentinels[min(spans, len(sentinels) - 1)]
            source.append(sentinel)
            target.append(sentinel)
            spans += 1
        (target if i in masked else source).append(word)
    target.append(sentinels[min(spans, len(sentinels) - 1)])
    return " ".join(source), " ".join(target)


def adapt_student(
    passages: Sequence[str], dapt: DaptSettings, settings: StudentSettings, seed: int, folder: Path
) -> None:
    """Domain-adaptive pretraining (KARD, Figure 3): train on the passages alone.

    An encoder-decoder restores masked spans; every passage is there `dapt.epochs` times, each masked anew, all in one
    shuffled order. A causal LM predicts every next token.
    """
    model, tokenizer = load_student(settings.model, settings.revision, seed)
    texts = [text for _ in range(dapt.epochs) for text in passages if text.split()]
    if model.config.is_encoder_decoder:
        known, rng = tokenizer.get_vocab(), random.Random(seed)
        sentinels = [t for i in range(100) if (t := f"<extra_id_{i}>") in known] or [tokenizer.mask_token]
        examples = [mask_spans(text, dapt, sentinels, rng) for text in texts]
    else:
        examples = [("", text) for text in texts]
        limit = settings.max_source_tokens  # what is learnt is a passage, not a target
        settings = settings.model_copy(update={"max_new_tokens": limit})
    settings = settings.model_copy(update={"lr": dapt.lr, "epochs": 1, "steps": None, "prompt": "plain"})
    train_student(examples, settings, seed, folder)
