"""An executed notebook's page: formulas, captions and contents, and nothing from elsewhere."""

from pathlib import Path

import nbformat
import pytest

from kardlib.report.captions import read_captions
from kardlib.report.notebook_page import as_mathml, caption_figures, write_page
from tests.folders import ROOT
from tests.markup import check_that_it_can_be_sent, read_tags

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def page_of(tmp_path: Path, *texts: str, code: str = "1", output: dict | None = None, **metadata) -> Path:
    cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
    outputs = [nbformat.v4.new_output("display_data", output or {"text/plain": "1"})]
    cells.append(nbformat.v4.new_code_cell(code, outputs=outputs))
    write_page(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "01_first.html")
    return tmp_path / "01_first.html"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_page_of_every_notebook_can_be_sent(path, tmp_path):
    write_page(nbformat.read(path, 4), tmp_path / f"{path.stem}.html")
    check_that_it_can_be_sent(tmp_path / f"{path.stem}.html")
    text = (tmp_path / f"{path.stem}.html").read_text("utf-8")
    assert 'href="index.html"' in text and 'href="#What-we-found"' in text
    assert "What the code above draws" not in text, "give its figure a caption in captions.yml"
    formulas = [
        cell.source.replace("\\$", "").count("$") for cell in nbformat.read(path, 4).cells if "code" not in cell
    ]
    assert text.count("<math") > 0 or sum(formulas) < 2 or path.stem[:2] == "19"
    assert "<code>\\" not in text, "a formula that is none"


def test_formulas_are_mathml_and_what_is_in_them_is_text(tmp_path):
    page = page_of(tmp_path, "# T\n\n$x_1 < 2$ and\n\n$$\\frac{a}{b}$$\n\n$\\text{<img src=x>}$ and $\\frac{$")
    text = page.read_text("utf-8")
    assert text.count("<math") == 3 and "$" not in text.split("<main>")[1] and "<mfrac>" in text
    assert "&lt;img" in text and not [tag for tag, _ in read_tags(page) if tag == "img"]
    assert as_mathml("\\left( <b>", "inline") == "<code>\\left( &lt;b&gt;</code>"
    check_that_it_can_be_sent(page)


@pytest.mark.parametrize("code", ['save_figure(f, "03_hits" + suffix, t, None, {})', "plot_similarities(maps)"])
def test_a_figure_has_its_caption(code, tmp_path):
    (name,) = [name for name in read_captions() if name in code]
    page = page_of(tmp_path, "# T", code=code, output={"image/png": PIXEL, "text/plain": "<Figure>"})
    shows = read_captions()[name].shows
    assert [found["alt"] for tag, found in read_tags(page) if tag == "img"] == [shows]
    assert f"</strong> {shows.replace(chr(39), '&#x27;')}</figcaption>" in page.read_text("utf-8").replace(
        "'", "&#x27;"
    )
    check_that_it_can_be_sent(page)


def test_what_one_draws_oneself_has_an_alternative_text_and_the_notebook_stays_as_it_is():
    output = nbformat.v4.new_output("display_data", {"image/png": PIXEL})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("plt.plot(x)", outputs=[output])])
    shown = caption_figures(notebook).cells[0].outputs[0].data["text/html"]
    assert 'alt="What the code above draws."' in shown and notebook.cells[0].outputs[0].data == {"image/png": PIXEL}


def test_headings_are_contents_and_files_that_stay_at_home_are_no_links(tmp_path):
    text = "# T & <i>t</i>\n\n## One `two`\n\n#### Small\n\n[Extend](../docs/extend.md), [away](https://example.org)"
    page = page_of(tmp_path, text, "| a |\n|---|\n| b |")
    links = [found["href"] for tag, found in read_tags(page) if tag == "a"]
    assert links == ["index.html", "#T-amp-t", "#One-two", "https://example.org", "index.html"]
    assert "Extend (<code>docs/extend.md</code>)" in page.read_text("utf-8")
    assert '<div class="wide" tabindex="0"><table>' in page.read_text("utf-8")
    check_that_it_can_be_sent(page)


def test_a_widget_is_shown_as_its_text_and_a_failure_is_told(tmp_path):
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "bar <b>"}
    kard = {"notebook": "01_first", "status": "failed", "error": "cell 2: <script>", "date": "2026-11-26T17:00:00"}
    text = page_of(tmp_path, "# T", output=widget, kard=kard).read_text("utf-8")
    assert "bar &lt;b&gt;" in text and "model_id" not in text and "cell 2: &lt;script&gt;" in text
    assert '<span class="badge" data-status="failed">failed</span>' in text
