"""One start of the app: the run it serves, its private folder, its jobs."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from neonet3d.app.jobs import JobQueue
from neonet3d.app.models import FoldModels
from neonet3d.app.worker import Say
from neonet3d.cohort.cohort import Cohort
from neonet3d.engine.artefact import ArtefactCard
from neonet3d.errors import InputError


@dataclass(frozen=True)
class Session:
    """What the routes share.

    Attributes:
        run: finished study whose models are used.
        models: of its first fold.
        card: of the generator.
        crops: patches of the study, whose masks are drawn on.
        cohort: whole scans, or None where the run stands without them.
        folder: private; it goes when the session does.
        key: what a browser must know.
    """

    run: Path
    models: FoldModels
    card: ArtefactCard
    crops: Cohort
    cohort: Cohort | None
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
        crops, cohort = Cohort.open(run / "crops"), _cohort_of(run)
        with tempfile.TemporaryDirectory(prefix="neonet3d-") as name:  # of mode 0700
            folder = Path(name)
            jobs = JobQueue(folder)
            try:
                jobs.submit("start", lambda _: LoadModels(models))
                yield cls(run, models, card, crops, cohort, folder, secrets.token_urlsafe(24), jobs)
            finally:
                jobs.close()


@dataclass(frozen=True)
class LoadModels:
    """The first job of a session, so that no other waits for it."""

    models: FoldModels

    def run(self, folder: Path, say: Say) -> dict[str, object]:
        say("loading the models")
        self.models.load()
        return {}


def _cohort_of(run: Path) -> Cohort | None:
    manifest = yaml.safe_load((run / "manifest.json").read_text("utf-8"))
    place = manifest.get("cohort")
    try:
        return None if place is None else Cohort.open(place)
    except InputError:  # the folder moved; the page says so
        return None
