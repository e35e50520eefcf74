"""The run folder: ``config.yaml``, ``manifest.json``, ``log.jsonl``, one folder per stage.

A stage that stands with the same key is not run again; a stage whose key changed is made anew.
Trained models keep their own key in their card (``engine/artefact.py``).
"""

from __future__ import annotations

import fcntl
import json
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO

import torch
import yaml

from neonet3d.cohort.volume import write_atomically
from neonet3d.config import Config, fingerprint
from neonet3d.engine.device import device_summary
from neonet3d.engine.log import append_record
from neonet3d.errors import InputError

MANIFEST = "manifest.json"
RESULTS = "results.json"
STATE = "state"  # of a stage that is under way
LOOK_SECONDS = 0.1  # the app holds a run's lock for an instant, to see whether it runs

Timer = Callable[[str], AbstractContextManager[None]]
"""Given the kind of a stage, a context that logs how long it took."""


Record = Callable[[str, float], None]
"""Told the kind of a stage and its seconds."""


def stage_timer(record: Record) -> Timer:
    """A timer that tells ``record`` what it measured, of a stage that failed too."""

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        started = time.monotonic()

        def tell() -> None:
            record(stage, round(time.monotonic() - started, 2))

        try:
            yield
        except BaseException:
            with suppress(OSError):  # of a full disk, say: the error on its way says more
                tell()
            raise
        tell()

    return timed


def untimed(stage: str) -> AbstractContextManager[None]:
    """A timer that logs nothing, for stages outside a run folder."""
    return nullcontext()


def is_run(folder: Path) -> bool:
    """Whether the folder's manifest is one of ours; other software has files of that name."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and {"starts", "config_hash"} <= manifest.keys()


class RunFolder:
    """A folder that one run at a time writes to, and that a later run goes on from."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.config = config

    @classmethod
    @contextmanager
    def open(cls, path: Path, config: Config, *, study: str, command: str) -> Iterator[RunFolder]:
        """Create or re-open a run folder and hold its lock.

        Results that stand of another configuration are removed: a start that does not come to its
        end would leave them beside its own ``config.yaml``.

        Args:
            study: what is run, such as ``pni``.

        Raises:
            InputError: the folder is not a run folder or one of another study, or another process
                works in it.
        """
        if path.is_dir() and not (is_run(path) or _only_begun(path)):
            raise InputError(
                f"{path} is not empty and not a run of neonet3d. Choose another folder."
            )
        path.mkdir(parents=True, exist_ok=True)
        with (path / ".lock").open("w") as lock:
            if not (_locked(lock) or _locked(lock, after=LOOK_SECONDS)):
                raise InputError(
                    f"Another run works in {path}. Wait for it or choose another folder."
                )
            run = cls(path, config)
            run._describe(study, command)
            yield run

    def _describe(self, study: str, command: str) -> None:
        manifest = self.manifest() if is_run(self.path) else {}
        if manifest.get("study", study) != study:
            raise InputError(
                f"{self.path} is a run of 'study {manifest['study']}'. Choose another folder."
            )
        config_hash = fingerprint(self.config)
        if manifest.get("config_hash", config_hash) != config_hash:
            (self.path / RESULTS).unlink(missing_ok=True)
        for of_a_finished_start in ("wall_seconds", "peak_memory_gib"):
            manifest.pop(of_a_finished_start, None)
        starts = manifest.get("starts", [])
        assert isinstance(starts, list)
        manifest |= {
            "starts": [*starts, datetime.now(UTC).isoformat(timespec="seconds")],
            "study": study,
            "command": command,
            "package": version("neonet3d"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": device_summary(),
            "config_hash": config_hash,
        }
        write_atomically(self.path / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
        resolved = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
        write_atomically(self.path / "config.yaml", resolved.encode())

    def manifest(self) -> dict[str, object]:
        return dict(json.loads((self.path / MANIFEST).read_text()))

    def update_manifest(self, **values: object) -> None:
        text = json.dumps(self.manifest() | values, indent=2) + "\n"
        write_atomically(self.path / MANIFEST, text.encode())

    def log(self, **record: object) -> None:
        """Append one event to ``log.jsonl``."""
        stamp = {"time": datetime.now(UTC).isoformat(timespec="seconds")}
        append_record(self.path / "log.jsonl", stamp | record)

    def record(self, stage: str, seconds: float) -> None:
        """Log how long a stage took in this start of the run."""
        self.log(stage=stage, seconds=seconds)

    def timed(self, stage: str) -> AbstractContextManager[None]:
        """Measure and ``record`` a stage of this process."""
        return stage_timer(self.record)(stage)


def _only_begun(folder: Path) -> bool:
    """Empty, or left by a run that was killed before it had a manifest."""
    return all(one.name == ".lock" or one.match(f".{MANIFEST}.*.tmp") for one in folder.iterdir())


def _locked(lock: IO[str], *, after: float = 0.0) -> bool:
    """Whether the lock could be had; the kernel takes it back even after kill -9."""
    time.sleep(after)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def once(folder: Path, key: str, build: Callable[[Path], None]) -> Path:
    """Run ``build(folder)`` unless the folder already stands with this key, by this version.

    ``.done`` is written last. A folder with another key, or none, is removed first; of one that was
    begun with this key ``state/`` stays, in which a training finds what it had reached.
    """
    key = fingerprint(key, version("neonet3d"))
    done, begun = folder / ".done", folder.with_name(f".{folder.name}.begun")
    if done.is_file() and done.read_text() == key:
        return folder
    done.unlink(missing_ok=True)  # first: what is half removed must not look whole
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    if begun.is_file() and begun.read_text() == key:
        _remove_all_but(STATE, folder)
    elif folder.exists():
        shutil.rmtree(folder)
    write_atomically(begun, key.encode())
    folder.mkdir(exist_ok=True)
    build(folder)
    write_atomically(done, key.encode())
    begun.unlink()
    return folder


def _remove_all_but(name: str, folder: Path) -> None:
    for path in folder.glob("*"):
        if path.name == name:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def command_line() -> str:
    """The command as typed, for the manifest; the program by its name and not by its path."""
    return shlex.join(["neonet3d", *sys.argv[1:]])
