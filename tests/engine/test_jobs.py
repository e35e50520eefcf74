from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from neonet3d.engine.jobs import run_jobs
from neonet3d.errors import InputError


@dataclass(frozen=True)
class Note:
    folder: Path
    name: str


def write(note: Note) -> None:
    """Where it ran, and on how many threads."""
    (note.folder / note.name).write_text(f"{os.getpid()} {torch.get_num_threads()}")


def refuse(note: Note) -> None:
    if note.name == "2":
        raise InputError("Number 2 is not right.")
    write(note)


def test_every_job_is_done_once_on_one_thread_elsewhere(tmp_path: Path) -> None:
    run_jobs(write, [Note(tmp_path, str(i)) for i in range(5)], description="notes")
    found = [path.read_text().split() for path in tmp_path.iterdir()]
    assert len(found) == 5
    if not torch.cuda.is_available():
        assert {threads for _, threads in found} == {"1"}
        assert str(os.getpid()) not in {process for process, _ in found}


def test_one_job_stays_here(tmp_path: Path) -> None:
    run_jobs(write, [Note(tmp_path, "only")], description="notes")
    assert (tmp_path / "only").read_text().split()[0] == str(os.getpid())


def test_the_first_error_is_raised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Number 2 is not right"):
        run_jobs(refuse, [Note(tmp_path, str(i)) for i in range(4)], description="notes")
