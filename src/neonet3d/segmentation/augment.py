"""What training patches go through: another pose, another scanner.

``draw_patch`` reads a patch through a random rotation, scale and smooth bending; ``IntensityNoise``
changes what a scanner would: bias field, contrast, gain, resolution, noise (MONAI's transforms).
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped, UInt8
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandBiasField,
    RandGaussianNoise,
    RandScaleIntensity,
    RandSimulateLowResolution,
)
from torch import Tensor

from neonet3d.types import Shape, Triple

ROTATION_DEG = 15.0  # largest, about each axis
SCALE = 0.2  # largest relative change of size
BENDING_MM = 4.0  # largest displacement of a control point
CONTROL_POINTS = 4  # per axis of a patch
MAX_SEED = 2**32 - 1


class IntensityNoise:
    """Random bias field, gamma, gain, low resolution and noise, each for a share of patches."""

    def __init__(self, share: float) -> None:
        self.transform = Compose(
            [
                RandBiasField(prob=share, coeff_range=(-0.1, 0.1)),
                RandAdjustContrast(prob=share, gamma=(0.7, 1.4)),
                RandScaleIntensity(prob=share, factors=0.2),
                RandSimulateLowResolution(prob=share, zoom_range=(0.5, 1.0)),
                RandGaussianNoise(prob=share, std=0.03),
            ]
        )

    def __call__(
        self, image: Float[Tensor, "x y z"], generator: torch.Generator
    ) -> Float[Tensor, "x y z"]:
        """``image`` in [-1, 1]; the result may leave it a little, as noise does."""
        seed = int(torch.randint(MAX_SEED, (), generator=generator))
        self.transform.set_random_state(seed)
        changed = self.transform((image[None] + 1) / 2)
        return torch.as_tensor(changed).as_subclass(Tensor)[0] * 2 - 1


def draw_grid(
    patch: Shape, spacing_mm: Triple, generator: torch.Generator
) -> Float[Tensor, "x y z 3"]:
    """Where each voxel of a patch is read, in mm from the patch's middle: turned, scaled, bent."""
    axes = [
        (torch.arange(n, dtype=torch.float32) - (n - 1) / 2) * mm
        for n, mm in zip(patch, spacing_mm, strict=True)
    ]
    straight = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    angles = _uniform(3, math.radians(ROTATION_DEG), generator)
    scale = 1 + _uniform(1, SCALE, generator)
    points = _uniform((1, 3, *[CONTROL_POINTS] * 3), BENDING_MM, generator)
    bending = F.interpolate(points, size=patch, mode="trilinear", align_corners=True)
    return straight @ (_rotation(angles) * scale).T + bending[0].movedim(0, -1)


def read_through(
    image: Shaped[Tensor, "x y z"],
    label_map: UInt8[Tensor, "x y z"],
    middle: Float[Tensor, " 3"],
    grid_mm: Float[Tensor, "i j k 3"],
    spacing_mm: Triple,
) -> tuple[Float[Tensor, "i j k"], UInt8[Tensor, "i j k"]]:
    """Image (linear) and label map (nearest) at ``grid_mm`` around the voxel ``middle``.

    What lies outside the scan repeats its border.
    """
    voxels = grid_mm / torch.tensor(spacing_mm) + middle
    # Only the box that is read is brought to float32.
    last = torch.tensor(image.shape) - 1
    low = torch.minimum(voxels.amin((0, 1, 2)).floor().long().clamp_min(0), last)
    high = torch.minimum(voxels.amax((0, 1, 2)).ceil().long().clamp_min(0), last)
    box = tuple(slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    image, label_map, voxels = image[box].float(), label_map[box], voxels - low
    size = torch.tensor(image.shape, dtype=torch.float32)
    # grid_sample counts axes from the last, and from -1 to 1.
    where = (2 * voxels / (size - 1).clamp_min(1) - 1).flip(-1)[None]

    def sample(values: Tensor, mode: str) -> Tensor:
        return F.grid_sample(
            values[None, None], where, mode=mode, padding_mode="border", align_corners=True
        )[0, 0]

    return sample(image, "bilinear"), sample(label_map.float(), "nearest").to(torch.uint8)


def flip(tensors: list[Tensor], axes: Collection[int], generator: torch.Generator) -> list[Tensor]:
    """All of them along the same random choice of ``axes``."""
    chosen = [axis for axis in sorted(axes) if float(torch.rand((), generator=generator)) < 0.5]
    return [tensor.flip(chosen) if chosen else tensor for tensor in tensors]


def _uniform(shape: int | tuple[int, ...], largest: float, generator: torch.Generator) -> Tensor:
    """Uniform between minus and plus ``largest``."""
    size = (shape,) if isinstance(shape, int) else shape
    return (2 * torch.rand(size, generator=generator) - 1) * largest


def _rotation(angles: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    """About the first, then the second, then the third axis; angles in radians."""
    turned = torch.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        about = torch.eye(3)
        about[i, i] = about[j, j] = torch.cos(angle)
        about[i, j], about[j, i] = -torch.sin(angle), torch.sin(angle)
        turned = about @ turned
    return turned
