"""The report of a run: old copies, and the scorecard with its figures' data."""

from pathlib import Path

import nbformat

from kardlib.report.page import WAITING, judge_run, read_result, read_scorecard, write_index
from kardlib.report.rows import COLUMNS


def test_an_old_or_foreign_copy_does_not_stop_the_index(tmp_path: Path) -> None:
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "01_first.ipynb")
    results = [read_result(tmp_path / f"{name}.ipynb") for name in ("01_first", "02_missing")]
    page = write_index(tmp_path, results, [WAITING]).read_text()
    assert page.count("<td>not run") == 2


def write_gain(folder: Path, *datasets: str) -> Path:
    """KARD's gain over RD, in the data of a figure for each dataset."""
    folder.mkdir(exist_ok=True)
    for dataset in datasets:
        where = f"04_main,{dataset},embedded,test,kard_reranker,a & b,,3,,,"
        row = f"{where},accuracy,reasoning_distillation,,,,0.2,0.1,0.3,"
        (folder / f"04_main_{len(dataset)}.csv").write_text(f"{','.join(COLUMNS)}\n{row}\n")
    return folder


def test_the_index_shows_the_scorecard(tmp_path: Path) -> None:
    figures = write_gain(tmp_path / "figures", "<world>")
    page = write_index(tmp_path / "run", [], read_scorecard(figures, tmp_path / "none")).read_text()
    assert "<td>✓ reproduced" in page and "&lt;world&gt;, embedded, a &amp; b: +20 [+10, +30]" in page
    assert (
        "<world>" not in page
        and "– not run at this scale" in page
        and "<p>1 tests that could have failed: 1 reproduced; " in page
    )

    (figures / "04_main_7.csv").write_text("<b>,no data\n1,2\n")
    page = write_index(tmp_path / "run", [], read_scorecard(figures, tmp_path / "none")).read_text()
    assert "is not a figure&#39;s data" in page and "<b>" not in page and page.endswith("</html>\n")


def test_published_verdicts_stand_apart_and_only_where_the_run_has_none(tmp_path: Path) -> None:
    own, published = write_gain(tmp_path / "own", "obqa"), write_gain(tmp_path / "published", "obqa", "strategyqa")
    scorecard = judge_run(own, published)
    decided = scorecard[scorecard["value"].notna() & (scorecard["id"] == "KARD over RD")]
    assert decided[["origin", "dataset"]].to_numpy().tolist() == [["this run", "obqa"], ["published", "strategyqa"]]
    assert not (scorecard["origin"].eq("published") & scorecard["value"].isna()).any()
    (first, counted, _), (second, others, table) = read_scorecard(own, published)
    assert (first, second) == ("this run", "published") and counted.startswith("1 tests that could have failed: 1 rep")
    assert others.startswith("Committed under figures/, ") and ": 1 tests that could have failed: 1 rep" in others
    assert "strategyqa" in table.to_csv() and "obqa" not in table.to_csv()
    assert [origin for origin, *_ in read_scorecard(tmp_path / "none", published)] == ["this run", "published"]
