"""The report of a run: an index of its verdicts, figures and notebooks, from templates that escape what they show.

A run's folder can be sent as it is: its pages load nothing from elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, FileSystemLoader

from kardlib import REPOSITORY
from kardlib.artifacts.disk import write_text
from kardlib.errors import KardError
from kardlib.report.captions import DATASETS, find_caption

ORIGINS = {  # of verdicts, their title, and what is said before they are counted
    "this run": ("Verdicts of this run", ""),
    "published": (
        "Published verdicts, not of this run",
        "Committed under figures/, of claims and datasets that this run has no results of: ",
    ),
}
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, keep_trailing_newline=True
)


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
    made: str = ""  # the device, versions and the commit that it ran with


@dataclass(frozen=True)
class Part:
    """The verdicts of one origin, a key of `ORIGINS`; `claims` and their cases are what `claims.by_claim` gives."""

    origin: str
    said: str  # how many there are, or why there are none
    counts: Sequence[tuple[str, str, int]] = ()  # verdict, its sign, how often where the test could have failed
    claims: Sequence[tuple[Any, Mapping[str, str], Sequence[tuple[str, str, str]]]] = ()

    @property
    def title(self) -> str:
        """The heading above them."""
        return ORIGINS[self.origin][0]


WAITING = Part("this run", "Verdicts follow when the notebooks have ended.")  # until the scorecard is known


def write_index(run: Path, results: Sequence[Result], scorecard: Sequence[Part], parameters: Mapping[str, Any]) -> Path:
    """Write `run/index.html` and return its path.

    `scorecard` is what `read_scorecard` returns; of the notebooks' `parameters` scale, dataset and overrides are told.
    """
    dataset = parameters["dataset"]
    where = DATASETS.get("" if dataset == "world" else f"_{dataset}", f"{dataset} data")
    ended = {status: sum(result.status == status for result in results) for status in ("done", "failed", "not run")}
    changed = ", ".join(f"{name} = {value}" for name, value in parameters["overrides"].items())
    figures = {Path(path): result.notebook for result in results for path in result.figures}
    facts = dict[str, list[str]]()  # notebooks of one run may have been run by several commits
    for result in (result for result in results if result.made):
        facts.setdefault(result.made, []).append(result.notebook)
    page = TEMPLATES.get_template("index.html.j2").render(
        title=f"KARD and ReAugKD: {where}, {parameters['scale']} scale",
        said=f"Of {len(results)} notebooks {', '.join(f'{n} {status}' for status, n in ended.items() if n)}. "
        f"Settings: {changed or 'as they are at this scale'}.",
        figures=[(path, notebook, find_caption(path.stem)) for path, notebook in figures.items()],
        signs={verdict: sign for part in scorecard for _, _, cases in part.claims for verdict, sign, _ in cases},
        facts=facts, results=results, describe_sharing=describe_sharing, scorecard=scorecard,
        explorers=sorted(f"figures/{path.name}" for path in run.glob("figures/[0-9]*_explorer*.html")),
    )  # fmt: skip
    write_text(run / "index.html", page)
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
    dataset that no row in the folder `figures` decides, and of many worlds where the run has one. A folder that is not
    there holds nothing. Raises ClaimError.
    """
    import pandas as pd

    from kardlib.report.claims import NOT_RUN, judge, read_claims, read_rows  # imported late: pandas is slow
    from kardlib.report.combined import of_many_worlds

    claims = read_claims()
    own, others = (judge(claims, read_rows([f] if f.is_dir() else [])) for f in (figures, published))
    known, cases = (pd.MultiIndex.from_frame(part[["id", "dataset"]]) for part in (own, others))
    more = of_many_worlds(others) & ~of_many_worlds(own).any()
    others = others[(~cases.isin(known) | more) & (others["verdict"] != NOT_RUN)]
    return pd.concat([own.assign(origin="this run"), others.assign(origin="published")], ignore_index=True)


def read_scorecard(figures: Path, published: Path) -> list[Part]:
    """`judge_run` by origin; one part without claims if the figures' data cannot be read."""
    from kardlib.report.claims import SIGNS, by_claim, tally

    try:
        scorecard = judge_run(figures, published).sort_values("could_fail", ascending=False, kind="stable")
    except KardError as error:
        return [Part("this run", str(error))]
    parts = []
    for origin, (_, said) in ORIGINS.items():
        if len(cases := scorecard[scorecard["origin"] == origin]):
            given = cases.loc[cases["could_fail"], "verdict"].value_counts()
            counts = [(verdict, sign, given[verdict]) for verdict, sign in SIGNS.items() if verdict in given]
            parts.append(Part(origin, f"{said}{tally(cases)}.", counts, [*by_claim(cases)]))
    return parts
