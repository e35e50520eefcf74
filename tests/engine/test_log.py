from __future__ import annotations

import json
from pathlib import Path

import pytest

from neonet3d.engine.log import append_record, forget_steps, read_log, stage_seconds


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def test_a_torn_line_costs_itself_alone(log: Path) -> None:
    append_record(log, {"stage": "crop", "seconds": 1.0})
    with log.open("a") as stream:
        stream.write('{"stage": "tra')  # the disk was full
    append_record(log, {"stage": "train", "seconds": 2.0})
    assert [record["stage"] for record in read_log(log)] == ["crop", "train"]
    assert stage_seconds(log) == {"crop": 1.0, "train": 2.0}


def test_seconds_are_summed_over_folds_and_starts(log: Path) -> None:
    for stage, seconds in (("train", 1.5), ("predict", 0.25), ("train", 2.0)):
        append_record(log, {"stage": stage, "seconds": seconds})
    assert stage_seconds(log) == {"train": 3.5, "predict": 0.25}


def test_steps_that_are_taken_again_are_forgotten(log: Path) -> None:
    for stage, steps in (("localiser", 4), ("segmenter", 6)):
        for step in range(1, steps + 1):
            append_record(log, {"stage": stage, "step": step, "loss": 0.5})
    forget_steps(log, "segmenter", after=3)
    found = [(record["stage"], record["step"]) for record in read_log(log)]
    assert found == [("localiser", n) for n in (1, 2, 3, 4)] + [("segmenter", n) for n in (1, 2, 3)]
    before = log.read_bytes()
    forget_steps(log, "segmenter", after=3)
    assert log.read_bytes() == before
    forget_steps(log.with_name("none.jsonl"), "segmenter", after=0)
    assert [path.name for path in log.parent.iterdir()] == [log.name]


def test_one_line_a_record(log: Path) -> None:
    append_record(log, {"stage": "a\nb"})
    append_record(log, {"stage": "c"})
    lines = log.read_text().splitlines()
    assert [json.loads(line)["stage"] for line in lines] == ["a\nb", "c"]
