"""Training scans on the network's grid, and the patches drawn from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from neonet3d.cohort.cohort import Case
from neonet3d.cohort.geometry import Grid, resample_image, resample_label_map
from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.config import AugmentationConfig
from neonet3d.segmentation.augment import IntensityNoise, draw_grid, flip, read_through
from neonet3d.segmentation.tiling import lay_windows

FOREGROUND_SHARE = 2 / 3  # of patches that lie around a voxel of a class drawn at random
PLACES_PER_CLASS = 2000


@dataclass(frozen=True)
class Scan:
    """One scan, normalised, on the training spacing, padded to at least one patch.

    Attributes:
        image: in [-1, 1]; half precision, since all scans of a cohort stay in memory.
        places: up to ``PLACES_PER_CLASS`` voxels of each foreground class, (n, 3).
    """

    image: Float16[Tensor, "x y z"]
    label_map: UInt8[Tensor, "x y z"]
    places: dict[int, Tensor]


def prepare_scan(
    case: Case, grid: Grid, normaliser: IntensityNormaliser, *, n_classes: int
) -> Scan:
    """Read a case and its mask onto the network's spacing; air around it where it is too small."""
    image, mask = case.read_with_mask()
    window = lay_windows(image, grid, None).window
    data = normaliser.apply(image.data, None, name=case.name)
    values = torch.from_numpy(resample_image(image.with_data(data + 1), window) - 1)
    labels = torch.from_numpy(resample_label_map(mask, window, n_classes=n_classes))
    places = {}
    for k in range(1, n_classes):
        found = (labels == k).nonzero()
        if len(found):
            n = min(len(found), PLACES_PER_CLASS)
            places[k] = found[torch.linspace(0, len(found) - 1, n).long()]
    return Scan(values.half(), labels, places)


class PatchSampler:
    """Draws augmented training patches from scans."""

    def __init__(self, scans: list[Scan], grid: Grid, config: AugmentationConfig) -> None:
        self.scans = scans
        self.grid = grid
        self.config = config
        self.noise = IntensityNoise(config.intensity)

    def draw(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Images (n, 1, x, y, z) and label maps (n, x, y, z)."""
        pairs = [self._draw_one(generator) for _ in range(n)]
        images, label_maps = zip(*pairs, strict=True)
        return [torch.stack(images)[:, None], torch.stack(label_maps)]

    def _draw_one(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        scan = self.scans[_integer(len(self.scans), generator)]
        first = self._place(scan, generator)
        size = torch.tensor(self.grid.shape)
        if float(torch.rand((), generator=generator)) < self.config.spatial:
            where = draw_grid(self.grid.shape, self.grid.spacing_mm, generator)
            middle = first + (size - 1) / 2
            image, label_map = read_through(
                scan.image, scan.label_map, middle, where, self.grid.spacing_mm
            )
        else:
            x, y, z = (slice(a, a + n) for a, n in zip(first.tolist(), size.tolist(), strict=True))
            image, label_map = scan.image[x, y, z].float(), scan.label_map[x, y, z]
        image, label_map = flip([image, label_map], self.config.flip_axes, generator)
        return self.noise(image, generator), label_map

    def _place(self, scan: Scan, generator: torch.Generator) -> Tensor:
        """First voxel of a patch: around a voxel of a random class, or anywhere."""
        size = torch.tensor(self.grid.shape)
        room = torch.tensor(scan.image.shape) - size
        if scan.places and float(torch.rand((), generator=generator)) < FOREGROUND_SHARE:
            of_class = scan.places[list(scan.places)[_integer(len(scan.places), generator)]]
            jitter = torch.rand(3, generator=generator) - 0.5
            chosen = of_class[_integer(len(of_class), generator)]
            first = chosen - size // 2 + (jitter * size / 2).long()
        else:
            first = (torch.rand(3, generator=generator) * (room + 1)).long()
        return torch.minimum(first.clamp_min(0), room)


def _integer(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))
