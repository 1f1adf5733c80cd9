"""`kard reproduce` killed at random moments ends with the same numbers, and leaves no process and nothing half-written.

    python benchmarks/kill_at_random.py [--kills 100] [--seed 0] [--only 02,04] [--jobs 2] [--out FILE]

First a run at the smoke scale on an empty store that nobody disturbs. Then runs whose process group is killed (SIGKILL)
after a time between nothing and half of what that one took, each going on in the store that the one before left. A run
that ends in that time is compared with the first one, and the next begins with an empty store; so does the last, which
nobody kills. All of it happens in a copy of the checkout. The last line is JSON; the exit code is 1 where it tells of
other figures' data, processes that stayed, or files that were not whole.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import psutil
from line import tell

from kardlib import REPOSITORY
from kardlib.artifacts.device import describe_device
from kardlib.artifacts.disk import UNFINISHED
from kardlib.artifacts.store import MANIFEST, Store

COPIED = ("kardlib", "notebooks", "pyproject.toml")
MEASURED = ("milliseconds", "latency_overhead")  # metrics that no two runs share
PATIENCE = 30  # seconds that what a killed run started has to go
USUAL = "torchinductor"  # begins the name of torch's own folder among the temporary ones


def start(root: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """A run in the copy `root`, at the head of a process group, with store and temporary files in the copy."""
    command = [sys.executable, "-m", "kardlib", "reproduce", "--scale", "smoke", "--jobs", str(options.jobs)]
    command += ["--only", options.only] if options.only else []
    environment = os.environ | {"PYTHONPATH": str(root), "KARD_STORE": str(root / "store"), "TMPDIR": str(root / "t")}
    (root / "t").mkdir(exist_ok=True)
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def clear(root: Path) -> None:
    """Remove what runs have made."""
    for name in ("store", "runs"):
        shutil.rmtree(root / name, ignore_errors=True)


def read_figures(root: Path) -> dict[str, str]:
    """Name -> data of every figure of the run, but for what was measured by the clock."""
    tables = {path.name: pd.read_csv(path, dtype=str) for path in sorted(root.glob("runs/*/figures/*.csv"))}
    return {name: table[~table["metric"].isin(MEASURED)].to_csv(index=False) for name, table in tables.items()}


def find_processes(root: Path) -> list[psutil.Process]:
    """All processes that have the copy's store in their environment, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("KARD_STORE") == str(root / "store"):
                found.append(process)
        except psutil.Error:  # another user's, or it has just ended
            continue
    return found


def wait_for_end(root: Path) -> list[str]:
    """The command lines of those processes that are still there after `PATIENCE`; they are ended then."""
    end = time.monotonic() + PATIENCE
    while (left := find_processes(root)) and time.monotonic() < end:
        time.sleep(0.2)
    said = [f"{process.pid} {process.name()}" for process in left if process.is_running()]
    for process in left:
        process.kill()
    return said


def find_wrong(root: Path, expected: Mapping[str, str]) -> list[str]:
    """What a whole run has left that is not whole, and names of figures whose data are not as expected."""
    halves = [path for pattern in (f"{UNFINISHED}*", "*.partial", "*.fetched") for path in root.rglob(pattern)]
    store, figures = Store(root / "store"), read_figures(root)
    halves += [path.parent for path in store.root.glob(f"*/{MANIFEST}") if not store.find(path.parent.name)]
    halves += [path for path in (root / "t").iterdir() if not path.name.startswith(USUAL)]
    names = sorted(name for name in expected.keys() | figures.keys() if expected.get(name) != figures.get(name))
    return [path.relative_to(root).as_posix() for path in halves] + names


def main() -> int:
    """Kill, compare and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", default="", help="numbers of notebooks; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at once")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    moments, stayed, wrong, killed, whole = random.Random(options.seed), list[str](), list[str](), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in COPIED:
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            copy(REPOSITORY / name, root / name)
        begun = time.monotonic()
        if code := start(root, options).wait():
            return code  # its error is on the screen
        seconds, figures = time.monotonic() - begun, read_figures(root)
        stayed += wait_for_end(root)
        clear(root)
        last = False
        while not last:
            last, run = killed == options.kills, start(root, options)
            try:
                code = run.wait(None if last else moments.uniform(0, seconds / 2))
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                code, killed = None, killed + 1
            stayed += wait_for_end(root)
            if code is not None:
                wrong += [f"exit code {code}"] if code else find_wrong(root, figures)
                whole += 1
                clear(root)
            print(f"{killed} killed, {whole} whole, {len(stayed)} processes stayed, wrong: {wrong}", flush=True)
    asked = {"kills": killed, "seed": options.seed, "only": options.only, "jobs": options.jobs}
    found = {"whole_runs": whole, "figures": len(figures), "stayed": stayed, "wrong": sorted(set(wrong))}
    machine = {"device": describe_device(), "seconds_undisturbed": round(seconds, 1)}
    tell({"benchmark": "kill_at_random"} | asked | machine | found, options.out)
    return 1 if stayed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
