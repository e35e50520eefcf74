from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from neonet3d.config import load_config
from neonet3d.segmentation.patch_segmenter import LabelledPatches
from neonet3d.study.augmentation_arms import (
    Arm,
    PatchFacts,
    PatchSet,
    Scores,
    study_arms,
    write_scores,
)

SHAPE = (8, 8, 8)
FACTS = PatchFacts(
    cases=(("a", "p1"), ("b", "p2")),
    labels={"liver": 1, "tumour": 2},
    shape=SHAPE,
    spacing_mm=(1.0, 1.0, 2.0),
)


def patches(n: int, value: float) -> LabelledPatches:
    return LabelledPatches(torch.full((n, *SHAPE), value), torch.ones(n, *SHAPE, dtype=torch.uint8))


def arms_of(*ratios: float, combined: bool = True) -> list[Arm]:
    settings = load_config("demo").augmentation_study
    return study_arms(settings.model_copy(update={"ratios": ratios, "combined": combined}))


@pytest.fixture
def patch_set(tmp_path: Path) -> PatchSet:
    made = PatchSet(tmp_path)
    made.write(patches(2, 0.25), patches(6, 0.75), patches(2, -0.5), FACTS)
    return made


def test_arms_begin_with_real_cases_and_have_names_of_their_own() -> None:
    arms = arms_of(3.0, 1.0)
    assert arms[0] == Arm("real", "real cases", real=True, classic=False, ratio=0.0)
    assert [arm.key for arm in arms] == [
        *("real", "classic", "synthetic_1", "synthetic_3", "both", "synthetic")
    ]
    assert [arm.ratio for arm in arms] == [0, 0, 1, 3, 3, 3]
    assert [arm.real for arm in arms] == [True] * 5 + [False]


def test_the_combined_arm_is_left_out_on_request() -> None:
    keys = [arm.key for arm in arms_of(1.0, combined=False)]
    assert keys == ["real", "classic", "synthetic_1", "synthetic"]


@pytest.mark.parametrize(
    ("key", "real", "synthetic"),
    [
        *(("real", 2, 0), ("classic", 2, 0), ("synthetic_1", 2, 2), ("synthetic_3", 2, 6)),
        *(("both", 2, 6), ("synthetic", 0, 6)),
    ],
)
def test_every_arm_gets_its_share(key: str, real: int, synthetic: int, patch_set: PatchSet) -> None:
    arm = next(arm for arm in arms_of(1.0, 3.0) if arm.key == key)
    values = patch_set.training(arm).images[:, 0, 0, 0].tolist()
    assert values == [0.25] * real + [0.75] * synthetic


def test_parts_and_facts_come_back(patch_set: PatchSet) -> None:
    assert bool((patch_set.part("held_out").images == -0.5).all())
    assert patch_set.facts() == FACTS


def test_patches_that_were_written_again_are_read_again(patch_set: PatchSet) -> None:
    before = patch_set.part("real").images
    patch_set.write(patches(3, -0.25), patches(6, 0.75), patches(2, -0.5), FACTS)
    assert len(before) == 2
    assert len(patch_set.part("real")) == 3


def test_scores_come_back_from_the_table(tmp_path: Path) -> None:
    """Right, shifted by a voxel, missed, and rightly not there."""
    reference = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    reference[0, 2:6, 2:6, 2:6] = 1
    reference[1, 2:6, 2:6, 2:6] = 1
    reference[1, 0, 0, 0] = 2
    found = reference.clone()
    found[1] = 0
    found[1, 3:7, 2:6, 2:6] = 1
    held_out = LabelledPatches(torch.zeros(reference.shape), reference)
    write_scores(tmp_path / "scores.csv", found, held_out, FACTS)
    scores = Scores.read(tmp_path / "scores.csv")
    assert scores.patients == ("p1", "p2")
    np.testing.assert_allclose(scores.dice["liver"], [1, 0.75])
    np.testing.assert_allclose(scores.hd95_mm["liver"], [0, 1])
    assert math.isnan(scores.dice["tumour"][0])
    assert scores.dice["tumour"][1] == 0
    assert scores.hd95_mm["tumour"][1] == math.inf
