from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from neonet3d.engine import cluster
from neonet3d.engine.cluster import ClusterExecutor, local_cluster, scheduler_at
from neonet3d.engine.executor import Task
from neonet3d.engine.run import Timer
from neonet3d.errors import InputError, RunError

pytest.importorskip("distributed", reason="the [cluster] extra is not installed")
pytestmark = [
    pytest.mark.filterwarnings("default"),  # an error in Dask's own thread would hang
    pytest.mark.usefixtures("importable"),
]


@pytest.fixture(scope="module")
def two_workers(importable: None) -> Iterator[ClusterExecutor]:
    with local_cluster(2) as executor:
        yield executor


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


def at(folder: Path, name: str, work: Any, after: tuple[str, ...] = ()) -> Task:
    return Task(name, work, folder / "locks", after)


def execute(executor: ClusterExecutor, tasks: list[Task]) -> tuple[list[str], int]:
    """The recorded stages and how often ``advance`` was called."""
    stages: list[str] = []
    units: list[int] = []
    executor(tasks, lambda stage, _: stages.append(stage), lambda n=1, note="": units.append(n))
    return stages, sum(units)


def test_one_worker_has_all_threads_and_leaves_the_environment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the user exports."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = dict(os.environ)
    with local_cluster(1) as executor:
        execute(executor, [at(tmp_path, "alone", partial(write, tmp_path / "file", ()))])
    _, threads = (tmp_path / "file").read_text().split()
    assert int(threads) == len(os.sched_getaffinity(0))
    assert dict(os.environ) == before


def test_a_task_waits_for_what_it_reads(two_workers: ClusterExecutor, tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abcd"]
    tasks = [
        at(tmp_path, "a", partial(write, files[0], ())),
        at(tmp_path, "b", partial(write, files[1], ())),
        at(tmp_path, "c", partial(write, files[2], (files[0], files[1])), ("a", "b")),
        at(tmp_path, "d", partial(write, files[3], (files[2],)), ("c",)),
    ]
    assert execute(two_workers, tasks) == (["write"] * 4, 4)
    written = [path.read_text().split() for path in files]
    assert str(os.getpid()) not in {pid for pid, _ in written}
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {int(threads) for _, threads in written} == {share}


def test_an_error_ends_the_study_with_its_sentence(
    two_workers: ClusterExecutor, tmp_path: Path
) -> None:
    never = tmp_path / "never"
    after = at(tmp_path, "after", partial(write, never, ()), ("broken",))
    tasks = [at(tmp_path, "broken", fail), after]
    with pytest.raises(InputError, match=r"scan 7 is empty\. Remove it\."):
        execute(two_workers, tasks)
    time.sleep(0.2)
    assert not never.exists()


def test_the_task_of_a_dead_worker_is_done_by_another(
    two_workers: ClusterExecutor, tmp_path: Path
) -> None:
    mark, file = tmp_path / "mark", tmp_path / "file"
    tasks = [
        at(tmp_path, "deadly", partial(die, mark, 1)),
        at(tmp_path, "follows", partial(write, file, (mark,)), ("deadly",)),
    ]
    execute(two_workers, tasks)
    assert mark.read_text() == "xx"
    assert file.is_file()


def test_a_task_that_kills_every_worker_is_named(
    two_workers: ClusterExecutor, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"4 workers died .* at 'too large'.*fewer"):
        execute(two_workers, [at(tmp_path, "too large", partial(die, tmp_path / "mark", 99))])


def test_a_scheduler_elsewhere(two_workers: ClusterExecutor, tmp_path: Path) -> None:
    with scheduler_at(two_workers.client.scheduler.address) as executor:
        execute(executor, [at(tmp_path, "far", partial(write, tmp_path / "far", ()))])
        # Another study on the same scheduler has tasks of the same names.
        execute(executor, [at(tmp_path, "far", partial(write, tmp_path / "other", ()))])
    assert (tmp_path / "far").is_file()
    assert (tmp_path / "other").is_file()


def hold(files: tuple[Path, Path], timed: Timer) -> None:
    """Says that it began, and for how long it was alone."""
    began, ended = files
    assert not began.exists() or ended.exists()
    began.write_text("")
    time.sleep(0.5)
    ended.write_text("")


def test_a_task_that_is_still_being_done_is_waited_for(
    two_workers: ClusterExecutor, tmp_path: Path
) -> None:
    """As when a command was stopped and started again, and its old worker goes on."""
    files = (tmp_path / "began", tmp_path / "ended")
    task = at(tmp_path, "same", partial(hold, files))
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(execute, two_workers, [task]) for _ in range(2)]:
            done.result()


def test_workers_of_another_environment_are_refused_when_they_come(
    two_workers: ClusterExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = {
        "client": {"packages": {"neonet3d": "0.1.0"}},
        "workers": {"tcp://far": {"packages": {"neonet3d": "0.0.9"}}},
    }
    tasks = [at(tmp_path, "alone", partial(write, tmp_path / "file", ()))]
    with scheduler_at(two_workers.client.scheduler.address) as executor:
        monkeypatch.setattr(type(two_workers.client), "get_versions", lambda *_, **__: found)
        with pytest.raises(
            InputError, match=r"tcp://far has neonet3d 0\.0\.9, and here is 0\.1\.0"
        ):
            execute(executor, tasks)
        monkeypatch.setattr(type(two_workers.client), "nthreads", lambda _: {"tcp://far": 8})
        with pytest.raises(InputError, match="several tasks at a time"):
            execute(executor, tasks)
    assert not (tmp_path / "file").exists()


def test_a_study_without_workers_gives_up(
    two_workers: ClusterExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "LONELY_SECONDS", 0.2)
    monkeypatch.setattr(type(two_workers.client), "nthreads", lambda _: {})
    with pytest.raises(RunError, match="no worker for minutes"):
        execute(two_workers, [at(tmp_path, "alone", fail)])


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
