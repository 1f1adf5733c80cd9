"""Time and memory of `kard reproduce`: a first run on an empty store, then a second one that only draws.

    python benchmarks/reproduce.py [--scale smoke] [--only 02,03,04] [--jobs 1] [--store FOLDER] [--out FILE]

The last line is JSON: seconds and peak MiB of both runs, in all and per notebook. The peak in all is of the command and
everything that it started at one moment: notebooks run side by side. Artifacts are kept in the folder of `--store`,
which must be empty, for runs to come.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from line import tell

from kardlib.artifacts.device import describe_device
from kardlib.reproduce import watch_memory

DONE = re.compile(r"^(\d\d_\w+)\s+done\s+(\d+) s\s+(\d+) MiB", re.MULTILINE)


def run(options: argparse.Namespace, store: str) -> dict[str, object]:
    start = time.monotonic()
    command = [sys.executable, "-m", "kardlib", "reproduce", "--scale", options.scale]
    command += ["--only", options.only] if options.only else []
    command += ["--jobs", str(options.jobs)] if options.jobs else []
    environment = os.environ | {"KARD_STORE": store}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    with watch_memory(lambda: [process.pid]) as peak:
        printed, _ = process.communicate()
    if process.returncode:
        sys.exit(process.returncode)  # its error is on the screen
    notebooks = {name: {"seconds": int(s), "peak_mib": int(m)} for name, s, m in DONE.findall(printed)}
    return {"seconds": round(time.monotonic() - start, 1), "peak_mib": peak[0] >> 20, "notebooks": notebooks}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="embedded")
    parser.add_argument("--only", default="", help="numbers of notebooks; default: all")
    parser.add_argument("--jobs", type=int, help="notebooks at once; default: what the command takes")
    parser.add_argument("--store", type=Path, help="an empty folder; default: one that is deleted in the end")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args()
    if options.store and options.store.exists() and any(options.store.iterdir()):
        parser.error(f"{options.store} is not empty: the first run would not be one")
    with tempfile.TemporaryDirectory() as temporary:
        first, second = (run(options, str(options.store or temporary)) for _ in range(2))
    asked = {"scale": options.scale, "only": options.only, "jobs": options.jobs}
    load = round(os.getloadavg()[2], 1)  # of the last 15 minutes: what else ran shows here
    machine = {"device": describe_device(), "cores": os.cpu_count(), "load": load}
    tell({"benchmark": "reproduce"} | asked | machine | {"first": first, "second": second}, options.out)
