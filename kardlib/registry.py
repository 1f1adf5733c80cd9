"""Every method that a table or a figure shows: what it is called and how it is drawn, in the papers' order of rows.

Each room enters its own when it is imported; whatever is shown reads label, colour, order and block from here. Markers
and lines tell methods apart in greyscale print, the colours are safe for colour-blind readers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

from kardlib.errors import KardError

GREY, BLUE, SKY, GREEN, ORANGE, RED, PINK, BLACK = (
    "#767676", "#0072B2", "#3D9BD1", "#008B67", "#B87700", "#C44E00", "#B65C92", "#222222",
)  # fmt: skip
PALETTE = cycle([  # colour, marker and line of entries without their own; no entry below or in a room looks like one
    ("#7A3A60", ">", "-"), ("#00674C", "8", "--"), ("#7E5100", "^", "-"), ("#853500", ">", ":"), ("#004E7A", "8", "-."),
])  # fmt: skip


class RegistryError(KardError, ValueError):
    """A method cannot be entered; the message is one sentence that says why."""


@dataclass(frozen=True)
class Entry:
    """How one method is shown."""

    label: str
    color: str = ""  # empty: colour, marker and line are the next of PALETTE
    marker: str = ""  # empty: a line alone
    line: Any = ""  # matplotlib's line style
    hollow: bool = False  # an oracle's marker
    block: str = "added"  # rows of one block stand together, half a row away from the next


REGISTRY: dict[str, Entry] = {}


def enter(entries: Mapping[str, Entry]) -> None:
    """Add entries, id -> entry, after all that are there; one of the block "added" again under its label stays.

    Raises RegistryError for an id that is taken otherwise.
    """
    for id in sorted(REGISTRY.keys() & entries.keys()):
        known = REGISTRY[id]
        if known.block != "added" or (known.label, known.block) != (entries[id].label, entries[id].block):
            raise RegistryError(f"there is a method {id!r} already ({known.label}): give yours another id")
    for id, entry in entries.items():
        if not entry.color:
            before = REGISTRY.get(id)
            color, marker, line = (before.color, before.marker, before.line) if before else next(PALETTE)
            entry = replace(entry, color=color, marker=marker, line=line)
        REGISTRY[id] = entry


def label(id: str) -> str:
    """What a method is called; an id that nobody has entered is its own label."""
    return REGISTRY[id].label if id in REGISTRY else id
