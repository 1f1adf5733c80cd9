"""CPU seconds of `kard reproduce` in two checkouts, one after the other, each on an empty store.

    git worktree add /tmp/before 0a8ef90
    python benchmarks/suite_ratio.py /tmp/before . [--only 02,03,04] [--out FILE]

Both take this command's environment; on a busy machine, start it on a core of its own (`taskset`). CPU seconds are
those of all processes that a run started, peak memory that of all at one moment. The last line is JSON.
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from line import tell

from kardlib.artifacts.device import describe_device
from kardlib.reproduce import watch_memory

ADOPT = 36  # prctl's PR_SET_CHILD_SUBREAPER: a process whose parent has ended becomes our child, so that it is counted


def run(folder: Path, only: str) -> dict[str, object]:
    """The suite of a checkout on an empty store; ends this command where it fails."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as store:
        environment = os.environ | {"KARD_STORE": store, "PYTHONPATH": str(folder.resolve())}
        command = [sys.executable, "-m", "kardlib", "reproduce", *(["--only", only] if only else [])]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=sys.stderr)
        with watch_memory(lambda: [process.pid]) as peak:
            if process.wait():
                sys.exit(f"{folder}: kard reproduce ended with {process.returncode}")
        try:
            while True:
                os.wait()  # those whose parents ended first
        except ChildProcessError:
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    done = {
        "commit": git.stdout.strip(), "seconds": round(time.monotonic() - start), "peak_mib": peak[0] >> 20,
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime),
    }  # fmt: skip
    print(json.dumps(done), flush=True)  # the other run may not come to its end
    return done


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of a checkout")
    parser.add_argument("after", type=Path, help="folder of another one")
    parser.add_argument("--only", default="", help="numbers of notebooks; default: all")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(ADOPT, 1)
    runs = {name: run(getattr(options, name), options.only) for name in ("before", "after")}
    ratio = round(runs["after"]["cpu_seconds"] / runs["before"]["cpu_seconds"], 3)
    machine = {"device": describe_device(), "cores": len(os.sched_getaffinity(0))}
    tell({"benchmark": "suite_ratio", "only": options.only, "ratio": ratio} | machine | runs, options.out)
