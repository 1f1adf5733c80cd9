"""Notebooks in JupyterLab, as `make lab` starts it: all cells run, and keys move every control."""

import os
import signal
import subprocess
import sys
import time
from urllib.request import urlopen

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from tests.browser import PATIENCE
from tests.folders import ROOT, copy_repository
from tests.ports import choose_port

CASES = [
    ("controls", ["word", "whole"]),
    ("01_memorization_bound", ["N", "d", "R", "log10 eps"]),
    ("13_reaugkd", ["k", "log10 tau", "beta"]),
    pytest.param("00_tour", ["question", "method", "retriever", "k"], marks=pytest.mark.slow),  # it trains students
    pytest.param("17_remember_or_read", ["question"], marks=pytest.mark.slow),  # so does it
]
CONTROLS = """from kardlib.report.controls import explore

explore(lambda word, whole: print(word, whole), word=[("First", "a"), ("Second", "b")], whole=(1, 10, 3))"""
LONGEST = 1800  # seconds that a notebook may take on a busy machine

PANEL = "jupyterapp.shell.currentWidget"
IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
CELL = f"{PANEL}.content.activeCell.node"
SIGN = f"{CELL}.querySelector('[role=status]')?.innerText"
SHOWN = f"(e => e.innerText + [...e.querySelectorAll('img')].map(i => i.src))({CELL}.querySelector('.widget-output'))"
FOCUS = "document.activeElement"
IS_CONTROL = f"{FOCUS}.matches('.jupyter-widgets [role=slider], .jupyter-widgets select')"
AT_END = f"{FOCUS}.ariaValueNow === {FOCUS}.ariaValueMax"
NOTE = f"window.signs = [], new MutationObserver(() => signs.push({SIGN}))"  # what the sign says, one after another
WATCH_SIGN = f"{NOTE}.observe({CELL}, {{subtree: true, childList: true}})"


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """The address of a JupyterLab in a copy of the repository, whose notebooks are set to the smoke scale."""
    root, home = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("home")
    copy_repository(root, "Makefile", "README.md", "notebooks", "docs/lab")
    for path in root.glob("notebooks/*.ipynb"):
        text = path.read_text("utf-8").replace(r"scale = \"embedded\"", r"scale = \"smoke\"")
        path.write_text(text.replace("figures_dir = None", rf"figures_dir = \"{root / 'figures'}\""), "utf-8")
    controls = nbformat.read(path, 4)  # its metadata names the kernel, for which JupyterLab would ask
    controls.cells = [new_code_cell(CONTROLS), new_code_cell()]
    nbformat.write(controls, root / "notebooks" / "controls.ipynb")
    port = choose_port()
    options = (
        f"--allow-root --no-browser --ip=127.0.0.1 --port={port} --IdentityProvider.token= --expose-app-in-browser"
    )
    folders = {name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    environment = os.environ | folders | {"KARD_STORE": str(home / "store"), "PYTHONPATH": str(ROOT)}
    command = ["make", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.ready", "lab", f"LAB={options}"]
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log, start_new_session=True)
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
        try:
            while True:
                try:
                    urlopen(f"{address}/api").close()
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < end, (home / "log").read_text()
                    time.sleep(0.2)
            yield address
            browser.open("about:blank")  # or the page would look for its server
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def run_all_cells(browser, lab: str, name: str) -> list[dict]:
    """Open a notebook, run it, and return its cells, none of which ends in an error."""
    browser.open("about:blank")  # or the notebook that was open complains that it is left unsaved
    browser.complaints.clear()
    browser.open(f"{lab}/lab/tree/notebooks/{name}.ipynb?reset")
    browser.wait(IDLE, LONGEST)
    browser.ask("jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.ran = true }), 0")
    browser.wait("window.ran", LONGEST)
    cells = browser.ask(f"{PANEL}.model.toJSON().cells")
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    return cells


def focus_cell(browser, number: int) -> None:
    """As a click into the cell's margin does."""
    browser.ask(f"{PANEL}.content.activeCellIndex = {number}, {PANEL}.content.scrollToItem({number}), 0")
    browser.wait(f"{CELL}.querySelector('.widget-output') && {SIGN} === 'Done.'")
    browser.ask(f"{CELL}.focus(), {WATCH_SIGN}")


def move(browser) -> None:
    """The control that has the focus, by keys, until what is shown has changed; the sign says that it is at work."""
    browser.ask(f"window.before = {SHOWN}")
    for _ in range(10):  # a step may be too small to be seen
        browser.ask("signs.length = 0")
        end, is_menu = browser.ask(AT_END), browser.ask(f"{FOCUS}.tagName === 'SELECT'")
        browser.press("ArrowDown" if is_menu or end else "ArrowUp")  # JupyterLab would go to another cell with these
        browser.wait(f"signs.includes('Working …') && {SIGN} === 'Done.'")
        assert "Traceback" not in browser.ask(SHOWN)
        if browser.ask(f"{SHOWN} !== before"):
            return
    pytest.fail(f"{browser.name()} changes nothing")


def test_the_front_door_is_the_tour(lab, browser, pictures):
    browser.open(lab)
    browser.wait(IDLE, LONGEST)
    assert browser.ask(f"{PANEL}.context.path") == "notebooks/00_tour.ipynb"
    browser.photograph(pictures / "front_door.png")


@pytest.mark.timeout(LONGEST + 4 * PATIENCE)
@pytest.mark.parametrize(("name", "controls"), CASES)
def test_all_cells_run_and_keys_move_every_control(name, controls, lab, browser, pictures):
    cells = run_all_cells(browser, lab, name)
    (number,) = [i for i, cell in enumerate(cells) if "\nexplore(" in cell["source"]]
    focus_cell(browser, number)
    browser.photograph(pictures / f"{name}.png")
    moved = []
    while len(moved) < len(controls):
        while browser.press("Tab") or not browser.ask(IS_CONTROL):
            assert browser.ask(f"{CELL}.contains({FOCUS})"), f"after {moved} the Tab key leaves the cell"
        moved.append(browser.name())
        move(browser)
    browser.photograph(pictures / f"{name}_moved.png")
    assert moved == controls
    assert browser.complaints == []


@pytest.mark.slow  # it trains students
@pytest.mark.timeout(LONGEST + 4 * PATIENCE)
def test_what_one_adds_oneself_runs(lab, browser, pictures):
    cells = run_all_cells(browser, lab, "19_extend")
    browser.photograph(pictures / "19_extend.png")
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    assert browser.complaints == []
