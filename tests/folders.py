"""Where tests find this repository and, on some machines, the real data beside it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("KARD_DATA", ROOT.parent / "shared" / "data"))  # tests that want it skip where it is not
