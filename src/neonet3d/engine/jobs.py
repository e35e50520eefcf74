"""Many small independent jobs, one thread each, over the cores of the machine.

A small network trains faster as one process on each core than as one process on all of them. On a
GPU the jobs run one after the other, in this process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

import torch

from neonet3d.engine.device import fabric
from neonet3d.engine.progress import console, progress

JobT = TypeVar("JobT")


def run_jobs(work: Callable[[JobT], None], jobs: Sequence[JobT], *, description: str) -> None:
    """Call ``work`` for every job, in any order; the first error ends it and is raised.

    Args:
        work: writes its own result; importable by name, since it is called in other processes.
        jobs: without tensors, since they are sent there.
    """
    with progress(description, len(jobs)) as advance:
        if fabric().device.type == "cuda" or len(jobs) < 2:
            for job in jobs:
                work(job)
                advance()
            return
        workers = min(os.cpu_count() or 1, len(jobs))
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_alone)
        try:
            for done in as_completed([pool.submit(work, job) for job in jobs]):
                done.result()
                advance()
        finally:
            pool.shutdown(cancel_futures=True)


def _alone() -> None:
    """In a worker: one thread, and no progress line of its own."""
    torch.set_num_threads(1)
    console.quiet = True
