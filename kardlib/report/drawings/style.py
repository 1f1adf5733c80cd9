"""What drawings share: which rows they draw, and dots, whiskers, axes, panels and legends in one style."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogLocator, StrMethodFormatter

from kardlib.registry import REGISTRY
from kardlib.report.figures import COLUMN, PAGE
from kardlib.report.rows import FigureError, measured, only, told

# A line to compare with, behind what was measured
THIN: dict[str, Any] = {"color": "0.45", "linewidth": 0.9, "zorder": 1}
DASHED = THIN | {"linestyle": (0, (4, 3))}
WHISKERS: dict[str, Any] = {"elinewidth": 1.0, "capsize": 2.2, "capthick": 1.0}


def need_metrics(table: pd.DataFrame, *metrics: str) -> None:
    """Raises FigureError unless every metric has rows."""
    if missing := [metric for metric in metrics if not (table["metric"] == metric).any()]:
        raise FigureError(f"nothing to draw: no row has the metric {missing[0]}")


def choose_rows(table: pd.DataFrame, *metrics: str) -> tuple[pd.DataFrame, pd.Series]:
    """What was measured over all seeds in some metrics, and what chance gives. Raises FigureError for none."""
    table = measured(table)
    table = table[table["metric"].isin(metrics)]
    chance = table["method"] == "chance"
    if chance.all():
        raise FigureError(f"nothing to draw: no row over all seeds has the metric {' or '.join(metrics)}")
    return table[~chance], table.loc[chance, "value"]


def list_methods(table: pd.DataFrame) -> list[str]:
    """The methods of a table, in the registry's order. Raises FigureError for one that nobody has entered there."""
    if unknown := set(table["method"]) - set(REGISTRY):
        raise FigureError(f"there is no style for the method {min(unknown)!r}: add it with register_method")
    return [method for method in REGISTRY if (table["method"] == method).any()]


def by_method(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Each of `list_methods` with its rows."""
    return [(method, only(table, method=method)) for method in list_methods(table)]


def say_sizes(table: pd.DataFrame) -> str:
    """Over how many a table's rows are means; a question mark if no row says it."""
    return ", ".join(f"{n:,}" for n in sorted(table["n"].dropna().unique())) or "?"


def make_panels(count: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """Panels side by side, in two lines if more than three: one is as wide as a column, more are as wide as a page."""
    lines, width = 1 + (count > 3), COLUMN if count == 1 else PAGE
    fig, axes = plt.subplots(lines, -(-count // lines), figsize=(width, lines * height), squeeze=False, **options)
    for spare in axes.flat[count:]:
        spare.remove()
    return fig, list(axes.flat[:count])


def whiskers(rows: pd.DataFrame) -> np.ndarray:
    """Distances from the value down to `low` and up to `high`, (2, rows); zero where there is no interval."""
    value = rows["value"].to_numpy()
    return np.nan_to_num(np.stack([value - rows["low"].to_numpy(), rows["high"].to_numpy() - value]))


def dot_style(method: str) -> dict[str, Any]:
    """How a method's marker looks, for `plot` and `errorbar`."""
    entry = REGISTRY[method]
    return {
        "color": entry.color, "marker": entry.marker, "markersize": 6.5 if entry.marker == "*" else 4.2,
        "markerfacecolor": "white" if entry.hollow else entry.color, "label": entry.label, "linestyle": "none",
        "zorder": 3,
    }  # fmt: skip


def draw_method(ax: Axes, method: str, x: Any, rows: pd.DataFrame, **options: Any) -> None:
    """A method's values at `x`, with their intervals as whiskers, joined by its line; `options` are errorbar's.

    Nothing stands where answers could not be read (`rows.told`), here and in `draw_across`.
    """
    rows = told(rows)
    style = WHISKERS | dot_style(method) | {"linestyle": REGISTRY[method].line} | options
    ax.errorbar(x, rows["value"], yerr=whiskers(rows) if rows["low"].notna().any() else None, **style)


def draw_across(ax: Axes, method: str, rows: pd.DataFrame, y: Any) -> None:
    """A method's values as dots in the rows `y`."""
    rows = told(rows)
    ax.errorbar(rows["value"], y, xerr=whiskers(rows), **WHISKERS | dot_style(method))


def in_units(rows: pd.DataFrame, unit: float) -> pd.DataFrame:
    """The rows with values and intervals times `unit`; 100 makes points of fractions."""
    return rows.assign(**{column: unit * rows[column] for column in ("value", "low", "high")})


def name_lines(ax: Axes, names: Sequence[str]) -> None:
    """The names of lines, the first at the top, on the axis y, which ends half a line beyond them."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def show_percent(axis: Axis) -> None:
    """A fraction's axis reads in per cent; a tick between whole per cents keeps its decimals."""
    axis.set_major_formatter(lambda value, _: Formatter.fix_minus(f"{round(100 * value, 6) + 0:g}"))  # + 0: no -0


def set_log_x(ax: Axes, ticks: list[float], unit: float = 1) -> None:
    """A logarithmic axis with its ticks where something was measured and nowhere else, their labels times `unit`."""
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{unit * x:g}" for x in ticks])
    ax.xaxis.minorticks_off()


def log_ticks(axis: Axis, most: int) -> None:
    """Ticks of a logarithmic axis, drawn before: 1, 2, 5 in each decade, or as few as keep to `most` labels in view."""
    low, high = axis.get_view_interval()
    for subs in ((1, 2, 5), (1, 3), (1,)):
        locator = LogLocator(subs=subs, numticks=99)
        ticks = np.asarray(locator.tick_values(low, high))
        if ((low <= ticks) & (ticks <= high)).sum() <= most:
            break
    axis.set_major_locator(locator)
    axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axis.minorticks_off()


def draw_by_knob(ax: Axes, table: pd.DataFrame, ticks: list[float], unit: float = 1, **options: Any) -> None:
    """A line for each method against `x` on a logarithmic axis (`set_log_x`), whiskers side by side."""
    lines, step = by_method(table), max(10.0, ticks[-1] / ticks[0]) ** 0.02
    for i, (method, rows) in enumerate(lines):
        rows = rows.sort_values("x")
        draw_method(ax, method, rows["x"].astype(float) * step ** (i - (len(lines) - 1) / 2), rows, **options)
    set_log_x(ax, ticks, unit)
    ax.grid(axis="y")


def legend_below(
    fig: Figure, columns: int, axes: Iterable[Axes] = (), order: Sequence[str] = (), **options: Any
) -> None:
    """One legend for all panels, each label once, in the order of `order`, without it in the registry's.

    `options` are the legend's.
    """
    pairs = [pair for ax in axes or fig.axes for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
    shown = {name: handle for handle, name in pairs}
    ranks = {name: i for i, name in enumerate(order or [entry.label for entry in REGISTRY.values()])}
    names = sorted(shown, key=lambda name: ranks.get(name, len(ranks)))
    look = {"handlelength": 2.6, "columnspacing": 1.2, "handletextpad": 0.5} | options
    fig.legend([shown[name] for name in names], names, loc="outside lower center", ncols=columns, **look)
