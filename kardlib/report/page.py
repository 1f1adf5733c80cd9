"""The report of a run as HTML: a page for each notebook, and an index with its figures and the scorecard."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment
from nbformat import NotebookNode

from kardlib.artifacts.store import REPOSITORY, atomic_write, provenance
from kardlib.errors import KardError

ORIGINS = {  # of verdicts, and what is said before they are counted
    "this run": "",
    "published": "Committed under figures/, of claims and datasets that this run has no results of: ",
}
WAITING = ("this run", "It follows when the notebooks have ended.", None)  # until the scorecard is known
INDEX = Environment(autoescape=True, trim_blocks=True, keep_trailing_newline=True).from_string("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>kard reproduce: {{ run }}</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse }
td, th { padding: .2em 1em .2em 0; text-align: left; vertical-align: top }
.claims td { white-space: pre-line }
img { max-width: 100% }
.failed { font-weight: bold }
</style>
<h1>kard reproduce: {{ run }}</h1>
<p>{{ facts | join(" · ") }}</p>
<table>
<tr><th>notebook<th>status<th>time<th>peak memory<th>artifacts<th>finished<th>
{% for result in results %}
{% if result.status == "not run" %}
<tr><td>{{ result.notebook }}<td>not run
{% else %}
<tr><td><a href="{{ result.notebook | urlencode }}.html">{{ result.notebook }}</a>
<td><span class="{{ result.status }}">{{ result.status }}</span>
<td>{{ "%.0f s" | format(result.seconds) }}<td>{{ "%.0f MiB" | format(result.peak_bytes / 2**20) }}
<td>{{ describe_sharing(result, results) }}<td>{{ result.date[:16].replace("T", " ") }} UTC
<td><a href="{{ result.notebook | urlencode }}.ipynb">executed notebook</a><br>{{ result.error }}
{% endif %}
{% endfor %}
</table>
{% for page in explorers %}<p><a href="{{ page | urlencode }}">Explorer: all questions and answers</a></p>{% endfor %}
{% for origin, said, claims in scorecard %}
<h2>Scorecard: {{ origin }}</h2>
<p>{{ said }}</p>
{% if claims is not none %}
<table class="claims">
<tr>{% for name in claims %}<th>{{ name }}{% endfor %}

{% for cells in claims.itertuples(index=False) %}
<tr>{% for cell in cells %}<td>{{ cell }}{% endfor %}

{% endfor %}
</table>
{% endif %}
{% endfor %}
{% for figure in figures %}
<h2>{{ figure.stem }}</h2>
<img src="{{ figure.as_posix() | urlencode }}" alt="{{ figure.stem }}">
{% endfor %}
</html>
""")


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


def write_index(run: Path, results: Sequence[Result], scorecard: Sequence[tuple[str, str, Any]]) -> Path:
    """Write `run/index.html` and return its path; `scorecard` is what `read_scorecard` returns."""
    origin = provenance()
    facts = [origin["device"], *(f"{package} {version}" for package, version in origin["versions"].items())]
    facts += [f"commit {origin['commit']}{', changed' if origin['dirty'] else ''}"] if "commit" in origin else []
    figures = [Path(path) for path in dict.fromkeys(path for result in results for path in result.figures)]
    page = INDEX.render(
        run=run.name, facts=facts, results=results, describe_sharing=describe_sharing, figures=figures,
        scorecard=scorecard, explorers=sorted(f"figures/{path.name}" for path in run.glob("figures/*_explorer*.html")),
    )  # fmt: skip
    with atomic_write(run / "index.html") as temporary:
        temporary.write_text(page, "utf-8")
    return run / "index.html"


def read_result(copy: Path) -> Result:
    """The result in an executed copy; "not run" if there is no copy, or one that another version made."""
    try:
        return Result(**nbformat.read(copy, as_version=4).metadata["kard"])
    except (OSError, ValueError, KeyError, TypeError):
        return Result(copy.stem)


def describe_sharing(result: Result, results: Sequence[Result]) -> str:
    """How many artifacts a notebook needed, and how many of them each earlier notebook had needed."""
    parts, seen = [f"{len(result.artifacts)}"], set[str]()
    for other in results[: results.index(result)]:
        if shared := {*result.artifacts} & {*other.artifacts} - seen:
            parts.append(f"{len(shared)} shared with {other.notebook[:2]}")
            seen |= shared
    return ", ".join(parts)


def judge_run(figures: Path, published: Path = REPOSITORY / "figures") -> Any:
    """The scorecard of a run's own figures' data, and of published ones what the run has nothing of.

    Beside the columns of `claims.judge` it has "origin": "this run", or "published" for the verdicts of claims on a
    dataset that no row in the folder `figures` decides. A folder that is not there holds nothing. Raises ClaimError.
    """
    import pandas as pd

    from kardlib.report.claims import NOT_RUN, judge, read_claims, read_rows  # imported late: seaborn is slow

    claims = read_claims()
    own, others = (judge(claims, read_rows([f] if f.is_dir() else [])) for f in (figures, published))
    known, cases = (pd.MultiIndex.from_frame(part[["id", "dataset"]]) for part in (own, others))
    others = others[~cases.isin(known) & (others["verdict"] != NOT_RUN)]
    return pd.concat([own.assign(origin="this run"), others.assign(origin="published")], ignore_index=True)


def read_scorecard(figures: Path, published: Path) -> list[tuple[str, str, Any]]:
    """`judge_run` by origin: the origin, a sentence that counts, the claims with their verdicts as a table.

    There is one sentence without a table if the figures' data cannot be read.
    """
    from kardlib.report.claims import summarize, tally

    try:
        scorecard = judge_run(figures, published)
    except KardError as error:
        return [("this run", str(error), None)]
    parts = scorecard.sort_values("could_fail", ascending=False, kind="stable").groupby("origin")
    return [
        (origin, said + tally(parts.get_group(origin)), summarize(parts.get_group(origin)))
        for origin, said in ORIGINS.items()
        if origin in parts.groups
    ]


def write_page(notebook: NotebookNode, path: Path) -> None:
    """Write an executed notebook as HTML."""
    from nbconvert import HTMLExporter  # imported late: it takes a second

    page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    with atomic_write(path) as temporary:
        temporary.write_text(page, "utf-8")
