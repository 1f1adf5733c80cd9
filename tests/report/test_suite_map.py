"""The map that opens notebook 00, on its own folder of runs."""

import re

import nbformat
import pytest

from kardlib.artifacts.store import Kind, Store
from kardlib.kard.experiment import open_settings
from kardlib.presets import preset
from kardlib.report import suite_map
from kardlib.report.suite_map import show_map
from tests.folders import ROOT

NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run at the smoke scale, empty."""
    monkeypatch.setattr(suite_map, "REPOSITORY", tmp_path)
    (tmp_path / "runs" / "smoke-world").mkdir(parents=True)
    return tmp_path / "runs" / "smoke-world"


def end_notebook(run, name, status):
    """What a run leaves of a notebook."""
    copy = nbformat.v4.new_notebook()
    copy.metadata["kard"] = {"notebook": name, "status": status, "seconds": 12.3}
    nbformat.write(copy, run / name)


def shown(tmp_path) -> str:
    return show_map(open_settings(preset("smoke"), Store(tmp_path / "store")), ROOT / "notebooks").data


def test_a_committed_map_says_what_holds_everywhere(run, tmp_path, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "")
    end_notebook(run, NOTEBOOKS[0], "done")
    text = shown(tmp_path)
    assert re.findall(r"\]\((.*?)\)", text) == NOTEBOOKS
    assert "12 s" not in text and "store" not in text
    assert "| [20](20_helpful_passages.ipynb) | What a reranker should learn" in text


def test_who_looks_sees_what_was_run_what_there_is_and_what_is_next(run, tmp_path, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "00_tour.ipynb")
    assert "holds 0 artifacts" in shown(tmp_path) and "Nothing has been run yet" in shown(tmp_path)
    Store(tmp_path / "store").make(Kind("toy"), {}, lambda folder: (folder / "file").write_text("x"))
    end_notebook(run, NOTEBOOKS[0], "done")
    end_notebook(run, NOTEBOOKS[1], "failed")
    text = shown(tmp_path)
    assert "answer | done in 12 s |" in text and "read | failed in 12 s |" in text and text.count("not run") == 20
    assert "holds 1 artifacts" in text and "21 of 22 are left: `make reproduce`" in text
    for name in NOTEBOOKS:
        end_notebook(run, name, "done")
    assert "All notebooks have been run" in shown(tmp_path)
