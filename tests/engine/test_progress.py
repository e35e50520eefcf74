from __future__ import annotations

import pytest

from neonet3d.engine import progress as module
from neonet3d.engine.progress import progress


def test_one_line_on_stderr_when_done(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "console", module.Console(stderr=True, width=200))
    with progress("reading scans", 3) as advance:
        for _ in range(3):
            advance(note="loss 0.1")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["reading scans: 3 in 0 s"]


def test_short_work_inside_other_work_is_silent(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "console", module.Console(stderr=True, width=200))
    with progress("outer", 1) as advance:
        with progress("inner", 1) as advance_inner:
            advance_inner()
        advance()
    assert capfd.readouterr().err.splitlines() == ["outer: 1 in 0 s"]


def test_a_failure_leaves_no_bar() -> None:
    with pytest.raises(ZeroDivisionError), progress("outer", 2), progress("inner", 2):
        raise ZeroDivisionError
    assert not module._bars.tasks
