"""What executed notebooks leave in the repository: their figures, and themselves without traces of the machine."""

import ast
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from kardlib.artifacts.disk import atomic_write, write_text
from kardlib.errors import KardError
from kardlib.report.page import read_result

MAX_KB = 400  # of a published notebook
IMAGES = ("image/png", "image/jpeg", "application/pdf")  # outputs in base64
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<~)\]}-])(?:/[\w.@+-]+){2,}|file:///\S+|\b[A-Z]:\\\w+")
MOMENT = re.compile(r" at 0x[0-9a-f]{6,}(?=>)|'date': '[^']*', ")  # an object's address, the date of a provenance
COLOURS = re.compile(r"\x1b\[[\d;]*m")
STYLED = re.compile(r"\bT_[0-9a-f]{5}(?=[_\\ ])")  # the random name of a table that pandas styled


class PublishError(KardError, RuntimeError):
    """A notebook is not fit to be published."""


def find_cell(notebook: NotebookNode, tag: str) -> NotebookNode | None:
    """The first cell with a tag, None if there is none."""
    return next((cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])), None)


def read_assignments(source: str) -> dict[str, str]:
    """Name -> value as normalized source, of all assignments `name = value` in a cell. Raises SyntaxError."""
    values: dict[str, str] = {}
    for statement in ast.parse(source).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        value = getattr(statement, "value", None)
        values |= {t.id: ast.unparse(value) for t in targets if isinstance(t, ast.Name) and value is not None}
    return values


def publish_results(copies: Sequence[Path], with_notebooks: bool, root: Path) -> None:
    """Copy what executed notebooks drew into `root/figures`, and refresh the pages.

    The notebooks, cleaned, replace those in `root/notebooks` if they are asked for: committed ones are of the closed
    world. Raises PublishError, before anything is written, if one of them is unfit, or a page that shows results.
    """
    from kardlib.report.gallery import BEGIN, END, PAGES, refresh_pages  # late: it brings pandas and matplotlib

    for page in [root / name for name in PAGES if (root / name).is_file()]:
        if not all(marker in page.read_text("utf-8") for marker in (BEGIN, END)):
            raise PublishError(f"{page} has lost a marker: results stand between {BEGIN} and {END}")
    drawn = [copy.parent / png for copy in copies for png in read_result(copy).figures]
    read = {copy.name: nbformat.read(copy, as_version=4) for copy in copies if with_notebooks}
    cleaned = {name: clean_notebook(notebook, name, root) for name, notebook in read.items()}
    for name, text in cleaned.items():
        write_text(root / "notebooks" / name, text)
    for path in [png.with_suffix(suffix) for png in drawn for suffix in (".pdf", ".png", ".csv")]:
        with atomic_write(root / "figures" / path.name) as temporary:
            shutil.copyfile(path, temporary)
    refresh_pages(root)


def clean_notebook(notebook: NotebookNode, name: str, root: Path) -> str:
    """The text of an executed notebook without traces of the machine: paths, times, widget state, papermill's metadata.

    Raises PublishError if an absolute path remains, or if the text is larger than `MAX_KB`.
    """
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor  # imported late: nbconvert is slow

    joining = CoalesceStreamsPreprocessor()
    default, injected = find_cell(notebook, "parameters"), find_cell(notebook, "injected-parameters")
    if default and injected:
        given = {name: value for name, value in read_assignments(injected.source).items() if name != "figures_dir"}
        if given.items() <= read_assignments(default.source).items():
            notebook.cells.remove(injected)
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    count = 0
    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in ("tags", "jupyter") if cell.metadata.get(key)})
        if cell.cell_type == "code":
            count += cell.execution_count is not None
            cell.execution_count = count if cell.execution_count is not None else None
            joining.preprocess_cell(cell, {}, 0)  # the clock alone decides how a stream is cut
            for output in cell.outputs:
                clean_output(output, cell.execution_count, root)
        for holder, key in [(cell, "source"), *find_strings(cell.get("outputs", []))]:
            if found := ABSOLUTE_PATH.search(COLOURS.sub("", holder[key])):
                raise PublishError(
                    f"{name} is not published: it holds the absolute path {found[0]}; print no such path"
                )
    text = nbformat.writes(nbformat.from_dict(notebook)) + "\n"
    for number, table in enumerate(dict.fromkeys(STYLED.findall(text)), 1):  # the same tables are the same bytes
        text = text.replace(table, f"T_{number}")
    if (kb := len(text.encode()) / 1000) > MAX_KB:
        raise PublishError(f"{name} is not published: it is {kb:.0f} KB, more than {MAX_KB}; show less, or smaller")
    return text


def clean_output(output: NotebookNode, execution_count: int | None, root: Path) -> None:
    """Number a cell's output, and remove its widget state and its paths below `root` and the home folder, in place."""
    if "execution_count" in output:
        output.execution_count = execution_count
    for holder, key in find_strings(output):
        holder[key] = MOMENT.sub("", holder[key])
    for widget in [kind for kind in output.get("data", {}) if kind.startswith("application/vnd.jupyter.widget")]:
        del output.data[widget]
    for folder, short in {str(root): ".", str(root.resolve()): ".", str(Path.home()): "~"}.items():
        if len(folder) > 1:  # a home at the root of the disk is part of every path
            pattern = re.compile(re.escape(folder) + r"(?![\w-])")
            for holder, key in find_strings(output):
                holder[key] = pattern.sub(short, holder[key])


def find_strings(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every string in nested dicts and lists, as its holder and its key there; images do not count."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, str) and key not in IMAGES:
            yield node, key
        elif isinstance(value, dict | list):
            yield from find_strings(value)
