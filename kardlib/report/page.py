"""The report of a run as HTML: a page for each notebook, and an index with its figures and the scorecard."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import nbformat
from nbformat import NotebookNode

from kardlib.artifacts.store import atomic_write, provenance
from kardlib.errors import KardError

WAITING = "<p>It follows when the notebooks have ended.</p>"  # shown until the scorecard is known
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse }}
td, th {{ padding: .2em 1em .2em 0; text-align: left; vertical-align: top }}
img {{ max-width: 100% }}
.failed {{ font-weight: bold }}
</style>
<h1>{title}</h1>
<p>{origin}</p>
<table>
<tr><th>notebook<th>status<th>time<th>peak memory<th>artifacts<th>finished<th>
{rows}
</table>
<h2>Scorecard</h2>
{scorecard}
{figures}
</html>
"""


@dataclass(frozen=True)
class Result:
    """How the run of a notebook ended; the metadata of its executed copy keeps it."""

    notebook: str  # its name without ".ipynb"
    status: str = "not run"  # or "done" or "failed"
    seconds: float = 0.0
    peak_bytes: int = 0
    error: str = ""
    date: str = ""
    figures: Sequence[str] = ()  # PNG files that it wrote, by their paths from the run's folder
    artifacts: Sequence[str] = ()  # names of all artifacts that it needed, whoever made them


def write_index(run: Path, results: Sequence[Result], scorecard: str) -> Path:
    """Write `run/index.html`, with a table row for each notebook; `scorecard` is HTML. Its path."""
    origin = provenance()
    facts = [origin["device"], *(f"{package} {version}" for package, version in origin["versions"].items())]
    facts += [f"commit {origin['commit']}{', changed' if origin['dirty'] else ''}"] if "commit" in origin else []
    page = PAGE.format(
        title=html.escape(f"kard reproduce: {run.name}"),
        origin=html.escape(" · ".join(facts)),
        rows="\n".join(format_row(result, results) for result in results),
        scorecard=scorecard,
        figures="\n".join(format_figure(path) for path in dict.fromkeys(f for r in results for f in r.figures)),
    )
    with atomic_write(run / "index.html") as temporary:
        temporary.write_text(page, "utf-8")
    return run / "index.html"


def read_result(copy: Path) -> Result:
    """The result in an executed copy; "not run" if there is no copy, or one that another version made."""
    try:
        return Result(**nbformat.read(copy, as_version=4).metadata["kard"])
    except (OSError, ValueError, KeyError, TypeError):
        return Result(copy.stem)


def format_row(result: Result, results: Sequence[Result]) -> str:
    """A notebook's table row."""
    name = html.escape(result.notebook)
    if result.status == "not run":
        return f"<tr><td>{name}<td>not run"
    link = quote(result.notebook)
    cells = [
        f'<a href="{link}.html">{name}</a>',
        f'<span class="{html.escape(result.status)}">{html.escape(result.status)}</span>',
        f"{result.seconds:.0f} s",
        f"{result.peak_bytes / 2**20:.0f} MiB",
        html.escape(describe_sharing(result, results)),
        html.escape(result.date[:16].replace("T", " ")) + " UTC",
        f'<a href="{link}.ipynb">executed notebook</a><br>{html.escape(result.error)}',
    ]
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells)


def describe_sharing(result: Result, results: Sequence[Result]) -> str:
    """How many artifacts a notebook needed, and how many of them each earlier notebook had needed."""
    parts, seen = [f"{len(result.artifacts)}"], set[str]()
    for other in results[: results.index(result)]:
        if shared := {*result.artifacts} & {*other.artifacts} - seen:
            parts.append(f"{len(shared)} shared with {other.notebook[:2]}")
            seen |= shared
    return ", ".join(parts)


def format_scorecard(figures: Path) -> str:
    """The table of claims with their verdicts, or a sentence if the figures' data cannot be read."""
    from kardlib.report.claims import judge, read_claims, read_rows, summarize, tally  # imported late: seaborn is slow

    try:
        scorecard = judge(read_claims(), read_rows([figures] if figures.is_dir() else []))
    except KardError as error:
        return f"<p>{html.escape(str(error))}</p>"
    table = summarize(scorecard.sort_values("could_fail", ascending=False, kind="stable"))
    lines = ["<tr>" + "".join(f"<th>{html.escape(name)}" for name in table)]
    for cells in table.itertuples(index=False):
        lines.append("<tr>" + "".join("<td>" + html.escape(cell).replace("\n", "<br>") for cell in cells))
    return "\n".join([f"<p>{html.escape(tally(scorecard))}</p>", "<table>", *lines, "</table>"])


def format_figure(path: str) -> str:
    """A figure with its heading; `path` is from the run's folder."""
    return f'<h2>{html.escape(Path(path).stem)}</h2>\n<img src="{quote(path)}" alt="{html.escape(Path(path).stem)}">'


def write_page(notebook: NotebookNode, path: Path) -> None:
    """Write an executed notebook as HTML."""
    from nbconvert import HTMLExporter  # imported late: it takes a second

    page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    with atomic_write(path) as temporary:
        temporary.write_text(page, "utf-8")
