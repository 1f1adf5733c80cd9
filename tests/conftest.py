"""One Chromium, a worker's threads, and how many examples hypothesis draws: those of its profile "ci" (pyproject.toml),
or ten thousand."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one for each: threads of several wait for one another, and take tenfold
    os.environ.setdefault("OMP_NUM_THREADS", "1")

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
