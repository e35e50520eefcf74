"""The app's jobs: they wait, run one at a time in a worker process, can be cancelled.

They are kept here and not in the page, so a reload loses nothing.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Condition, Thread
from typing import Literal

from neonet3d.app.worker import Begun, Done, Failed, Work, serve_jobs
from neonet3d.errors import InputError

MOST_WAITING = 4
MOST_KEPT = 8  # ended jobs whose files stay
LONGEST_SECONDS = 1800.0
LOOK_SECONDS = 0.05  # how soon a cancelled job stops
TOO_LONG = (
    "The job took too long and was ended. Send a smaller scan, or use the command line, which "
    "takes its time."
)
WORKER_GONE = (
    "The worker ended in the middle of it, perhaps for want of memory. Send a smaller scan, or try "
    "again."
)

State = Literal["waiting", "running", "done", "failed", "cancelled"]


@dataclass
class Stage:
    """A part of a job."""

    name: str
    began: float
    ended: float | None = None


@dataclass
class Job:
    """One job and how far it is.

    Attributes:
        kind: page that it belongs to.
        folder: of its files.
        sentence: why it failed.
        result: what ``Work.run`` returned.
    """

    id: str
    kind: str
    folder: Path
    work: Work
    state: State = "waiting"
    stages: list[Stage] = field(default_factory=list)
    sentence: str | None = None
    result: dict[str, object] | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def begin(self, stage: str) -> None:
        self.close_stage()
        self.stages.append(Stage(stage, time.monotonic()))

    def close_stage(self) -> None:
        if self.stages and self.stages[-1].ended is None:
            self.stages[-1].ended = time.monotonic()

    def end(self, state: State, *, sentence: str | None = None) -> None:
        self.close_stage()
        self.state, self.sentence = state, sentence

    def as_json(self) -> dict[str, object]:
        now = time.monotonic()
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "stages": [
                {"name": one.name, "seconds": round((one.ended or now) - one.began, 1)}
                for one in self.stages
            ],
            "sentence": self.sentence,
            "result": self.result,
        }


class JobQueue:
    """Jobs of one session, and the process that does them."""

    def __init__(self, folder: Path, *, longest_seconds: float = LONGEST_SECONDS) -> None:
        """
        Args:
            folder: private; each job gets a folder in it.
        """
        self._folder = folder
        self._longest_seconds = longest_seconds
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._changed = Condition()
        self._closed = False
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._thread = Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, kind: str, make: Callable[[Path], Work]) -> Job:
        """Append a job.

        Args:
            make: its work, given its folder.

        Raises:
            InputError: too many wait already.
        """
        with self._changed:
            waiting = sum(job.state == "waiting" for job in self._jobs.values())
            if waiting >= MOST_WAITING:
                raise InputError(
                    f"{waiting} jobs are waiting already. Cancel one, or try again when one is "
                    "done."
                )
        number = secrets.token_urlsafe(9)
        folder = self._folder / number
        folder.mkdir(mode=0o700)
        job = Job(number, kind, folder, make(folder))
        with self._changed:
            self._jobs[number] = job
            old = self._forgotten()
            self._changed.notify_all()
        for one in old:
            shutil.rmtree(one.folder, ignore_errors=True)
        return job

    def get(self, number: str) -> Job:
        """
        Raises:
            InputError: no such job.
        """
        with self._changed:
            if number not in self._jobs:
                raise InputError("There is no such job any more. Start it again.")
            return self._jobs[number]

    def cancel(self, number: str) -> Job:
        """End a job, whether it waits or runs; one that has ended stays as it is."""
        job = self.get(number)
        with self._changed:
            waited = job.state == "waiting"
            if not job.ended:
                job.end("cancelled")
        if waited:
            shutil.rmtree(job.folder, ignore_errors=True)
        return job

    def told(self, job: Job) -> dict[str, object]:
        """How far a job is, as JSON has it."""
        with self._changed:
            return job.as_json()

    def close(self) -> None:
        """End what runs, and the worker."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._stop_worker()

    def _forgotten(self) -> list[Job]:
        """Jobs that ended long ago and are no longer kept."""
        ended = [number for number, job in self._jobs.items() if job.ended]
        return [self._jobs.pop(number) for number in ended[:-MOST_KEPT]]

    def _work(self) -> None:
        with suppress(OSError):  # the first job says it
            self._start_worker()  # loads its libraries while nothing waits for it yet
        while (job := self._next()) is not None:
            self._follow(job)

    def _next(self) -> Job | None:
        with self._changed:
            while not self._closed:
                for job in self._jobs.values():
                    if job.state == "waiting":
                        job.state = "running"
                        return job
                self._changed.wait()
        return None

    def _follow(self, job: Job) -> None:
        """Have the worker do a job, and write down what it says."""
        until = time.monotonic() + self._longest_seconds
        try:
            pipe = self._start_worker()
            pipe.send((job.work, job.folder))
            while job.state == "running" and not self._closed:
                if time.monotonic() > until:
                    self._conclude(job, Failed(TOO_LONG))
                elif pipe.poll(LOOK_SECONDS):
                    said = pipe.recv()
                    if not isinstance(said, Begun):
                        self._conclude(job, said)
                        return
                    with self._changed:
                        job.begin(said.stage)
        except (EOFError, OSError):
            self._conclude(job, Failed(WORKER_GONE))
        self._stop_worker()  # it is still at it, or gone
        shutil.rmtree(job.folder, ignore_errors=True)  # with what it had of the scan

    def _conclude(self, job: Job, said: Done | Failed) -> None:
        with self._changed:
            if job.ended or isinstance(said, Failed):  # nobody will look at what it had of the scan
                shutil.rmtree(job.folder, ignore_errors=True)
            if job.ended:  # cancelled at the last moment
                return
            match said:
                case Done(result):
                    job.result = result
                    job.end("done")
                case Failed(sentence):
                    job.end("failed", sentence=sentence)

    def _start_worker(self) -> Connection:
        """The pipe to the worker; a new one where there is none."""
        if self._pipe is None or self._process is None or not self._process.is_alive():
            self._stop_worker()
            context = get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=serve_jobs, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        return self._pipe

    def _stop_worker(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._pipe = self._process = None
