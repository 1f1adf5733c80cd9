"""The notebooks: they run at the smoke scale, and what is committed is fit to be read."""

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pandas as pd
import psutil
import pytest

from kardlib.kard.experiment import write_example
from kardlib.presets import preset
from kardlib.report.captions import is_usual
from kardlib.report.claims import read_claims, tally
from kardlib.report.page import judge_run, read_result
from kardlib.report.publishing import read_assignments
from kardlib.report.rows import read_table
from kardlib.reproduce import reproduce
from tests.folders import ROOT
from tests.kard.test_paper import write_release

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
FIGURES = sorted((ROOT / "figures").glob("*.csv"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestCommitted:
    def test_every_cell_was_executed_without_error(self, path):
        cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        assert all(c.execution_count for c in cells), "publish with: kard reproduce --publish"
        assert not [o for c in cells for o in c.outputs if o.output_type == "error"]

    def test_every_figure_is_shown(self, path):
        cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code" and "save_figure(" in c.source]
        assert cells and all(any("image/png" in o.get("data", {}) for o in c.outputs) for c in cells)

    def test_it_is_small_and_has_no_widget_state_or_absolute_path(self, path):
        text = path.read_text("utf-8")
        assert len(text.encode()) <= 400_000
        assert "widgets" not in json.loads(text)["metadata"]
        assert "Path('" not in text, "what a figure's cell returns is shown above the figure"
        assert not re.findall(r"(?<![\w/.~])/(?:home|root|Users|tmp|work|opt|usr|var)/[\w.-]+", text)

    def test_cells_are_short_and_introduced(self, path):
        cells = nbformat.read(path, 4).cells
        sizes = [len([line for line in c.source.splitlines() if line.strip()]) for c in cells if c.cell_type == "code"]
        assert max(sizes) <= 15
        assert 2 * sum(size < 7 for size in sizes) >= len(sizes)
        headings = "\n".join(c.source for c in cells if c.cell_type == "markdown")
        assert headings.startswith("# ") and "## What we found" in headings and "## Limits" in headings

    def test_its_findings_are_one_short_table(self, path):
        if path.stem == "14_scorecard":
            pytest.skip("the scorecard is the long one")
        cells = nbformat.read(path, 4).cells
        (start,) = [i for i, c in enumerate(cells) if c.source.startswith("## What we found")]
        end = next(i for i, c in enumerate(cells) if i > start and "\n## " in f"\n{c.source}")
        outputs = [o.get("data", {}).get("text/html", "") for c in cells[start:end] for o in c.get("outputs", ())]
        assert sum("<table" in output for output in outputs) <= 1

    def test_no_finding_is_a_number_that_was_typed(self, path):
        cells = nbformat.read(path, 4).cells
        (start,) = [i for i, c in enumerate(cells) if c.source.startswith("## What we found")]
        (end,) = [i for i, c in enumerate(cells) if c.source.startswith("## Limits")] or [len(cells)]
        prose = "\n".join(c.source for c in cells[start : end + 1] if c.cell_type == "markdown").split("\n## Limits")[0]
        typed = re.findall(r"[\d.]+\s*(?:%|per cent|points?\b)", prose)
        assert set(typed) <= {"95 %"}, "a result comes from rows: of a table, a printed sentence or the claims"

    def test_it_ends_with_what_to_try_and_a_run_takes_it(self, path):
        cells = nbformat.read(path, 4).cells
        (parameters,) = [c.source for c in cells if "parameters" in c.metadata.get("tags", [])]
        (tried,) = [c.source for c in cells if c.source.startswith("## Try it")]
        changes = [ast.parse(text).body[0] for text in re.findall(r"`(\w+ = .+?)`", tried)]
        assert cells[-1].source == tried and "*To think about:*" in tried
        assert {change.targets[0].id for change in changes} <= {*read_assignments(parameters)}
        for change in changes:
            if change.targets[0].id == "overrides":
                preset().override(ast.literal_eval(change.value))

    def test_the_parameters_cell_holds_the_common_parameters(self, path):
        tagged = [c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", [])]
        assert len(tagged) == 1
        names = {line.split("=")[0].strip() for line in tagged[0].source.splitlines() if "=" in line}
        assert {"scale", "dataset", "data_dir", "overrides", "figures_dir"} <= names
        assert re.search(
            r"figures_dir = None  # .*; None: (?:this run's|its) own folder, runs/NAME/figures", tagged[0].source
        )


@pytest.mark.parametrize("path", FIGURES, ids=lambda p: p.stem)
def test_a_figure_has_its_data_in_the_common_columns(path):
    table = read_table(path)  # checks every row
    assert path.with_suffix(".png").is_file() and path.with_suffix(".pdf").is_file()
    summary = table[table.seed.isna() & table.low.notna()]
    assert len(summary) and (summary.low <= summary.value).all() and (summary.value <= summary.high).all()


def test_the_committed_scorecard_counts_what_the_committed_figures_hold(tmp_path):
    notebook = nbformat.read(ROOT / "notebooks" / "14_scorecard.ipynb", 4)
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and "{tally(part)}" in c.source]
    printed = "".join(output.get("text", "") for output in cell.outputs).splitlines()
    for path in FIGURES:
        if is_usual(path.stem):
            shutil.copy(path, tmp_path)
    scorecard = judge_run(tmp_path, ROOT / "figures").groupby("origin", sort=False)
    assert printed == [f"{origin}: {tally(part)}" for origin, part in scorecard], (
        "publish with: kard reproduce --publish"
    )


def test_there_are_notebooks_and_figures():
    assert len(NOTEBOOKS) >= 3 and len(FIGURES) >= 3


def test_the_scorecard_runs_before_anything_was_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    reproduce("smoke", only=["14"], root=tmp_path)
    (page,) = (tmp_path / "runs").rglob("14_scorecard.ipynb")
    assert f"{len(read_claims())} not run at this scale" in page.read_text("utf-8")


RUN = """
import sys
from pathlib import Path
from kardlib.reproduce import reproduce
reproduce("smoke", only=["03", "04", "14"], at_once=2, root=Path(sys.argv[1]))
"""


def test_killed_again_and_again_it_ends_with_the_same_scorecard(tmp_path):
    scorecards = []
    for name, kills in (("whole", ()), ("killed", (3, 9, 15))):
        root, store = tmp_path / name, tmp_path / f"{name}-store"
        shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
        command = [sys.executable, "-c", RUN, str(root)]
        options = {"env": os.environ | {"KARD_STORE": str(store)}, "cwd": ROOT, "stdout": subprocess.DEVNULL}
        for artifacts in kills:
            process = psutil.Popen(command, **options)
            while len([path for path in store.glob("*/artifact.json") if path.parent.suffix != ".partial"]) < artifacts:
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.02)
            for one in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()
        subprocess.run(command, check=True, **options)
        scorecards.append((root / "runs" / "smoke-world" / "figures" / "14_scorecard.csv").read_text())
    assert scorecards[0] == scorecards[1] and scorecards[0].count("\n") > 10


def test_every_notebook_runs_at_the_smoke_scale_and_a_second_run_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    root = tmp_path / "suite"
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    index = reproduce("smoke", "world", None, {}, at_once=2, root=root)
    assert all(path.stem in index.read_text() for path in NOTEBOOKS)
    drawn = {p.stem[:2] for p in (root / "runs").rglob("*.csv")}
    assert drawn >= {path.stem[:2] for path in NOTEBOOKS} - {"15"}
    yours = set(pd.read_csv(next((root / "runs").rglob("19_extend.csv"))).method)
    assert yours >= {"kard_reranker", "kard_vote", "kard_bi_encoder", "kard_cross_encoder"}
    needs = {p.stem[:2]: {*read_result(p).artifacts} for p in (root / "runs").rglob("*.ipynb")}
    only_the_tours = needs["00"] - needs["02"] - needs["03"] - needs["04"]
    assert {name.partition("-")[0] for name in only_the_tours} == {"scores"}  # BM25's, of the test's rationales
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").glob("*/artifact.json")}
    assert any(p.parent.name.startswith("reaugkd_student") for p in made)
    reproduce("smoke", "world", None, {}, at_once=2, root=root)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").glob("*/artifact.json")} == made


def test_the_notebooks_run_on_questions_in_the_layout_of_the_release(tmp_path, monkeypatch):
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    write_release(tmp_path / "data")
    root = tmp_path / "suite"
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    small = {"retrieval.candidates": 10, "student.max_new_tokens": 48}
    reproduce("smoke", "obqa", str(tmp_path / "data"), small, only=["02", "03", "04", "08"], at_once=2, root=root)
    drawn = {path.stem for path in (root / "runs").rglob("*.csv")}
    assert drawn >= {"02_queries_obqa", "03_hits_obqa", "04_main_obqa", "08_candidates_obqa"}
    methods = set(pd.read_csv(next((root / "runs").rglob("04_main_obqa.csv"))).method)
    assert "kard_reranker" in methods and "kard_silver" not in methods  # nobody explained the test questions
    some = {"methods": ["fine_tuning", "reasoning_distillation", "kard_reranker"]}  # as docs/scale.md recommends
    index = reproduce("smoke", "obqa", str(tmp_path / "data"), small | some, only=["04"], at_once=2, root=root)
    rows = pd.read_csv(index.parent / "figures" / "04_main_obqa.csv")
    assert {*some["methods"], "named_by_reranker", "bag_of_words"} <= {*rows.method}


@pytest.mark.parametrize(
    ("gold", "rationales", "train"),  # gold passages, rationales of a question, and training questions
    [(False, 0, 96), (True, 0, 96), (False, 3, 96), (True, 3, 96), (False, 1, 96), (False, 3, 1)],
)
def test_your_own_data_run_with_whatever_optional_files_there_are(gold, rationales, train, tmp_path, monkeypatch):
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    folder = write_example(tmp_path / "data", "smoke")
    kept = {}
    for stem in ("questions", "gold", "rationales"):
        rows = [json.loads(line) for line in (folder / f"{stem}.jsonl").read_text().splitlines()]
        if stem == "questions":
            learnt = [row for row in rows if row["split"] == "train"][:train]
            rows = [*learnt, *(row for row in rows if row["split"] == "test")]
            kept = {row["id"] for row in rows}
        rows = [row for row in rows if row.get("question_id", row.get("id")) in kept]
        if stem == "rationales":
            rows = [row | {"rationales": row["rationales"][:rationales]} for row in rows]
        (folder / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for stem, there in (("gold", gold), ("rationales", rationales)):
        if not there:
            (folder / f"{stem}.jsonl").unlink()
    root = tmp_path / "suite"
    for number in ("02", "03", "04", "15"):
        (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
        (root / "notebooks").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "notebooks")
    reproduce("smoke", "own", str(folder), at_once=2, root=root)
    drawn = {path.stem: set(pd.read_csv(path).method) for path in (root / "runs").rglob("*.csv")}
    assert "fine_tuning" in drawn["04_main_own"] & drawn["15_own"]
    assert ("kard_reranker" in drawn["15_own"]) == bool(rationales)
    assert ("03_hits_own" in drawn) == bool(rationales and (gold or train > 1))  # of one question none is set aside
    assert ("02_queries_own" in drawn) == bool(rationales and (gold or rationales > 1))


@pytest.mark.parametrize("name", ["spreadsheet", "compressed", "blank-rationales"])
def test_what_strangers_bring_goes_through_notebook_and_figure(name, tmp_path, monkeypatch):
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    (tmp_path / "suite" / "notebooks").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "15_your_own_data.ipynb", tmp_path / "suite" / "notebooks")
    reproduce("smoke", "own", str(ROOT / "tests" / "strangers" / "own" / name), root=tmp_path / "suite")
    (path,) = (tmp_path / "suite" / "runs").rglob("15_own.csv")
    assert path.with_suffix(".png").is_file()
    table = read_table(path)
    assert {"chance", "majority_class", "fine_tuning", "ka_fine_tuning"} <= set(table["method"])
    assert ("kard_reranker" in set(table["method"])) == (name == "compressed")  # the one with a rationale to learn from
