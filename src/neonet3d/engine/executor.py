"""Tasks that wait for other tasks, done one after the other here or side by side on a Dask cluster.

A task leaves files, and the files say whether they stand (``run.once``, ``artefact.claim_folder``).
So one that was started before, here or by a worker that died, is started again and goes on; nothing
but names of stages and their seconds comes back from it.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from neonet3d.engine.run import Record, Timer, stage_timer
from neonet3d.types import Advance


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Attributes:
        name: no other task of the same list has it.
        work: called with a timer for its stages; importable by name, since it is sent to workers.
        locks: folder of the files that keep a second start of the task out while it is done.
        after: names of earlier tasks of the list, whose files it reads.
    """

    name: str
    work: Callable[[Timer], None]
    locks: Path
    after: tuple[str, ...] = ()


class Executor(Protocol):
    """``run_here``, or a cluster's (``cluster.py``)."""

    def __call__(self, tasks: Sequence[Task], record: Record, advance: Advance) -> None:
        """Do all tasks; the first error ends it and is raised.

        Args:
            record: told every stage of a task and its seconds, once the task is done at the latest.
            advance: called after each task.

        Raises:
            ValueError: a name that occurs twice, or a task before one that it waits for.
        """


def run_here(tasks: Sequence[Task], record: Record, advance: Advance) -> None:
    """In this process, one after the other."""
    require_order(tasks)
    for task in tasks:
        do_task(task, record)
        advance()


def do_task(task: Task, record: Record) -> None:
    """Do one task, alone.

    A worker that was given up, or one of a command that was stopped, may still be at it: the lock
    is waited for, and the kernel takes it back from the dead.
    """
    task.locks.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(task.name.encode()).hexdigest()[:16]
    with (task.locks / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        task.work(stage_timer(record))


def require_order(tasks: Sequence[Task]) -> None:
    """Each name once, and each task behind those that it waits for.

    Raises:
        ValueError: as said.
    """
    seen: set[str] = set()
    for task in tasks:
        missing = sorted(set(task.after) - seen)
        if missing:
            raise ValueError(f"task {task.name!r} waits for {missing}, which come after it")
        if task.name in seen:
            raise ValueError(f"two tasks are called {task.name!r}")
        seen.add(task.name)
