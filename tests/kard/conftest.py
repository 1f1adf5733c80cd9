"""One small experiment through real Lucene, shared by the tests of what follows from it."""

import pytest

from kardlib.artifacts.store import Store
from kardlib.kard.experiment import Experiment, open_settings, write_example
from kardlib.kard.prepare import Prepared, prepare
from kardlib.presets import preset


@pytest.fixture(scope="session")
def experiment(tmp_path_factory) -> Experiment:
    return open_settings(preset("smoke"), Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="session")
def prepared(experiment) -> Prepared:
    return prepare(experiment)


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """A folder with data of one's own."""
    return write_example(tmp_path_factory.mktemp("example"), "smoke")
