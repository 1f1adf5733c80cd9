"""The reranker: late interaction over an encoder's tokens, taught to prefer what a rationale would have retrieved.

At test time the only query is the question. The reranker `f_phi(d, x)` orders BM25's candidates for it, and learns from
BM25 itself: for a training question the teacher's rationale is at hand, and its BM25 scores are the target (KARD,
Section 4, "reranker"). Scores are always fp32; the encoder runs in bf16 where the device has it.
"""

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from kardlib.artifacts.disk import write_json
from kardlib.artifacts.store import check_begun
from kardlib.errors import DataError
from kardlib.models.encoders import LateInteraction, check_texts, load_reranker, score_pairs
from kardlib.models.training import add_lora, fit, linear_schedule, part_of, read_rank
from kardlib.retrieval.runs import Candidates
from kardlib.settings import RerankerSettings


def kl_loss(target_scores: Tensor, model_scores: Tensor, mask: Tensor, tau_1: float, tau_2: float) -> Tensor:
    """Mean `KL(Q || P)` over rationales; all three tensors (B, C), mask False where there is no candidate.

    `Q(d | r_ij) = softmax(rho(d | r_ij) / tau_1)`, `P(d | x_i) = softmax(f_phi(d, x_i) / tau_2)`, both over `D~_ij`.
    """
    log_q = (target_scores / tau_1).masked_fill(~mask, -torch.inf).log_softmax(1)
    log_p = (model_scores / tau_2).masked_fill(~mask, -torch.inf).log_softmax(1)
    return (log_q.exp() * (log_q - log_p)).masked_fill(~mask, 0.0).sum(1).mean()


def best_candidate_loss(target_scores: Tensor, model_scores: Tensor, mask: Tensor, tau_2: float) -> Tensor:
    """Mean `-log P(d*)`, `d*` the rationale's best candidate: the released code's default. Shapes as in `kl_loss`."""
    best = target_scores.masked_fill(~mask, -torch.inf).argmax(1)
    return cross_entropy((model_scores / tau_2).masked_fill(~mask, -torch.inf), best)


def temperature_factor(progress: float) -> float:
    """`1 - 4 alpha`, `alpha = 2 / (1 + exp(-10 p)) - 1`, which the released code multiplies both temperatures with.

    `p` is the share of the steps that are done. It falls from 1 through 0 at p = 0.051 to almost -3: the released code
    begins with 1 and 100, and ends near -3 and -300.
    """
    return 5 - 8 / (1 + math.exp(-10 * progress))


def draw_steps(
    candidates: Sequence[Candidates], settings: RerankerSettings, seed: int
) -> Iterator[list[tuple[str, dict[str, float]]]]:
    """The batches of all steps: per rationale its question's id and the passages drawn from `D~_ij` with their scores.

    Of each kind `settings.sampled` are drawn, anew in every epoch. A question's rationales stay together and draw by
    one random key per passage (the smallest keys win, so each draw is uniform): what several of them have is drawn by
    all of them or none, as far as possible, and a step encodes the question and these passages once.
    """
    of_question = defaultdict(list)
    for c in candidates:
        of_question[c.question_id].append(c)
    for epoch in range(settings.epochs):
        rng = random.Random(f"{seed} {epoch}")
        drawn = []
        for question in rng.sample(sorted(of_question), len(of_question)):
            key: dict[str, float] = defaultdict(rng.random)
            for c in of_question[question]:
                chosen: dict[str, float] = {}
                for kind in (c.from_rationale, c.from_question):
                    chosen |= {p: kind[p] for p in heapq.nsmallest(settings.sampled, kind, key.__getitem__)}
                drawn.append((question, chosen))
        yield from (drawn[start : start + settings.batch] for start in range(0, len(drawn), settings.batch))


def train_reranker(
    settings: RerankerSettings, questions: Mapping[str, str], passages: Mapping[str, str],
    candidates: Sequence[Candidates], seed: int, folder: Path, checkpoint_every: int = 200,
) -> Path:  # fmt: skip
    """Train `settings.model` on the candidates (texts by id) and save it in `folder`, which is returned.

    AdamW without decay, linear warm-up and fall, gradient norm cut at 1. All that a step draws depends on the seed and
    its number alone, so a killed run goes on from `folder/checkpoints` and, on a CPU, ends with the same bits. Several
    processes (`launch.py`) each take a part of every step. Raises DataError where there is nothing to train on or a
    text is missing, and StoreError for checkpoints of other settings.
    """
    wanted = sorted({p for c in candidates for p in (*c.from_rationale, *c.from_question)})
    if not wanted:
        raise DataError("the reranker has no candidates to learn from: no rationale found a passage")
    asked = sorted({c.question_id for c in candidates})
    check_texts(asked, wanted, questions, passages)
    check_begun(folder, settings.model_dump() | {"seed": seed, "number of rationales": len(candidates)})
    batches = list(draw_steps(candidates, settings, seed))

    with torch.random.fork_rng():  # LoRA draws from torch's global generator; the caller's state is kept
        torch.manual_seed(seed)
        reranker = load_reranker(settings, seed)
        if settings.lora:
            reranker.encoder = add_lora(reranker.encoder)
        question_ids = reranker.tokenize({q: questions[q] for q in asked})
        passage_ids = reranker.tokenize({p: passages[p] for p in wanted})
        reranker.train(settings.dropout > 0)  # noise decides which token wins a maximum: a small encoder learns less
        for name, layer in reranker.named_modules():
            if "lora_dropout" in name:
                layer.train()
            elif isinstance(layer, nn.Dropout):
                layer.p = settings.dropout

        def loss_of(step: int) -> Tensor:
            part = part_of(batches[step], *read_rank())
            if not part:
                return torch.zeros((), device=reranker.linear.weight.device)
            progress = max(step - 1, 0) / len(batches)  # the released code sets temperatures for the next step
            loss = batch_loss(reranker, part, question_ids, passage_ids, settings, progress)
            return len(part) / len(batches[step]) * loss

        schedule = linear_schedule(settings.warmup, len(batches))
        losses, _ = fit(
            "reranker", reranker, {reranker: settings.lr}, schedule, len(batches), loss_of, seed=seed * 1_000_000 + 1,
            checkpoint=folder / "checkpoints" / "last.pt", checkpoint_every=checkpoint_every,
        )  # fmt: skip
    if settings.lora:
        reranker.encoder = reranker.encoder.merge_and_unload()
    if read_rank()[0] == 0:
        reranker.save(folder)
        write_json(folder / "losses.json", losses)
    return folder


def batch_loss(
    reranker: LateInteraction, batch: Sequence[tuple[str, Mapping[str, float]]], question_ids: Mapping[str, list[int]],
    passage_ids: Mapping[str, list[int]], settings: RerankerSettings, progress: float = 0.0,
) -> Tensor:  # fmt: skip
    """The loss of one step of `draw_steps`; `question_ids` and `passage_ids` hold the texts' tokens.

    `progress` is the share of the steps that are done: only the released code's temperatures depend on it.
    """
    pairs = list(dict.fromkeys((question, p) for question, drawn in batch for p in drawn))
    scores = score_pairs(reranker, question_ids, passage_ids, pairs, passage_gradient=settings.passage_gradient is True)
    row = {pair: i for i, pair in enumerate(pairs)}
    rows = [torch.tensor([row[question, p] for p in drawn]) for question, drawn in batch]
    targets = [torch.tensor(list(drawn.values())) for _, drawn in batch]
    mask = pad_sequence([torch.ones_like(r, dtype=torch.bool) for r in rows], batch_first=True).to(scores.device)
    target_scores = pad_sequence(targets, batch_first=True).to(scores.device)  # (B, C), like the mask
    model_scores = scores[pad_sequence(rows, batch_first=True).to(scores.device)]
    if settings.loss == "cross_entropy":
        return best_candidate_loss(target_scores, model_scores, mask, settings.tau_2)
    factor = temperature_factor(progress) if settings.temperatures == "released" else 1.0
    return kl_loss(target_scores, model_scores, mask, factor * settings.tau_1, factor * settings.tau_2)
