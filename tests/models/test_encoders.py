"""Encoders: what is seen when one is loaded; how they score and rank is tested where they are trained."""

import subprocess
import sys


def test_loading_says_nothing():
    code = "from kardlib.models.encoders import load_encoder; load_encoder('bert-nano')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
