from __future__ import annotations

import numpy as np
import pytest
import torch

from neonet3d.segmentation import augment
from neonet3d.segmentation.augment import IntensityNoise, draw_grid, flip, read_through

PATCH, SPACING = (12, 16, 8), (1.0, 1.0, 2.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def straight() -> torch.Tensor:
    axes = [(torch.arange(n) - (n - 1) / 2) * mm for n, mm in zip(PATCH, SPACING, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def test_a_straight_grid_reads_the_patch_itself() -> None:
    image = torch.randn(20, 24, 16)
    labels = torch.randint(0, 4, (20, 24, 16), dtype=torch.uint8)
    middle = torch.tensor([3.0, 5.0, 2.0]) + (torch.tensor(PATCH) - 1) / 2
    read, found = read_through(image, labels, middle, straight(), SPACING)
    torch.testing.assert_close(read, image[3:15, 5:21, 2:10], atol=1e-4, rtol=0)
    assert torch.equal(found, labels[3:15, 5:21, 2:10])


def test_outside_the_scan_its_border_is_repeated() -> None:
    image = torch.arange(6.0)[:, None, None].expand(6, 6, 6)
    labels = (image > 2).to(torch.uint8)
    read, found = read_through(image, labels, torch.full((3,), 2.5), 9 * straight(), SPACING)
    assert (read.min(), read.max()) == (0, 5)
    assert found.unique().tolist() == [0, 1]


def test_the_grid_turns_scales_and_bends_within_its_limits() -> None:
    corner_mm = float(straight().norm(dim=-1).max())
    limit = corner_mm * (2 * np.sin(np.deg2rad(augment.ROTATION_DEG) * 3 / 2) + augment.SCALE)
    moved = [
        (draw_grid(PATCH, SPACING, generator(seed)) - straight()).norm(dim=-1).max()
        for seed in range(30)
    ]
    assert max(moved) < limit + 3**0.5 * augment.BENDING_MM
    assert min(moved) > 0.5


def test_only_the_bending_is_not_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "BENDING_MM", 0.0)
    grid = draw_grid(PATCH, SPACING, generator())
    steps = grid.diff(dim=0)
    torch.testing.assert_close(steps, steps[:1, :1, :1].expand_as(steps), atol=1e-4, rtol=0)
    ratio = steps[0, 0, 0].norm() / SPACING[0]
    assert 1 - augment.SCALE <= ratio <= 1 + augment.SCALE


def test_intensities_are_a_function_of_the_generator() -> None:
    image = torch.rand(12, 12, 12) * 2 - 1
    noise = IntensityNoise(1.0)
    first, again = (noise(image, generator(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, noise(image, generator(4)))
    assert first.shape == image.shape
    assert first.dtype == torch.float32
    assert first.min() > -2
    assert first.max() < 3


def test_a_share_of_none_changes_nothing() -> None:
    image = torch.rand(8, 8, 8) * 2 - 1
    torch.testing.assert_close(IntensityNoise(0.0)(image, generator()), image)


def test_flips_go_together() -> None:
    image = torch.randn(4, 5, 6)
    seen = set()
    for seed in range(20):
        flipped, double = flip([image, 2 * image], (0, 2), generator(seed))
        torch.testing.assert_close(double, 2 * flipped)
        seen.add(tuple(flipped.flatten()[:3].tolist()))
    assert len(seen) == 4
    assert flip([image], (), generator())[0] is image
