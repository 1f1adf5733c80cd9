"""Jobs for other machines, whose workers import this file alone."""

import json
import os
import signal
import time
from pathlib import Path

from kardlib.artifacts.store import Kind, Store
from kardlib.errors import StoreError
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


def how_torch_multiplies() -> tuple[int, list[float]]:
    """This process's threads, and a product whose last bits depend on them and on who multiplies."""
    import torch

    a, b = (torch.randn(500, 500, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    return torch.get_num_threads(), (a @ b)[0].tolist()


def write_how_torch_multiplies(folder: Path) -> None:
    """A builder."""
    (folder / "torch.json").write_text(json.dumps(how_torch_multiplies()))


def die(store: Store, log: str) -> Path:
    with open(log, "a") as file:
        print("tried", file=file)
    os.kill(os.getpid(), signal.SIGKILL)
    return store.root
