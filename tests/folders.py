"""Where tests find this repository and, on some machines, the real data beside it."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("KARD_DATA", ROOT.parent / "shared" / "data"))  # tests that want it skip where it is not


def copy_repository(to: Path, *names: str) -> None:
    """Files and folders of this repository, as one would check them out, in a folder of a test's own."""
    for name in names:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns(".*"))
        else:
            shutil.copy(source, to / name)
