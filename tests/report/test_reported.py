"""The papers' numbers are those of the notes on them, and stand in one file."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from kardlib.report.claims import CLAIMS, Reported, Selection, read_claims
from kardlib.report.reported import FILE, Table, find_table, read_reported
from kardlib.settings import SettingsError, validate
from tests.folders import ROOT

NOTES = Path(os.environ.get("KARD_DATA", ROOT.parent / "shared" / "data")).parent / "paper" / "reported.yml"
ORACLES = {"kard_silver": "kard_silver_oracle", "teacher_cot": "teacher_cot_oracle"}  # as the notes call them


@pytest.fixture(scope="module")
def notes():
    if not NOTES.is_file():
        pytest.skip(f"there is no {NOTES.name} beside the checkout: set KARD_DATA")
    return yaml.safe_load(NOTES.read_text("utf-8"))


def test_the_main_tables_are_those_of_the_notes(notes):
    tables, kard = read_reported(), notes["kard"]
    places = {"table2_strategyqa": kard["table2"]["strategyqa"], "table2_openbookqa": kard["table2"]["openbookqa"]}
    for name, start in (("table1_medqa", 0), ("table1_opt", 3), *((name, 0) for name in places)):
        noted, table = places.get(name, kard["table1_medqa"]), tables[name]
        for row, numbers in table.rows.items():
            assert [*numbers] == noted[ORACLES.get(row, row)][start : start + len(numbers)], (name, row)
        for row, numbers in table.sd.items():
            assert [*numbers] == noted[f"{row}_sd"][start : start + len(numbers)], (name, row)
        assert {ORACLES.get(row, row) for row in table.rows} | {f"{row}_sd" for row in table.sd} | {"columns"} >= {
            *noted
        }


def test_the_other_tables_are_those_of_the_notes(notes):
    tables, kard = read_reported(), notes["kard"]
    sizes = ("flan-t5-base", "flan-t5-large")
    for name, knob in (("table3_rationales", "l"), ("table4_candidates", "kappa_star")):
        rows = zip(kard[name][knob], *(kard[name][size] for size in sizes), strict=True)
        assert {key.split(" = ")[1]: row for key, row in tables[name].rows.items()} == {str(x): (*r,) for x, *r in rows}
    for name, rows in {
        "table5_passages": {"kard_bm25": "bm25", "kard_reranker": "reranker"},
        "figure3_dapt": {"reasoning_distillation": "reasoning_distillation", "kard_reranker": "kard_reranker"},
        "figure4a_dataset_size": {"fine_tuning": "fine_tuning", "kard_bm25": "kard"},
        "figure4c_hits": {"bm25": "bm25", "reranker": "reranker"},
    }.items():
        assert tables[name].rows == {ours: (*kard[name][theirs],) for ours, theirs in rows.items()}, name
    rag = kard["table7_rag"]["rag_reasoning_distillation"]
    assert [tables[f"table7_{name}"].numbers("rag")[0] for name in ("medqa", "strategyqa")] == rag
    assert [number for row in tables["test_sizes"].rows.values() for number in row] == [*kard["test_sizes"].values()]
    failures = tables["failure_analysis"].rows
    assert failures["reranker_missed"] == (kard["failure_analysis"]["reranker_missed_the_passage"],)
    assert failures["student_failed"] == (kard["failure_analysis"]["student_failed_with_the_passage"],)
    ours = {name: table.rows for name, table in tables.items() if name.startswith("reaugkd")}
    told = notes["reaugkd"]
    assert ours["reaugkd_gains"]["over_best_earlier"] == (told["average_gain_over_best_prior"],)
    assert ours["reaugkd_gains"]["over_no_retrieval"] == (told["gain_over_no_retrieval"],)
    assert ours["reaugkd_tasks"]["ranked_first"] == (told["tasks_ranked_first"],)
    assert ours["reaugkd_largest_gains"]["over_best_earlier"] == (*told["largest_task_gains"],)
    assert ours["reaugkd_latency"]["latency_overhead"] == (told["latency_overhead_percent"],)


def test_no_number_of_the_papers_stands_twice():
    """Those with decimals, which are nowhere by chance: not in code, not in claims, not in notebooks' code."""
    numbers = [n for table in read_reported().values() for row in table.rows.values() for n in row if n and n > 10]
    written = {form for n in numbers if n % 1 for form in (f"{n:.2f}", f"{n:g}")}
    texts = {path.name: path.read_text("utf-8") for path in [CLAIMS, *(ROOT / "kardlib").rglob("*.py")]}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        texts[path.name] = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    assert not {(name, n) for name, text in texts.items() for n in re.findall(r"\d+\.\d+", text) if n in written}
    assert "+0.45" not in texts["13_reaugkd.ipynb"] and len(written) > 100 and "31.03" in FILE.read_text("utf-8")


def test_claims_name_tables_of_the_file():
    names = {reported.table for claim in read_claims() for reported in claim.reported}
    assert names <= read_reported().keys() and len(names) > 10


def test_a_table_says_what_it_lacks():
    table = read_reported()["table1_opt"]
    assert table.numbers("few_shot", ["OPT-IML-1.3B", "OPT-350M"]) == [29.14, 27.42] and not table.read_off
    with pytest.raises(ValueError, match=r"^Table 1 has no number for teacher_cot in the column OPT-350M$"):
        table.numbers("teacher_cot")
    with pytest.raises(SettingsError, match="few_shot must have a number for each of base, large"):
        validate(Table, {"at": "T", "dataset": "d", "columns": ["base", "large"], "rows": {"few_shot": [1]}})


def test_a_curve_runs_along_rows_or_columns():
    assert find_table("table3_rationales").curves()["base"] == {3: 30.09, 5: 32.13, 10: 32.91}
    assert find_table("table5_passages").curves()["kard_bm25"] == {1: 32.91, 2: 32.84, 3: 32.36}
    assert find_table("table7_medqa").curves() == {}
    with pytest.raises(SettingsError, match="x must have a number for each of the rows"):
        validate(Table, {"at": "T", "dataset": "d", "columns": ["a"], "rows": {"m": [1]}, "x": {"rows": [1, 2]}})


def reported(claimed: dict | None = None, **fields) -> tuple[str, dict[str, float]]:
    """In words, and the numbers."""
    place = validate(Reported, fields)
    row = {"method": "kard_reranker", "metric": "accuracy", "over": "reasoning_distillation"} | (claimed or {})
    selection = validate(Selection, row)
    return place.in_words(selection), place.numbers(selection)


def test_what_a_paper_reports():
    assert reported(table="table1_medqa", columns=["base", "XL"]) == (
        "Table 1, MedQA: base +7.12, XL +2.62", {"base": 7.12, "XL": 2.62},
    )  # fmt: skip
    hits = {"table": "figure4c_hits", "columns": ["Hits@1"], "names": [""]}
    assert reported({"method": "reranker", "over": "bm25"}, **hits)[0] == "Figure 4c, MedQA: +8.9 (read off)"
    words = reported(table="reaugkd_gains", row="over_no_retrieval", over="")[0]
    assert words == "authors' summary, GLUE: mean of 6 tasks 0.45"
    assert reported({"over": ""}, table="failure_analysis", row="reranker_missed", share_of="inspected") == (
        "Failure analysis, MedQA: share of 30 failures 50", {"share of 30 failures": 50},
    )  # fmt: skip
    place = {"table": "table1_medqa", "columns": ["large"], "names": ["large over XXL"], "at": "Figure 4b"}
    other = {"over_table": "figure4b_model_size", "over_columns": ["XXL"]}
    words = reported({"over": "few_shot"}, **place, **other)[0]
    assert words == "Figure 4b, MedQA: large over XXL +4.99 (read off)"
