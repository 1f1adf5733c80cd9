"""One Chromium, one thread a process, and how many examples hypothesis draws: its profile "ci" (pyproject.toml), or
ten thousand."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of tests side by side wait for one another, and take tenfold

import pytest
from hypothesis import settings

from tests.browser import CHROMIUM, Browser

settings.register_profile("thorough", settings.get_profile("ci"), max_examples=10_000, derandomize=False)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
