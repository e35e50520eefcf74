from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.generation.evaluate import mask_adherence, summarise


def reader(patients: Cohort, change: Any) -> Any:
    """Stands for NeoSeg: knows the masks and changes them."""
    known = {case.read_image().data.tobytes(): case.read_with_mask()[1] for case in patients}
    return SimpleNamespace(
        segment=lambda image: SimpleNamespace(
            label_map=image.with_data(change(known[image.data.tobytes()].data))
        )
    )


def test_adherence_of_a_perfect_reader(patients: Cohort) -> None:
    scores = mask_adherence(reader(patients, lambda mask: mask), patients)
    assert scores == [{"liver": 1, "portal_vein": 1, "tumour": 1}] * len(patients)
    assert summarise(scores, seed=0)["tumour"].value == 1


def test_adherence_class_by_class(patients: Cohort) -> None:
    def blind_to_veins(mask: np.ndarray) -> np.ndarray:
        return np.where(mask == 2, 1, mask).astype(np.uint8)

    scores = mask_adherence(reader(patients, blind_to_veins), patients)
    summary = summarise(scores, seed=0)
    assert summary["portal_vein"].value == 0
    assert summary["tumour"].value == 1
    assert 0.9 < summary["liver"].value < 1


def test_a_class_that_nobody_saw_is_left_out() -> None:
    scores = [{"liver": 0.8, "tumour": np.nan}, {"liver": 0.6, "tumour": np.nan}]
    summary = summarise(scores, seed=0)
    assert list(summary) == ["liver"]
    assert summary["liver"].value == pytest.approx(0.7)
