"""One question's way under several methods (KARD, Table 6): what was read, written and answered, drawn as texts."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle

from kardlib.data.files import LETTERS
from kardlib.kard.cases import COLOURS, MEANING
from kardlib.registry import REGISTRY, label
from kardlib.report.drawings.style import by_method, need_metrics
from kardlib.report.figures import LOOK
from kardlib.report.rows import measured, only

# In points. The whole is no wider than the narrower of two pages, so that no text is set anew where it is printed.
WIDTH, MARGIN, LINE, SIZE = 396, 6, 9.6, 7.0
PLACES = {"method": (MARGIN, 78), "reads": (92, 142), "writes": (244, 144)}  # left end and width of a block's texts
MOST = 6  # lines of a passage, which may be a page of its own
WON = "RD answers wrongly and KARD (reranker) rightly, with all {} among what it reads"
EDGES = {"✓▣": "solid", "✓": "none", "✗": (0, (2, 1.5))}  # of statements, by their signs: no colour is needed


@cache
def _measure(text: str, bold: bool) -> float:
    """A text's width in points."""
    font = get_font(findfont(FontProperties(family=LOOK["font.family"], weight="bold" if bold else "normal")))
    font.set_size(10 * SIZE, 72)  # larger, or every letter's width would be rounded to a point
    font.set_text(text)
    return float(font.get_width_height()[0] / 640)


def wrap(text: str, width: float, bold: bool = False) -> list[str]:
    """A text in lines that are no wider than `width` points; a word that is wider is parted."""
    lines = [""]
    parts = [[w] if _measure(w, bold) <= width else re.findall(".{1,12}", w) for w in text.split()]
    for word in chain.from_iterable(parts):
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and _measure(longer, bold) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _write(ax: Axes, place: tuple[float, float], top: float, text: str, most: int | None = None, **look: Any) -> float:
    """Write a text in its place from `top` down, its first `most` lines; returns where it ends."""
    lines = wrap(text, place[1], look.get("weight") == "bold")
    if most and len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]} …"]
    for n, line in enumerate(lines):
        ax.text(place[0], top + (n + 0.78) * LINE, line, fontsize=SIZE, parse_math=False, zorder=3, **look)
    return top + len(lines) * LINE


def _state(ax: Axes, place: tuple[float, float], top: float, text: str, signs: str) -> float:
    """Write a sentence; a statement has its signs, its colour and its edge."""
    end = _write(ax, place, top, f"{signs} {text}".lstrip())
    if signs:
        box = Rectangle((place[0] - 2, top), place[1] + 4, end - top)
        box.set(facecolor=COLOURS[signs], edgecolor="0.35", linestyle=EDGES[signs], linewidth=0.7, zorder=2)
        ax.add_patch(box)
        end += 2
    return end


def _texts(rows: pd.DataFrame, knob: str) -> Iterator[tuple[int, str, dict[str, float]]]:
    """Texts of one kind in their order: which, itself, and what is said of it."""
    for (x, text), said in only(rows, knob=knob).groupby(["x", "at"]):
        yield int(x), text, dict(zip(said["metric"], said["value"], strict=True))


def _signs(said: dict[str, float]) -> str:
    if not said.get("judged"):
        return ""
    return "✗" if not said["true"] else "✓▣" if said["supported"] else "✓"


def _method_block(ax: Axes, top: float, method: str, rows: pd.DataFrame) -> float:
    """A method: who it is and what it answers, what it reads, what it writes."""
    given = next((LETTERS[n - 1] for n, _, said in _texts(rows, "option") if said["answered"]), "")
    right = bool(only(rows, metric="right")["value"].iloc[0])
    said = f"✓ {given}, right" if right else f"✗ {given}, wrong" if given else "✗ no answer"
    ends = [_write(ax, PLACES["method"], top, label(method), weight="bold", color=REGISTRY[method].color)]
    ends[0] = _write(ax, PLACES["method"], ends[0] + 2, said, weight="bold")
    end = top
    for rank, text, of_it in _texts(rows, "passage"):
        star = "★ " if of_it["gold"] else ""
        end = _write(ax, PLACES["reads"], end, f"{rank}. {star}{text}", MOST, weight="bold" if star else "normal") + 1
    ends.append(end if end > top else _write(ax, PLACES["reads"], top, "nothing", style="italic"))
    end = top
    for _, text, of_it in _texts(rows, "sentence"):
        end = _state(ax, PLACES["writes"], end, text, _signs(of_it))
    return max([*ends, end])


def _rule(ax: Axes, y: float) -> float:
    ax.plot([MARGIN, WIDTH - MARGIN], [y, y], color="0.6", linewidth=0.6)
    return y + 3


def _legend(judged: Iterable[str]) -> str:
    """What the signs mean that are there."""
    meant = [f"{signs} {meaning}" for signs, meaning in MEANING.items() if signs in judged]
    return " · ".join(["★ a gold passage", *meant])


@mpl.rc_context(LOOK)
def plot_case(table: pd.DataFrame) -> Figure:
    """A question with its options, and a block for each method: what it read, wrote and answered (`cases.case_rows`).

    The row over all seeds that has the metric "won_by_reading" says how often a question is of this kind. Raises
    FigureError for no case.
    """
    need_metrics(table, "right", "answered")
    blocks = by_method(table[table["knob"] != ""])
    first = blocks[0][1]
    fig, ax = plt.subplots()
    ax.set_position((0, 0, 1, 1))  # the whole figure, whatever the layout would leave around it
    ax.axis("off")
    whole = MARGIN, WIDTH - 2 * MARGIN
    _, question, _ = next(_texts(first, "question"))
    y = _write(ax, whole, MARGIN, question, weight="bold")
    for n, text, said in _texts(first, "option"):
        right = bool(said["gold"])
        y = _write(ax, (MARGIN + 8, WIDTH - 3 * MARGIN), y, f"{LETTERS[n - 1]}. {text}{' ✓' if right else ''}",
                   weight="bold" if right else "normal")  # fmt: skip
    y = _rule(ax, y + 3)
    y = max(_write(ax, place, y, name, color="0.35") for name, place in PLACES.items())
    for method, rows in blocks:
        y = _method_block(ax, _rule(ax, y + 2), method, rows)
    signs = {_signs(said) for _, rows in blocks for _, _, said in _texts(rows, "sentence")}
    y = _write(ax, whole, _rule(ax, y + 3), _legend(signs), color="0.35")
    for row in measured(only(table, metric="won_by_reading")).itertuples():
        won = WON.format("that the answer takes" if row.dataset == "world" else "gold passages")
        share = f"{100 * row.value:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}] of {row.n:,} questions are such"
        y = _write(ax, whole, y, f"The first test question that {won}. {share}.", color="0.35")
    ax.set(xlim=(0, WIDTH), ylim=(y + MARGIN, 0))
    fig.set_size_inches(WIDTH / 72, (y + MARGIN) / 72)
    return fig
