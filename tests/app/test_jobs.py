"""The queue: one at a time, cancelled, too long, a worker that dies; it goes on after each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from neonet3d.app import jobs
from neonet3d.app.jobs import Job, JobQueue
from neonet3d.app.worker import Say
from neonet3d.errors import InputError

pytestmark = pytest.mark.usefixtures("importable")
DEADLINE = 60.0


@dataclass(frozen=True)
class Writes:
    def run(self, folder: Path, say: Say) -> dict[str, object]:
        say("first")
        (folder / "file").write_text("written")
        say("second")
        return {"pid": os.getpid()}


@dataclass(frozen=True)
class Sleeps:
    def run(self, folder: Path, say: Say) -> dict[str, object]:
        say("sleeping")
        time.sleep(DEADLINE)
        return {}


@dataclass(frozen=True)
class Dies:
    def run(self, folder: Path, say: Say) -> dict[str, object]:
        say("dying")
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


@dataclass(frozen=True)
class Refuses:
    def run(self, folder: Path, say: Say) -> dict[str, object]:
        raise InputError("The scan is upside down. Turn it.")


@dataclass(frozen=True)
class Breaks:
    def run(self, folder: Path, say: Say) -> dict[str, object]:
        raise ZeroDivisionError(folder)


@pytest.fixture(scope="module")
def queue(importable: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobQueue]:
    opened = JobQueue(tmp_path_factory.mktemp("jobs"))
    yield opened
    opened.close()


def ended(job: Job) -> Job:
    until = time.monotonic() + DEADLINE
    while not job.ended:
        assert time.monotonic() < until
        time.sleep(0.01)
    return job


def running(job: Job, stage: str) -> None:
    until = time.monotonic() + DEADLINE
    while [one.name for one in job.stages] != [stage]:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_job_writes_to_its_folder_and_says_its_stages(queue: JobQueue) -> None:
    job = ended(queue.submit("test", lambda folder: Writes()))
    assert job.state == "done"
    assert (job.folder / "file").read_text() == "written"
    assert job.folder.stat().st_mode & 0o077 == 0
    told = job.as_json()
    assert [one["name"] for one in told["stages"]] == ["first", "second"]  # type: ignore[attr-defined]
    assert told["result"] == {"pid": job.result["pid"]}  # type: ignore[index]
    assert queue.get(job.id) is job


def test_the_worker_stays_and_is_another_process(queue: JobQueue) -> None:
    first, second = (ended(queue.submit("test", lambda folder: Writes())) for _ in range(2))
    assert first.result == second.result != {"pid": os.getpid()}


def test_a_refusal_is_its_sentence_and_a_fault_of_ours_says_so(queue: JobQueue) -> None:
    refused = ended(queue.submit("test", lambda folder: Refuses()))
    assert (refused.state, refused.sentence) == ("failed", "The scan is upside down. Turn it.")
    assert not refused.folder.exists()  # with what it had of the scan
    broken = ended(queue.submit("test", lambda folder: Breaks()))
    assert broken.sentence is not None
    assert "neonet3d itself failed (ZeroDivisionError)" in broken.sentence
    assert str(broken.folder) not in broken.sentence


def test_a_running_job_is_cancelled_and_the_next_one_goes_on(queue: JobQueue) -> None:
    long = queue.submit("test", lambda folder: Sleeps())
    waits = queue.submit("test", lambda folder: Sleeps())
    after = queue.submit("test", lambda folder: Writes())
    running(long, "sleeping")
    assert waits.state == "waiting"
    assert queue.cancel(waits.id).state == "cancelled"
    assert queue.cancel(long.id).state == "cancelled"
    assert ended(after).state == "done"
    assert waits.stages == []
    assert not waits.folder.exists()
    assert long.stages[0].ended is not None
    assert queue.cancel(after.id).state == "done"


def test_a_worker_that_dies_is_replaced(queue: JobQueue) -> None:
    died = ended(queue.submit("test", lambda folder: Dies()))
    assert died.state == "failed"
    assert died.sentence == jobs.WORKER_GONE
    # The queue clears up behind the state that it tells, and before its next job.
    assert ended(queue.submit("test", lambda folder: Writes())).state == "done"
    assert not died.folder.exists()


def test_a_worker_that_cannot_be_started_fails_the_job_and_not_the_queue(
    importable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: JobQueue) -> None:
        raise OSError("no room for another process")

    with monkeypatch.context() as patched:
        patched.setattr(JobQueue, "_start_worker", full)
        queue = JobQueue(tmp_path)
        assert ended(queue.submit("test", lambda folder: Writes())).sentence == jobs.WORKER_GONE
    assert ended(queue.submit("test", lambda folder: Writes())).state == "done"
    queue.close()


def test_too_many_that_wait_are_refused(queue: JobQueue) -> None:
    first = queue.submit("test", lambda folder: Sleeps())
    running(first, "sleeping")
    waiting = [queue.submit("test", lambda folder: Sleeps()) for _ in range(jobs.MOST_WAITING)]
    with pytest.raises(InputError, match="4 jobs are waiting already"):
        queue.submit("test", lambda folder: Writes())
    for job in (*waiting, first):
        queue.cancel(job.id)


def test_an_unknown_job_is_an_error(queue: JobQueue) -> None:
    with pytest.raises(InputError, match="no such job any more"):
        queue.get("../etc")


def test_what_takes_too_long_is_ended_and_old_files_go(
    importable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MOST_KEPT", 1)
    queue = JobQueue(tmp_path, longest_seconds=1.0)
    try:
        # The second of each runs from when the worker, which has started, is handed the job.
        long = queue.submit("test", lambda folder: Sleeps())
        assert ended(long).sentence == jobs.TOO_LONG
        ended(queue.submit("test", lambda folder: Refuses()))
        queue.submit("test", lambda folder: Refuses())
        assert not long.folder.exists()
        with pytest.raises(InputError, match="no such job"):
            queue.get(long.id)
    finally:
        queue.close()
