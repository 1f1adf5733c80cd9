"""The closed world: a small invented branch of medicine whose every fact is known.

An ailment has three signs and one value for each of five relations (its remedy, its carrier, ...). Passages state
these facts in several wordings. A two-hop question describes a patient by everyday words for the signs and asks for a
value; it never names the ailment, the bridge between the two. The language (signs, jobs, wordings) is the same in all
worlds, and the facts are drawn from the world's seed: a model trained on other worlds can read this one, but knows
nothing about it.

Nobody can answer from the questions alone. Every value belongs to one ailment, so that all are right equally often, and
wrong options are those of ailments that training asks about as often: in one of three strata, *often*, *seldom*, and
*never*. What is said of an ailment of the last stands in passages, but in no training question and no rationale.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations, product
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kardlib.data.files import Dataset, Passage, Question
from kardlib.errors import DataError

if TYPE_CHECKING:
    from kardlib.settings import WorldSettings

T = TypeVar("T")

STRATA = ("often", "seldom", "never")  # how often training asks about an ailment

# Everyday word (in questions and case notes) -> technical word (in passages and rationales) of every sign.
SIGNS = {
    "sleepless nights": "insomnia", "a hot forehead": "fever", "red spots": "rash", "a dry mouth": "thirst",
    "shaking hands": "tremor", "yellow eyes": "jaundice", "a racing heart": "palpitations", "short breath": "asthma",
    "a stiff neck": "rigidity", "an upset belly": "nausea", "a pounding head": "migraine", "swollen feet": "edema",
    "pale cheeks": "anemia", "sore knees": "arthritis", "ringing ears": "tinnitus", "dim sight": "cataract",
    "a runny nose": "catarrh", "cold fingers": "numbness", "weak legs": "lameness", "wet palms": "sweating",
    "a lost voice": "hoarseness", "heavy eyelids": "fatigue", "falling hair": "alopecia", "sore gums": "scurvy",
    "itchy arms": "eczema", "a spinning room": "vertigo", "muddled words": "aphasia", "forgotten names": "amnesia",
    "an empty plate": "anorexia", "loose clothes": "wasting", "cramped toes": "spasms", "loud snores": "apnea",
    "brittle nails": "psoriasis", "low spirits": "melancholy", "a bent back": "scoliasis", "bad breath": "halitosis",
    "blue lips": "cyanosis", "dark bruises": "purpura", "a white tongue": "thrush", "crusty lashes": "blepharitis",
}  # fmt: skip
EVERYDAY = {technical: everyday for everyday, technical in SIGNS.items()}

JOBS = (
    "miller baker weaver farmer tailor mason potter sailor hunter shepherd tanner brewer carpenter cooper miner cook "
    "gardener painter singer teacher guard driver clerk printer glazier roofer smith fisher dyer butcher"
).split()

# Of every relation: how a question asks for its value {v}, how it asks yes or no, and how passages and rationales state
# the value of the ailment {a}.
RELATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "remedy": (
        ("Which remedy will help?", "Which remedy should be given?"),
        ("Will {v} help?", "Should {v} be given?"),
        ("{a} is cured with {v}.", "{v} is the remedy for {a}.", "Healers treat {a} with {v}."),
    ),
    "carrier": (
        ("Which animal spread this?", "Which animal carried it?"),
        ("Did the {v} spread this?", "Did the {v} carry it?"),
        ("{a} is spread by the {v}.", "The {v} carries {a}.", "The animal behind {a} is the {v}."),
    ),
    "test": (
        ("Which test can confirm this?", "Which test is needed?"),
        ("Can the {v} test confirm this?", "Is the {v} test needed?"),
        ("{a} is confirmed by the {v} test.", "The {v} test reveals {a}.", "Doctors use the {v} test to find {a}."),
    ),
    "food": (
        ("Which food must be avoided?", "Which food makes it worse?"),
        ("Must {v} be avoided?", "Does {v} make it worse?"),
        ("{a} gets worse with {v}.", "{v} feeds {a}.", "People with {a} must not eat {v}."),
    ),
    "origin": (
        ("Where did this illness first appear?", "Which town did this come from?"),
        ("Did this illness first appear in {v}?", "Did this come from {v}?"),
        ("{a} first appeared in {v}.", "{v} is the home of {a}.", "The town where {a} began is {v}."),
    ),
}

# How passages and rationales state the signs {s}, {t} and {u} of an ailment.
DIAGNOSES = (
    "{s}, {t} and {u} are signs of {a}.",
    "{a} shows itself by {s}, {t} and {u}.",
    "Patients with {s}, {t} and {u} have {a}.",
)
OTHER_WORDINGS = (  # the nano tokenizer's other words, and those of pretraining's tasks
    "Which illness is it? Is it yes no had A has",
    "Copy Tell Match Choose Choice Read",
)
OPENERS = ("", "Step by step. ", "In short. ", "Consider this. ")  # of rationales

# Distractors among the passages, and the openings of two-hop questions.
CASE = "A {job} from {town} with {x} and {y} had {a}."
NOTES = (
    "Every {job} in {town} eats {food}.",
    "{town} is known for its {job} and its {food}.",
    "In {town} the {job} keeps a {carrier}.",
)
VIGNETTES = (
    "A {job} from {town} has {x}, {y} and {z}. The {job} often eats {food}.",
    "A {job} who lives in {town} complains of {x}, {y} and {z}.",
    "After a visit to {town}, a {job} suffers from {x}, {y} and {z}.",
)

# A name of an ailment or a value has two syllables, each one token of the nano models' vocabulary.
FIRST_SYLLABLES = [c + v + e for (c, v), e in zip(product("BDFGKLMNPRSTVZ", "aeiou"), "lnrsmktz" * 9, strict=False)]
SECOND_SYLLABLES = [c + v + e for (c, v), e in zip(product("bdfgklmnprstvz", "aeiou"), "xnlrdsthm" * 8, strict=False)]


class Fact(NamedTuple):
    """A statement that is true or false in a world; `relation` is "sign" or one of `RELATIONS`."""

    subject: str
    relation: str
    object: str


@dataclass(frozen=True)
class Chain:
    """The hops that answer a question: from signs to the ailment, from the ailment to a relation's value.

    A one-hop question lacks the signs or the relation.
    """

    ailment: str
    signs: tuple[str, ...]  # technical words; empty if the question names the ailment
    relation: str  # empty if the question asks for the ailment
    value: str

    @property
    def two_hops(self) -> bool:
        """Whether the ailment must be found before what is asked of it."""
        return bool(self.signs and self.relation)

    @property
    def facts(self) -> frozenset[Fact]:
        """The facts of all hops."""
        signs = {Fact(self.ailment, "sign", s) for s in self.signs}
        return frozenset(signs | ({Fact(self.ailment, self.relation, self.value)} if self.relation else set()))


@dataclass
class World:
    """Facts, passages and questions of one world, with the chain of each question and the facts of each passage."""

    settings: WorldSettings
    facts: frozenset[Fact]
    values: dict[str, list[str]]  # relation -> its possible values; "ailment" -> all ailments
    signs: dict[str, tuple[str, ...]]  # ailment -> technical words of its signs
    strata: dict[str, list[str]]  # one of `STRATA` -> its ailments
    heirs: dict[tuple[str, str], str]  # (ailment, relation) -> who has its value of the first edition, in a later one
    passages: list[Passage] = field(default_factory=list)
    stated: dict[str, frozenset[Fact]] = field(default_factory=dict)  # passage id -> the facts that it states
    # (ailment, relation) -> ids of the passages that state it
    stating: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    splits: dict[str, list[Question]] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)  # question id -> the hops that answer it

    @cached_property
    def texts(self) -> dict[str, str]:
        """Passage id -> text."""
        return {p.id: p.text for p in self.passages}

    @cached_property
    def _value(self) -> dict[tuple[str, str], str]:
        return {(f.subject, f.relation): f.object for f in self.facts if f.relation != "sign"}

    def value(self, ailment: str, relation: str) -> str:
        """The ailment's value for one of `RELATIONS`."""
        return self._value[ailment, relation]

    def gold(self, question: Question) -> frozenset[str]:
        """Ids of the passages that state a hop of the question's chain."""
        chain = self.chains[question.id]
        hops = ["sign"] * bool(chain.signs) + [chain.relation] * bool(chain.relation)
        return frozenset(i for hop in hops for i in self.stating[chain.ailment, hop])

    def states(self, passage: str, chain: Chain) -> bool:
        """Whether a passage (its id) states a hop of the chain."""
        stated = self.stated[passage]
        return bool(stated) and stated <= chain.facts

    def clusters(self, split: str) -> NDArray[np.int64]:
        """Of each of a split's questions its stratum and the ailment it asks about, as numbers, (2, questions).

        Questions about one ailment share its facts, so that intervals speak of ailments: `statistics.by_cluster`.
        """
        number, asked = {a: i for i, a in enumerate(self.values["ailment"])}, self.splits[split]
        return np.array([[STRATA.index(q.stratum), number[self.chains[q.id].ailment]] for q in asked]).T

    def dataset(self) -> Dataset:
        """The world as a dataset, like one that is read from files."""
        gold = {q.id: self.gold(q) for questions in self.splits.values() for q in questions}
        return Dataset("world", self.splits, self.passages, gold)


def build_world(settings: WorldSettings) -> World:
    """Draw facts, then write passages that state them, then ask questions; the same settings give the same world.

    Training asks about an ailment of the first stratum `settings.often` times as often as about one of the second, and
    never about one of the third; the other splits ask about every stratum equally often.
    """
    rng = random.Random(settings.seed)
    world = draw_facts(settings, rng)
    state_facts(world, rng)
    often, seldom, _ = (len(world.strata[stratum]) for stratum in STRATA)
    first = round(settings.train * settings.often * often / (settings.often * often + seldom))
    ask(world, "train", {"often": first, "seldom": settings.train - first}, rng)
    asked = [stratum for stratum in STRATA if world.strata[stratum]]
    for split, size in (("dev", settings.dev), ("test", settings.test)):
        ask(world, split, {stratum: (size + i) // len(asked) for i, stratum in enumerate(asked)}, rng)
    return world


def draw_facts(settings: WorldSettings, rng: random.Random) -> World:
    """A world with facts alone. Every second ailment shares two of its three signs with the one before: a near miss.

    The two are of one stratum. A relation gives each ailment a value of its own; in a later edition than the first (0),
    which has the same names, signs and questions, it is the value that another ailment of the stratum had.
    Raises DataError for a stratum of one to three.
    """
    size = settings.ailments
    names = rng.sample([a + b for a in FIRST_SYLLABLES for b in SECOND_SYLLABLES], size * (1 + len(RELATIONS)))
    values = {kind: names[i * size : (i + 1) * size] for i, kind in enumerate(("ailment", *RELATIONS))}
    signs: dict[str, tuple[str, ...]] = {}
    taken: set[frozenset[str]] = set()
    technical = list(SIGNS.values())
    previous: tuple[str, ...] = ()
    for i, ailment in enumerate(values["ailment"]):
        while True:
            drawn = (*rng.sample(previous, 2), rng.choice(technical)) if i % 2 else tuple(rng.sample(technical, 3))
            if len(set(drawn)) == 3 and frozenset(drawn) not in taken:
                break
        taken.add(frozenset(drawn))
        signs[ailment] = previous = drawn
    never = 2 * round(settings.never * size / 2)
    often = 2 * round((size - never) / 4)
    parts = (slice(often), slice(often, size - never), slice(size - never, size))
    facts = {Fact(a, "sign", s) for a in signs for s in signs[a]}
    heirs: dict[tuple[str, str], str] = {}
    editor = random.Random(f"{settings.seed} {settings.edition}")
    for relation, part in product(RELATIONS, parts):
        ailments, owned = values["ailment"][part], values[relation][part]
        if settings.edition and len(owned) > 1:
            shift = editor.randrange(1, len(owned))
            owned = owned[shift:] + owned[:shift]
            heirs |= {(a, relation): ailments[i - shift] for i, a in enumerate(ailments)}
        facts |= {Fact(a, relation, value) for a, value in zip(ailments, owned, strict=True)}
    strata = {stratum: values["ailment"][part] for stratum, part in zip(STRATA, parts, strict=True)}
    for stratum, ailments in strata.items():
        if 0 < len(ailments) < 4:
            raise DataError(
                f"world.ailments = {size} and world.never = {settings.never:g} leave {len(ailments)} that training "
                f"shows {stratum}, too few for four options: take more ailments, or another share"
            )
    return World(settings, frozenset(facts), values, signs, strata, heirs)


def state_facts(world: World, rng: random.Random) -> None:
    """Add the passages: `settings.wordings` for every fact, and distractors, which are notes on cases and on towns."""
    drafts: list[tuple[str, str, str]] = []  # text, and the ailment and relation that it states, if any
    for ailment, signs in world.signs.items():
        for template in rng.sample(DIAGNOSES, world.settings.wordings):
            drafts.append((fill_diagnosis(template, ailment, rng.sample(signs, 3)), ailment, "sign"))
        for relation, (_, _, statements) in RELATIONS.items():
            value = world.value(ailment, relation)
            for template in rng.sample(statements, world.settings.wordings):
                drafts.append((template.format(a=ailment, v=value), ailment, relation))
    for _ in range(world.settings.cases):
        ailment = rng.choice(world.values["ailment"])
        x, y = (EVERYDAY[s] for s in rng.sample(world.signs[ailment], 2))
        drafts.append((CASE.format(a=ailment, x=x, y=y, **draw_details(world, rng)), "", ""))
    for _ in range(world.settings.notes):
        drafts.append((rng.choice(NOTES).format(**draw_details(world, rng)), "", ""))
    rng.shuffle(drafts)  # ids break ties between scores, so they must say nothing about a passage
    for i, (text, ailment, relation) in enumerate(dict.fromkeys(drafts)):
        world.passages.append(Passage(id=f"p{i:05d}", text=text))
        objects = world.signs[ailment] if relation == "sign" else [world.value(ailment, relation)] if relation else []
        world.stated[f"p{i:05d}"] = frozenset(Fact(ailment, relation, o) for o in objects)
        if relation:
            world.stating[ailment, relation].append(f"p{i:05d}")


def draw_details(world: World, rng: random.Random) -> dict[str, str]:
    """A job, a town, a food and a carrier for the templates of distractors and questions."""
    names = {"town": "origin", "food": "food", "carrier": "carrier"}
    return {"job": rng.choice(JOBS)} | {name: rng.choice(world.values[relation]) for name, relation in names.items()}


def fill_diagnosis(template: str, ailment: str, signs: Sequence[str]) -> str:
    """One of `DIAGNOSES` with an ailment and its three signs."""
    text = template.format(a=ailment, s=signs[0], t=signs[1], u=signs[2])
    return text[0].upper() + text[1:]


def ask(world: World, split: str, sizes: dict[str, int], rng: random.Random) -> None:
    """Add a split with so many questions of each stratum, in any order, and note their chains in the world.

    Each ailment of a stratum and each position of the right option comes as often as the others, up to one question.
    """
    ailments = {stratum: deal(world.strata[stratum], rng) for stratum in sizes}
    positions = deal(range(4), rng)
    strata = [stratum for stratum, size in sizes.items() for _ in range(size)]
    rng.shuffle(strata)
    world.splits[split] = [
        ask_question(world, f"{split}-{i:05d}", stratum, next(ailments[stratum]), next(positions), rng)
        for i, stratum in enumerate(strata)
    ]


def deal(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    """All items in a random order, then all in another one, without end."""
    while True:
        yield from rng.sample(items, len(items))


def ask_question(world: World, id: str, stratum: str, ailment: str, position: int, rng: random.Random) -> Question:
    """Draw what is asked about an ailment, and in which words; the right one of four options stands at `position`."""
    relation = rng.choice(list(RELATIONS))
    two_hop, yes_no = rng.random() < world.settings.two_hop, rng.random() < world.settings.yes_no
    ask_ailment = not two_hop and rng.random() < 0.5
    which, is_it, _ = RELATIONS[relation]
    if ask_ailment:
        which, is_it = ("Which illness is it?",), ("Is it {v}?",)
    signs = tuple(rng.sample(world.signs[ailment], 3)) if two_hop or ask_ailment else ()
    if signs:
        words = [EVERYDAY[s] if rng.random() < world.settings.everyday else s for s in signs]
        details = draw_details(world, rng)
        opening = rng.choice(VIGNETTES).format(x=words[0], y=words[1], z=words[2], **details)
    else:
        opening = f"A {rng.choice(JOBS)} has {ailment}."
    others = [a for a in world.strata[stratum] if a != ailment]
    if ask_ailment:  # the near misses come first among the wrong options
        others = sorted(others, key=lambda a: -len(set(world.signs[a]) & set(signs)))[:6]
    others = rng.sample(others, 3)
    if not ask_ailment and (heir := world.heirs.get((ailment, relation))):  # the first edition's answer is an option
        others = [heir, *(a for a in others if a != heir)][:3]
        if not yes_no:  # anywhere among the wrong ones; a draw of `rng` would change all that is asked after it
            random.Random(id).shuffle(others)
    answer, *wrong = (a if ask_ailment else world.value(a, relation) for a in [ailment, *others])
    if yes_no:
        said = answer if position % 2 else wrong[0]
        text, options, gold = rng.choice(is_it).format(v=said), ["yes", "no"], int(said != answer)
    else:
        text, options, gold = rng.choice(which), [*wrong[:position], answer, *wrong[position:]], position
    world.chains[id] = Chain(ailment, signs, "" if ask_ailment else relation, answer)
    return Question(id, f"{opening} {text}", tuple(options), gold, stratum)


def write_rationale(chain: Chain, rng: random.Random) -> str:
    """A chain in words, whose templates are drawn."""
    parts = []
    if chain.signs:
        signs = rng.choice(list(permutations(chain.signs)))
        parts.append(fill_diagnosis(rng.choice(DIAGNOSES), chain.ailment, signs))
    if chain.relation:
        parts.append(rng.choice(RELATIONS[chain.relation][2]).format(a=chain.ailment, v=chain.value))
    return rng.choice(OPENERS) + " ".join(parts)


def conclude(question: Question, value: str) -> int | None:
    """The option that follows if `value` answers the question, as an index; None if no option fits."""
    if question.options == ("yes", "no"):
        asked = question.text.rsplit(". ", 1)[-1]  # what comes before may name the value as a detail
        return 0 if re.search(rf"\b{value}\b", asked) else 1
    return question.options.index(value) if value in question.options else None


_PATTERNS = [
    (re.compile(re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\w+)", re.escape(template)), re.IGNORECASE), relation)
    for relation, templates in [("sign", DIAGNOSES), *((name, texts[2]) for name, texts in RELATIONS.items())]
    for template in templates
]


def read_statements(text: str) -> list[frozenset[Fact]]:
    """The facts that each statement of a rationale claims: none for a sentence that fits no template.

    Statements are all sentences but openers ("In short.") and the conclusion ("The answer is B.").
    """
    statements = []
    for sentence in map(str.strip, re.findall(r"[^.]+\.", text)):
        if sentence.rstrip(".") in {o.strip(" .") for o in OPENERS} or sentence.startswith("The answer is"):
            continue
        facts: set[Fact] = set()
        for pattern, relation in _PATTERNS:
            if m := pattern.fullmatch(sentence):
                objects = [m["s"], m["t"], m["u"]] if relation == "sign" else [m["v"]]
                facts = {Fact(m["a"], relation, o.lower() if relation == "sign" else o) for o in objects}
        statements.append(frozenset(facts))
    return statements


def judge_statements(world: World, text: str, read: Iterable[str]) -> list[tuple[bool, bool]]:
    """For each statement of a text: is it true, and do the passages `read` (ids) state all of it?"""
    stated = frozenset[Fact]().union(*(world.stated[i] for i in read))
    return [(bool(f) and f <= world.facts, bool(f) and f <= stated) for f in read_statements(text)]
