"""The benchmarks run and end in one line of JSON; what they measure is not looked at."""

import json
import os
import subprocess
import sys

from kardlib.device import describe_device
from kardlib.store import REPOSITORY


def test_a_small_corpus_is_indexed_and_searched(tmp_path):
    command = [sys.executable, "benchmarks/index_million.py", "--passages", "2000", "--questions", "50"]
    command += ["--out", str(tmp_path / "line.json")]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    line = json.loads(done.stdout.splitlines()[-1])
    assert line == json.loads((tmp_path / "line.json").read_text())
    assert (line["passages"], line["questions"], line["cpu"]) == (2000, 50, describe_device())
    assert line["same_ranking"] and line["build_peak_mib"] > 100 and line["search_peak_mib"] > 100
