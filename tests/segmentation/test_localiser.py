from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.cohort.volume import Volume
from neonet3d.engine.artefact import read_card
from neonet3d.engine.device import SHORTEST_X
from neonet3d.errors import InputError
from neonet3d.segmentation import localiser as module
from neonet3d.segmentation.localiser import (
    COARSE_VOXELS,
    MULTIPLE,
    Localiser,
    LocaliserUNet,
    coarse_grid,
    coarse_window,
    train_localiser,
)
from neonet3d.types import LabelSchema, Shape, Triple

SCHEMA = LabelSchema(("background", "tumour"))
SPACING_MM = (2.0, 2.0, 3.0)
EXTENT_MM = (120.0, 100.0, 90.0)  # of a ball's scan


def ball(centre_mm: Triple, radius_mm: float, seed: int, shape: Shape = (60, 50, 30)) -> Volume:
    """A bright ball in noise; the mask is where the image is over 100."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    inside = (((index * SPACING_MM - centre_mm) ** 2).sum(-1) < radius_mm**2).astype(np.uint8)
    noise = np.random.default_rng(seed).normal(0, 8, shape)
    image = (60 + 120 * inside + noise).clip(1).astype(np.float32)
    return Volume(image, np.diag([*SPACING_MM, 1.0]))


def mask_of(image: Volume) -> Volume:
    return image.with_data((image.data > 120).astype(np.uint8))


def empty(shape: Shape, spacing_mm: Triple) -> Volume:
    return Volume(np.zeros(shape, np.float32), np.diag([*spacing_mm, 1.0]))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("balls")
    writer = CohortWriter(root, SCHEMA, outcome_name=None, channel="MR", durable=False)
    for number in range(4):
        centre = rng.uniform(35, 65, 3)
        image = ball((centre[0], centre[1], centre[2]), rng.uniform(12, 18), number)
        writer.add(f"case_{number}", image, mask_of(image))
    return writer.finish()


@pytest.fixture(scope="module")
def trained(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of few steps over few voxels."""
    folder = tmp_path_factory.mktemp("model")
    images = ((case.name, case.read_image().data, None) for case in cohort)
    normaliser = IntensityNormaliser.fit(images, SCHEMA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COARSE_VOXELS", 2500)
        fold = Fold("all", cohort, cohort.subset([]))
        train_localiser(fold, EXTENT_MM, normaliser, folder, steps=300, seed=0)
    return folder / module.FOLDER


def test_the_coarse_grid_is_of_cubes_over_the_scan() -> None:
    grid = coarse_grid((310.0, 240.0, 200.0))
    assert len(set(grid.spacing_mm)) == 1
    assert 6 < grid.spacing_mm[0] < 8
    assert COARSE_VOXELS <= np.prod(grid.shape) < 1.3 * COARSE_VOXELS
    assert all(n % MULTIPLE == 0 for n in grid.shape)
    assert (grid.extent_mm >= np.array([310, 240, 200]) - 1e-6).all()


def test_a_flat_scan_stays_off_narrow_grids() -> None:
    grid = coarse_grid((4.0, 300.0, 300.0))
    assert grid.shape[0] >= SHORTEST_X * MULTIPLE


def test_a_larger_scan_gets_more_coarse_voxels() -> None:
    grid = coarse_grid(EXTENT_MM)
    assert coarse_window(empty((10, 10, 10), SPACING_MM), grid).grid == grid
    larger = coarse_window(empty((60, 50, 90), SPACING_MM), grid).grid
    assert larger.spacing_mm == grid.spacing_mm
    assert larger.shape[:2] == grid.shape[:2]
    assert larger.shape[2] >= 3 * (grid.shape[2] - MULTIPLE)


@pytest.mark.parametrize("centre_mm", [(60.0, 50.0, 45.0), (20.0, 24.0, 70.0)])
def test_what_is_found_holds_the_foreground(centre_mm: Triple, trained: Path) -> None:
    localiser, image = Localiser.load(trained), ball(centre_mm, 14.0, seed=99)
    normaliser = localiser.card.normaliser
    assert normaliser is not None
    found = localiser.find(image, normaliser.reference_of(image.data, None, name="scan"))
    assert found is not None
    assert (found.possible | ~found.likely).all()
    assert found.margin_mm > 0
    side = np.array(found.window.grid.spacing_mm)
    voxels = np.argwhere(found.possible) * side + np.array(found.window.first_mm)
    assert (voxels.min(0) - side / 2 - found.margin_mm <= np.array(centre_mm) - 14).all()
    assert (voxels.max(0) + side / 2 + found.margin_mm >= np.array(centre_mm) + 14).all()
    assert (np.abs(voxels - centre_mm).max(0) < 14 + 4 * side).all()


def test_nothing_found_is_none(trained: Path) -> None:
    class Blind(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x, -9.0)

    localiser = Localiser(Blind(), Localiser.load(trained).card)
    assert localiser.find(ball((60.0, 50.0, 45.0), 14.0, seed=1), 100.0) is None


def test_specks_are_left_out(trained: Path) -> None:
    class Speck(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.full_like(x, -9.0)
            y[..., 2:8, 2:8, 2:8] = 9.0
            y[..., -1, -1, -1] = 9.0
            return y

    card = Localiser.load(trained).card
    assert card.parts["smallest_mm3"] > np.prod(card.grid.spacing_mm)
    found = Localiser(Speck(), card).find(ball((60.0, 50.0, 45.0), 14.0, seed=1), 100.0)
    assert found is not None
    assert not found.possible[-1, -1, -1]
    assert found.possible.sum() == 6**3


def test_the_card_and_a_second_start(
    trained: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = read_card(trained, kind="Localiser")
    assert card.training_cases == tuple(sorted(case.digest() for case in cohort))
    assert {path.name for path in trained.iterdir()} == {
        ".claim",
        "log.jsonl",
        "model.json",
        "model.safetensors",
    }

    def never(*args: object, **kwargs: object) -> float:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train_loop", never)
    monkeypatch.setattr(module, "COARSE_VOXELS", 2500)
    assert card.normaliser is not None
    fold = Fold("all", cohort, cohort.subset([]))
    train_localiser(fold, EXTENT_MM, card.normaliser, trained.parent, steps=300, seed=0)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no model\.json"):
        Localiser.load(tmp_path)


def test_the_network_keeps_the_size() -> None:
    assert LocaliserUNet()(torch.zeros(1, 1, 12, 8, 4)).shape == (1, 1, 12, 8, 4)
