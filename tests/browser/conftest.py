"""Where the pictures are kept that Chromium takes."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder for screenshots: KARD_SCREENSHOTS, else one that pytest clears away."""
    folder = Path(os.environ.get("KARD_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
