"""Jobs for other machines, whose workers import this file alone."""

import os
import signal
import time
from pathlib import Path

from kardlib.artifacts.store import Kind, Store, StoreError
from kardlib.settings import StudentSettings


def write_folder(store: Store, number: int, settings: StudentSettings | None = None, refuse: str = "") -> Path:
    """A job: the artifact holds the folder that it was made in and the model's folder that it was given."""

    def build(folder: Path) -> None:
        time.sleep(1)  # so that one machine does not do both
        if refuse:
            raise StoreError(refuse)
        (folder / "made_in").write_text(str(folder.parent))
        (folder / "model").write_text(Path(settings.model).read_text() if settings else "")

    return store.make(Kind("folder"), {"number": number}, build)


def write_elsewhere(store: Store, folder: str) -> Path:
    return write_folder(Store(folder), 0)


def wait_and_write(store: Store, seconds: float) -> Path:
    """A job that takes so long."""

    def build(folder: Path) -> None:
        time.sleep(seconds)
        (folder / "done").touch()

    return store.make(Kind("waited"), {"seconds": seconds}, build)


def write_threads(folder: Path) -> None:
    """A builder: how many threads torch computes on."""
    import torch

    (folder / "threads").write_text(str(torch.get_num_threads()))


def die(store: Store, log: str) -> Path:
    with open(log, "a") as file:
        print("tried", file=file)
    os.kill(os.getpid(), signal.SIGKILL)
    return store.root
