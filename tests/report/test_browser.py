"""The report of a run in a real browser, without a network and without a server."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import quote

import nbformat
import pytest

from kardlib.report.notebook_page import write_page
from kardlib.report.page import Result, read_scorecard, write_index
from tests.folders import ROOT

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: install your system's package for it")
SHOWN = ("00_tour", "03_reranker_training", "13_reaugkd")

MEASURE = """
const found = {};
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument;
  const broken = [...page.images].filter(image => image.complete && !image.naturalWidth).length;
  found[frame.title] = [page.documentElement.scrollWidth, broken, page.querySelectorAll("math").length];
}
return found;
"""

FILTER = """
const page = document.querySelector("iframe").contentDocument, filter = page.getElementById("filter");
const shown = kind => [...page.querySelectorAll(".verdicts [data-verdict]")]
  .filter(one => one.getClientRects().length && (!kind || one.dataset.verdict == kind)).length;
const act = change => { change(); filter.dispatchEvent(new Event("input")); };
const kinds = [...filter.querySelectorAll("[name=verdict]")], found = {all: shown(), told: []};
found.told.push(filter.elements.shown.value);
act(() => kinds.forEach(box => { box.checked = box.value == "reproduced"; }));
found.reproduced = [shown(), shown("reproduced")];
act(() => kinds.forEach(box => { box.checked = true; }));
act(() => { filter.elements.words.value = "T5-NANO-SMALL"; });
found.words = [...page.querySelectorAll(".verdicts li")].filter(one => one.getClientRects().length)
  .map(one => one.textContent.includes("t5-nano-small"));
act(() => { filter.elements.words.value = "no such words"; });
found.none = [shown(), page.querySelectorAll(".verdicts tbody tr:not([hidden])").length];
found.told.push(filter.elements.shown.value);
act(() => { filter.elements.words.value = ""; filter.elements.could_fail.checked = true; });
found.could_not = [...page.querySelectorAll("[data-could-not-fail]")].map(claim => claim.hidden);
act(() => { filter.elements.could_fail.checked = false; });
found.again = shown();
return found;
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of what is committed, beside published verdicts on a dataset that it has nothing of."""
    folder = tmp_path_factory.mktemp("runs") / "embedded-world-a.very.long=name,of.one=that-goes-on-and-on-0123abcd"
    (folder / "figures").mkdir(parents=True)
    for path in (ROOT / "figures").iterdir():
        if not path.stem.endswith("strategyqa"):
            shutil.copy(path, folder / "figures")
    results = []
    for name in SHOWN:
        figures = [f"figures/{path.name}" for path in sorted((folder / "figures").glob(f"{name[:2]}_*.png"))]
        results.append(Result(name, "done", 12, 10**9, "", "2026-11-26T17:00:00", figures, ["an artifact"]))
        write_page(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4), folder / f"{name}.html")
    scorecard = read_scorecard(folder / "figures", ROOT / "figures")
    overrides = {"a.very.long": "value-" * 30}
    write_index(folder, results, scorecard, {"scale": "embedded", "dataset": "world", "overrides": overrides})
    return folder


def ask(script: str, folder: Path, pages: list[Path], width: int) -> dict:
    """What a script returns that looks into pages in frames of a width: Chromium's windows have 500 pixels or more."""
    look = f"width: {width}px; height: 900px; border: 0"
    sources = {page.stem: f"file://{quote(str(page))}" for page in pages}
    frames = "".join(f'<iframe title="{n}" src="{s}" style="{look}"></iframe>' for n, s in sources.items())
    answer = f"document.body.innerText = JSON.stringify((() => {{{script}}})())"
    (folder / "frames.html").write_text(f"<body>{frames}<script>onload = () => {{ {answer} }}</script>")
    options = ["--headless", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files", "--dump-dom"]
    options += ["--no-sandbox"] * (os.name == "posix" and os.getuid() == 0)  # else it does not start as root
    command = [BROWSER, *options, f"--user-data-dir={folder / 'profile'}", f"file://{quote(str(folder))}/frames.html"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=600).stdout
    return json.loads(unescape(re.search(r"\{.*\}", told)[0]))


@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_is_wider_than_its_window_and_every_picture_is_there(width, run, tmp_path):
    pages = [run / f"{name}.html" for name in ("index", *SHOWN)]
    found = ask(MEASURE, tmp_path, pages, width)
    assert {page: numbers[:2] for page, numbers in found.items()} == {page.stem: [width, 0] for page in pages}
    assert all(found[name][2] > 4 for name in SHOWN), "formulas are MathML"


def test_verdicts_are_filtered_without_a_server(run, tmp_path):
    found = ask(FILTER, tmp_path, [run / "index.html"], 1440)
    assert 0 < found["reproduced"][0] == found["reproduced"][1] < found["all"] == found["again"]
    assert found["words"] and all(found["words"]) and found["none"] == [0, 0]
    assert found["could_not"] and all(found["could_not"])
    assert found["told"] == [f"{found['all']} of {found['all']} verdicts shown", f"0 of {found['all']} verdicts shown"]
