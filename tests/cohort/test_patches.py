from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.geometry import Grid
from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.cohort.patches import (
    GRID_MULTIPLE,
    LARGEST_EXTENT,
    NO_OUTCOME,
    Shift,
    choose_grid,
    draw_shifts,
    fit_patches,
    load_patches,
    orientations_of,
)
from neonet3d.cohort.volume import Volume, read_volume
from neonet3d.errors import InputError
from neonet3d.types import LabelSchema, Shape, Triple

SCHEMA = LabelSchema(("background", "liver", "tumour"))
NORMALISER = IntensityNormaliser(reference="percentile_99.5", ceiling=1.0)


def volume(
    shape: Shape, spacing_mm: Triple = (1.0, 1.0, 2.0), value: float | None = None
) -> Volume:
    rng = np.random.default_rng(0)
    data = rng.uniform(50, 100, shape) if value is None else np.full(shape, value)
    return Volume(data.astype(np.float32), np.diag([*spacing_mm, 1.0]))


def cohort_of(root: Path, volumes: list[Volume], *, masks: bool = True) -> Cohort:
    """Cases 0, 1, ...; outcomes 0, 1 and none in turn, the last case synthetic."""
    writer = CohortWriter(root, SCHEMA, outcome_name="pni", channel="MR", durable=False)
    for index, image in enumerate(volumes):
        mask = np.zeros(image.shape, dtype=np.uint8)
        mask[2:-2, 2:-2, 2:-2] = 1
        mask[3:5, 3:5, 3:5] = 2
        writer.add(
            f"case_{index}",
            image,
            image.with_data(mask) if masks else None,
            outcome=(0, 1, None)[index % 3],
            extra={"synthetic": str(int(index == len(volumes) - 1))},
        )
    return writer.finish()


@pytest.mark.parametrize("shape", [(40, 40, 16), (8, 16, 24), (96, 96, 48)])
@pytest.mark.parametrize("spacing_mm", [(2.5, 2.5, 5.0), (0.7, 0.9, 1.1)])
def test_crops_of_one_size_give_exactly_their_own_grid(shape: Shape, spacing_mm: Triple) -> None:
    """No resampling, whatever rounding does to the spacing on its way through an affine."""
    grid = choose_grid([volume(shape, spacing_mm, value=1)] * 5)
    assert grid.shape == shape
    np.testing.assert_allclose(grid.spacing_mm, spacing_mm)


def test_volumes_of_many_sizes_meet_at_the_median() -> None:
    sizes = [20, 21, 22, 30, 31, 90, 95]
    volumes = [volume((n, 22, 3), (1.0, 2.0, 1.0), value=1) for n in sizes]
    volumes[0] = volume((20, 22, 3), (4.0, 2.0, 1.0), value=1)
    grid = choose_grid(volumes)
    assert grid.spacing_mm == (1.0, 2.0, 1.0)
    # The median extent is 31 mm, nearest to 32; no axis has less than one multiple.
    assert grid.shape == (32, 24, GRID_MULTIPLE)


def test_a_crop_on_its_own_grid_is_not_resampled(tmp_path: Path) -> None:
    image = volume((16, 8, 8), (2.0, 2.0, 4.0))
    cohort = cohort_of(tmp_path / "c", [image] * 2)
    patches = load_patches(cohort, choose_grid([image]), NORMALISER)
    expected = NORMALISER.apply(image.data, None, name="")
    np.testing.assert_allclose(patches.images[0].numpy(), expected, atol=1e-6)
    assert patches.label_maps is not None
    np.testing.assert_array_equal(
        patches.label_maps[0].numpy(), cohort.cases[0].read_with_mask()[1].data
    )


def test_padding_is_no_signal(tmp_path: Path) -> None:
    image = volume((10, 6, 8))
    cohort = cohort_of(tmp_path / "c", [image])
    patches = load_patches(cohort, Grid((16, 8, 8), image.spacing_mm), NORMALISER)
    inside = torch.zeros(16, 8, 8, dtype=torch.bool)
    inside[3:13, 1:7] = True
    assert bool((patches.images[0][~inside] == -1).all())
    assert float(patches.images[0][inside].min()) > -0.1
    assert patches.label_maps is not None
    assert not patches.label_maps[0][~inside].any()


def test_intensities_are_those_of_the_normaliser(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "c", [volume((16, 8, 8)), volume((16, 8, 8))])
    grid, normaliser = fit_patches(cohort)
    assert normaliser.reference == "liver_median"
    images = load_patches(cohort, grid, normaliser).images
    assert float(images.min()) >= -1
    assert float(images.max()) == pytest.approx(1)
    assert images.dtype == torch.float32


def test_outcomes_and_synthetic_flags_come_with_the_cases(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "c", [volume((8, 8, 8))] * 4)
    patches = load_patches(cohort, Grid((8, 8, 8), (1.0, 1.0, 2.0)), NORMALISER)
    assert patches.outcomes.tolist() == [0, 1, NO_OUTCOME, 0]
    assert patches.synthetic.tolist() == [False, False, False, True]
    assert (len(patches), patches.shape) == (4, (8, 8, 8))
    assert patches.spacing_mm == (1.0, 1.0, 2.0)


def test_without_synthetic_column_every_case_is_real(make_cohort: Callable[..., Cohort]) -> None:
    cohort = make_cohort([0, 1])
    patches = load_patches(cohort, *fit_patches(cohort))
    assert patches.synthetic.tolist() == [False, False]
    assert patches.synthetic.dtype == torch.bool


@pytest.mark.parametrize("bare", [(0,), (0, 1)])
def test_masks_are_there_for_all_cases_or_for_none(tmp_path: Path, bare: tuple[int, ...]) -> None:
    cohort = cohort_of(tmp_path / "c", [volume((8, 8, 8))] * 2)
    cases = tuple(
        replace(case, mask_path=None) if index in bare else case
        for index, case in enumerate(cohort)
    )
    patches = load_patches(
        replace(cohort, cases=cases), Grid((8, 8, 8), (1.0, 1.0, 2.0)), NORMALISER
    )
    assert patches.label_maps is None
    with pytest.raises(InputError, match="needs a mask for every case"):
        patches.required_label_maps()


def test_the_first_axis_can_be_held_long_enough(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "c", [volume((8, 8, 8))] * 2)
    assert fit_patches(cohort)[0].shape == (8, 8, 8)
    assert fit_patches(cohort, shortest=24)[0].shape == (24, 8, 8)
    with pytest.raises(InputError, match="has no case to train on"):
        fit_patches(cohort.subset([]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_whole_scans_are_refused_with_the_mend(tmp_path: Path, axis: int) -> None:
    grid = Grid((16, 16, 8), (1.0, 1.0, 2.0))
    shape = [16, 16, 8]
    shape[axis] = int(shape[axis] * LARGEST_EXTENT) + 1
    x, y, z = shape
    cohort = cohort_of(tmp_path / "c", [volume((16, 16, 8)), volume((x, y, z))])
    with pytest.raises(InputError, match=r"case_1 is .* whole scan.*'neonet3d crop'"):
        load_patches(cohort, grid, NORMALISER)


def test_a_scan_is_measured_in_mm_and_not_in_voxels(tmp_path: Path) -> None:
    grid = Grid((16, 16, 16), (2.0, 2.0, 2.0))
    fine = cohort_of(tmp_path / "fine", [volume((40, 40, 40), (0.8, 0.8, 0.8))])
    assert load_patches(fine, grid, NORMALISER).shape == grid.shape
    coarse = cohort_of(tmp_path / "coarse", [volume((12, 12, 12), (5.0, 2.0, 2.0))])
    with pytest.raises(InputError, match="whole scan"):
        load_patches(coarse, grid, NORMALISER)


@pytest.mark.parametrize("scale", [1.2, 1.75, 3.0])
def test_a_crop_that_was_widened_around_a_large_lesion_is_no_whole_scan(
    tmp_path: Path, scale: float
) -> None:
    """TLCR keeps the number of voxels and makes all of them larger."""
    grid = Grid((16, 16, 8), (2.0, 2.0, 4.0))
    wide = volume((16, 16, 8), (2.0 * scale, 2.0 * scale, 4.0 * scale))
    cohort = cohort_of(tmp_path / "c", [wide])
    patches = load_patches(cohort, grid, NORMALISER)
    kept = NORMALISER.apply(wide.data, None, name="wide")
    np.testing.assert_allclose(patches.images[0].numpy(), kept, atol=1e-6)  # border and all


def test_volumes_somewhat_larger_than_the_grid_lose_their_border(tmp_path: Path) -> None:
    """Small organs that are used whole, such as the hippocampus, vary in size."""
    shapes: list[Shape] = [(34 + i, 48 + i, 30 + 2 * i) for i in range(6)] + [(43, 59, 47)]
    cohort = cohort_of(tmp_path / "c", [volume(shape, (1.0, 1.0, 1.0)) for shape in shapes])
    grid, normaliser = fit_patches(cohort)
    assert len(load_patches(cohort, grid, normaliser)) == len(shapes)
    assert len(load_patches(cohort, Grid((32, 48, 32), (1.0, 1.0, 1.0)), normaliser)) == 7


def test_real_hippocampi_fit_their_own_grid(real_data: Callable[[str], Path]) -> None:
    paths = sorted((real_data("Task04_Hippocampus") / "imagesTr").glob("[!.]*.nii.gz"))
    volumes = [read_volume(path) for path in paths]
    grid = choose_grid(volumes)
    for scan in volumes:
        extent = np.array(scan.shape) * np.array(scan.spacing_mm)
        assert (extent <= 1.5 * grid.extent_mm).all()


@pytest.mark.parametrize(
    ("grid", "count"),
    [
        (Grid((16, 16, 8), (2.0, 2.0, 4.0)), 16),
        (Grid((24, 16, 8), (2.0, 2.0, 4.0)), 8),
        (Grid((16, 16, 8), (2.0, 2.5, 4.0)), 8),
        (Grid((8, 16, 16), (2.0, 2.0, 2.0)), 8),
    ],
)
def test_orientations_are_bijections_of_the_grid(grid: Grid, count: int) -> None:
    """Eight flips, and the swap of x and y where both are alike; no voxel is lost."""
    index = torch.arange(int(np.prod(grid.shape))).reshape(grid.shape)
    orientations = orientations_of(grid)
    images = {tuple(o.apply(index).flatten().tolist()) for o in orientations}
    assert len(orientations) == len(images) == count
    for orientation in orientations:
        turned = orientation.apply(index)
        assert turned.shape == index.shape
        assert torch.equal(turned.flatten().sort().values, index.flatten())
        assert turned.is_contiguous() or not orientation.swap_xy


def test_z_is_never_swapped_and_batches_turn_case_by_case() -> None:
    grid = Grid((8, 8, 8), (1.0, 1.0, 1.0))
    x = torch.rand(3, 2, 8, 8, 8)
    for orientation in orientations_of(grid):
        turned = orientation.apply(x)
        for flipped in (x, x.flip(-1)):
            if torch.equal(turned.sum((-3, -2)), flipped.sum((-3, -2))):
                break
        else:
            torch.testing.assert_close(
                turned.sum((-3, -2)).sort().values, x.sum((-3, -2)).sort().values
            )
        assert torch.equal(turned[1, 0], orientation.apply(x[1, 0]))


def test_a_shift_reads_the_neighbour_and_repeats_the_border() -> None:
    x = torch.arange(6 * 5 * 4).reshape(6, 5, 4)
    shifted = Shift((2, -1, 0)).apply(x)
    assert torch.equal(shifted[:-2, 1:], x[2:, :-1])
    assert torch.equal(shifted[-2, 1:], x[-1, :-1])
    assert torch.equal(shifted[-1, 1:], x[-1, :-1])
    assert torch.equal(shifted[:, 0], shifted[:, 1])
    assert torch.equal(Shift((0, 0, 0)).apply(x), x)
    assert torch.equal(Shift((2, -1, 0)).apply(x.expand(3, 2, -1, -1, -1))[1, 1], shifted)


def test_shifts_are_drawn_by_the_seed_and_begin_with_none() -> None:
    drawn = draw_shifts(200, 2, seed=0)
    assert drawn == draw_shifts(200, 2, seed=0) != draw_shifts(200, 2, seed=1)
    assert drawn[0] == Shift((0, 0, 0))
    for axis in range(3):
        assert {shift.voxels[axis] for shift in drawn} == {-2, -1, 0, 1, 2}


def test_image_and_mask_move_together(make_cohort: Callable[..., Cohort]) -> None:
    cohort = make_cohort([0, 1])
    patches = load_patches(cohort, *fit_patches(cohort))
    shift = Shift((1, 0, -2))
    moved = patches.moved(shift)
    assert moved.label_maps is not None
    assert patches.label_maps is not None
    assert torch.equal(moved.images, shift.apply(patches.images))
    assert torch.equal(moved.label_maps, shift.apply(patches.label_maps))
    assert moved.outcomes is patches.outcomes
    assert replace(patches, label_maps=None).moved(shift).label_maps is None
