"""What the README and the pages of docs/ say is what the figures' data say."""

import json
import shutil
from math import inf

import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kardlib.presets import preset
from kardlib.registry import REGISTRY, Entry
from kardlib.report import gallery
from kardlib.report.captions import find_caption
from kardlib.report.claims import read_claims
from kardlib.report.gallery import (
    BEGIN,
    END,
    GLUE,
    OF_TASKS,
    PAGES,
    draw_glue,
    earlier_runs,
    gains_tables,
    headline_table,
    hits_table,
    lead_lines,
    main_table,
    other_findings,
    reaugkd_table,
    refresh_pages,
    scorecard_table,
    show_figures,
    show_headline,
)
from kardlib.report.papers import escape
from kardlib.report.rows import KEYS, long_form, read_table
from tests.folders import ROOT


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_the_committed_figures_numbers(name):
    text = (ROOT / name).read_text("utf-8")
    shown = "\n".join(["", *PAGES[name](ROOT / "figures"), ""])
    assert text.split(BEGIN)[1].split(END)[0] == f"\n{shown}", "refresh it with: kard reproduce --publish"


def test_refreshing_changes_the_sections_of_the_pages_that_are_there_alone(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "figures").mkdir()
    for path in (ROOT / "figures").iterdir():
        shutil.copy(path, tmp_path / "figures")
    for name in ("README.md", "docs/scorecard.md"):
        (tmp_path / name).write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n", "utf-8")
    for _ in range(2):
        refresh_pages(tmp_path)
        texts = {path.relative_to(tmp_path).as_posix(): path.read_text("utf-8") for path in tmp_path.rglob("*.md")}
        assert set(texts) == {"README.md", "docs/scorecard.md"}
        for name, text in texts.items():
            shown = "\n".join(PAGES[name](tmp_path / "figures"))
            assert text == f"before\n{BEGIN}\n\n{shown}\n{END}\nafter\n"


def test_every_figure_stands_under_its_place_in_the_paper_with_its_caption(tmp_path):
    for name in ("04_main", "03_hits_obqa", "99_new"):
        Image.new("1", (1, 1)).save(tmp_path / f"{name}.png")
    shown = show_figures(tmp_path)
    assert [line for line in shown if line.startswith("**")] == [
        "**KARD, Figure 4c, on OpenbookQA** (`03_hits_obqa`, [data](../figures/03_hits_obqa.csv), "
        "[PDF](../figures/03_hits_obqa.pdf))",
        "**KARD, Tables 1 and 2** (`04_main`, [data](../figures/04_main.csv), [PDF](../figures/04_main.pdf))",
        "**ours** (`99_new`, [data](../figures/99_new.csv), [PDF](../figures/99_new.pdf))",
    ]
    caption = escape(find_caption("04_main").shows)
    assert caption in shown and f"![{caption}](../figures/04_main.png)" in shown
    assert "![99 new](../figures/99_new.png)" in shown


def test_a_figure_of_less_than_its_scale_takes_says_so(tmp_path):
    usual = preset("real", "obqa", "")
    for name, changes in (
        ("04_main_obqa", {"student.target": "option"}),  # as it is where nothing is said
        ("07_rationales_obqa", {"student.share": 0.1, "reranker.questions": 9, "student.target": "words"}),
    ):
        settings = usual.override(changes).model_dump(mode="json")
        facts = PngInfo()
        facts.add_text("Provenance", json.dumps({"settings": settings}))
        Image.new("1", (1, 1)).save(tmp_path / f"{name}.png", pnginfo=facts)
    whole, less = [line for line in show_figures(tmp_path) if line.endswith(".") and not line.startswith("!")]
    assert "Run with" not in whole
    few = f"`reranker.questions=9` (usually `{usual.reranker.questions}`)"
    share = f"`student.share=0.1` (usually `{usual.student.share}`)"
    assert less.endswith(f" Run with {few} and {share} and `student.target=words` (usually `option`).")
    for name in ("04_main_obqa", "07_rationales_obqa"):
        shutil.copy(ROOT / "figures" / f"{name}.csv", tmp_path)
    assert earlier_runs(tmp_path)[2:-1] == ["- `07_rationales_obqa`: `student.target=words` (usually `option`)"]


def test_one_figure_shows_all_tasks_of_glue_and_stands_for_theirs(tmp_path):
    draw_glue(tmp_path)
    assert not list(tmp_path.iterdir())
    drawn = [path for path in (ROOT / "figures").iterdir() if path.stem in OF_TASKS]
    for path in drawn:
        shutil.copy(path, tmp_path)
    draw_glue(tmp_path)
    table = read_table(tmp_path / f"{GLUE}.csv")
    singles = pd.concat(read_table(path) for path in drawn if path.suffix == ".csv")
    assert len(drawn) > 3 and set(table["dataset"]) == set(singles["dataset"])
    assert len(table) > len(singles) / 2 and table.merge(singles, on=[*KEYS, "value"]).shape[0] == len(table)
    pictures = [line for line in show_figures(tmp_path) if line.startswith("![")]
    assert pictures == [f"![{escape(find_caption(GLUE).shows)}](../figures/13_glue.png)"]
    assert find_caption(GLUE).beside == "ReAugKD, on GLUE"


def write_rows(folder, figure, rows):
    dataset = figure.split("_")[2] if figure.count("_") > 1 else "world"
    row = {"figure": figure, "dataset": dataset, "scale": "embedded", "metric": "accuracy"}
    long_form([row | other for other in rows]).to_csv(folder / f"{figure}.csv", index=False)


def test_the_headline_holds_chance_floors_and_every_student_of_real_questions(tmp_path):
    student, others = preset().middle, preset().students[0]
    right = {"value": 0.4, "low": 0.3, "high": 0.5}
    write_rows(tmp_path, "04_strata", [
        {"method": "chance", "metric": "accuracy_never", "value": 0.25},
        {"method": "kard_reranker", "student": student, "metric": "accuracy_never", **right},
        {"method": "kard_reranker", "student": others, "metric": "accuracy_never", "value": 0.9},
    ])  # fmt: skip
    write_rows(tmp_path, "04_main", [
        {"method": "kard_reranker", "student": student, **right},
        {"method": "kard_reranker", "student": student, "seed": 0, "value": 0.9},
        {"method": "kard_reranker", "student": student, "over": "fine_tuning", "value": 0.1},
        {"method": "kard_silver", "student": student, "value": 0.9},
    ])  # fmt: skip
    write_rows(tmp_path, "04_main_obqa", [
        {"method": "chance", "value": 0.25}, {"method": "reasoning_distillation", "student": "mine", **right},
        {"method": "reasoning_distillation", "student": "mine", **right, "value": 0.42,
         "metric": "accuracy_by_total_likelihood"},
        {"method": "kard_gold", "student": "mine", **right},
        {"method": "undistilled_reranker", "student": "mine", **right, "unread": 0.7},
    ])  # fmt: skip
    write_rows(tmp_path, "04_main_strategyqa", [  # its letters could be read
        {"method": "kard_reranker", "student": "mine", **right, "unread": 0.02},
        {"method": "kard_reranker", "student": "mine", **right, "metric": "accuracy_by_total_likelihood"},
    ])  # fmt: skip
    assert headline_table(tmp_path) == [
        "| method | never shown | seldom | often | all | OpenbookQA, mine | OpenbookQA, mine, likeliest option "
        "| OpenbookQA, paper's Flan-T5 base | StrategyQA, mine | StrategyQA, paper's Flan-T5 base |",
        "|---|---|---|---|---|---|---|---|---|---|",
        "| Chance | 25.0 |  |  |  | 25.0 | 25.0 |  |  |  |",
        "| Fine-tuning (FT) |  |  |  |  |  |  | 54.0 |  | 52.3 |",
        "| Reasoning distillation (RD) |  |  |  |  | 40.0 [30.0, 50.0] | 42.0 [30.0, 50.0] | 58.9 |  | 55.4 |",
        "| Undistilled (reranker) |  |  |  |  | 70% unread |  |  |  |  |",
        "| KARD (reranker) | 40.0 [30.0, 50.0] |  |  | 40.0 [30.0, 50.0] |  |  | 59.3 "
        "| 40.0 [30.0, 50.0], 2% unread | 56.6 |",
    ]


def test_leads_and_the_count_of_verdicts_stand_below_the_headline_and_the_rest_on_the_scorecards_page(tmp_path):
    ends = {"low": 0.1, "high": 0.3, "k": 1, "metric": "hits_silver", "value": 0.2}
    write_rows(tmp_path, "03_hits_obqa", [
        {"method": "bm25", **ends}, {"method": "reranker", **ends}, {"method": "reranker", "over": "bm25", **ends},
    ])  # fmt: skip
    lead = {"method": "kard_reranker", "over": "reasoning_distillation", "value": 0.02, "low": -0.01, "high": 0.05}
    write_rows(tmp_path, "04_main", [{"student": s, **lead} for s in ("t5-nano-base", "t5-nano-small")])
    other = {"student": "mine", **lead, "over_student": "larger", "value": 0.04}
    write_rows(tmp_path, "04_main_obqa", [{"student": "mine", **lead}, other])
    crossing = {"method": "reasoning_distillation", "metric": "crossing"}
    write_rows(tmp_path, "17_exposures_full", [
        {"student": "t5-nano-large", "value": 7.5, "low": 5.0, "high": 9.81, **crossing},
        {"student": "t5-nano-small", "value": 13.5, "low": 8.5, "high": inf, **crossing},
    ])  # fmt: skip
    crossing = {"metric": "crossing", "student": "t5-nano-base"}
    write_rows(tmp_path, "17_frontier_full", [
        {"method": "kard_reranker", "value": 140.0, "low": 104.78, "high": inf, **crossing},
        {"method": "kard_reranker", "value": inf, "low": 200.0, "high": inf, **crossing, "student": "t5-nano-large"},
        {"method": "kard_shown_reranker", "value": 0.0, "low": 0.0, "high": 50.0, **crossing},
    ])  # fmt: skip
    *_, leads, claims, _ = show_headline(tmp_path)
    by_size, crossed, found = other_findings(tmp_path)
    lead = "+2.0 [-1.0, +5.0] points"
    assert leads.endswith(f"closed world {lead} (t5-nano-small), {lead} (t5-nano-base); OpenbookQA {lead} (mine).")
    assert "as long: KARD (reranker) overtakes RD from 140 [105, …] ailments on (t5-nano-base), nowhere (" in by_size
    assert by_size.endswith(" overtakes RD everywhere (t5-nano-base).")
    assert " overtakes KARD after 13.5 [8.5, …] epochs (t5-nano-small), after 7.5 [5, 9.81] epochs (t5-" in crossed
    assert found.startswith("- OpenbookQA, ") and "reranker 20.0 [10.0, 30.0] % of questions, BM25 20.0 [" in found
    assert found.endswith("gain +20.0 [+10.0, +30.0] points.")
    assert claims.startswith("- Claims ([scorecard](docs/scorecard.md)): ")


def test_many_worlds_tell_a_lead_in_the_place_of_one(tmp_path):
    gain = {"method": "kard_reranker", "over": "reasoning_distillation", "student": "t5-nano-base"}
    at_k = {**gain, "knob": "k", "x": 1, "value": 0.5}
    write_rows(tmp_path, "04_main", [{**gain, "value": 0.02, "low": -0.01, "high": 0.05}])
    of_worlds = [{**gain, "seed": seed, "value": 0.01} for seed in (10, 11, 12)]
    row = {"figure": "21_worlds_full", "dataset": "world", "scale": "embedded", "metric": "accuracy"}
    mean = {**gain, "value": 0.01, "low": 0.005, "high": 0.015}
    shown = {**mean, "method": "kard_shown_reranker", "value": 0.012}
    junk = shown | {"over": "kard_reranker", "unread": 0.9}
    rows = [*of_worlds, shown, mean, at_k, junk, shown | {"over": "kard_bm25"}]  # the last is no lead that is told
    long_form(row | one for one in rows).to_csv(tmp_path / "21_worlds_full.csv", index=False)
    lead, over_kard, over_rd = lead_lines(tmp_path)
    assert over_kard.endswith("over KARD (reranker): 3 closed worlds 90% unread (t5-nano-base).")
    assert lead.endswith("main claim: 3 closed worlds +1.0 [+0.5, +1.5] points (t5-nano-base).")
    assert over_rd.endswith("will read, over RD: 3 closed worlds +1.2 [+0.5, +1.5] points (t5-nano-base).")


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
        "| RKD | 70.0 [65.0, 75.0] | 70.0 [65.0, 75.0] |  |",
        "| ReAugKD | 70.0 [65.0, 75.0] | 70.0 [65.0, 75.0] | 70.0 [65.0, 75.0] |",
    ]


def test_the_scorecard_tells_every_gain_also_of_what_no_claim_speaks(tmp_path):
    gain = {"low": 0.1, "high": 0.3, "value": 0.2, "student": "mine"}
    write_rows(tmp_path, "04_main", [
        {"method": "kard_reranker", "over": "chance", **gain},
        {"method": "fine_tuning", "student": "mine", "value": 0.5},
        {"method": "kard_reranker", "over": "few_shot", **gain, "unread": 0.9},
    ])  # fmt: skip
    write_rows(tmp_path, "14_scorecard", [{"method": "a claim", "over": "chance", **gain}])
    assert gains_tables(tmp_path) == [
        "", "*04_main: accuracy (points)*", "",
        "| method | mine |",
        "|---|---|",
        "| KARD (reranker) over Chance | +20.0 [+10.0, +30.0] |",
        "| KARD (reranker) over Few-shot ICL | 90% unread |",
    ]  # fmt: skip


def test_names_of_any_kind_stay_in_their_cells_of_every_table(tmp_path, monkeypatch):
    name, shown = "a|b [c](d) <i>", r"a\|b \[c\](d) &lt;i&gt;"
    monkeypatch.setitem(REGISTRY, "odd", Entry(name))
    row = {"scale": "embedded", "method": "odd", "value": 0.7}
    for figure, more in (
        ("04_main", {"student": name}), ("04_main_obqa", {"student": name, "method": "fine_tuning"}),
        ("04_strata", {"metric": "accuracy_never"}), ("03_hits", {"metric": "hits_gold", "k": 1}), ("13_reaugkd", {}),
    ):  # fmt: skip
        write_rows(tmp_path, figure, [row | more | {"method": "chance"}, row | more])
    monkeypatch.setattr(gallery, "HEADLINE", ("odd", "fine_tuning"))
    monkeypatch.setattr(gallery, "preset", lambda *_: preset().model_copy(update={"students": (name,)}))
    for table in (headline_table, main_table, hits_table, reaugkd_table):
        text = "\n".join(table(tmp_path))
        assert shown in text and "<i>" not in text, table
        lines = [line for line in text.splitlines() if line.startswith("|") and "closed world |" not in line]
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1, table
