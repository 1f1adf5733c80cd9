"""What the README says is what the figures' data say."""

from kardlib.report.claims import read_claims
from kardlib.report.gallery import (
    BEGIN,
    COVERS,
    END,
    escape,
    figures_table,
    gallery,
    hits_table,
    main_table,
    reaugkd_table,
    refresh_readme,
    scorecard_table,
)
from kardlib.report.rows import long_form
from kardlib.settings import preset
from tests.folders import ROOT


def test_the_readme_shows_the_committed_figures_numbers():
    text = (ROOT / "README.md").read_text("utf-8")
    assert gallery(ROOT / "figures") in text, "refresh it with: kard reproduce --publish"


def test_refreshing_changes_the_section_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n", "utf-8")
    refresh_readme(readme, ROOT / "figures")
    text = readme.read_text("utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "stale" not in text and "Figure 4c" in text


def test_every_figure_stands_beside_its_place_in_the_paper(tmp_path):
    for name in ("04_main", "03_hits_obqa", "99_new"):
        (tmp_path / f"{name}.png").write_bytes(b"x")
    assert figures_table(tmp_path)[2:] == [
        "| KARD, Figure 4c, on OpenbookQA | ![03_hits_obqa](figures/03_hits_obqa.png) |",
        "| KARD, Tables 1 and 2 | ![04_main](figures/04_main.png) |",
        "| ours | ![99_new](figures/99_new.png) |",
    ]
    drawn = {path.stem for path in (ROOT / "figures").glob("*.png")}
    section = gallery(ROOT / "figures")
    assert all(f"](figures/{name}.png)" in section for name in drawn)
    assert {name[:2] for name in drawn} <= set(COVERS)


def test_the_scorecard_is_a_table_of_markdown(tmp_path):
    row = {"figure": "08_x", "dataset": "world", "scale": "embedded", "method": "kard_reranker", "n": 600}
    row |= {"knob": "kappa*", "x": 100, "metric": "accuracy", "over": "kard_reranker", "over_x": 20}
    gain = {"student": "t5-nano-base", "value": 0.0, "low": -0.01, "high": 0.01}
    long_form([row | gain]).to_csv(tmp_path / "08_x.csv", index=False)
    first, *rest = scorecard_table(tmp_path)
    titles = [line for line in rest if line.startswith("*")]
    lines = [line for line in rest if line and line not in titles]
    assert len(titles) == 3 and len(lines) == 2 * len(titles) + len(read_claims())
    assert all(line.count("|") == 6 and "\n" not in line for line in lines)
    (line,) = [line for line in lines if "✓ reproduced" in line]
    assert "world, embedded, t5-nano-base: +0 [-1, +1]" in line and "Table 4" in line
    assert first.startswith("1 tests that could have failed: 1 reproduced; ")


def test_the_main_table_holds_controls_that_no_paper_has(tmp_path):
    row = {"figure": "04_main", "dataset": "world", "scale": "embedded", "metric": "accuracy", "low": 0.4, "high": 0.6}
    rows = [row | {"method": "bag_of_words", "value": 0.6}, row | {"method": "chance", "value": 0.5}]
    students = preset().students
    rows += [
        row | {"method": method, "student": student, "value": 0.4 + i / 10}
        for method in ("few_shot", "undistilled_bm25") for i, student in enumerate(students)
    ]  # fmt: skip
    long_form(rows).to_csv(tmp_path / "04_main.csv", index=False)
    _, _, floor, few, ours, _, chance = main_table(tmp_path)
    assert floor == f"| Bag of words |  |  |  |{' 60.0 [40.0, 60.0] |' * 3}"
    assert ours == "| Undistilled (BM25) |  |  |  | 40.0 [40.0, 60.0] | 50.0 [40.0, 60.0] | 60.0 [40.0, 60.0] |"
    assert few.startswith("| Few-shot ICL | 2") and chance.startswith("Guessing is right on 50.0 %")


def test_gains_are_no_retriever_of_the_hits_table(tmp_path):
    row = {"figure": "03_hits", "dataset": "world", "scale": "embedded", "method": "reranker", "k": 1, "value": 0.5}
    rows = [row | {"metric": "hits_gold"}, row | {"metric": "hits_gold", "over": "bm25"}]
    long_form(rows).to_csv(tmp_path / "03_hits.csv", index=False)
    assert [line for line in hits_table(tmp_path) if "closed world" in line] == [
        "| gold | closed world | Reranker, trained | 50.0 |"
    ]


def test_reaugkds_tasks_stand_side_by_side(tmp_path):
    row = {"dataset": "mrpc", "scale": "embedded", "value": 0.7, "low": 0.65, "high": 0.75}
    for task, metrics in (("", ["accuracy"]), ("_mrpc", ["accuracy", "f1"])):
        rows = [row | {"figure": "13_reaugkd", "method": "reaugkd", "metric": metric} for metric in metrics]
        rows += [rows[0] | {"over": "rkd"}]  # a gain is no row of the table
        rows += [row | {"figure": "13_reaugkd", "method": "rkd", "metric": "accuracy"}]
        long_form(rows).to_csv(tmp_path / f"13_reaugkd{task}.csv", index=False)
    assert reaugkd_table(tmp_path) == [
        "| method | closed world | MRPC | MRPC, F1 |",
        "|---|---|---|---|",
        "| ReAugKD | 70.0 [65.0, 75.0] | 70.0 [65.0, 75.0] | 70.0 [65.0, 75.0] |",
        "| RKD | 70.0 [65.0, 75.0] | 70.0 [65.0, 75.0] |  |",
    ]


def test_a_cell_is_shown_as_it_is():
    cell = "<script>x</script> [here](javascript:x) *a* | b\n+1 [0.5, 2]"
    assert escape(cell) == r"&lt;script>x&lt;/script> [here]\(javascript:x) \*a\* \| b<br>+1 [0.5, 2]"
