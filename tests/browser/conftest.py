"""One Chromium, and where its pictures are kept."""

import os
from pathlib import Path

import pytest

from tests.browser import CHROMIUM, Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder for screenshots: KARD_SCREENSHOTS, else one that pytest clears away."""
    folder = Path(os.environ.get("KARD_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
