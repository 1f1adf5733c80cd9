"""What several test files share."""

import pytest

from kardlib.settings import RunSettings, preset


@pytest.fixture(scope="session")
def smoke() -> RunSettings:
    return preset("smoke")
