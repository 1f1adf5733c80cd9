"""The map that opens notebook 00: all notebooks and, where somebody looks, which of them were run and what is next."""

from collections.abc import Mapping
from pathlib import Path

import nbformat
from IPython.display import Markdown

from kardlib import REPOSITORY
from kardlib.artifacts.store import MANIFEST, Store
from kardlib.kard.experiment import Experiment
from kardlib.report.controls import is_watched
from kardlib.report.folders import figures_folder
from kardlib.report.page import Result, read_result
from kardlib.report.progress import say_time


def show_map(experiment: Experiment, notebooks: Path = REPOSITORY / "notebooks") -> Markdown:
    """A table of the notebooks by their titles, each a link.

    Where somebody looks (`controls.is_watched`) it also says how each ended when `kard reproduce` last ran it with the
    experiment's settings, what the store holds, and the next step. A committed notebook says what holds everywhere.
    """
    titles = {path: read_title(path) for path in sorted(notebooks.glob("[0-9]*.ipynb"))}
    lines = {path: f"| [{path.stem[:2]}]({path.name}) | {title} |" for path, title in titles.items()}
    if not is_watched():
        return Markdown("\n".join(["| | notebook |", "|---|---|", *lines.values()]))
    run = figures_folder(experiment.settings.model_dump(mode="json"), REPOSITORY).parent
    results = {path: read_result(run / path.name) for path in titles}
    rows = [f"{line} {say_ending(results[path])} |" for path, line in lines.items()]
    told = ["", describe_store(experiment.store), find_next_step(results)]
    return Markdown("\n".join(["| | notebook | `kard reproduce` |", "|---|---|---|", *rows, *told]))


def read_title(notebook: Path) -> str:
    """The heading of its first cell."""
    return str(nbformat.read(notebook, as_version=4).cells[0].source).splitlines()[0].removeprefix("# ")


def say_ending(result: Result) -> str:
    """How the run of a notebook ended, and how long it took."""
    return result.status if result.status == "not run" else f"{result.status} in {say_time(result.seconds)}"


def describe_store(store: Store) -> str:
    """How many artifacts there are, and how large they are."""
    made = [path.parent for path in store.root.glob(f"*/{MANIFEST}") if path.parent.suffix != ".partial"]
    size = sum(file.stat().st_size for folder in made for file in folder.rglob("*") if file.is_file())
    return f"**The store** `{store.url or store.root}` holds {len(made)} artifacts, {size / 1e9:.1f} GB.  "


def find_next_step(results: Mapping[Path, Result]) -> str:
    """What to do after looking at the map."""
    left = [path for path, result in results.items() if result.status != "done"]
    if not left:
        return "**Next:** read on. All notebooks have been run, so that each of them finds its models in the store."
    done = "Nothing has been run yet" if len(left) == len(results) else f"{len(left)} of {len(results)} are left"
    return (
        f"**Next:** read on; this notebook makes what it lacks. {done}: `make reproduce` in a terminal runs them "
        "and goes on where it was stopped, and a notebook that is run here does the same for itself."
    )
