"""Accuracy of methods, a row each: the main table of either paper as a figure (notebooks 04, 10, 13, 15, 19 and 20)."""

from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kardlib.registry import REGISTRY, label
from kardlib.report.drawings import style
from kardlib.report.figures import LOOK
from kardlib.report.rows import is_judged, only, told

AXES = {"accuracy": "Accuracy (%)", "matthews": "Matthews correlation (%)"}  # by what a task is judged by
CHANCE_ROW = 0.5  # rows below the last one, for the word beside the dashed line


@mpl.rc_context(LOOK)
def plot_main(table: pd.DataFrame) -> Figure:
    """Accuracy of methods, one row each in the registry's order, one panel per student: the main table as a figure.

    Rows whose metric is what their dataset is judged by (`AXES`) and whose seed is empty: summaries over seeds, each a
    dot with its interval and the mean in print, by condition (`at`) where there are several; the method "chance" is a
    dashed line, and others without a student are rows of every panel. Students come in the order of the table. Raises
    FigureError if there are none.
    """
    table, chance = style.choose_rows(table[is_judged(table)], *AXES)
    table, places = name_rows(table)
    students = [student for student in table["student"].unique() if student]
    height = 0.8 + 0.19 * (max(places.values()) + CHANCE_ROW * len(chance))
    fig, axes = style.make_panels(len(students), height, sharex=True, sharey=True)
    for ax, student in zip(axes, students, strict=True):
        accuracy_panel(ax, table[table["student"].isin([student, ""])], places, chance)
        ax.set(title=student)
    return fig


def name_rows(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, float]]:
    """The table with its rows' names in the column "row", and the height of each; blocks stand half a row apart.

    A method is a row, one that was measured at several conditions (`at`) one for each.
    """
    places, height, methods = {}, 0.0, style.list_methods(table)
    several = table.groupby("method")["at"].transform("nunique") > 1
    table = table.assign(row=table["method"].map(label) + (", " + table["at"]).where(several, ""))
    for block in dict.fromkeys(REGISTRY[method].block for method in methods):
        for method in [method for method in methods if REGISTRY[method].block == block]:
            for row in only(table, method=method)["row"].unique():
                places[row] = height
                height += 1
        height += 0.5
    return table, places


def accuracy_panel(ax: Axes, table: pd.DataFrame, places: Mapping[str, float], chance: pd.Series) -> None:
    """Dots with their numbers in print, each in the place that `places` gives for its "row"."""
    ax.grid(axis="x")
    for value in chance:
        ax.axvline(value, **style.DASHED)
        below = ("data", "axes fraction")
        ax.annotate(" chance", (value, 0.01), xycoords=below, va="bottom", fontsize=7, color="0.35")
    for method, rows in style.by_method(table):
        style.draw_across(ax, method, rows, rows["row"].map(places))
        for value, row in zip(told(rows)["value"], rows["row"], strict=True):
            text, beside = "unread" if pd.isna(value) else f"{100 * value:.1f}", (1.02, places[row])
            ax.annotate(text, beside, xycoords=("axes fraction", "data"), va="center", fontsize=7)
    ax.set(xlabel=AXES[table["metric"].iloc[0]], ylim=(max(places.values()) + 0.6 + CHANCE_ROW * len(chance), -0.6))
    style.show_percent(ax.xaxis)
    ax.set_yticks(list(places.values()), list(places), fontsize=7)
    ax.tick_params(axis="y", length=0)
