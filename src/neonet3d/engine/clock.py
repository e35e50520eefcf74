"""Seconds that a stage takes over all starts of a run, kept while it works: kill -9 loses a few."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from neonet3d.cohort.volume import write_atomically

TICK_SECONDS = 2.0


@contextmanager
def kept_seconds(path: Path, key: str) -> Iterator[None]:
    """Add the seconds of the block to those of earlier starts with the same key.

    Once a block of this key has ended without an error, later ones count nothing: they find
    everything done.
    """
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if kept.get("key") != key:
        kept = {"key": key, "seconds": 0.0, "done": False}
    if kept["done"]:
        yield
        return
    before, started, over = kept["seconds"], time.monotonic(), Event()

    def write() -> None:
        kept["seconds"] = round(before + time.monotonic() - started, 2)
        write_atomically(path, (json.dumps(kept) + "\n").encode())

    def tick() -> None:
        while not over.wait(TICK_SECONDS):
            write()

    write()
    ticking = Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield
        kept["done"] = True
    finally:
        over.set()
        ticking.join()
        write()


def read_seconds(path: Path) -> float:
    """That a finished stage took."""
    return float(json.loads(path.read_text())["seconds"])
