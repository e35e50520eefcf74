"""Dask: the tasks of a study on the workers of one machine, or on those of any scheduler.

``distributed`` is of the ``[cluster]`` extra. Workers see the files of this process at the same
paths, and do one task at a time each. A task is handed out when what it waits for is done, and only
to a worker that is free; if the worker dies, another goes on from what is on disk. A task that ends
with an error ends the study.

On a CPU a task's files are those of a serial run with as many threads a process, to the byte:
another number of threads rounds sums in another order.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch

from neonet3d.engine.device import usable_cores
from neonet3d.engine.executor import Record, Task, do_task, require_order
from neonet3d.engine.progress import console
from neonet3d.errors import InputError, RunError
from neonet3d.types import Advance

if TYPE_CHECKING:
    from distributed import Client

START_SECONDS = 60
ROUND_SECONDS = 1.0  # in which workers are counted
LONELY_SECONDS = 300.0  # without any worker, before a study gives up
SAME = ("neonet3d", "torch", "numpy", "python")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class ClusterExecutor:
    """Does tasks on the workers of a Dask scheduler (an ``executor.Executor``)."""

    client: Client

    def __call__(self, tasks: Sequence[Task], record: Record, advance: Advance) -> None:
        """As ``executor.run_here``, side by side; stages are recorded when their task is done.

        Raises:
            InputError: a worker that comes and does not fit (``scheduler_at``).
            RunError: a task at which several workers died one after the other, a scheduler that is
                gone, or no worker for ``LONELY_SECONDS``.
        """
        from distributed.scheduler import KilledWorker

        require_order(tasks)
        waiting, done = list(tasks), set[str]()
        running: dict[Any, Task] = {}
        seen, known = time.monotonic(), set[str]()
        try:
            while waiting or running:
                addresses = set(self.client.nthreads())
                if addresses - known:
                    _require_fit(self.client)
                    known = addresses
                workers = len(addresses)
                if workers:
                    seen = time.monotonic()
                elif time.monotonic() - seen > LONELY_SECONDS:
                    raise RunError(
                        "There has been no worker for minutes. Start workers, then the same "
                        "command again. What is done is kept."
                    )
                free = max(0, workers - len(running))
                for task in [t for t in waiting if done.issuperset(t.after)][:free]:
                    key = f"{task.name} {uuid4().hex}"  # a scheduler may have other studies too
                    future = self.client.submit(_work, task, key=key, pure=False)
                    running[future] = task
                    waiting.remove(task)
                self._wait(list(running))
                for future in [one for one in running if one.done()]:
                    task = running[future]
                    for stage, seconds in future.result():
                        record(stage, seconds)
                    del running[future]  # its result is needed no more, wherever it lies
                    done.add(task.name)
                    advance()
        except KilledWorker as error:
            name = str(error.task).rpartition(" ")[0]
            raise RunError(
                f"{error.allowed_failures + 1} workers died one after the other at '{name}'. They "
                "may want more memory: use fewer of them, and start the same command again. What "
                "is done is kept; a training that was under way starts anew on other threads."
            ) from error
        except CancelledError as error:
            raise RunError(
                "The scheduler is gone. Start it and the same command again. What is done is kept."
            ) from error
        finally:
            with suppress(Exception):  # of a client whose scheduler is gone
                self.client.cancel(list(running))

    @staticmethod
    def _wait(running: list[Any]) -> None:
        """Until one has ended, or long enough for workers to have come or gone."""
        from distributed import wait

        if not running:
            time.sleep(ROUND_SECONDS)
            return
        with suppress(TimeoutError):
            wait(running, timeout=ROUND_SECONDS, return_when="FIRST_COMPLETED")


@contextmanager
def local_cluster(workers: int) -> Iterator[ClusterExecutor]:
    """Worker processes on this machine: a GPU each, or an equal share of the cores.

    Raises:
        InputError: no ``distributed``, or more workers than GPUs or cores.
    """
    dask, distributed = _import_dask()
    gpus, cores = torch.cuda.device_count(), usable_cores()
    most, what = (gpus, "GPUs") if gpus else (cores, "cores")
    if not 1 <= workers <= most:
        raise InputError(f"{workers} workers cannot share {most} {what}. Ask for 1 to {most}.")
    threads = str(max(1, cores // workers))
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = given.split(",") if given else [str(number) for number in range(gpus)]
    specs = {
        number: {
            "cls": distributed.Nanny,
            "options": {
                "nthreads": 1,
                "memory_limit": 0,  # Dask pauses workers by their memory, which torch's is not
                "host": "127.0.0.1",
                "dashboard": False,
                "silence_logs": logging.ERROR,
                "env": {"CUDA_VISIBLE_DEVICES": visible[number]} if gpus else {},
            },
        }
        for number in range(workers)
    }
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {
            "host": "127.0.0.1",
            "port": 0,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",  # or it listens to the world, dashboard or not
        },
    }
    # Set before a worker starts: torch reads them when it is loaded.
    environ = {f"distributed.nanny.pre-spawn-environ.{name}": threads for name in THREAD_VARIABLES}
    with (
        _environment_kept(),
        dask.config.set(environ),
        distributed.SpecCluster(
            workers=specs, scheduler=scheduler, silence_logs=logging.ERROR
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield ClusterExecutor(client)


@contextmanager
def scheduler_at(address: str) -> Iterator[ClusterExecutor]:
    """The workers of a scheduler that runs somewhere, such as one of dask-jobqueue.

    Workers must do one task at a time and have the packages of this process; those that do not are
    refused when there is work.

    Raises:
        InputError: no ``distributed``, nobody at the address or no worker.
    """
    _, distributed = _import_dask()
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
        yield ClusterExecutor(client)


def _require_fit(client: Client) -> None:
    """A worker that cannot read a task leaves the study waiting for ever.

    Raises:
        InputError: workers of several threads, or with another version of what computes.
    """
    several = [address for address, threads in client.nthreads().items() if threads != 1]
    if several:
        raise InputError(
            f"The worker at {several[0]} does several tasks at a time, and trainings would share "
            "one process. Start workers with --nthreads 1."
        )
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


def _import_dask() -> tuple[Any, Any]:
    try:
        import dask
        import distributed
    except ModuleNotFoundError as error:
        raise InputError(
            "A cluster needs dask's distributed. Install it with: pip install 'neonet3d[cluster]'."
        ) from error
    logging.getLogger("distributed").setLevel(logging.ERROR)
    return dask, distributed


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Dask sets its workers' variables in this process too, whose other children get them then.

    Thread counts of the user's own are not there meanwhile: Dask would prefer them to the workers'.
    """
    before = dict(os.environ)
    for name in THREAD_VARIABLES:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _work(task: Task) -> list[tuple[str, float]]:
    """On a worker, which has no terminal: the stages and their seconds."""
    console.quiet = True
    stages: list[tuple[str, float]] = []
    do_task(task, lambda stage, seconds: stages.append((stage, seconds)))
    return stages
