"""Run folders on disk: what stands, what runs, how far it is."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neonet3d.engine.log import read_log
from neonet3d.errors import InputError

PAGES = ("report.html", "viewer.html")
State = Literal["finished", "running", "stopped"]


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        command: as it was typed.
        started: of its last start, UTC.
        stages: kind and seconds of each that ended, in order.
        pages: HTML files that can be looked at.
    """

    name: str
    state: State
    command: str
    started: str
    stages: tuple[tuple[str, float], ...]
    pages: tuple[str, ...]


def list_runs(folder: Path) -> list[RunState]:
    """Every run folder in a folder that can be read, the latest start first."""
    found = []
    for path in folder.iterdir():
        with suppress(OSError, ValueError, KeyError, IndexError, TypeError):  # is no run of ours
            if _is_ours(path) and (path / "manifest.json").is_file():
                found.append(read_run(path))
    return sorted(found, key=lambda run: run.started, reverse=True)


def read_run(path: Path) -> RunState:
    """One run folder."""
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    log = path / "log.jsonl"
    records = read_log(log) if log.is_file() else []
    return RunState(
        name=path.name,
        state=_state(path),
        command=str(manifest["command"]),
        started=str(manifest["starts"][-1]),
        stages=tuple((str(one["stage"]), float(one["seconds"])) for one in records),
        pages=_pages(path),
    )


def page_of_run(folder: Path, name: str, page: str) -> Path:
    """The file of a page of a run.

    Raises:
        InputError: no such run or page.
    """
    run = folder / name
    listed = name in {path.name for path in folder.iterdir()} and run.is_dir()
    if listed and _is_ours(run) and page in _pages(run):
        return run / page
    raise InputError(f"There is no page {page!r} of a run {name!r} here.")


def _is_ours(path: Path) -> bool:
    """A page of another user would run beside the session's key, which its address shows it."""
    return path.stat().st_uid == os.getuid()


def _pages(path: Path) -> tuple[str, ...]:
    pages = [path / name for name in PAGES] + sorted(path.glob("cases-*.html"))
    return tuple(page.name for page in pages if page.is_file() and _is_ours(page))


def _state(path: Path) -> State:
    """A run that works in a folder holds its lock (``engine/run.py``)."""
    lock = path / ".lock"
    if lock.is_file():
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return "running"
    return "finished" if (path / "results.json").is_file() else "stopped"
