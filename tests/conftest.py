"""What several tests need: the real data, and small cohorts on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.volume import Volume
from neonet3d.types import LabelSchema

LIVER_SCHEMA = LabelSchema(("background", "liver", "tumour"))


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Path of a real data set; the test is skipped where it does not exist."""

    def find(name: str) -> Path:
        given = os.environ.get("NEONET3D_DATA")
        root = Path(given) if given else Path(__file__).parents[1] / ".." / "shared" / "data"
        path = root.resolve() / name
        if not path.exists():
            pytest.skip(f"no real data at {path}; set NEONET3D_DATA")
        return path

    return find


@pytest.fixture
def make_cohort(tmp_path: Path) -> Callable[..., Cohort]:
    """A cohort of noise with a liver and a tumour in every mask."""

    def make(
        outcomes: Sequence[int | None],
        *,
        participants: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        masks: bool = True,
        name: str = "cohort",
    ) -> Cohort:
        rng = np.random.default_rng(7)
        writer = CohortWriter(tmp_path / name, LIVER_SCHEMA, outcome_name="pni", channel="MR")
        for index, outcome in enumerate(outcomes):
            image = Volume(rng.normal(100, 10, (10, 9, 8)).astype(np.float32), np.eye(4))
            mask = np.zeros(image.shape, dtype=np.uint8)
            mask[1:9, 1:8, 1:7] = 1
            mask[3:6, 3:6, 3:6] = 2
            writer.add(
                f"case_{index:03d}",
                image,
                image.with_data(mask) if masks else None,
                outcome=outcome,
                participant=participants[index] if participants else None,
                extra={"split": splits[index]} if splits else None,
            )
        return writer.finish()

    return make
