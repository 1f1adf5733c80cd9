"""The report of a run: old copies, and the scorecard with its figures' data."""

from pathlib import Path

import nbformat

from kardlib.report.page import WAITING, Result, judge_run, read_result, read_scorecard, write_index
from kardlib.report.rows import COLUMNS
from tests.markup import check_that_it_can_be_sent, read_tags

SETTINGS = {"scale": "embedded", "dataset": "world", "overrides": {}}


def test_an_old_or_foreign_copy_does_not_stop_the_index(tmp_path: Path) -> None:
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "01_first.ipynb")
    results = [read_result(tmp_path / f"{name}.ipynb") for name in ("01_first", "02_missing")]
    page = write_index(tmp_path, results, [WAITING], SETTINGS).read_text()
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
    index = write_index(tmp_path / "run", [], read_scorecard(figures, tmp_path / "none"), SETTINGS)
    page = index.read_text()
    case = '<span class="badge">✓ reproduced</span> &lt;world&gt;, embedded, a &amp; b: +20 [+10, +30]'
    assert (
        f'<li data-verdict="reproduced">{case}' in page and "<world>" not in page and "– not run at this scale" in page
    )
    assert "</strong> 1 tests that could have failed: 1 reproduced; " in page
    assert page.index("✓ 1 reproduced</span>") < page.index('<nav class="contents"'), "first what it showed"
    assert "<details" in page and "<p>Note: " in page
    check_that_it_can_be_sent(index)

    (figures / "04_main_7.csv").write_text("<b>,no data\n1,2\n")
    page = write_index(tmp_path / "run", [], read_scorecard(figures, tmp_path / "none"), SETTINGS).read_text()
    assert "is not a figure&#39;s data" in page and "<b>" not in page and page.endswith("</html>\n")


def test_published_verdicts_stand_apart_and_only_where_the_run_has_none(tmp_path: Path) -> None:
    own, published = write_gain(tmp_path / "own", "obqa"), write_gain(tmp_path / "published", "obqa", "strategyqa")
    scorecard = judge_run(own, published)
    decided = scorecard[scorecard["value"].notna() & (scorecard["id"] == "KARD over RD")]
    assert decided[["origin", "dataset"]].to_numpy().tolist() == [["this run", "obqa"], ["published", "strategyqa"]]
    assert not (scorecard["origin"].eq("published") & scorecard["value"].isna()).any()
    first, second = read_scorecard(own, published)
    assert first.origin == "this run" and first.said.startswith("1 tests that could have failed: 1 rep")
    assert second.origin == "published" and second.said.startswith("Committed under figures/, ")
    assert ": 1 tests that could have failed: 1 rep" in second.said and second.counts == [("reproduced", "✓", 1)]
    told = [text for _, _, cases in second.claims for *_, text in cases]
    assert told and all("strategyqa" in text for text in told)
    assert [part.origin for part in read_scorecard(tmp_path / "none", published)] == ["this run", "published"]

    page = write_index(tmp_path / "run", [], [first, second], SETTINGS).read_text()
    mine, others = page.split('<section id="published" class="published">')
    assert "strategyqa, embedded" in others and "strategyqa, embedded" not in mine
    assert "<h2>Published verdicts, not of this run</h2>" in others and "<h2>Verdicts of this run</h2>" in mine


def test_what_many_worlds_decide_is_told_beside_a_run_of_one(tmp_path: Path) -> None:
    own, published = write_gain(tmp_path / "own", "world"), write_gain(tmp_path / "published", "world")
    assert set(judge_run(own, published)["origin"]) == {"this run"}
    (one,) = published.glob("*.csv")
    (published / "21_worlds_full.csv").write_text(one.read_text().replace("04_main", "21_worlds_full"))
    decided = judge_run(own, published).query("id == 'KARD over RD'")
    assert decided["origin"].tolist() == ["this run", "published"] and "21_worlds_full" in decided["file"].iloc[1]
    (own / "21_worlds_full.csv").write_text((published / "21_worlds_full.csv").read_text())
    assert set(judge_run(own, published)["origin"]) == {"this run"}


def test_the_index_says_what_was_run_and_shows_each_figure_with_its_caption(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    for name in ("03_hits_obqa", "99 <b>"):
        (tmp_path / "figures" / f"{name}.png").write_bytes(b"x")
    figures = ["figures/03_hits_obqa.png", "figures/99 <b>.png"]
    for name in ("12_explorer.html", ".unfinished-ab12cd34ab12cd34.part"):  # the other one was being written
        (tmp_path / "figures" / name).write_text("")
    results = [Result("03_a & b", "done", figures=figures), Result("04_main", "failed", error="no <i>"), Result("05_c")]
    changed = {"scale": "smoke", "dataset": "obqa", "overrides": {"retrieval.k": 1, "x": "<b>"}}
    index = write_index(tmp_path, results, [WAITING], changed)
    page = index.read_text()
    assert "<h1>KARD and ReAugKD: OpenbookQA, smoke scale</h1>" in page and "no &lt;i&gt;" in page
    assert "Of 3 notebooks 1 done, 1 failed, 1 not run. Settings: retrieval.k = 1, x = &lt;b&gt;." in page
    assert "<strong>KARD, Figure 4c, on OpenbookQA.</strong> Hits@k" in page and "99 &lt;b&gt;" in page
    pictures = {found["src"]: found["alt"] for tag, found in read_tags(index) if tag == "img"}
    assert pictures["figures/03_hits_obqa.png"].startswith("Hits@k against gold and against silver")
    assert '<a href="03_a%20%26%20b.html">notebook</a>' in page and "<b>" not in page
    assert "12_explorer.html" in page and "unfinished" not in page


def test_an_index_that_waits_shows_no_filter(tmp_path: Path) -> None:
    page = write_index(tmp_path, [], [WAITING], SETTINGS).read_text()
    assert "Verdicts follow when the notebooks have ended." in page and "<form" not in page
