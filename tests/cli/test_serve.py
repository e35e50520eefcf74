from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_what_is_no_study_is_refused(run: Callable[..., Any], tmp_path: Path) -> None:
    ended = run("serve", tmp_path, "--port", "0")
    assert (ended.status, ended.stdout) == (2, "")
    assert "holds no results.json, so it is no finished study" in ended.stderr


def test_without_its_extra_it_says_what_to_install(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "neonet3d.app.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ended = run("serve", tmp_path)
    assert ended.status == 2
    assert "pip install 'neonet3d[app]'" in ended.stderr


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGHUP], ids=str)
def test_it_prints_its_address_and_leaves_nothing_when_it_ends(
    tiny_study: tuple[Path, Any], tmp_path: Path, ends: signal.Signals
) -> None:
    command = [sys.executable, "-m", "neonet3d", "serve", str(tiny_study[0]), "--port", "0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)}
    app = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert app.stdout is not None
        found = re.fullmatch(r"Open (http://127\.0\.0\.1:\d+/\S+/)\n", app.stdout.readline())
        assert found is not None
        with urllib.request.urlopen(found.group(1), timeout=30) as answer:
            assert "<h1>Predict</h1>" in answer.read().decode()
        assert list(tmp_path.iterdir())
        app.send_signal(ends)
        _, errors = app.communicate(timeout=30)
        assert (app.returncode, errors) == (0, "")
        assert not list(tmp_path.iterdir())
    finally:
        app.kill()
        app.communicate()
