"""One start of the app: the run it serves, its private folder, its jobs."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from neonet3d.app.jobs import JobQueue
from neonet3d.app.models import FoldModels
from neonet3d.app.worker import Say
from neonet3d.cohort.cohort import Cohort
from neonet3d.engine.artefact import ArtefactCard
from neonet3d.errors import InputError

PREFIX, LOCK = "neonet3d-session-", ".lock"


@dataclass(frozen=True)
class Session:
    """What the routes share.

    Attributes:
        run: finished study whose models are used.
        models: of its first fold.
        card: of the generator.
        crops: patches of the study, whose masks are drawn on.
        cohort: whole scans, those cases that can be opened; None where the run stands without.
        faults: sentences about the other cases.
        folder: private; it goes when the session does.
        key: what a browser must know.
    """

    run: Path
    models: FoldModels
    card: ArtefactCard
    crops: Cohort
    cohort: Cohort | None
    faults: tuple[str, ...]
    folder: Path
    key: str
    jobs: JobQueue

    @classmethod
    @contextmanager
    def open(cls, run: Path) -> Iterator[Session]:
        """Start a session, and its worker with the models loaded.

        Raises:
            InputError: no finished study, or models of it are missing.
        """
        run = run.resolve()
        models = FoldModels.of(run)
        card = models.generator_card()
        crops, (cohort, faults) = Cohort.open(run / "crops"), _cohort_of(run)
        _remove_leftovers()
        with tempfile.TemporaryDirectory(prefix=PREFIX) as name:  # of mode 0700
            folder = Path(name)
            with (folder / LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                jobs = JobQueue(folder)
                try:
                    jobs.submit("start", lambda _: LoadModels(models))
                    key = secrets.token_urlsafe(24)
                    yield cls(run, models, card, crops, cohort, faults, folder, key, jobs)
                finally:
                    jobs.close()

    @property
    def shown_cohort(self) -> Cohort:
        """Whole scans; the run's patches where the scans are gone."""
        return self.crops if self.cohort is None else self.cohort


@dataclass(frozen=True)
class LoadModels:
    """The first job of a session, so that no other waits for it."""

    models: FoldModels

    def run(self, folder: Path, say: Say) -> dict[str, object]:
        say("loading the models")
        self.models.load()
        return {}


def _cohort_of(run: Path) -> tuple[Cohort | None, tuple[str, ...]]:
    """The cohort that a run was made of, and what is wrong with cases of it."""
    place = json.loads((run / "manifest.json").read_text("utf-8")).get("cohort")
    if place is None or not Path(place).is_dir():
        return None, ()
    try:
        cohort, faults = Cohort.survey(place)
    except InputError as error:
        return None, (str(error),)
    return cohort, tuple(fault.sentence for fault in faults)


def _remove_leftovers() -> None:
    """Folders of sessions that were killed: ours, and nobody holds their lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = folder / LOCK
        with suppress(OSError):
            if lock.is_file() and folder.stat().st_uid == os.getuid():
                with lock.open() as held:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
