"""What long askings found so far: kept as it comes, and told from time to time."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kardlib.artifacts.disk import write_text

PATIENCE = 60  # seconds between two lines on how far an asking is


class Answered:
    """What was found for every source, a list each, kept in `checkpoint` as it comes: a killed run goes on from it.

    `all` are these lists; `open` are the sources (their indices) that had none at the start. Every `PATIENCE` seconds
    it says how much is done, and the time left if every token of a source takes as long; `lengths` are in tokens.
    """

    def __init__(self, lengths: Sequence[int], checkpoint: Path | None):
        self.lengths, self.checkpoint = lengths, checkpoint
        self.all: list[list[Any]] = [[] for _ in lengths]
        if checkpoint and checkpoint.is_file():
            self.all = json.loads(checkpoint.read_text("utf-8"))
        self.open = [i for i, found in enumerate(self.all) if not found]
        self.began = self.told = time.monotonic()

    def add(self, batch: Sequence[int], found: Sequence[list[Any]]) -> None:
        """Keep what was found for some sources. Raises StoreError for a full disk."""
        for i, each in zip(batch, found, strict=True):
            self.all[i] = each
        if self.checkpoint:
            write_text(self.checkpoint, json.dumps(self.all))
        if time.monotonic() - self.told > PATIENCE:
            self.told = time.monotonic()
            work, done = sum(self.lengths[i] for i in self.open), sum(self.lengths[i] for i in self.open if self.all[i])
            left = (self.told - self.began) * (work - done) / done / 60
            print(f"  {sum(map(bool, self.all))}/{len(self.all)} sources answered, {left:.0f} min left", flush=True)
