"""Progress bars with time left, on stderr, so that stdout stays for results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from neonet3d.types import Advance

console = Console(stderr=True, highlight=False)
_bars = Progress(
    TextColumn("{task.description}"),
    BarColumn(bar_width=30),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("left"),
    TimeRemainingColumn(elapsed_when_finished=False),
    TextColumn("{task.fields[note]}"),
    console=console,
    transient=True,
)


@contextmanager
def progress(description: str, total: int, *, completed: int = 0) -> Iterator[Advance]:
    """A bar for ``total`` units of work; bars nest.

    Yields:
        ``advance(n=1, note="")``: call it after each unit; ``note`` stands behind the bar.

    Where stderr is not a terminal, one line is written when the work is done.
    """
    started = time.monotonic()
    outermost = not _bars.tasks
    task = _bars.add_task(description, total=total, completed=completed, note="")
    if outermost and console.is_terminal:
        _bars.start()

    def advance(n: int = 1, note: str = "") -> None:
        _bars.update(task, advance=n, note=note)

    try:
        yield advance
    finally:
        _bars.remove_task(task)
        if outermost and console.is_terminal:
            _bars.stop()
    elapsed = time.monotonic() - started
    if elapsed > 2 or outermost:
        console.print(f"{description}: {total} in {elapsed:.0f} s")
