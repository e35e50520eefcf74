from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from neonet3d.classification.regions import (
    PORTAL_REACH_MM,
    PORTAL_SHEATH_MM,
    batch_region_maps,
    region_maps,
    region_names,
    shrink,
)
from neonet3d.cohort.patches import Patches
from neonet3d.types import LabelSchema, Triple

NO_CLASS = LabelSchema(("background",))
SCHEMA = LabelSchema(("background", "liver", "portal_vein", "hepatic_vein", "tumour"))


def points_mm(shape: tuple[int, ...], spacing_mm: Triple) -> np.ndarray:
    """Position of every voxel, (x, y, z, 3), around the middle of the grid."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def sphere_volume_mm3(radius_mm: float) -> float:
    return 4 / 3 * np.pi * radius_mm**3


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.8, 1.0, 2.0), (2.0, 0.7, 1.2)])
@pytest.mark.parametrize("shell_mm", [6.0, 10.0])
def test_tumour_and_shell_have_the_volumes_of_spheres(spacing_mm: Triple, shell_mm: float) -> None:
    radius_mm = 12.0
    shape = tuple(int(50 / s) for s in spacing_mm)
    distance = np.linalg.norm(points_mm(shape, spacing_mm), axis=-1)
    label_map = np.where(distance < radius_mm, 4, 1).astype(np.uint8)
    maps = dict(
        zip(
            region_names(SCHEMA),
            region_maps(label_map, SCHEMA, spacing_mm=spacing_mm, shell_mm=shell_mm),
            strict=True,
        )
    )
    voxel_mm3 = float(np.prod(spacing_mm))
    tumour, shell = maps["tumour"].sum() * voxel_mm3, maps["shell"].sum() * voxel_mm3
    assert tumour == pytest.approx(sphere_volume_mm3(radius_mm), rel=0.02)
    # Distances are from the outermost tumour voxels' centres, up to half a voxel inside the sphere.
    half = max(spacing_mm) / 2
    assert shell < sphere_volume_mm3(radius_mm + shell_mm) - sphere_volume_mm3(radius_mm)
    assert shell > sphere_volume_mm3(radius_mm + shell_mm - half) - sphere_volume_mm3(radius_mm)
    assert not (maps["shell"] * maps["tumour"]).any()
    assert distance[maps["shell"] > 0].max() <= radius_mm + shell_mm
    assert (maps["whole"] == 1).all()
    np.testing.assert_array_equal(maps["liver"], label_map == 1)


def test_the_portal_neighbourhood_is_near_branch_and_tumour_alike() -> None:
    """Against distances by brute force; a branch runs through the tumour and far away from it."""
    spacing_mm = (2.5, 3.0, 4.0)
    shape = (48, 10, 8)
    place = points_mm(shape, spacing_mm)
    label_map = np.ones(shape, dtype=np.uint8)
    label_map[np.hypot(place[..., 1], place[..., 2]) < 4] = 2
    label_map[np.linalg.norm(place - [-45, 0, 0], axis=-1) < 10] = 4
    near = region_maps(label_map, SCHEMA, spacing_mm=spacing_mm, shell_mm=8)[-1] > 0

    to_portal = cdist(place.reshape(-1, 3), place[label_map == 2]).min(1).reshape(shape)
    to_tumour = cdist(place.reshape(-1, 3), place[label_map == 4]).min(1).reshape(shape)
    expected = (to_portal <= PORTAL_SHEATH_MM) & (to_tumour <= PORTAL_REACH_MM) & (label_map != 4)
    np.testing.assert_array_equal(near, expected)
    assert not near[label_map == 4].any()
    assert near[label_map == 2].any()
    far_branch = (label_map == 2) & (place[..., 0] > 10)
    assert far_branch.any()
    assert not near[far_branch].any()


@pytest.mark.parametrize(
    ("absent", "empty"),
    [
        (4, ("tumour", "shell", "portal_neighbourhood")),
        (2, ("portal_neighbourhood",)),
        (1, ("liver",)),
    ],
)
def test_an_absent_class_leaves_an_empty_region(absent: int, empty: tuple[str, ...]) -> None:
    label_map = np.ones((12, 12, 12), dtype=np.uint8)
    label_map[4:6, :, 4] = 2
    label_map[5:9, 5:9, 5:9] = 4
    label_map[label_map == absent] = 0
    maps = region_maps(label_map, SCHEMA, spacing_mm=(2.0, 2.0, 2.0), shell_mm=8)
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    found = {name for name, m in zip(region_names(SCHEMA), maps, strict=True) if m.any()}
    assert found == set(region_names(SCHEMA)) - set(empty)


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ((), ("whole",)),
        (("hepatic_vein",), ("whole",)),
        (("spleen",), ("whole", "spleen")),
        (("liver", "bile_duct"), ("whole", "liver", "bile_duct")),
        (("liver",), ("whole", "liver")),
        (("tumour",), ("whole", "tumour", "shell")),
        (("liver", "portal_vein"), ("whole", "liver")),
        (("portal_vein", "tumour"), ("whole", "tumour", "shell", "portal_neighbourhood")),
        (
            ("liver", "portal_vein", "hepatic_vein", "tumour"),
            ("whole", "liver", "tumour", "shell", "portal_neighbourhood"),
        ),
    ],
)
def test_the_schema_decides_which_regions_there_are(
    classes: tuple[str, ...], names: tuple[str, ...]
) -> None:
    schema = LabelSchema(("background", *classes))
    assert region_names(schema) == names
    empty = np.zeros((4, 4, 4), dtype=np.uint8)
    maps = region_maps(empty, schema, spacing_mm=(1.0, 1.0, 1.0), shell_mm=3)
    assert maps.shape == (len(names), 4, 4, 4)


def patches(label_maps: np.ndarray | None, spacing_mm: Triple, n: int = 5) -> Patches:
    shape = (8, 8, 4) if label_maps is None else label_maps.shape[1:]
    return Patches(
        images=torch.zeros(n, *shape),
        label_maps=None if label_maps is None else torch.from_numpy(label_maps),
        outcomes=torch.zeros(n, dtype=torch.long),
        synthetic=torch.zeros(n, dtype=torch.bool),
        spacing_mm=spacing_mm,
        log_scale=torch.zeros(n, 3),
    )


def test_without_masks_there_is_the_whole_patch() -> None:
    zeros = np.zeros((5, 8, 8, 4), dtype=np.uint8)
    for of, schema in ((patches(None, (1, 1, 1)), SCHEMA), (patches(zeros, (1, 1, 1)), NO_CLASS)):
        maps = batch_region_maps(of, schema, shell_mm=4.0)
        assert maps.shape == (1, 1, 8, 8, 4)
        assert bool((maps == 1).all())


def test_a_batch_is_case_by_case() -> None:
    """Each in its own mm: the second crop was widened by a half."""
    rng, spacing_mm = np.random.default_rng(0), (2.0, 3.0, 5.0)
    label_maps = rng.integers(0, 5, (3, 6, 5, 4)).astype(np.uint8)
    of = patches(label_maps, spacing_mm, n=3)
    of.log_scale[1] = np.log(1.5)
    maps = batch_region_maps(of, SCHEMA, shell_mm=4.0)
    own: list[Triple] = [spacing_mm, (3.0, 4.5, 7.5), spacing_mm]
    for label_map, found, mm in zip(label_maps, maps, own, strict=True):
        np.testing.assert_array_equal(
            found, region_maps(label_map, SCHEMA, spacing_mm=mm, shell_mm=4.0)
        )


def test_shrinking_keeps_the_volume_and_gives_fractions() -> None:
    maps = (torch.rand(2, 3, 8, 8, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    small = shrink(maps, 4)
    assert small.shape == (2, 3, 2, 2, 1)
    torch.testing.assert_close(small.sum((2, 3, 4)) * 4**3, maps.sum((2, 3, 4)))
    assert float(small[1, 2, 1, 0, 0]) == float(maps[1, 2, 4:, :4, :].mean())
