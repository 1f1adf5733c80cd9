"""Ports for servers that tests start."""

import contextlib
import itertools
import os
import socket

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
NUMBERS = itertools.count(20_000 + 1_000 * WORKER)  # Ray's own workers take 10002 to 19999


def choose_port() -> int:
    """One that is free, and below those (32768 and up) that the system gives to whoever asks for any meanwhile."""
    for port in NUMBERS:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("numbers end nowhere")
