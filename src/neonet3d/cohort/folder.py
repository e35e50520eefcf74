"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neonet3d.errors import InputError


def require_new(out: Path) -> None:
    """Whether ``new_folder`` can make it, to ask before hours of work.

    Raises:
        InputError: ``out`` is a file, a folder that is not empty, or a mount point.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder. Choose another or remove it.")
    if os.path.ismount(out):
        raise InputError(f"{out} is where a file system begins. Name a new folder inside it.")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Fill a temporary folder beside ``out``; it becomes ``out`` when the block ends in order.

    Whatever is raised in the block removes the temporary folder: a job that fails leaves nothing.

    Raises:
        InputError: as ``require_new``.
    """
    out = out.resolve()
    require_new(out)
    temporary = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if out.exists():
            out.rmdir()
        os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
