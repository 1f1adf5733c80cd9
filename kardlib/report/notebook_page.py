"""An executed notebook as a page of its run's report: formulas in MathML, captions, contents; it loads nothing."""

import copy
import html
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from latex2mathml.converter import convert_to_element
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from kardlib.artifacts.disk import write_text
from kardlib.report.captions import find_drawn
from kardlib.report.page import TEMPLATES, Result

SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]  # what loads nothing
LONG = 40  # letters of LaTeX in a line that a telephone may not hold


def write_page(notebook: NotebookNode, path: Path) -> None:
    """Write an executed notebook as HTML."""
    contents: list[tuple[int, str, str]] = []
    attached = {name: data for cell in notebook.cells for name, data in cell.get("attachments", {}).items()}
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.config.NbConvertBase.display_data_priority = SHOWN
    exporter.register_filter("markdown2html", MarkdownWithMath(Renderer(contents, attached)).render)
    body, resources = exporter.from_notebook_node(caption_figures(notebook))
    page = TEMPLATES.get_template("notebook.html.j2").render(
        name=path.stem, run=path.parent.name, body=body, contents=contents, styles=resources["inlining"]["css"],
        result=Result(**notebook.metadata.get("kard", {"notebook": path.stem})),
    )  # fmt: skip
    write_text(path, page)


def caption_figures(notebook: NotebookNode) -> NotebookNode:
    """A copy in which each figure has its caption; a saved one is named in its cell or in one before it."""
    shown = copy.deepcopy(notebook)
    code = [cell for cell in shown.cells if cell.cell_type == "code"]
    for at, cell in enumerate(code):
        before = code[at - 1 :: -1] if at and "save_figure(" in cell.source else []
        for output in cell.outputs:
            if picture := output.get("data", {}).get("image/png"):
                caption = find_drawn([cell.source, *(other.source for other in before)])
                said = html.escape(caption.shows if caption else "What the code above draws.")
                place = f"<strong>{html.escape(caption.beside)}.</strong> {said}" if caption else ""
                image = f'<img src="data:image/png;base64,{html.escape(picture)}" alt="{said}">'
                output.data = {"text/html": f"<figure>{image}<figcaption>{place}</figcaption></figure>"}
    return shown


def as_mathml(latex: str, display: str) -> str:
    """A formula, `display` as "inline" or "block"; its source where it is none."""
    try:
        formula = convert_to_element(latex, display=display)
    except Exception:  # latex2mathml's own have no class in common
        return f"<code>{html.escape(latex)}</code>"
    for element in formula.iter():  # its signs are character references, beside text that is not escaped
        element.text = html.unescape(element.text or "")
    return ElementTree.tostring(formula, encoding="unicode")


class Renderer(IPythonRenderer):
    """Markdown as HTML; `contents` takes level, id and HTML of every heading."""

    def __init__(self, contents: list[tuple[int, str, str]], attached: dict[str, Any]):
        super().__init__(escape=False, attachments=attached)
        self.contents = contents

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        """A heading, which the contents link to."""
        id = re.sub(r"[^\w.]+", "-", re.sub(r"<.*?>", "", text))
        self.contents.append((level, id, text))
        return f'<h{level} id="{id}">{text}</h{level}>\n'

    def table(self, text: str) -> str:
        """A table that scrolls by itself where the page is narrow."""
        return f'<div class="wide" tabindex="0"><table>{text}</table></div>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A file of the repository does not travel with the report: its path from there is told."""
        if urlsplit(url).scheme or url.startswith("#"):
            return super().link(text, url, title)
        return f"{text} (<code>{html.escape(url.removeprefix('../'))}</code>)"

    def block_math(self, body: str) -> str:
        """LaTeX on lines of its own, as MathML."""
        return f'<span class="wide">{as_mathml(body, "block")}</span>'

    def inline_math(self, body: str) -> str:
        """LaTeX within a line, as MathML."""
        return f'<span class="{"long" if len(body) > LONG else "short"}">{as_mathml(body, "inline")}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        """LaTeX between `\\begin` and `\\end`, as MathML."""
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")
