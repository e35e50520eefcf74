from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from neonet3d.engine.jobs import run_jobs
from neonet3d.errors import InputError, RunError

WORK = """
import os
import time
import torch
from neonet3d.errors import InputError

def write(path):
    path.write_text(f"{os.getpid()} {torch.get_num_threads()}")

def die(path):
    os.kill(os.getpid(), 9)

def wait(path):
    write(path)
    time.sleep(60)

def refuse_or_wait(path):
    if path.name == "0":
        wait(path)
    while not (path.parent / "0").exists() or not (path.parent / "0").read_text():
        time.sleep(0.05)
    raise InputError("Number 1 is not right.")

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


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU jobs run in this process")
def test_an_error_does_not_wait_for_the_others(work: ModuleType, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match="Number 1 is not right"):
        run_jobs(work.refuse_or_wait, paths(tmp_path / "out", 2), description="notes")
    assert time.monotonic() - started < 50
    waiting = int((tmp_path / "out" / "0").read_text().split()[0])
    while _lives(waiting):
        assert time.monotonic() - started < 50, "the other went on"
        time.sleep(0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU jobs run in this process")
def test_a_killed_process_is_a_sentence(work: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="was killed, perhaps for want of memory"):
        run_jobs(work.die, paths(tmp_path / "out", 2), description="notes")


PARENT = """
import sys
from pathlib import Path
from work_of_jobs import wait
from neonet3d.engine.jobs import run_jobs

if __name__ == "__main__":
    run_jobs(wait, [Path(sys.argv[1]) / name for name in "ab"], description="notes")
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU jobs run in this process")
def test_workers_end_with_a_killed_parent(work: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    out = tmp_path / "out"
    out.mkdir()
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(out)])
    until = time.monotonic() + 60
    while not (found := [path.read_text().split() for path in out.iterdir()]) or [] in found:
        assert time.monotonic() < until, "no worker began"
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    worker = int(found[0][0])
    while _lives(worker):
        assert time.monotonic() < until, "the worker went on"
        time.sleep(0.05)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not stat.is_file() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
