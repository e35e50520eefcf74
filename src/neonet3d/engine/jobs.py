"""Many small independent jobs, one thread each, over the cores of the machine.

A small network trains faster as one process on each core than as one process on all of them. On a
GPU the jobs run one after the other, in this process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import TypeVar

import torch

from neonet3d.engine.device import fabric, usable_cores
from neonet3d.engine.progress import console, progress
from neonet3d.errors import RunError

JobT = TypeVar("JobT")


def run_jobs(work: Callable[[JobT], None], jobs: Sequence[JobT], *, description: str) -> None:
    """Call ``work`` for every job, in any order; the first error ends them all and is raised.

    Args:
        work: writes its own result; importable by name, since it is called in other processes.
        jobs: without tensors, since they are sent there.

    Raises:
        RunError: a process was killed, as the system does when memory runs out.
    """
    with progress(description, len(jobs)) as advance:
        if fabric().device.type == "cuda" or len(jobs) < 2:
            for job in jobs:
                work(job)
                advance()
            return
        workers = min(usable_cores(), len(jobs))
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_alone)
        try:
            for done in as_completed([pool.submit(work, job) for job in jobs]):
                done.result()
                advance()
        except BrokenProcessPool as error:
            raise RunError(
                f"A process of {description!r} was killed, perhaps for want of memory. What is "
                "done is kept: start the command again, on fewer cores (taskset) if need be."
            ) from error
        except BaseException:  # or Ctrl-C: a job may have minutes to go
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():
                worker.terminate()
            raise
        pool.shutdown()


def _alone() -> None:
    """In a worker: one thread, no progress line of its own, and an end when its parent ends."""
    torch.set_num_threads(1)
    console.quiet = True
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed takes its lock with it; its workers must not go on in the folder."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
