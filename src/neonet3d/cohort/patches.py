"""Patches in memory: the cases of a cohort on one grid, normalised, as tensors.

Patches are the size of a region of interest, so a fold of them fits in memory. Whole scans are
never held together; a segmenter reads them one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.geometry import Grid, Window, resample_image, resample_label_map
from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError
from neonet3d.types import Shape, Triple

GRID_MULTIPLE = 8  # 4x in the autoencoder, 2x in the U-Net
NO_OUTCOME = -1
LARGEST_EXTENT = 1.75  # of a volume, in extents of the grid; what is larger is a whole scan


@dataclass(frozen=True)
class Patches:
    """n cases on one grid.

    Attributes:
        images: (n, x, y, z) float32 in [-1, 1].
        label_maps: (n, x, y, z) uint8, or None for a cohort without masks.
        outcomes: (n,) int64; ``NO_OUTCOME`` where there is none.
        synthetic: (n,) bool.
        spacing_mm: voxel size of the grid.
        log_scale: (n, 3) logarithm of each case's own voxel size over the grid's; 0 but for a crop
            that TLCR widened.
    """

    images: Float[Tensor, "n x y z"]
    label_maps: UInt8[Tensor, "n x y z"] | None
    outcomes: Int[Tensor, " n"]
    synthetic: Tensor
    spacing_mm: Triple
    log_scale: Float[Tensor, "n 3"]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> Shape:
        x, y, z = self.images.shape[1:]
        return (x, y, z)

    @property
    def spacings_mm(self) -> list[Triple]:
        """Voxel size of each case, which TLCR may have widened."""
        own = np.array(self.spacing_mm) * self.log_scale.double().exp().numpy()
        return [(x, y, z) for x, y, z in own.tolist()]

    def required_label_maps(self) -> UInt8[Tensor, "n x y z"]:
        if self.label_maps is None:
            raise InputError(
                "This stage needs a mask for every case, and the cohort has cases without. "
                "Run 'neonet3d segment predict' first."
            )
        return self.label_maps

    def moved(self, shift: Shift) -> Patches:
        """All cases shifted alike, masks with them."""
        maps = self.label_maps
        return replace(
            self,
            images=shift.apply(self.images),
            label_maps=None if maps is None else shift.apply(maps),
        )


@dataclass(frozen=True)
class Orientation:
    """One of the flips and in-plane swaps that map a grid onto itself."""

    flips: tuple[bool, bool, bool]
    swap_xy: bool

    def apply(self, x: Tensor) -> Tensor:
        """Flip and swap the last three axes."""
        axes = [axis - 3 for axis, flip in enumerate(self.flips) if flip]
        x = x.flip(axes) if axes else x
        return x.transpose(-3, -2).contiguous() if self.swap_xy else x


@dataclass(frozen=True)
class Shift:
    """A move by whole voxels; what comes in at a border repeats it."""

    voxels: tuple[int, int, int]

    def apply(self, x: Tensor) -> Tensor:
        """Shift the last three axes."""
        for axis, by in zip((-3, -2, -1), self.voxels, strict=True):
            n = x.shape[axis]
            x = x.index_select(axis, (torch.arange(n) + by).clamp(0, n - 1))
        return x


def draw_shifts(n: int, largest: int, *, seed: int) -> list[Shift]:
    """No shift, and n - 1 others of up to ``largest`` voxels along each axis."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(-largest, largest + 1, (n - 1, 3), generator=generator).tolist()
    return [Shift((0, 0, 0)), *(Shift((x, y, z)) for x, y, z in drawn)]


def random_crop(
    shape: Shape, edge: int, unit: int, generator: torch.Generator
) -> tuple[slice, slice, slice]:
    """A box of up to ``edge`` voxels along each axis, which starts at a multiple of ``unit``."""
    ends = []
    for n in shape:
        size = min(n, edge)
        start = unit * int(torch.randint((n - size) // unit + 1, (), generator=generator))
        ends.append(slice(start, start + size))
    x, y, z = ends
    return (x, y, z)


def orientations_of(grid: Grid) -> list[Orientation]:
    """The 8 flips, and 16 with the swap of x and y where both axes are alike."""
    alike = grid.shape[0] == grid.shape[1] and np.isclose(grid.spacing_mm[0], grid.spacing_mm[1])
    return [
        Orientation((fx, fy, fz), swap)
        for swap in ((False, True) if alike else (False,))
        for fx, fy, fz in product((False, True), repeat=3)
    ]


def choose_grid(volumes: Sequence[Volume]) -> Grid:
    """The grid of a training cohort: median spacing, median extent.

    Sizes are rounded to a multiple of 8. Crops of one size give exactly their own grid; what is
    larger loses its border, what is smaller is padded.
    """
    spacing = np.median([volume.spacing_mm for volume in volumes], axis=0)
    extent = np.array([volume.extent_mm for volume in volumes])
    eighths = np.maximum(np.round(np.median(extent, axis=0) / spacing / GRID_MULTIPLE), 1)
    x, y, z = (eighths * GRID_MULTIPLE).astype(int).tolist()
    sx, sy, sz = (float(s) for s in spacing)
    return Grid((x, y, z), (sx, sy, sz))


class PatchReading(NamedTuple):
    """How a scan becomes a patch: ``load_patches(cohort, *reading)``."""

    grid: Grid
    normaliser: IntensityNormaliser


def fit_patches(cohort: Cohort, *, shortest: int = 1) -> PatchReading:
    """Grid and intensity normaliser of a training cohort.

    Args:
        shortest: least voxels along the first axis.
    """
    pairs = [case.read() for case in cohort]
    if not pairs:
        raise InputError(f"{cohort.root} has no case to train on.")
    grid = choose_grid([image for image, _ in pairs])
    grid = replace(grid, shape=(max(shortest, grid.shape[0]), *grid.shape[1:]))
    known = (
        (case.name, image.data, None if mask is None else mask.data)
        for case, (image, mask) in zip(cohort, pairs, strict=True)
    )
    normaliser = IntensityNormaliser.fit(known, cohort.schema)
    return PatchReading(grid, normaliser)


def load_patches(cohort: Cohort, grid: Grid, normaliser: IntensityNormaliser) -> Patches:
    """Read every case onto the grid, centred, normalised.

    Raises:
        InputError: a whole scan, of which the grid would show the middle and not the tumour.
    """
    with_masks = all(case.mask_path is not None for case in cohort)
    images, maps, spacings = [], [], []
    for case in cohort:
        image, mask = case.read()
        window = patch_window(image, grid, name=case.name)
        spacings.append(window.grid.spacing_mm)
        data = normaliser.apply(image.data, None if mask is None else mask.data, name=case.name)
        # Interpolate 1 + normalised, so that padding (0) means "no signal" (-1).
        images.append(resample_image(image.with_data(data + 1), window) - 1)
        if with_masks and mask is not None:
            maps.append(resample_label_map(mask, window, n_classes=len(cohort.schema)))
    outcomes = [NO_OUTCOME if case.outcome is None else case.outcome for case in cohort]
    return Patches(
        images=torch.from_numpy(np.stack(images)),
        label_maps=torch.from_numpy(np.stack(maps)) if with_masks else None,
        outcomes=torch.tensor(outcomes),
        synthetic=torch.tensor([case.synthetic for case in cohort]),
        spacing_mm=grid.spacing_mm,
        log_scale=log_scale(spacings, grid),
    )


def load_label_maps(
    cohort: Cohort, grid: Grid
) -> tuple[UInt8[Tensor, "n x y z"], Float[Tensor, "n 3"]]:
    """Masks alone, each centred on the grid, and their log scales.

    Raises:
        InputError: a case without a mask, or a whole scan.
    """
    maps, spacings = [], []
    for case in cohort:
        mask = case.read_mask()
        if mask is None:
            raise InputError(
                f"{case.name} has no mask to draw an image for. Choose cases with masks."
            )
        window = patch_window(mask, grid, name=case.name)
        spacings.append(window.grid.spacing_mm)
        maps.append(resample_label_map(mask, window, n_classes=len(cohort.schema)))
    return torch.from_numpy(np.stack(maps)), log_scale(spacings, grid)


def log_scale(spacings_mm: Sequence[Triple], grid: Grid) -> Float[Tensor, "n 3"]:
    """Logarithms of voxel sizes over those of a grid."""
    return (torch.tensor(spacings_mm) / torch.tensor(grid.spacing_mm)).log()


def patch_window(volume: Volume, grid: Grid, *, name: str) -> Window:
    """Where the grid lies on a volume: on its middle, or exactly on a crop of the grid's size.

    TLCR widens its window alike on all axes where a lesion is larger; such a crop is read voxel by
    voxel, at the scale it was cut, and does not lose its border again.

    Raises:
        InputError: a whole scan, of which the grid would show the middle and not the tumour.
    """
    coarser = np.array(volume.spacing_mm) / np.array(grid.spacing_mm)
    if volume.shape == grid.shape and np.allclose(coarser, coarser[0]):
        return Window.centred(volume, Grid(grid.shape, volume.spacing_mm))
    extent = volume.extent_mm
    if (extent > LARGEST_EXTENT * grid.extent_mm).any():
        scan, patch = ("x".join(f"{mm:.0f}" for mm in size) for size in (extent, grid.extent_mm))
        raise InputError(
            f"{name} is {scan} mm large but a patch here is {patch} mm, so it is a whole scan. "
            "Crop it first with 'neonet3d crop' (to the whole liver with --preset liver)."
        )
    return Window.centred(volume, grid)
