"""Work ends in time; tests/test_bundle.py does it."""

import os
import signal
import time

import pytest

from kardlib.errors import StoppedError
from kardlib.models.training import STOP
from kardlib.work import SPARE, stopped_at


@pytest.mark.parametrize("kind", ["predictions", "student"])
@pytest.mark.parametrize("sent", [False, True])
def test_work_is_stopped_in_time_or_by_the_scheduler(kind, sent):
    record, end = (
        {"kind": kind, "parameters": 0},
        time.time() + (100 if sent else 1.2 if kind == "predictions" else SPARE + 0.2),
    )
    try:
        if kind == "predictions":
            with pytest.raises(StoppedError), stopped_at(end, record, 0):
                if sent:
                    os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
        else:
            with stopped_at(end, record, 0):
                if sent:
                    os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.5)
        assert STOP.is_set()
    finally:
        STOP.clear()
    with pytest.raises(StoppedError, match="not begun"), stopped_at(time.time() + 30, {"kind": "predictions"}, 60):
        pytest.fail("it would not be finished in time")
