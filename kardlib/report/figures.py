"""One look for all figures, and `save_figure`: what was drawn, as PDF and PNG, beside the numbers it was drawn from.

A method has one colour, marker and line in every figure (`registry`). Widths and font sizes are those of a two-column
paper.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image

from kardlib.artifacts.disk import atomic_write
from kardlib.artifacts.provenance import provenance
from kardlib.report.folders import figures_folder
from kardlib.report.rows import FigureError, in_order, long_form, to_rows

if TYPE_CHECKING:
    from kardlib.kard.experiment import Experiment
    from kardlib.reaugkd.experiment import ReAugKDExperiment

# Jupyter's backend turns interactive drawing on when it is loaded. Were that first inside an `rc_context`, leaving the
# context would turn it off again, and a notebook would show its first figure only.
plt.switch_backend(mpl.get_backend())

COLUMN, PAGE = 3.4, 7.0  # widths in inches: one column, two columns

LOOK: dict[Any, Any] = sns.axes_style("ticks") | {
    "figure.dpi": 90,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 220,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "0.3",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,  # TrueType: text in the PDF stays text
    "ps.fonttype": 42,
}


# Files


def read_provenance(picture: Path) -> dict[str, Any]:
    """What `save_figure` wrote into a PNG of what made it; empty for another picture."""
    with Image.open(picture) as image:
        return json.loads(image.info.get("Provenance", "{}"))


def save_figure(
    fig: Figure, name: str, data: pd.DataFrame, folder: str | Path | None,
    made_by: "Experiment | ReAugKDExperiment | Mapping[str, Any]",
) -> None:  # fmt: skip
    """Write `{name}.pdf`, `.png` and `.csv` into `folder`, each whole or not at all.

    `made_by` is an experiment, whose suffix the name takes, or provenance that is known already. `folder` None: where
    a run with its settings belongs (`figures_folder`), wherever this is called. `data` is what was drawn, in the
    columns of `rows`. The provenance goes as JSON into the PDF's keywords and the PNG's text chunk "Provenance";
    neither file bears the time of day or where the data lay, so the same figure is the same bytes. Numbers in the CSV
    are rounded to six decimals. Raises FigureError for a name that is no file name or a table of other columns.
    """
    if not isinstance(made_by, Mapping):
        name, made_by = name + made_by.settings.suffix, provenance(made_by.settings.model_dump(mode="json"))
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise FigureError(f"{name!r} cannot be a figure's name: use letters, digits, '-', '_' and '.'")
    table = long_form(to_rows(data)).round(6)
    settings = made_by.get("settings") or {}
    folder = Path(folder or figures_folder(settings))
    without_path = {"settings": settings | {"data_dir": None}} if settings.get("data_dir") else {}
    told = {name: value for name, value in {**made_by, **without_path}.items() if name != "date"}
    facts = json.dumps(told, sort_keys=True, default=str)
    pdf = {"Title": name, "Subject": f"Data: {name}.csv", "Keywords": facts, "Creator": "kardlib", "CreationDate": None}
    png = {"Title": name, "Description": f"Data: {name}.csv", "Provenance": facts, "Software": "kardlib"}
    with contextlib.ExitStack() as whole, mpl.rc_context(LOOK):
        drawn, shown, listed = (
            whole.enter_context(atomic_write(folder / f"{name}.{suffix}")) for suffix in ("pdf", "png", "csv")
        )
        fig.savefig(drawn, format="pdf", metadata=pdf)
        fig.savefig(shown, format="png", metadata=png)
        in_order(table).to_csv(listed, index=False, lineterminator="\n")
