"""RAG: a dense retriever trained together with the student, by marginalising over the passages that it finds.

KARD's Table 7 compares with it. As in RAG-Sequence (Lewis et al. 2020, Section 2.1),
`p(y | x) = sum_z p_eta(z | x) p_theta(y | x, z)` over the top passages `z` of the question `x`; the retriever is a dual
encoder (DPR: Karpukhin et al. 2020), `p_eta(z | x) = softmax(q(x) . d(z) / tau)`, and `y` is rationale, then answer. No
passage is ever labelled as the right one: a passage counts by how likely it makes what the teacher wrote.

Passages are found by exact inner product (FAISS) among vectors that are computed anew every `refresh` steps; those
that are found are scored by the weights of the moment, so that gradients reach both encoders (Lewis et al. leave the
passages' encoder as it is).
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import DataCollatorForSeq2Seq, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from kardlib.artifacts.device import pick_device
from kardlib.artifacts.disk import write_json
from kardlib.data.files import Question
from kardlib.data.prompts import source_text
from kardlib.errors import DataError
from kardlib.kard.prompting import fit_sources, limit_targets
from kardlib.kard.student import Examples, load_student, save_student, takes_bf16
from kardlib.models.encoders import (
    TOKENS,
    check_pooling,
    check_texts,
    count_positions,
    length_batches,
    load_encoder,
    pool,
    say_cut,
    sort_by_score,
)
from kardlib.models.training import fit, linear_schedule
from kardlib.retrieval.dense import build_index, one_thread
from kardlib.retrieval.runs import Run, write_run
from kardlib.settings import RagSettings, StudentSettings

SIDES = ("question", "passage")  # a trained retriever's folder holds an ordinary checkpoint of each

# The equations


def marginal_log_likelihood(scores: Tensor, log_likelihoods: Tensor) -> Tensor:
    """`log sum_z p_eta(z | x) p_theta(y | x, z)`: (B, K), (B, K) -> (B,).

    `scores` are those of the K passages found, whose softmax is `p_eta`; `log_likelihoods` those of the whole target.
    """
    return (scores.log_softmax(1) + log_likelihoods).logsumexp(1)


def contrastive_loss(scores: Tensor, positives: Tensor, drawn: Tensor) -> Tensor:
    """DPR's loss with in-batch negatives, mean `-log p(drawn | x)`: (B, P) scores, (B, P) mask, (B,) column -> ().

    A passage in the batch that is another positive of the same question is no negative.
    """
    others = positives.clone().scatter_(1, drawn[:, None], False)
    return cross_entropy(scores.masked_fill(others, -torch.inf), drawn)


# The retriever


class DualEncoder(nn.Module):
    """Two encoders of one shape, for questions and for passages; a text is one vector, not normalised, as in DPR.

    Raises DataError for causal encoders whose first token is to stand for the text.
    """

    def __init__(
        self, encoders: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, settings: RagSettings
    ):
        super().__init__()
        check_pooling(encoders["question"], settings.pooling, "rag.pooling")
        self.encoders, self.tokenizer, self.settings = nn.ModuleDict(encoders), tokenizer, settings
        self.max_tokens = min(settings.max_tokens, count_positions(encoders["question"]))

    def forward(self, side: str, texts: Sequence[str]) -> Tensor:
        """Vectors of questions or of passages: (N, dim), fp32, whatever the padding."""
        device = next(self.parameters()).device
        limits: dict[str, Any] = {"truncation": True, "max_length": self.max_tokens}
        inputs = self.tokenizer(list(texts), padding=True, return_tensors="pt", **limits).to(device)
        mask = inputs.attention_mask
        with torch.autocast(device.type, torch.bfloat16, enabled=pick_device().bf16):
            hidden = self.encoders[side](input_ids=inputs.input_ids, attention_mask=mask).last_hidden_state
        return pool(hidden.float(), mask, self.settings.pooling)

    def save(self, folder: Path) -> None:
        """Each encoder with the tokenizer as an ordinary `transformers` checkpoint, in a folder named by its side."""
        for side in SIDES:
            self.encoders[side].save_pretrained(folder / side)  # type: ignore[operator]
            self.tokenizer.save_pretrained(folder / side)


def load_retriever(settings: RagSettings) -> DualEncoder:
    """A trained one's folder, or one encoder to start both sides from, named like a reranker's. Raises DataError."""
    folder = Path(settings.model)
    trained = all((folder / side).is_dir() for side in SIDES)
    names = {side: str(folder / side) if trained else settings.model for side in SIDES}
    loaded = {side: load_encoder(name, settings.revision) for side, name in names.items()}
    retriever = DualEncoder({side: e for side, (e, _) in loaded.items()}, loaded["question"][1], settings)
    return retriever.to(pick_device().type).eval()


@torch.inference_mode()
def embed(retriever: DualEncoder, side: str, texts: Mapping[str, str]) -> Tensor:
    """Vectors of all texts in their order, (N, dim) on the CPU, computed in batches of nearly one length."""
    retriever.eval()
    ids = retriever.tokenizer(list(texts.values()), truncation=True, max_length=retriever.max_tokens).input_ids
    say_cut("rag.max_tokens", retriever.max_tokens, ids)
    vectors: dict[str, Tensor] = {}
    for batch in length_batches(dict(zip(texts, ids, strict=True)), TOKENS):
        vectors |= zip(batch, retriever(side, [texts[name] for name in batch]).cpu(), strict=True)
    return torch.stack([vectors[name] for name in texts])


def retrieve(
    retriever: DualEncoder, questions: Mapping[str, str], passages: Mapping[str, str], depth: int,
    relevant: Mapping[str, Iterable[str]],
) -> tuple[Run, dict[str, float]]:  # fmt: skip
    """Every question's top `depth` passages by `q . d`, and the retriever's own loss on questions with relevant ones.

    The loss is `-log sum_{z relevant} p_eta(z | x)`, `p_eta` over *all* passages: it says whether the retriever has
    learnt even where the first ranks do not move. Scores are rounded and ties broken as the reranker's are.
    """
    names, row = list(passages), {p: i for i, p in enumerate(passages)}
    queries, vectors = embed(retriever, "question", questions), embed(retriever, "passage", passages)
    with one_thread():
        scores, found = build_index(vectors.numpy(), "exact").search(queries.numpy(), min(depth, len(names)))
    run, losses = {}, {}
    for i, question in enumerate(questions):
        run[question] = sort_by_score(zip([names[j] for j in found[i]], scores[i].tolist(), strict=True))
        if right := [row[p] for p in relevant.get(question, ())]:
            log_p = (vectors @ queries[i] / retriever.settings.tau).log_softmax(0)
            losses[question] = -float(log_p[right].logsumexp(0))
    return run, losses


def retrieve_and_write(
    settings: RagSettings, questions: Mapping[str, str], passages: Mapping[str, str], depth: int,
    relevant: Mapping[str, Iterable[str]], folder: Path,
) -> None:  # fmt: skip
    """`retrieve` with the retriever that `settings.model` names: `folder/run.tsv` and `folder/losses.json`."""
    run, losses = retrieve(load_retriever(settings), questions, passages, depth, relevant)
    write_run(folder / "run.tsv", run)
    write_json(folder / "losses.json", losses)


# Training


def train_retriever(
    settings: RagSettings, questions: Mapping[str, str], passages: Mapping[str, str],
    positives: Mapping[str, Sequence[str]], negatives: Mapping[str, Sequence[str]], seed: int, folder: Path,
) -> None:  # fmt: skip
    """Train `settings.model` as DPR does, and save it in `folder`: the start of the warm variant of RAG.

    A step draws for every question of its batch one positive and one hard negative; all passages drawn are negatives
    of the questions that do not have them as positives. A killed run goes on where it stopped. Raises DataError where
    there is nothing to learn from or a text is missing.
    """
    asked = sorted(q for q, found in positives.items() if found)
    if not asked:
        raise DataError("the retriever has no positives to learn from: no rationale found a passage")
    check_texts(asked, {p for q in asked for p in (*positives[q], *negatives[q])}, questions, passages)
    set_seed(seed)
    retriever = load_retriever(settings).train()
    batches = list(draw_batches(asked, settings.contrastive_batch, settings.contrastive_epochs, seed))

    def loss_of(step: int) -> Tensor:
        batch, rng = batches[step], random.Random(f"{seed} step {step}")
        drawn = [rng.choice(positives[q]) for q in batch]
        hard = [rng.choice(others) for q in batch if (others := [p for p in negatives[q] if p not in positives[q]])]
        pool = {p: column for column, p in enumerate(dict.fromkeys(drawn + hard))}
        scores = retriever("question", [questions[q] for q in batch])
        scores = scores @ retriever("passage", [passages[p] for p in pool]).T / settings.tau  # (B, P)
        mask = torch.tensor([[p in positives[q] for p in pool] for q in batch], device=scores.device)
        return contrastive_loss(scores, mask, torch.tensor([pool[p] for p in drawn], device=scores.device))

    schedule = linear_schedule(settings.warmup, len(batches))
    losses, _ = fit(
        "retriever", retriever, {retriever: settings.contrastive_lr}, schedule, len(batches), loss_of,
        seed=seed * 1_000_000, checkpoint=folder / "checkpoints" / "last.pt", checkpoint_every=settings.refresh,
    )  # fmt: skip
    retriever.save(folder)
    write_json(folder / "losses.json", losses)


def train_rag(
    settings: RagSettings, student: StudentSettings, questions: Mapping[str, Question],
    targets: Mapping[str, Sequence[str]], passages: Mapping[str, str], seed: int, folder: Path,
) -> None:  # fmt: skip
    """Train `settings.model` and `student.model` together and save them in `folder` (`question`, `passage`, `student`).

    `targets` are the texts that may be written for a question: every epoch takes every question once with one of them.
    The loss, `-log p(y | x)` per target token, is written to `losses.json` for every step. A killed run goes on where
    it stopped and, on a CPU, ends with the same bits. Raises DataError where there is nothing to learn from, fewer
    passages than are marginalised, or a text is missing.
    """
    asked = sorted(q for q, texts in targets.items() if texts)
    if not asked:
        raise DataError("RAG has no rationales to learn from: the filter kept none")
    if len(passages) < settings.passages:
        raise DataError(
            f"RAG marginalises over rag.passages = {settings.passages} passages, but the knowledge base has only "
            f"{len(passages)}: lower rag.passages"
        )
    check_texts(asked, (), {q: question.prompt for q, question in questions.items()}, passages)
    set_seed(seed)
    retriever = load_retriever(settings)
    model, tokenizer = load_student(student.model, student.revision, seed)
    fitted = limit_targets([text for q in asked for text in targets[q]], tokenizer, student, model.config)
    both = nn.ModuleDict({"retriever": retriever, "student": model.to(pick_device().type)}).train()  # type: ignore[arg-type]
    texts = list(passages.values())
    batches = list(draw_batches(asked, settings.batch, settings.epochs, seed))
    index: Any = None

    def refresh() -> None:
        nonlocal index
        index = build_index(embed(retriever, "passage", passages).numpy(), "exact")
        retriever.train()

    def loss_of(step: int) -> Tensor:
        batch, rng = batches[step], random.Random(f"{seed} step {step}")
        written = [rng.choice(targets[q]) for q in batch]
        scores, found = score_found(retriever, index, [questions[q].prompt for q in batch], texts)  # (B, K)
        sources = [source_text(questions[q], [texts[z]]) for q, row in zip(batch, found, strict=True) for z in row]
        repeated = [text for text in written for _ in range(settings.passages)]
        log_likelihoods, tokens = target_log_likelihoods(model, tokenizer, sources, repeated, fitted)
        marginal = marginal_log_likelihood(scores, log_likelihoods.view_as(scores))
        return -settings.passages * marginal.sum() / tokens

    assert student.lr, "`of` leaves nothing open"
    rates: dict[nn.Module, float] = {retriever: settings.lr, model: student.lr}
    schedule = linear_schedule(settings.warmup, len(batches))
    losses, _ = fit(
        "rag", both, rates, schedule, len(batches), loss_of, seed=seed * 1_000_000, refresh=refresh,
        checkpoint=folder / "checkpoints" / "last.pt", checkpoint_every=settings.refresh,
    )  # fmt: skip
    retriever.save(folder)
    save_student(model, tokenizer, student, fitted, folder / "student")
    write_json(folder / "losses.json", losses)


def score_found(
    retriever: DualEncoder, index: Any, questions: Sequence[str], passages: Sequence[str]
) -> tuple[Tensor, list[list[int]]]:
    """The top passages of every question by the index, as rows of `passages`, and their scores by the weights of now.

    Scores are (B, K), with gradients to both encoders; K is `settings.passages`.
    """
    queries = retriever("question", questions)  # (B, dim)
    with one_thread():
        found = index.search(queries.detach().cpu().numpy(), retriever.settings.passages)[1].tolist()
    row_of = {z: i for i, z in enumerate(sorted({z for row in found for z in row}))}
    vectors = retriever("passage", [passages[z] for z in row_of])  # (P, dim)
    rows = torch.tensor([[row_of[z] for z in row] for row in found], device=vectors.device)
    return (queries[:, None] * vectors[rows]).sum(2) / retriever.settings.tau, found


def target_log_likelihoods(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sources: Sequence[str], targets: Sequence[str],
    settings: StudentSettings,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`log p_theta(y | x, z)`, summed over the tokens of each target: (N,), and the number of all those tokens: ()."""
    device = next(model.parameters()).device
    sources = fit_sources(sources, tokenizer, settings, model.config, say=False)
    examples = Examples(sources, targets, tokenizer, settings, model.config)
    tokenizer.padding_side = "right"  # as in `train_student`: positions are counted from the first column
    inputs = DataCollatorForSeq2Seq(tokenizer, model)([examples[i] for i in range(len(examples))]).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=takes_bf16(settings)):
        logits = model(**inputs).logits
    labels = inputs["labels"]  # (N, T)
    if not model.config.is_encoder_decoder:  # a causal LM's output at a token is about the next one
        logits, labels = logits[:, :-1], labels[:, 1:]
    losses = cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")  # (N, T)
    return -losses.sum(1), (labels != -100).sum()  # -100: padding, or a causal LM's source


def draw_batches(ids: Sequence[str], size: int, epochs: int, seed: int) -> Iterator[list[str]]:
    """The batches of all epochs, each of which takes every id once, in an order of its own."""
    for epoch in range(epochs):
        order = random.Random(f"{seed} {epoch}").sample(ids, len(ids))
        yield from (order[start : start + size] for start in range(0, len(order), size))
