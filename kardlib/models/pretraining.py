"""Makes the nano models: they learn to read short plain English on worlds that no notebook uses.

A fresh world comes every few steps, so that the only way to a low loss is to read the given passages: no fact is true
for long enough to be learnt. `kard pretrain-nano` runs this; `nano_models/` ships what it made, each with its card.
"""

import functools
import random
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from kardlib import NANO
from kardlib.artifacts.device import describe_device, pick_device
from kardlib.artifacts.store import atomic_write, read_versions
from kardlib.data.answers import parse_answer
from kardlib.data.files import Question
from kardlib.data.prompts import source_text, target_text
from kardlib.data.world import RELATIONS, World, build_world, write_rationale
from kardlib.models.nano import RERANKER, STUDENTS, build_backbone, build_student, build_tokenizer
from kardlib.models.training import Schedule, fit
from kardlib.settings import RerankerSettings, SettingsError, WorldSettings

WORLDS = 1_000_000  # pretraining draws its worlds from these seeds upwards; the notebooks' seeds are far below
HELD_OUT = 900_000  # the worlds on which the cards' scores are measured
BATCH = 64
CHECKPOINT = 500  # steps between two checkpoints
CARD = "---\nlicense: mit\nlibrary_name: transformers\ntags: [kardlib, nano, synthetic]\n---\n"  # how each begins


@dataclass(frozen=True)
class Recipe:
    """How one student is trained: AdamW, 200 steps of warm-up, a constant learning rate, a linear fall at the end."""

    steps: int
    easy: int = 0  # first steps, with one or two passages: copying is learnt there, at half the cost
    letter_from: int = 0  # the step from which the option's letter weighs ten tokens
    decay: int = 1500  # last steps, in which the learning rate falls to zero
    lr: float = 2e-3
    starts_from: str = ""  # another student of the same width; what it lacks in layers adds nothing at first


RECIPES = {
    "t5-nano-small": Recipe(steps=8500, easy=1500, letter_from=3000, decay=1500),
    "t5-nano-base": Recipe(steps=8500, easy=1500, letter_from=3000, decay=1500),
    "t5-nano-large": Recipe(steps=800, decay=600, lr=1e-3, starts_from="t5-nano-base"),
}


@functools.lru_cache(maxsize=1)  # steps that follow one another share it
def draw_world(seed: int) -> World:
    """A small world with the notebooks' language; its share of everyday words is drawn too."""
    everyday = random.Random(seed).uniform(0.3, 1.0)
    sizes = {"ailments": 40, "often": 1, "never": 0.0, "cases": 60, "notes": 30, "train": 512, "dev": 2, "test": 2}
    return build_world(WorldSettings(seed=seed, everyday=everyday, **sizes))


def draw_passages(world: World, question: Question, k: int, rng: random.Random, complete: float = 0.85) -> list[str]:
    """`k` passages in any order: the chain's with probability `complete`, else one short of it; and look-alikes."""
    chain = world.chains[question.id]
    hops = ["sign"] * bool(chain.signs) + [chain.relation] * bool(chain.relation)
    if rng.random() > complete:
        hops = rng.sample(hops, len(hops) - 1)
    chosen = [rng.choice(world.stating[chain.ailment, hop]) for hop in rng.sample(hops, len(hops))][:k]
    near = [a for a in world.signs if set(world.signs[a]) & set(chain.signs)] or list(world.signs)
    relation = chain.relation or rng.choice(list(RELATIONS))
    rivals = [a for a in world.signs if world.value(a, relation) in question.prompt] or list(world.signs)
    while len(chosen) < k:
        look_alikes = (
            world.stating[rng.choice(near), "sign"],
            world.stating[rng.choice(near), relation],
            world.stating[rng.choice(rivals), relation],
            [rng.choice(world.passages).id],
        )
        passage = rng.choice(rng.choice(look_alikes))
        if passage not in chosen:
            chosen.append(passage)
    rng.shuffle(chosen)
    return [world.texts[i] for i in chosen]


def student_batch(seed: int, recipe: Recipe, step: int) -> tuple[list[str], list[str]]:
    """Source and target texts of a step, counted from 0; they depend on the seed and its number alone.

    Worlds last for eight steps. A batch holds one number of passages, so that its sources are of nearly one length.
    """
    world, rng = draw_world(WORLDS + seed * 1_000_000 + step // 8), random.Random(f"{seed} {step}")
    k = rng.choice((1, 2) if step < recipe.easy else (0, 1, 2, 2, 3, 3, 3, 3, 3, 4, 5))
    questions = rng.sample(world.splits["train"], BATCH)
    sources = [source_text(q, draw_passages(world, q, k, rng)) for q in questions]
    return sources, [target_text(write_rationale(world.chains[q.id], rng), q.answer) for q in questions]


def pretrain_student(size: str, work: Path, seed: int = 0, bf16: bool = False) -> tuple[Path, float]:
    """Train one student as its recipe says and save it under `work`: its folder, and the seconds that it took.

    A killed run goes on from its last checkpoint. `bf16` computes in bfloat16 on a CPU too: a third faster where it has
    the instructions, very slow where it has not.
    """
    recipe, device = RECIPES[size], pick_device()
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_student(size, len(tokenizer))
    if recipe.starts_from:
        made = work / recipe.starts_from
        take_layers(T5ForConditionalGeneration.from_pretrained(made if made.exists() else NANO / made.name), model)
    model.to(device.type)  # type: ignore[arg-type]

    def loss_of(step: int) -> torch.Tensor:
        sources, targets = student_batch(seed, recipe, step)
        inputs = tokenizer(sources, padding=True, return_tensors="pt", return_token_type_ids=False).to(device.type)
        labels = tokenizer(targets, padding=True, return_tensors="pt").input_ids.to(device.type)
        labels[labels == tokenizer.pad_token_id] = -100
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16 or device.bf16):
            logits = model(**inputs, labels=labels).logits
        return weighted_loss(logits.float(), labels, 10.0 if step >= recipe.letter_from else 1.0)

    schedule = trapezoid(200, recipe.decay, recipe.steps)
    _, seconds = fit(
        size, model, {model: recipe.lr}, schedule, recipe.steps, loss_of,
        seed=seed, checkpoint=work / f"{size}.pt", checkpoint_every=CHECKPOINT,
    )  # fmt: skip
    model.cpu().save_pretrained(work / size)
    tokenizer.save_pretrained(work / size)
    return work / size, seconds


def trapezoid(warmup: int, decay: float, steps: int) -> Schedule:
    """A learning rate that rises to its peak in `warmup` steps, stays, and falls to 0 in the last `decay` steps."""
    return lambda optimizer: LambdaLR(optimizer, lambda s: min((s + 1) / warmup, (steps - s) / decay, 1.0))


def take_layers(source: T5ForConditionalGeneration, target: T5ForConditionalGeneration) -> None:
    """Give `target` the weights of `source`; its additional layers, with projections of zero, add nothing at first."""
    target.load_state_dict(source.state_dict(), strict=False)
    for new, old in ((target.encoder, source.encoder), (target.decoder, source.decoder)):
        for block in new.block[len(old.block) :]:
            for name, weight in block.named_parameters():
                if name.endswith((".o.weight", ".wo.weight")):
                    torch.nn.init.zeros_(weight)


def weighted_loss(logits: torch.Tensor, labels: torch.Tensor, letter_weight: float) -> torch.Tensor:
    """Cross-entropy of (B, T, V) logits at (B, T) labels in which the option's letter weighs as much as so many tokens.

    The letter is one token of thirty, and the last skill to come: what is written has to be found among the options.
    """
    weights = (labels != -100).float()
    letter = weights.sum(1).long() - 3  # a target ends with the letter, a full stop, and the end of the sequence
    weights[torch.arange(len(labels), device=labels.device), letter] = letter_weight
    losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=-100)
    return (losses * weights).sum() / weights.sum()


def pretrain_reranker(work: Path, seed: int = 0, steps: int = 600, lr: float = 1e-3) -> tuple[Path, float]:
    """Train the backbone to find, among a batch's passages, one that states the question's first hop.

    Late interaction with a softmax over the passages of the batch (InfoNCE), temperature 0.02 on the mean over question
    tokens: enough to learn which technical term an everyday word stands for, and that names are matched by name. A
    killed run goes on from its last checkpoint.
    """
    from kardlib.models.encoders import LateInteraction

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    backbone = build_backbone(len(tokenizer))
    linear = torch.nn.Linear(128, 128, bias=False)
    torch.nn.init.eye_(linear.weight)
    linear.requires_grad_(False)
    reranker = LateInteraction(backbone, linear, tokenizer, 512)

    def loss_of(step: int) -> torch.Tensor:
        world, rng = draw_world(WORLDS + seed * 1_000_000 + step // 8), random.Random(f"{seed} {step}")
        questions = rng.sample(world.splits["train"], BATCH)
        chains = [world.chains[q.id] for q in questions]
        ids = [rng.choice(world.stating[c.ailment, "sign" if c.signs else c.relation]) for c in chains]
        ids = list(dict.fromkeys([*ids, *(p.id for p in rng.sample(world.passages, BATCH // 2))]))
        query, query_mask = reranker(list(reranker.tokenize({q.id: q.prompt for q in questions}).values()))
        passage, passage_mask = reranker(list(reranker.tokenize({i: world.texts[i] for i in ids}).values()))
        similarity = torch.einsum("qtd,psd->qpts", query, passage).masked_fill(~passage_mask[None, :, None], -torch.inf)
        scores = similarity.max(3).values.masked_fill(~query_mask[:, None], 0.0).sum(2)  # (questions, passages)
        hit = torch.tensor([[world.states(i, c) for i in ids] for c in chains])
        log_p = (scores / query_mask.sum(1, keepdim=True) / 0.02).log_softmax(1)
        return -(log_p.masked_fill(~hit, -torch.inf).logsumexp(1)).mean()

    _, seconds = fit(
        RERANKER, reranker, {backbone: lr}, trapezoid(100, 0.3 * steps, steps), steps, loss_of,
        seed=seed, checkpoint=work / f"{RERANKER}.pt", checkpoint_every=CHECKPOINT,
    )  # fmt: skip
    backbone.save_pretrained(work / RERANKER)
    tokenizer.save_pretrained(work / RERANKER)
    return work / RERANKER, seconds


@torch.inference_mode()
def score_student(folder: Path, questions: int = 400) -> dict[str, float]:
    """Share of right answers on worlds that were not trained on, by kind of question and by what is read.

    "right": the chain's passages alone; "+1": and one look-alike; "none": no passages, where a model that knows no
    fact can only guess.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = T5ForConditionalGeneration.from_pretrained(folder)
    rng, asked = random.Random(0), defaultdict(list)
    for number in range(HELD_OUT, HELD_OUT + 20):
        world = draw_world(number)
        for question in world.splits["train"]:
            chain = world.chains[question.id]
            kind = "two-hop" if chain.signs and chain.relation else "one-hop"
            asked[kind + " yes/no" * (len(question.options) == 2)].append((world, question))
    scores = {}
    for kind, pairs in asked.items():
        drawn, hops = rng.sample(pairs, questions), 2 if kind.startswith("two-hop") else 1
        for read, k in (("right", hops), ("+1", hops + 1), ("none", 0)):
            sources = [source_text(q, draw_passages(w, q, k, rng, complete=1.0)) for w, q in drawn]
            texts: list[str] = []
            for start in range(0, questions, 100):
                batch = sources[start : start + 100]
                inputs = tokenizer(batch, padding=True, return_tensors="pt", return_token_type_ids=False)
                written = model.generate(**inputs, max_new_tokens=64, do_sample=False)  # type: ignore[misc]
                texts += tokenizer.batch_decode(written, skip_special_tokens=True)
            right = [parse_answer(text, q.options) == q.answer for text, (_, q) in zip(texts, drawn, strict=True)]
            scores[f"{kind}, {read}"] = sum(right) / questions
    return scores


def score_reranker(folder: Path, questions: int = 100) -> dict[str, float]:
    """Share of questions whose first passage, of all those of a world not trained on, states a hop of their chain."""
    from kardlib.models.encoders import load_reranker, rank

    reranker = load_reranker(RerankerSettings(model=str(folder)))
    found = defaultdict(list)
    for number in range(HELD_OUT, HELD_OUT + 10):
        world = draw_world(number)
        asked = {q.id: q for q in world.splits["train"][:questions]}
        run = {i: [(p, 0.0) for p in world.texts] for i in asked}
        for i, ranked in rank(reranker, {i: q.prompt for i, q in asked.items()}, run, world.texts).items():
            chain = world.chains[i]
            found["names the signs" if chain.signs else "names the ailment"].append(world.states(ranked[0][0], chain))
    return {kind: sum(hits) / len(hits) for kind, hits in found.items()}


def pretrain_all(
    work: Path, names: Sequence[str] | None = None, seed: int = 0, bf16: bool = False, cards_only: bool = False
) -> None:
    """Train the named models (default: all), write their cards, and put them where the package looks for them.

    `bf16` is that of `pretrain_student`. `cards_only` scores the models that are there and writes their cards anew.
    Raises SettingsError for an unknown name.
    """
    known = [*RECIPES, RERANKER]
    if unknown := [name for name in names or () if name not in known]:
        raise SettingsError(f"there is no nano model {unknown[0]!r}: name one of {', '.join(known)}")
    for name in names or known:
        folder = NANO / name
        if cards_only:
            made = (folder / "README.md").read_text("utf-8").splitlines()[-1]
        else:
            student = functools.partial(pretrain_student, name, bf16=bf16)
            trained, seconds = (pretrain_reranker if name == RERANKER else student)(work, seed=seed)
            shutil.copytree(trained, folder, dirs_exist_ok=True)
            options = f"{name} --bf16" if bf16 and name != RERANKER else name
            device, versions = describe_device(), read_versions()
            made = (
                f"Made by `kard pretrain-nano --models {options}` with seed {seed} in {seconds / 60:.0f} minutes on "
                f"{device}, threads: {torch.get_num_threads()}; torch {versions['torch']}, transformers "
                f"{versions['transformers']}."
            )
        card = reranker_card(score_reranker(folder)) if name == RERANKER else student_card(name, score_student(folder))
        with atomic_write(folder / "README.md") as temporary:
            temporary.write_text(f"{CARD}# {name}\n\n{card}\n\n{made}\n", "utf-8")
        print(f"{name} is in {NANO.name}/{name}", flush=True)


def student_card(name: str, scores: dict[str, float]) -> str:
    """What a student is, and its scores, which are those of `score_student`."""
    recipe, (width, layers) = RECIPES[name], STUDENTS[name]
    start = f"It started from {recipe.starts_from}. " if recipe.starts_from else ""
    rows = [
        f"| {kind} | {scores[f'{kind}, right']:.1%} | {scores[f'{kind}, +1']:.1%} | {scores[f'{kind}, none']:.1%} |"
        for kind in ("two-hop", "two-hop yes/no", "one-hop", "one-hop yes/no")
    ]
    return f"""\
A T5-shaped student ({layers} encoder and {layers} decoder layers, width {width}). It reads the closed
worlds' English: it finds a fact in the passages that it is given and names the option; it knows no fact.
{start}Trained for {recipe.steps} steps of {BATCH} questions with AdamW, peak rate {recipe.lr:g}, on
worlds drawn from seeds {WORLDS:,} and up; no notebook uses one of them.

Share of right answers on 20 worlds that it was not trained on, greedy, 400 questions a cell: the
right passages alone, with one look-alike, and without passages (where guessing gives 25 %, 50 % for yes/no).

| question | right passages | one look-alike more | no passages |
|---|---|---|---|
""" + "\n".join(rows)


def reranker_card(scores: dict[str, float]) -> str:
    """What the reranker is, and its scores, which are those of `score_reranker`."""
    return f"""\
A BERT-shaped encoder (2 layers, width 128) for late interaction over the closed worlds' English: it has
learnt which technical term an everyday word stands for, and to match names; it knows no fact. Trained to
find, among the passages of a batch, those that state a question's first hop (InfoNCE), on worlds drawn from
seeds {WORLDS:,} and up; no notebook uses one of them.

Share of questions whose first passage, of all passages of 10 worlds that it was not trained on, states a
hop of the question's chain:

| question | share |
|---|---|
""" + "\n".join(f"| {kind} | {share:.1%} |" for kind, share in scores.items())
