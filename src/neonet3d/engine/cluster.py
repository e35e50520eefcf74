"""Dask: the tasks of a study on the workers of one machine, or on those of any scheduler.

``distributed`` is of the ``[cluster]`` extra. Workers see the files of this process at the same
paths, and do one task at a time each. A task whose worker dies is given to another, which goes on
from what is on disk; a task that ends with an error ends the study.

On a CPU the bytes are those of a serial run with as many threads a process: another number of
threads rounds sums in another order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from neonet3d.engine.executor import Record, Task, require_order, stage_timer
from neonet3d.engine.progress import console
from neonet3d.errors import InputError, RunError
from neonet3d.types import Advance

if TYPE_CHECKING:
    from distributed import Client

DEATHS = 3  # of workers at one task, before it is blamed for them
START_SECONDS = 60
SAME = ("neonet3d", "torch", "numpy", "python")
HINT = "Install it with: pip install 'neonet3d[cluster]'."


@dataclass(frozen=True)
class ClusterExecutor:
    """Does tasks on the workers of a Dask scheduler (an ``executor.Executor``)."""

    client: Client

    def __call__(self, tasks: Sequence[Task], record: Record, advance: Advance) -> None:
        """As ``executor.run_here``, side by side.

        Raises:
            RunError: a task at which ``DEATHS`` workers died, one after the other.
        """
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        require_order(tasks)
        futures: dict[str, Any] = {}
        for task in tasks:
            waits = [futures[name] for name in task.after]
            futures[task.name] = self.client.submit(_work, task, waits, key=task.name, pure=False)
        try:
            for done in as_completed(futures.values()):
                for stage, seconds in done.result():
                    record(stage, seconds)
                advance()
        except KilledWorker as error:
            raise RunError(
                f"{DEATHS} workers died one after the other at '{error.task}'. They may want more "
                "memory: use fewer of them, and start the same command again. What is done is kept."
            ) from error
        finally:
            self.client.cancel(list(futures.values()), force=True)


@contextmanager
def local_cluster(workers: int) -> Iterator[ClusterExecutor]:
    """Worker processes on this machine: a GPU each, or an equal share of the cores.

    Raises:
        InputError: no ``distributed``, or more workers than GPUs or cores.
    """
    distributed = _import_distributed()
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    most, what = (gpus, "GPUs") if gpus else (cores, "cores")
    if not 1 <= workers <= most:
        raise InputError(f"{workers} workers cannot share {most} {what}. Ask for 1 to {most}.")
    threads = max(1, cores // workers)
    specs = {
        number: {
            "cls": distributed.Nanny,
            "options": {
                "nthreads": 1,
                "memory_limit": 0,  # Dask pauses workers by their memory, which torch's is not
                "host": "127.0.0.1",
                "dashboard": False,
                "silence_logs": logging.ERROR,
                "env": {"OMP_NUM_THREADS": str(threads), "DASK_LOGGING__DISTRIBUTED": "error"}
                | ({"CUDA_VISIBLE_DEVICES": str(number)} if gpus else {}),
            },
        }
        for number in range(workers)
    }
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": False},
    }
    with (
        distributed.SpecCluster(workers=specs, scheduler=scheduler, silence_logs=True) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield ClusterExecutor(client)


@contextmanager
def scheduler_at(address: str) -> Iterator[ClusterExecutor]:
    """The workers of a scheduler that runs somewhere, such as one of dask-jobqueue.

    Raises:
        InputError: no ``distributed``, nobody at the address, or no worker.
    """
    distributed = _import_distributed()
    try:
        client = distributed.Client(address, timeout=START_SECONDS)
    except (OSError, ValueError) as error:
        raise InputError(
            f"There is no Dask scheduler at {address}: {error}. Start one, and give the address "
            "that it prints."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=START_SECONDS)
        except TimeoutError as error:
            raise InputError(
                f"The scheduler at {address} has had no worker for {START_SECONDS} seconds. "
                "Start workers in this environment, with the study's folders mounted."
            ) from error
        _require_same_packages(client)
        yield ClusterExecutor(client)


def _require_same_packages(client: Client) -> None:
    """A worker that cannot read a task leaves the study waiting for ever.

    Raises:
        InputError: workers with another version of what computes.
    """
    found: Any = client.get_versions(packages=list(SAME))
    own = found["client"]["packages"]
    for address, of in found["workers"].items():
        theirs = of["packages"]
        for package in SAME:
            if theirs.get(package) != own.get(package):
                raise InputError(
                    f"The worker at {address} has {package} {theirs.get(package)}, and here is "
                    f"{own.get(package)}. Start workers in this environment."
                )


def _import_distributed() -> Any:
    try:
        import dask
        import distributed
    except ModuleNotFoundError as error:
        raise InputError(f"A cluster needs dask's distributed. {HINT}") from error
    logging.getLogger("distributed").setLevel(logging.ERROR)
    dask.config.set({"distributed.scheduler.allowed-failures": DEATHS - 1})
    return distributed


def _work(task: Task, waited_for: object) -> list[tuple[str, float]]:
    """On a worker, which has no terminal: the stages and their seconds."""
    console.quiet = True
    stages: list[tuple[str, float]] = []
    task.work(stage_timer(lambda stage, seconds: stages.append((stage, seconds))))
    return stages
