"""How a benchmark ends: what it measured as one line of JSON, printed, and kept where that is asked for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kardlib.artifacts.disk import write_text


def tell(measured: Mapping[str, Any], out: Path | None) -> None:
    """Print the line; a file that is there already is replaced by a whole one."""
    line = json.dumps(measured)
    if out:
        write_text(out, line + "\n")
    print(line)
