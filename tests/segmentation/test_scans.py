from __future__ import annotations

from collections.abc import Callable

import torch

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.geometry import Grid
from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.config import AugmentationConfig
from neonet3d.segmentation.scans import FOREGROUND_SHARE, PatchSampler, Scan, prepare_scan

STILL = AugmentationConfig(flip_axes=(), spatial=0.0, intensity=0.0)
GRID = Grid((8, 8, 4), (1.0, 1.0, 2.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coordinates(shape: tuple[int, int, int] = (40, 30, 20)) -> Scan:
    """Each voxel's image says where it is; one voxel of class 2 in a corner."""
    index = torch.arange(shape[0] * shape[1] * shape[2]).reshape(shape) % 200
    label_map = torch.zeros(shape, dtype=torch.uint8)
    label_map[38, 1, 18] = 2
    return Scan((index / 100 - 1).half(), label_map, {2: torch.tensor([[38, 1, 18]])})


def test_image_and_mask_are_cut_at_the_same_place() -> None:
    scan = coordinates()
    marked = Scan(scan.label_map.half() - 1, scan.label_map, scan.places)
    images, label_maps = PatchSampler([marked], GRID, STILL).draw(30, generator())
    assert images.shape == (30, 1, 8, 8, 4)
    torch.testing.assert_close(images[:, 0], label_maps.float() - 1)


def test_patches_lie_around_the_rare_class_two_times_in_three() -> None:
    _, label_maps = PatchSampler([coordinates()], GRID, STILL).draw(300, generator())
    share = (label_maps == 2).flatten(1).any(1).float().mean()
    assert FOREGROUND_SHARE - 0.1 < share < FOREGROUND_SHARE + 0.1


def test_patches_are_a_function_of_the_generator() -> None:
    config = AugmentationConfig(flip_axes=(0,), spatial=0.5, intensity=0.5)
    sampler = PatchSampler([coordinates(), coordinates()], GRID, config)
    first, again = sampler.draw(4, generator(1)), sampler.draw(4, generator(1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], sampler.draw(4, generator(2))[0])


def test_augmentation_makes_no_new_class() -> None:
    config = AugmentationConfig(flip_axes=(0, 1, 2), spatial=1.0, intensity=1.0)
    images, label_maps = PatchSampler([coordinates()], GRID, config).draw(40, generator())
    assert set(label_maps.unique().tolist()) <= {0, 2}
    assert bool(torch.isfinite(images).all())


def test_a_scan_smaller_than_a_patch_is_padded_with_air(make_cohort: Callable[..., Cohort]) -> None:
    case = make_cohort([0]).cases[0]
    image, mask = case.read_with_mask()
    normaliser = IntensityNormaliser.fit([(case.name, image.data, None)], case.schema)
    x, y, z = image.shape
    grid = Grid((x + 8, y, z), image.spacing_mm)
    scan = prepare_scan(case, grid, normaliser, n_classes=len(case.schema))
    assert scan.image.shape == (x + 8, y, z)
    assert scan.image.dtype == torch.float16
    assert bool((scan.image[:4] == -1).all())
    assert bool((scan.image[-4:] == -1).all())
    torch.testing.assert_close(scan.label_map[4:-4], torch.from_numpy(mask.data))
    for value, places in scan.places.items():
        assert bool((scan.label_map[tuple(places.T)] == value).all())
