"""What the commands trained on a small cohort."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from neonet3d.cohort.cohort import Cohort


@dataclass(frozen=True)
class Trained:
    """Folders that ``crop``, ``segment train`` and ``generate train`` wrote for fold 0 of 2."""

    crops: Path
    segmenter: Path
    generator: Path


@pytest.fixture(scope="session")
def trained(
    run: Callable[..., Any],
    scans: Cohort,
    tiny_options: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    root = tmp_path_factory.mktemp("trained")
    made = Trained(root / "crops", root / "segmenter", root / "generator")
    for arguments in (
        ("crop", scans.root, made.crops),
        ("segment", "train", scans.root, made.segmenter, "--fold", "0/2"),
        ("generate", "train", made.crops, made.generator, "--fold", "0/2"),
    ):
        done = run(*arguments, *tiny_options)
        assert done.status == 0, done.stderr
    return made
