"""The scorecard (notebook 14): what claims say was gained, the papers' and ours."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kardlib.registry import BLUE, GREEN, GREY, RED
from kardlib.report.drawings.style import THIN, WHISKERS, in_units, legend_below, whiskers
from kardlib.report.figures import LOOK, PAGE
from kardlib.report.rows import AT_K, FigureError, to_rows

VERDICTS = {  # marker and colour; the same markers in greyscale
    "reproduced": ("o", BLUE),
    "undecided": ("s", GREY),
    "not reproduced": ("X", RED),
    "not told": ("|", GREY),
}
ANSWERED = ["accuracy", "accuracy_by_total_likelihood"]
ANSWERED += [f"accuracy_{part}" for part in ("never", "seldom", "often", "one_hop")]
UNITS = {  # title of a panel -> the metrics whose gains it shows
    "Gain in Hits@k (points)": AT_K,
    "Gain in accuracy (points)": ANSWERED,
    "Gain in what rationales conclude rightly (points)": ["accuracy_of_rationale"],
    "Gain in true statements (points)": ["true_statements"],
    "Gain in Matthews correlation (points)": ["matthews"],
}


@mpl.rc_context(LOOK)
def plot_claims(table: pd.DataFrame) -> Figure:
    """Gains that claims are tested on: a panel for each of `UNITS`, a row a claim (`method`), a line for each case.

    Beside the house's columns there is "where", the place in the paper, "verdict", empty for a paper's own gain, and
    "could_fail": claims none of whose tests could are left out, if there are others; so are those that are no
    "headline". The paper's own gains are a band behind ours, for they are of other tasks. Raises FigureError if there
    are no rows, or a metric has no panel.
    """
    if table.empty:
        raise FigureError("nothing to draw: no claim has a gain, neither ours nor the paper's")
    tested = table[(table["verdict"] != "") & table["could_fail"]]
    table = table[table["method"].isin(tested["method"])] if len(tested) else table[table["verdict"] == ""]
    table = table[table["could_fail"]]
    if "headline" in table and table["headline"].any():
        table = table[table["headline"]]
    if unknown := set(table["metric"]) - {metric for metrics in UNITS.values() for metric in metrics}:
        raise FigureError(f"no panel is for gains in {min(unknown)!r}: add its unit to UNITS of {__name__}")
    parts = [(title, part) for title, of in UNITS.items() if len(part := table[table["metric"].isin(of)])]
    rows = [_stack_claims(part) for _, part in parts]
    heights = [max(bottom for _, bottom in stack.values()) for stack in rows]
    height = 0.5 + 0.5 * len(parts) + 0.096 * sum(heights)
    fig, axes = plt.subplots(len(parts), 1, figsize=(PAGE, height), height_ratios=heights, squeeze=False)
    for ax, (unit, part), stack in zip(axes.flat, parts, rows, strict=True):
        _claims_panel(ax, part, stack)
        ax.set_xlabel(unit)
    order = ["The paper's", *(f"Ours: {verdict}" for verdict in VERDICTS)]
    legend_below(fig, 4, order=order, handlelength=2, columnspacing=2)
    return fig


def _stack_claims(part: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Claim -> top and bottom of its row, which has a line for each of its cases, at least one."""
    heights = part["verdict"].ne("").groupby(part["method"], sort=False).sum().clip(lower=1) + 0.6
    return dict(zip(heights.index, zip(heights.cumsum() - heights, heights.cumsum(), strict=True), strict=True))


def _claims_panel(ax: Axes, part: pd.DataFrame, stack: Mapping[str, tuple[float, float]]) -> None:
    """Claims below each other; the student of a case, and what else tells it from others, stands on the right."""
    ax.axvline(0, **THIN)
    for i, (claim, (top, bottom)) in enumerate(stack.items()):
        if i % 2 == 0:
            ax.axhspan(top, bottom, color="0.96", zorder=0)
        of_claim = part[part["method"] == claim]
        paper, ours = 100 * of_claim.loc[of_claim["verdict"] == "", "value"], of_claim[of_claim["verdict"] != ""]
        ax.fill_betweenx([top + 0.1, bottom - 0.1], paper.min(), paper.max(), color=GREEN, alpha=0.15, linewidth=0)
        ax.vlines(paper, top + 0.1, bottom - 0.1, color=GREEN, linewidth=0.8, alpha=0.6, zorder=1, label="The paper's")
        for n, case in enumerate(to_rows(ours)):
            (marker, color), y = VERDICTS[case["verdict"]], top + 0.8 + n
            gain = in_units(ours.iloc[[n]], 100)
            ax.errorbar(
                gain["value"], [y], xerr=whiskers(gain), linestyle="none", marker=marker, color=color, markersize=3.4,
                zorder=3, label=f"Ours: {case['verdict']}", **WHISKERS | {"capsize": 1.4},
            )  # fmt: skip
            told = [case["student"], *(case[c] for c in ("at", "over_at") if ours[c].nunique() > 1)]
            told += [f"{case['knob']} = {case['x']:g}"] if ours["x"].nunique() > 1 else []
            at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 6, "color": color}
            ax.annotate(", ".join(filter(None, told)), (1.01, y), **at)
    labels = part.drop_duplicates("method").set_index("method")["where"]
    ax.set_yticks([sum(ends) / 2 for ends in stack.values()], [f"{claim} ({labels[claim]})" for claim in stack])
    ax.tick_params(axis="y", length=0, labelsize=7)
    ax.set_ylim(max(bottom for _, bottom in stack.values()), 0)
    ax.grid(axis="x")
