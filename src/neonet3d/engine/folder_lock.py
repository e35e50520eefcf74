"""One training at a time in a folder that is no run: the lock is the folder itself."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from neonet3d.errors import InputError

_LOCKS: dict[Path, int] = {}
"""Descriptors of folders that this process trains in; the kernel drops them with the process."""


def lock_folder(folder: Path) -> None:
    """The folder itself, so that no file is left of it."""
    if folder in _LOCKS:
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            f"Another process trains in {folder}. Wait for it or choose another folder."
        ) from None
    _LOCKS[folder] = descriptor


def unlock_folder(folder: Path) -> None:
    descriptor = _LOCKS.pop(folder, None)
    if descriptor is not None:
        os.close(descriptor)
