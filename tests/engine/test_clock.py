from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from neonet3d.engine import clock
from neonet3d.engine.clock import kept_seconds, read_seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "seconds.json"


def wait(path: Path, seconds: float, key: str = "key") -> None:
    with kept_seconds(path, key):
        time.sleep(seconds)


def test_a_finished_stage_counts_once(path: Path) -> None:
    wait(path, 0.05)
    first = read_seconds(path)
    assert 0.05 <= first < 1
    wait(path, 0.05)
    assert read_seconds(path) == first


def test_interrupted_starts_are_added(path: Path) -> None:
    def interrupted() -> None:
        with kept_seconds(path, "key"):
            time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    wait(path, 0.05)
    assert read_seconds(path) >= 0.1


def test_another_key_starts_from_nothing(path: Path) -> None:
    path.write_text(json.dumps({"key": "other", "seconds": 1000.0, "done": True}))
    wait(path, 0.01)
    assert read_seconds(path) < 1


def test_a_kill_loses_a_tick(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands while the stage works is what a killed process leaves."""
    monkeypatch.setattr(clock, "TICK_SECONDS", 0.01)
    with kept_seconds(path, "key"):
        time.sleep(0.3)
        left = json.loads(path.read_text())
    assert left["seconds"] >= 0.1
    assert left["done"] is False
