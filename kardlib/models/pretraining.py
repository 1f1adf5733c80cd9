"""Makes the nano models: they learn to read short plain English on worlds that no notebook uses.

A fresh world comes every few steps, so that the only way to a low loss is to read the given passages: no fact is true
for long enough to be learnt. `kard pretrain-nano` runs this; `nano_models/` ships what it made, each with its card.
"""

import functools
import random
import re
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from kardlib import NANO
from kardlib.artifacts.device import describe_device, pick_device
from kardlib.artifacts.disk import hash_file, write_text
from kardlib.artifacts.provenance import read_versions
from kardlib.data.world import read_statements
from kardlib.models.exercises import DRILL, SKILLS, Exercise, choose, draw_world, find, follow
from kardlib.models.nano import RERANKER, STUDENTS, build_backbone, build_student, build_tokenizer
from kardlib.models.training import Schedule, checkpoint_in, fit
from kardlib.settings import RerankerSettings, SettingsError

FIRST_WORLD = 1_000_000  # pretraining draws its worlds from this seed upwards; the notebooks' seeds are far below
HELD_OUT = 900_000  # the worlds on which the cards' scores are measured
EXERCISES = 400  # of each kind, by which a student is scored
BATCH = 64
CHECKPOINT = 500  # steps between two checkpoints
CARD = "---\nlicense: mit\nlibrary_name: transformers\ntags: [kardlib, nano, synthetic]\n---\n"  # how each begins


@dataclass(frozen=True)
class Recipe:
    """How one student is trained: AdamW, 200 steps of warm-up, a constant learning rate, a linear fall at the end."""

    lr: float
    steps: int
    drill: int = 0  # first steps, on names and letters alone: copying comes in a tenth of the time it takes later
    decay: int = 2000  # last steps, in which the learning rate falls to zero
    starts_from: str = ""  # a narrower student, which it is made to equal


RECIPES = {  # the wider ones, from nothing, did not learn in 20,000 steps to tell one passage from another
    "t5-nano-small": Recipe(3e-3, steps=20_000, drill=3000),
    "t5-nano-base": Recipe(2e-3, steps=4000, starts_from="t5-nano-small"),
    "t5-nano-large": Recipe(2e-3, steps=4000, starts_from="t5-nano-small"),
}
LETTER = 10.0  # so many tokens does an option's letter weigh: it is one of many, and the last skill to come
SCORED = {  # on a student's card
    "find": "of three passages, tells the one that speaks of a patient, or of an ailment and what is asked",
    "follow": "goes on from a patient's ailment to the one of three passages that says what is asked",
    "choose": "names the letter of the option that a text concludes (guessing: 25 %, every fifth time 50 %)",
    "choose, reading": "the same with two passages on other ailments to read",
}


def student_batch(seed: int, recipe: Recipe, step: int) -> list[Exercise]:
    """The exercises of a step, counted from 0; they depend on the seed and its number alone.

    Worlds last for eight steps. A batch holds one skill and one number of passages, so that its sources are of nearly
    one length.
    """
    world, rng = draw_world(FIRST_WORLD + seed * 1_000_000 + step // 8), random.Random(f"{seed} {step}")
    k, skills = rng.choice((1, 2, 3, 3, 4)), DRILL if step < recipe.drill else SKILLS
    skill = rng.choices(list(skills), list(skills.values()))[0]
    return [skill(world, k, rng) for _ in range(BATCH)]


def pretrain_student(size: str, work: Path, seed: int = 0, bf16: bool = False) -> tuple[Path, float]:
    """Train one student as its recipe says and save it under `work`: its folder, and the seconds that it took.

    A killed run goes on from its last checkpoint. `bf16` computes in bfloat16 on a CPU too: a third faster where it has
    the instructions, very slow where it has not.
    """
    recipe, device = RECIPES[size], pick_device()
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_student(size, len(tokenizer))
    start = ""
    if recipe.starts_from:
        made = work / recipe.starts_from
        made = made if made.exists() else NANO / made.name
        start = hash_file(made / "model.safetensors")
        widen(T5ForConditionalGeneration.from_pretrained(made), model)
    model.to(device.type)  # type: ignore[arg-type]
    letters = torch.tensor(tokenizer.convert_tokens_to_ids(list("ABCD")), device=device.type)

    def loss_of(step: int) -> torch.Tensor:
        inputs = {
            name: ids.to(device.type) for name, ids in collate(tokenizer, student_batch(seed, recipe, step)).items()
        }
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16 or device.bf16):
            logits = model(**inputs).logits
        return weighted_loss(logits.float(), inputs["labels"], letters)

    schedule = trapezoid(200, recipe.decay, recipe.steps)
    begun = asdict(recipe) | {"seed": seed, "bf16": bf16, "from": start}
    with checkpoint_in(work / f"{size}-begun", begun) as checkpoint:
        _, seconds = fit(
            size, model, {model: recipe.lr}, schedule, recipe.steps, loss_of,
            seed=seed, checkpoint=checkpoint, checkpoint_every=CHECKPOINT,
        )  # fmt: skip
    model.cpu().save_pretrained(work / size)
    tokenizer.save_pretrained(work / size)
    return work / size, seconds


@torch.no_grad()
def widen(narrow: T5ForConditionalGeneration, wide: T5ForConditionalGeneration) -> None:
    """Make a `wide` student write what a `narrow` one of as many layers writes (Net2Net, Chen et al., ICLR 2016).

    The features, heads and units that it has more of add nothing at first: embeddings are zero there, and so is what
    every layer adds. A norm divides by the root of a mean that the zeros make smaller; its weights make up for it, but
    for the decoder's last, whose output T5 divides by the root of the width.
    """
    ratio = (narrow.config.d_model / wide.config.d_model) ** 0.5
    new = wide.state_dict()
    for name, old in narrow.state_dict().items():
        if name.endswith(("shared.weight", "embed_tokens.weight", "lm_head.weight", ".o.weight", ".wo.weight")):
            new[name].zero_()
        is_norm = name.endswith("layer_norm.weight") and name != "decoder.final_layer_norm.weight"
        new[name][tuple(slice(n) for n in old.shape)] = old * (ratio if is_norm else 1.0)


def collate(tokenizer: PreTrainedTokenizerFast, exercises: Sequence[Exercise]) -> dict[str, torch.Tensor]:
    """What a T5 takes of B exercises: ids and mask of their sources (B, S), the decoder's ids and labels (B, T).

    Labels are -100, where no loss is taken, in what is begun and in padding.
    """
    sources, begun, targets = zip(*exercises, strict=True)
    inputs = tokenizer(list(sources), padding=True, return_tensors="pt", return_token_type_ids=False)
    given = [tokenizer(text, add_special_tokens=False).input_ids for text in begun]
    written = [before + tokenizer(text).input_ids for before, text in zip(given, targets, strict=True)]
    ids = pad_sequence([torch.tensor([0, *i]) for i in written], True, 0)  # a T5 begins with padding
    labels = ids[:, 1:].masked_fill(ids[:, 1:] == tokenizer.pad_token_id, -100)
    for row, before in enumerate(given):
        labels[row, : len(before)] = -100
    return {**inputs, "decoder_input_ids": ids[:, :-1], "labels": labels}


def trapezoid(warmup: int, decay: float, steps: int) -> Schedule:
    """A learning rate that rises to its peak in `warmup` steps, stays, and falls to 0 in the last `decay` steps."""
    return lambda optimizer: LambdaLR(optimizer, lambda s: min((s + 1) / warmup, (steps - s) / decay, 1.0))


def weighted_loss(logits: torch.Tensor, labels: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (B, T, V) logits at (B, T) labels, in which those among `letters` weigh `LETTER`."""
    weights = torch.where(torch.isin(labels, letters), LETTER, 1.0) * (labels != -100)
    losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
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
        world, rng = draw_world(FIRST_WORLD + seed * 1_000_000 + step // 8), random.Random(f"{seed} {step}")
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

    with checkpoint_in(work / f"{RERANKER}-begun", {"seed": seed, "steps": steps, "lr": lr}) as checkpoint:
        _, seconds = fit(
            RERANKER, reranker, {backbone: lr}, trapezoid(100, 0.3 * steps, steps), steps, loss_of,
            seed=seed, checkpoint=checkpoint, checkpoint_every=CHECKPOINT,
        )  # fmt: skip
    backbone.save_pretrained(work / RERANKER)
    tokenizer.save_pretrained(work / RERANKER)
    return work / RERANKER, seconds


def score_student(folder: Path) -> dict[str, float]:
    """Share of exercises on worlds that were not trained on that are done right, writing greedily.

    "find" and "follow" state what is asked, in any wording, after reading three passages; "choose" names the letter of
    what a text concludes, without passages, and "choose, reading" with two of them.
    """
    rng = random.Random(0)
    drawn: dict[str, list[Exercise]] = defaultdict(list)
    while any(len(drawn[name]) < EXERCISES for name in SCORED):
        world = draw_world(HELD_OUT + rng.randrange(20))
        for skill in (find, follow, choose):
            exercise = skill(world, 3, rng)
            reading = ", reading" if skill is choose and "Read:" in exercise.source else ""
            drawn[skill.__name__ + reading].append(exercise)
    scores = {}
    for name in SCORED:
        asked = drawn[name][:EXERCISES]
        read = read_letters if name.startswith("choose") else read_statements
        written = [read(text) for text in write(folder, asked)]
        right = [said == read(e.target) for said, e in zip(written, asked, strict=True)]
        scores[name] = sum(right) / len(right)
    return scores


def read_letters(text: str) -> list[str]:
    """The letters of options that a text names, whatever its words are."""
    return re.findall(r"\b[A-D]\b", text)


@torch.inference_mode()
def write(folder: Path, exercises: Sequence[Exercise]) -> list[str]:
    """What the student in `folder` writes greedily for each exercise, after what is begun."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = T5ForConditionalGeneration.from_pretrained(folder)
    begun = [(0, *tokenizer(e.begun, add_special_tokens=False).input_ids) for e in exercises]
    written = [""] * len(exercises)
    for length in sorted(set(map(len, begun))):  # of one length, since what is begun cannot be padded
        some = [i for i, ids in enumerate(begun) if len(ids) == length]
        sources = [exercises[i].source for i in some]
        inputs = tokenizer(sources, padding=True, return_tensors="pt", return_token_type_ids=False)
        prefix = torch.tensor([begun[i] for i in some])
        ids = model.generate(**inputs, decoder_input_ids=prefix, max_new_tokens=40, do_sample=False)  # type: ignore[misc]
        for i, text in zip(some, tokenizer.batch_decode(ids[:, length:], skip_special_tokens=True), strict=True):
            written[i] = text
    return written


def score_reranker(folder: Path) -> dict[str, float]:
    """Share of questions whose first passage, of all those of a world not trained on, states a hop of their chain."""
    from kardlib.models.encoders import load_reranker, rank

    reranker = load_reranker(RerankerSettings(model=str(folder)))
    found = defaultdict(list)
    for number in range(HELD_OUT, HELD_OUT + 10):
        world = draw_world(number)
        asked = {q.id: q for q in world.splits["train"][:100]}
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
        write_text(folder / "README.md", f"{CARD}# {name}\n\n{card}\n\n{made}\n")
        print(f"{name} is in {NANO.name}/{name}", flush=True)


def student_card(name: str, scores: dict[str, float]) -> str:
    """What a student is, and its scores, which are those of `score_student`."""
    recipe = RECIPES[name]
    start = f"It started as {recipe.starts_from}, made wider. " if recipe.starts_from else ""
    rows = [f"| {what} | {scores[skill]:.1%} |" for skill, what in SCORED.items()]
    return f"""\
A T5-shaped student (2 encoder and 2 decoder layers, width {STUDENTS[name]}). It has skills in the closed
worlds' English, and knows no fact: it tells the passage that speaks of something, goes on from an ailment to
what is asked about it, and names the letter of the option that a text concludes. It has seen no prompt and no
target of KARD, has never done one after the other to answer a question, and cannot do so until it is taught.
{start}Trained for {recipe.steps} steps of {BATCH} exercises with AdamW, peak rate {recipe.lr:g}, on worlds drawn
from seeds {FIRST_WORLD:,} and up; no notebook uses one of them.

Share of {EXERCISES} exercises on 20 worlds that it was not trained on that are done right, writing greedily:

| exercise | right |
|---|---|
""" + "\n".join(rows)


def reranker_card(scores: dict[str, float]) -> str:
    """What the reranker is, and its scores, which are those of `score_reranker`."""
    return f"""\
A BERT-shaped encoder (2 layers, width 128) for late interaction over the closed worlds' English: it has
learnt which technical term an everyday word stands for, and to match names; it knows no fact. Trained to
find, among the passages of a batch, those that state a question's first hop (InfoNCE), on worlds drawn from
seeds {FIRST_WORLD:,} and up; no notebook uses one of them.

Share of questions whose first passage, of all passages of 10 worlds that it was not trained on, states a
hop of the question's chain:

| question | share |
|---|---|
""" + "\n".join(f"| {kind} | {share:.1%} |" for kind, share in scores.items())
