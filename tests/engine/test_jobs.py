from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

from neonet3d.engine.jobs import run_jobs
from neonet3d.errors import InputError

WORK = """
import os
import torch
from neonet3d.errors import InputError

def write(path):
    path.write_text(f"{os.getpid()} {torch.get_num_threads()}")

def refuse(path):
    if path.name == "2":
        raise InputError("Number 2 is not right.")
    write(path)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that other processes can import too."""
    (tmp_path / "work_of_jobs.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module("work_of_jobs")


def paths(folder: Path, n: int) -> list[Path]:
    folder.mkdir()
    return [folder / str(i) for i in range(n)]


def test_every_job_is_done_once_on_one_thread_elsewhere(work: ModuleType, tmp_path: Path) -> None:
    run_jobs(work.write, paths(tmp_path / "out", 5), description="notes")
    found = [path.read_text().split() for path in (tmp_path / "out").iterdir()]
    assert len(found) == 5
    if not torch.cuda.is_available():
        assert {threads for _, threads in found} == {"1"}
        assert str(os.getpid()) not in {process for process, _ in found}


def test_one_job_stays_here(work: ModuleType, tmp_path: Path) -> None:
    [path] = paths(tmp_path / "out", 1)
    run_jobs(work.write, [path], description="notes")
    assert path.read_text().split()[0] == str(os.getpid())


def test_the_first_error_is_raised(work: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Number 2 is not right"):
        run_jobs(work.refuse, paths(tmp_path / "out", 4), description="notes")
