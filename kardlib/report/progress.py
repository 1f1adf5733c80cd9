"""How far a run of notebooks is: in a terminal a live line for each under way and one for all, else plain lines."""

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from kardlib.report.page import Result, read_result

QUIET = 60  # seconds between two plain lines about one notebook
MAKING = re.compile(r"\d+ of \d+ .* to make|\w+ \d+/\d+ ")  # what `artifacts.engine.make_all` says of its work


def read_durations(run: Path, notebooks: list[Path]) -> dict[str, float | None]:
    """By notebook the seconds that it took last: in this run's folder, else in any beside it; None where in none."""
    durations: dict[str, float | None] = {}
    for notebook in notebooks:
        others = sorted(run.parent.glob(f"*/{notebook.name}"), key=lambda path: path.stat().st_mtime, reverse=True)
        copies = (read_result(path) for path in dict.fromkeys([run / notebook.name, *others]))
        durations[notebook.stem] = next((copy.seconds for copy in copies if copy.status == "done"), None)
    return durations


def say_time(seconds: float) -> str:
    """Seconds up to two minutes, then minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


@dataclass
class Line:
    """A notebook that is under way. What its kernel prints is written here, as to a file."""

    name: str
    cells: int
    live: bool
    began: float
    told: float  # when the last plain line was printed
    at: int = 0
    doing: str = ""

    def begin_cell(self, at: int) -> None:
        """The number of the cell that begins."""
        self.at, self.doing = at, ""
        self._tell()

    def write(self, text: str) -> None:
        """Keep what is made."""
        if made := [line for line in text.splitlines() if MAKING.match(line)]:
            self.doing = made[-1]
            self._tell()

    def flush(self) -> None:
        """Nothing waits to be written."""

    def _tell(self) -> None:
        now = time.monotonic()
        if not self.live and now - self.told > QUIET:
            self.told = now
            print("  ".join(filter(None, [self.name, f"cell {self.at}/{self.cells}", self.doing])), flush=True)


class Progress:
    """What is under way and what is left of `durations`: seconds by notebook as `read_durations` gives them."""

    def __init__(self, durations: Mapping[str, float | None], at_once: int, live: bool):
        self.durations, self.at_once, self.live = durations, at_once, live
        self.began, self.lines, self.ended = time.monotonic(), dict[str, Line](), set[str]()
        self.lock = threading.Lock()  # notebooks run in threads

    def begin(self, name: str, cells: int) -> Line:
        """A notebook's line; `cells` are its code cells."""
        now = time.monotonic()
        with self.lock:
            line = self.lines[name] = Line(name, cells, self.live, began=now, told=now)
        if not self.live:
            before = self.durations.get(name)
            print(f"{name}  begins" + (f", took {say_time(before)} before" if before else ""), flush=True)
        return line

    def end(self, result: Result) -> None:
        """Say how a notebook ended, and what is left."""
        with self.lock:
            self.lines.pop(result.notebook, None)
            self.ended.add(result.notebook)
        spent = f"{result.seconds:.0f} s  {result.peak_bytes / 2**20:.0f} MiB"
        print(f"{result.notebook}  {result.status}  {spent}  ({self.say_left()})", flush=True)

    def say_left(self) -> str:
        """How many notebooks have ended, and how long the others will take if they take what they took before."""
        now, counted = time.monotonic(), f"{len(self.ended)} of {len(self.durations)} notebooks"
        left, unknown = [], 0
        for name in self.durations.keys() - self.ended:
            before, line = self.durations[name], self.lines.get(name)
            unknown += before is None
            left.append(max(0.0, (before or 0) - (now - line.began if line else 0)))
        if not left or unknown == len(left):
            return counted
        said = say_time(max(*left, sum(left) / self.at_once))
        return f"{counted}, {'more than' if unknown else 'about'} {said} left"

    def render(self) -> Table:
        """The live lines."""
        now, table = time.monotonic(), Table.grid(padding=(0, 2))
        with self.lock:
            lines = list(self.lines.values())
        for line in lines:
            before = self.durations.get(line.name)
            spent = say_time(now - line.began) + (f" of {say_time(before)}" if before else "")
            table.add_row(line.name, f"cell {line.at}/{line.cells}", spent, line.doing)
        table.add_row("all", "", say_time(now - self.began), self.say_left())
        return table


@contextlib.contextmanager
def follow(durations: Mapping[str, float | None], at_once: int) -> Iterator[Progress]:
    """The progress of a run, shown while it lasts; what is printed meanwhile stands above the live lines."""
    console = Console()
    progress = Progress(durations, at_once, console.is_terminal)
    shown = Live(get_renderable=progress.render, console=console, refresh_per_second=2, transient=True)
    with shown if console.is_terminal else contextlib.nullcontext():
        yield progress
