"""What a person sees of a run: live lines in a terminal, few plain ones elsewhere."""

import io
from pathlib import Path

import nbformat
import pytest
from rich.console import Console

from kardlib.report import progress
from kardlib.report.page import Result
from kardlib.report.progress import Progress, read_durations, say_time

MADE = "2 of 3 student artifacts to make, 2 at a time\nstudent 1/2 student-0a1b\n<table that a notebook prints>\n"


def write_copy(path: Path, **result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(metadata={"kard": {"notebook": path.stem} | result}), path)


def test_durations_are_those_of_the_last_run_here_or_else_beside_it(tmp_path):
    write_copy(tmp_path / "mine" / "01_one.ipynb", status="done", seconds=5.0)
    write_copy(tmp_path / "mine" / "02_two.ipynb", status="failed", seconds=1.0)
    for name in ("01_one", "02_two"):
        write_copy(tmp_path / "other" / f"{name}.ipynb", status="done", seconds=70.0)
    notebooks = [Path(f"{name}.ipynb") for name in ("01_one", "02_two", "03_three")]
    assert read_durations(tmp_path / "mine", notebooks) == {"01_one": 5.0, "02_two": 70.0, "03_three": None}


@pytest.mark.parametrize("seconds, said", [(0, "0 s"), (119, "119 s"), (125, "2 min"), (5400, "90 min")])
def test_times_are_said_briefly(seconds, said):
    assert say_time(seconds) == said


def test_in_a_terminal_each_notebook_has_a_line_and_all_have_one(monkeypatch):
    monkeypatch.setattr("kardlib.report.progress.time.monotonic", lambda: 0.0)
    run = Progress({"01_one": 600.0, "02_two": 300.0, "03_three": 100.0}, 2, live=True)
    line = run.begin("01_one", 13)
    line.begin_cell(7)
    line.write(MADE)
    run.end(Result("02_two", "done", 290.0, 2**30))
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    console.print(run.render())
    first, last = (" ".join(text.split()) for text in console.file.getvalue().splitlines())
    assert first == "01_one cell 7/13 0 s of 10 min student 1/2 student-0a1b"
    assert last == "all 0 s 1 of 3 notebooks, about 10 min left"


@pytest.mark.parametrize("unknown, said", [(None, ", more than 5 min left"), (600.0, ", about 10 min left")])
def test_what_nobody_knows_is_said_to_be_more(unknown, said):
    assert Progress({"01_one": unknown, "02_two": 300.0}, 2, live=False).say_left() == f"0 of 2 notebooks{said}"
    assert Progress({"01_one": None}, 2, live=False).say_left() == "0 of 1 notebooks"


def test_elsewhere_a_notebook_says_when_it_begins_and_ends_and_once_a_minute_what_it_does(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    run = Progress({"01_one": 600.0}, 1, live=False)
    line = run.begin("01_one", 200)
    for at in range(200):
        clock[0] += 1
        line.begin_cell(at + 1)
        line.write(MADE)
    run.end(Result("01_one", "done", 200.0, 2**30))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "01_one  begins, took 10 min before"
    assert said[1].startswith("01_one  cell 61/200") and len(said) == 5
    assert said[-1] == "01_one  done  200 s  1024 MiB  (1 of 1 notebooks)"
