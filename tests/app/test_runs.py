from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from neonet3d.app.runs import list_runs, page_of_run
from neonet3d.errors import InputError


def test_the_runs_of_other_users_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of theirs would be shown the address, in which the session's key stands."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text(json.dumps({"command": "x", "starts": ["2026"]}))
    (run / "report.html").write_text("<!doctype html>")
    assert [(one.name, one.pages) for one in list_runs(tmp_path)] == [("run", ("report.html",))]
    assert page_of_run(tmp_path, "run", "report.html") == run / "report.html"
    stranger = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: stranger)
    assert list_runs(tmp_path) == []
    with pytest.raises(InputError, match="There is no page"):
        page_of_run(tmp_path, "run", "report.html")
