"""Skills: what a student can do before anybody distils into it, none of it in the words or the order of KARD's texts.

Each takes a world, a number of passages and a generator, and gives an exercise.
"""

import functools
import random
from collections.abc import Sequence
from typing import NamedTuple

from kardlib.data.files import LETTERS
from kardlib.data.world import (
    DIAGNOSES,
    EVERYDAY,
    FIRST_SYLLABLES,
    RELATIONS,
    SECOND_SYLLABLES,
    VIGNETTES,
    World,
    build_world,
    draw_details,
    fill_diagnosis,
)
from kardlib.settings import WorldSettings

Hop = tuple[str, str]  # an ailment, and what is said of it: "sign" or a relation


class Exercise(NamedTuple):
    """What a student reads, what is already written of the target (no loss is taken there), and how it goes on."""

    source: str
    begun: str
    target: str


@functools.lru_cache(maxsize=1)  # steps that follow one another share it
def draw_world(seed: int) -> World:
    """A small world with the notebooks' language; its share of everyday words is drawn too."""
    everyday = random.Random(seed).uniform(0.3, 1.0)
    sizes = {"ailments": 40, "often": 1, "never": 0.0, "cases": 60, "notes": 30, "train": 512, "dev": 2, "test": 2}
    return build_world(WorldSettings(seed=seed, everyday=everyday, **sizes))


def find(world: World, k: int, rng: random.Random) -> Exercise:
    """Choosing what to read: of `k` passages those that speak of up to three cues are told, in the cues' order.

    A cue is a patient with an ailment's signs, or an ailment with what is asked about it. What is told may be worded
    in another way than what is read; signs come in the patient's order.
    """
    first = rng.choice(world.values["ailment"]), rng.choice(("sign", rng.choice(list(RELATIONS))))
    asked = look_alikes(world, [first], min(k, 3), rng)
    cues, told = zip(*(ask(world, ailment, hop, rng) for ailment, hop in asked), strict=True)
    return Exercise(arrange(f"Tell: {' '.join(cues)}", read_about(world, asked, k, rng), rng), "", " ".join(told))


def follow(world: World, k: int, rng: random.Random) -> Exercise:
    """Going on: what is begun names an ailment; of `k` passages those that say what is asked about it are told."""
    ailment, relations = rng.choice(world.values["ailment"]), rng.sample(list(RELATIONS), min(k, 2))
    cue = " ".join(rng.choice(RELATIONS[relation][0]) for relation in relations)
    if rng.random() < 0.5:
        cue = f"{describe_patient(world, rng.sample(world.signs[ailment], 3), rng)} {cue}"
    asked = [(ailment, relation) for relation in relations]
    source = arrange(f"Tell: {cue}", read_about(world, asked, k, rng), rng)
    return Exercise(source, state(world, ailment, "sign", rng), " ".join(state(world, *one, rng) for one in asked))


def choose(world: World, k: int, rng: random.Random, bare: bool = False) -> Exercise:
    """Naming the letter of the option that a text concludes, with `k` - 1 passages to read or with none.

    The text is given as begun. It concludes any of the options, so that nothing else says which, and passages name them
    all alike. Where it is `bare`, it is the option's name alone, with nothing to read.
    """
    relation = rng.choice(list(RELATIONS))
    ailments = rng.sample(world.values["ailment"], 4)
    values = [world.value(ailment, relation) for ailment in ailments]
    options, asked, right = values, "", rng.randrange(4)
    if rng.random() < 0.2:
        _, is_it, _ = RELATIONS[relation]
        options, asked = rng.sample(("yes", "no"), 2), f"{rng.choice(is_it).format(v=values[0])} "
        right, concluded = options.index("yes"), 0
        if rng.random() < 0.5:
            right, concluded = 1 - right, 1
        values = [values[concluded]] * 2
    if bare:
        return Exercise(f"Choose: {asked}{list_options(options, rng)}", values[right], name_letter(right, rng))
    begun = state(world, ailments[0], relation, rng, values[right])
    if rng.random() < 0.5:
        begun = f"{state(world, ailments[0], 'sign', rng)} {begun}"
    near = [rng.choice(world.stating[a, relation]) for a in ailments]
    read = [world.texts[i] for i in rng.sample(near, rng.choice((0, min(k - 1, 4))))]
    source = arrange(f"Choose: {asked}{list_options(options, rng)}", read, rng)
    return Exercise(source, begun, name_letter(right, rng))


def point(world: World, k: int, rng: random.Random) -> Exercise:
    """Letters: that of an option's name, or whether two names are the same."""
    return choose(world, k, rng, bare=True)


def copy(world: World, k: int, rng: random.Random) -> Exercise:
    """Names: four to eight of any syllables are copied; nothing but the source says what comes next."""
    names = [rng.choice(FIRST_SYLLABLES) + rng.choice(SECOND_SYLLABLES) for _ in range(rng.randint(4, 8))]
    return Exercise(f"Copy: {' '.join(names)}", "", " ".join(names))


def match(world: World, k: int, rng: random.Random) -> Exercise:
    """Letters: four options are copied in another order, each followed by its letter."""
    options = rng.sample(world.values[rng.choice(list(RELATIONS))], 4)
    lettered = rng.sample(list(zip(LETTERS, options, strict=False)), 4)
    target = " ".join(f"{option}: {letter};" for letter, option in lettered)
    return Exercise(f"Match: {list_options(options, rng)}", "", target)


def name_letter(option: int, rng: random.Random) -> str:
    """An option's letter in one of many wordings: learnt in a single one, it does not come after another's words."""
    wordings = ("Choice: {}", "Choose {}.", "{} it is.", "This is {}.", "It is {}", "Match {}")
    return rng.choice(wordings).format(LETTERS[option])


def list_options(options: Sequence[str], rng: random.Random) -> str:
    """Options with their letters, in one of many forms."""
    form = rng.choice(("{}: {};", "{}) {},", "{} {}.", "({}) {}", "{} - {};", "{}, {};"))
    return " ".join(form.format(letter, option) for letter, option in zip(LETTERS, options, strict=False))


SKILLS = {find: 3, follow: 2, choose: 2, match: 1, point: 1}  # how often each is practised
DRILL = {copy: 1, match: 1, point: 1}


def state(world: World, ailment: str, hop: str, rng: random.Random, value: str = "") -> str:
    """What is true of an ailment, or with another `value` what is not, in any wording."""
    if hop == "sign":
        return fill_diagnosis(rng.choice(DIAGNOSES), ailment, rng.sample(world.signs[ailment], 3))
    return rng.choice(RELATIONS[hop][2]).format(a=ailment, v=value or world.value(ailment, hop))


def ask(world: World, ailment: str, hop: str, rng: random.Random) -> tuple[str, str]:
    """A cue that asks for what is true of an ailment, and what it is."""
    if hop == "sign":
        signs = rng.sample(world.signs[ailment], 3)
        return describe_patient(world, signs, rng), fill_diagnosis(rng.choice(DIAGNOSES), ailment, signs)
    return f"{ailment}. {rng.choice(RELATIONS[hop][0])}", state(world, ailment, hop, rng)


def describe_patient(world: World, signs: Sequence[str], rng: random.Random) -> str:
    """A patient with three signs, in everyday words or technical ones."""
    everyday = world.settings.everyday
    x, y, z = (EVERYDAY[s] if rng.random() < everyday else s for s in signs)
    return rng.choice(VIGNETTES).format(x=x, y=y, z=z, **draw_details(world, rng))


def look_alikes(world: World, asked: Sequence[Hop], number: int, rng: random.Random) -> list[Hop]:
    """What is `asked`, and what could be mistaken for the first of it, until there are `number`.

    That is the same ailment in another respect, or the same of another one, half of the time of one with a common sign.
    """
    ailment, hop = asked[0]
    others = [a for a in world.signs if a != ailment]
    near = [a for a in others if set(world.signs[a]) & set(world.signs[ailment])] or others
    found = dict.fromkeys(asked)
    while len(found) < number:
        relation = rng.choice(list(RELATIONS))
        found[rng.choice(((ailment, relation), (rng.choice(near), hop), (rng.choice(others), hop)))] = None
    return list(found)


def read_about(world: World, asked: Sequence[Hop], k: int, rng: random.Random) -> list[str]:
    """`k` passages in any order, among them one for all that is asked; of the others every third is of anything."""
    passages = [rng.choice(world.stating[hop]) for hop in look_alikes(world, asked, k, rng)]
    for i in range(len(asked), k):
        if rng.random() < 1 / 3 and not world.stated[other := rng.choice(world.passages).id]:
            passages[i] = other
    return [world.texts[i] for i in rng.sample(passages, k)]


def arrange(task: str, passages: Sequence[str], rng: random.Random) -> str:
    """A source: the task before or after what is to be read, if anything is."""
    return " ".join(rng.sample([task, *([f"Read: {' '.join(passages)}"] if passages else [])], 1 + bool(passages)))
