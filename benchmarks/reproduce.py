"""Time and memory of `kard reproduce`: a first run on an empty store, then a second one that only draws.

    python benchmarks/reproduce.py [--scale smoke] [--only 02,03,04]

The last line is JSON: seconds and peak MiB of both runs, in all and per notebook.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time

DONE = re.compile(r"^(\d\d_\w+)\s+done\s+(\d+) s\s+(\d+) MiB", re.MULTILINE)


def run(scale: str, only: str, store: str) -> dict[str, object]:
    start = time.monotonic()
    command = [sys.executable, "-m", "kardlib", "reproduce", "--scale", scale, "--only", only]
    done = subprocess.run(command, env=os.environ | {"KARD_STORE": store}, capture_output=True, text=True, check=True)
    notebooks = {name: {"seconds": int(s), "peak_mib": int(m)} for name, s, m in DONE.findall(done.stdout)}
    peak = max(notebook["peak_mib"] for notebook in notebooks.values())
    return {"seconds": round(time.monotonic() - start, 1), "peak_mib": peak, "notebooks": notebooks}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="embedded")
    parser.add_argument("--only", default="", help="numbers of notebooks; default: all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        first, second = (run(options.scale, options.only, store) for _ in range(2))
        load = round(os.getloadavg()[2], 1)  # of the last 15 minutes: what else ran shows here
        print(json.dumps(vars(options) | {"cores": os.cpu_count(), "load": load, "first": first, "second": second}))
