"""The report of a run: old copies, and the scorecard with its figures' data."""

from pathlib import Path

import nbformat

from kardlib.report.page import WAITING, read_result, read_scorecard, write_index
from kardlib.report.rows import COLUMNS


def test_an_old_or_foreign_copy_does_not_stop_the_index(tmp_path: Path) -> None:
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "01_first.ipynb")
    results = [read_result(tmp_path / f"{name}.ipynb") for name in ("01_first", "02_missing")]
    page = write_index(tmp_path, results, WAITING).read_text()
    assert page.count("<td>not run") == 2


def test_the_index_shows_the_scorecard(tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    figures.mkdir()
    where = "04_main,<world>,embedded,test,kard_reranker,a & b,,3,,,"
    row = f"{where},accuracy,reasoning_distillation,,,,0.2,0.1,0.3,"
    (figures / "04_main.csv").write_text(f"{','.join(COLUMNS)}\n{row}\n")
    page = write_index(tmp_path / "run", [], *read_scorecard(figures)).read_text()
    assert "<td>✓ reproduced" in page and "&lt;world&gt;, embedded, a &amp; b: +20 [+10, +30]" in page
    assert (
        "<world>" not in page
        and "– not run at this scale" in page
        and "<p>1 tests that could have failed: 1 reproduced; " in page
    )

    (figures / "04_main.csv").write_text("<b>,no data\n1,2\n")
    page = write_index(tmp_path / "run", [], *read_scorecard(figures)).read_text()
    assert "is not a figure&#39;s data" in page and "<b>" not in page and page.endswith("</html>\n")
