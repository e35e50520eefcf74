"""The process that does the app's jobs, one after the other, with its models loaded.

A process of its own, since a job that is cancelled, or takes too long or too much memory, can then
be ended without the app. What it is sent and what it says are small objects through a pipe between
the two; everything large is files in the job's folder.
"""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from neonet3d.engine.progress import console
from neonet3d.errors import InputError, RunError

Say = Callable[[str], None]
"""Told the name of each stage as it begins."""


class Work(Protocol):
    """What a job does; importable by name, since it is sent to the worker."""

    def run(self, folder: Path, say: Say) -> dict[str, object]:
        """Write files to ``folder`` and return what the page shows, as JSON has it.

        Raises:
            InputError, RunError: their sentences are shown.
        """


@dataclass(frozen=True)
class Begun:
    """A stage has begun."""

    stage: str


@dataclass(frozen=True)
class Done:
    """A job has ended well."""

    result: dict[str, object]


@dataclass(frozen=True)
class Failed:
    """A job has ended with a sentence."""

    sentence: str


def serve_jobs(pipe: Connection) -> None:
    """Do what comes through the pipe until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the app, which closes the pipe
    console.quiet = True
    with suppress(EOFError, BrokenPipeError):
        while True:
            work, folder = pipe.recv()
            pipe.send(_answer(work, folder, pipe))


def _answer(work: Work, folder: Path, pipe: Connection) -> Done | Failed:
    try:
        return Done(work.run(folder, lambda stage: pipe.send(Begun(stage))))
    except (InputError, RunError) as error:
        return Failed(str(error))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return _broken(error)
        return Failed("There is no room left for temporary files. Make some, and try again.")
    except Exception as error:  # the app goes on
        return _broken(error)


def _broken(error: Exception) -> Failed:
    """A fault of ours; the whole story is in the app's terminal."""
    traceback.print_exception(error, file=sys.stderr)
    return Failed(
        f"Something of neonet3d itself failed ({type(error).__name__}). The terminal where "
        "'neonet3d serve' runs says what; please report it."
    )
