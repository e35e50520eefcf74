from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from neonet3d.engine import cluster
from neonet3d.engine.cluster import ClusterExecutor, local_cluster, scheduler_at
from neonet3d.engine.executor import Task
from neonet3d.engine.run import Timer
from neonet3d.errors import InputError, RunError

pytest.importorskip("distributed", reason="the [cluster] extra is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # an error in Dask's own thread would hang


@pytest.fixture(scope="module")
def two_workers() -> Iterator[ClusterExecutor]:
    root = str(Path(__file__).parents[2])
    sys.path.append(root)  # workers get this path, and import ``tests.engine`` by it
    with local_cluster(2) as executor:
        yield executor
    sys.path.remove(root)


def write(path: Path, wanted: tuple[Path, ...], timed: Timer) -> None:
    with timed("write"):
        assert all(other.is_file() for other in wanted)
        path.write_text(f"{os.getpid()} {torch.get_num_threads()}")


def fail(timed: Timer) -> None:
    raise InputError("scan 7 is empty. Remove it.")


def die(mark: Path, times: int, timed: Timer) -> None:
    """SIGKILL, the first so many times."""
    before = len(mark.read_text()) if mark.is_file() else 0
    mark.write_text("x" * (before + 1))
    if before < times:
        os.kill(os.getpid(), signal.SIGKILL)


def execute(executor: ClusterExecutor, tasks: list[Task]) -> tuple[list[str], int]:
    """The recorded stages and how often ``advance`` was called."""
    stages: list[str] = []
    units: list[int] = []
    executor(tasks, lambda stage, _: stages.append(stage), lambda n=1, note="": units.append(n))
    return stages, sum(units)


def test_a_task_waits_for_what_it_reads(two_workers: ClusterExecutor, tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abcd"]
    tasks = [
        Task("a", partial(write, files[0], ())),
        Task("b", partial(write, files[1], ())),
        Task("c", partial(write, files[2], (files[0], files[1])), ("a", "b")),
        Task("d", partial(write, files[3], (files[2],)), ("c",)),
    ]
    assert execute(two_workers, tasks) == (["write"] * 4, 4)
    written = [path.read_text().split() for path in files]
    assert str(os.getpid()) not in {pid for pid, _ in written}
    share = max(1, (os.cpu_count() or 1) // 2)
    assert {int(threads) for _, threads in written} == {share}


def test_an_error_ends_the_study_with_its_sentence(
    two_workers: ClusterExecutor, tmp_path: Path
) -> None:
    never = tmp_path / "never"
    tasks = [Task("broken", fail), Task("after", partial(write, never, ()), ("broken",))]
    with pytest.raises(InputError, match=r"scan 7 is empty\. Remove it\."):
        execute(two_workers, tasks)
    time.sleep(0.2)
    assert not never.exists()


def test_the_task_of_a_dead_worker_is_done_by_another(
    two_workers: ClusterExecutor, tmp_path: Path
) -> None:
    mark, file = tmp_path / "mark", tmp_path / "file"
    tasks = [
        Task("deadly", partial(die, mark, 1)),
        Task("follows", partial(write, file, (mark,)), ("deadly",)),
    ]
    execute(two_workers, tasks)
    assert mark.read_text() == "xx"
    assert file.is_file()


def test_a_task_that_kills_every_worker_is_named(
    two_workers: ClusterExecutor, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"3 workers died .* at 'too large'.*fewer"):
        execute(two_workers, [Task("too large", partial(die, tmp_path / "mark", 99))])


def test_a_scheduler_elsewhere(two_workers: ClusterExecutor, tmp_path: Path) -> None:
    with scheduler_at(two_workers.client.scheduler.address) as executor:
        execute(executor, [Task("far", partial(write, tmp_path / "far", ()))])
    assert (tmp_path / "far").is_file()


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "START_SECONDS", 1)
    with (
        pytest.raises(InputError, match="There is no Dask scheduler at tcp:"),
        scheduler_at("tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.parametrize("workers", [0, 10_000])
def test_workers_that_cannot_be(workers: int) -> None:
    with pytest.raises(InputError, match=f"{workers} workers cannot share"), local_cluster(workers):
        pass
