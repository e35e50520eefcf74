"""``log.jsonl``: one record a line, readable whatever a kill or a full disk has torn."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from os import SEEK_END
from pathlib import Path
from typing import Any

from neonet3d.cohort.volume import write_atomically


def append_record(path: Path, record: Mapping[str, object]) -> None:
    """On a line of its own, even behind one that was torn."""
    line = json.dumps(record).encode() + b"\n"
    with path.open("a+b") as stream:
        if stream.tell():
            stream.seek(-1, SEEK_END)
            if stream.read(1) != b"\n":
                line = b"\n" + line
        stream.write(line)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records; a line that was torn, or is just being written, says nothing."""
    records = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def forget_steps(path: Path, stage: str, *, after: int) -> None:
    """Remove what a training logged of steps that it takes again, so that it is there once."""
    if not path.is_file():
        return
    records = read_log(path)
    kept = [one for one in records if one.get("stage") != stage or one.get("step", 0) <= after]
    if len(kept) < len(records):
        write_atomically(path, "".join(json.dumps(one) + "\n" for one in kept).encode())


def stage_seconds(path: Path) -> dict[str, float]:
    """Wall time per kind of stage of a run, summed over repeats and restarts."""
    total: dict[str, float] = defaultdict(float)
    for record in read_log(path):
        total[record["stage"]] += record["seconds"]
    return dict(total)
