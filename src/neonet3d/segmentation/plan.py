"""Sizes of a segmenter from a fingerprint of its training cases (after Isensee et al., 2021).

The rules follow nnU-Net's: the median spacing, a patch of equal extent in mm on every axis but no
larger than the median scan, rounded up to what the strides ask for; an axis halved only while its
voxels are not coarser than twice the finest and four or more remain. A V-Net and a SegResNet halve
all axes together, as published; that a SegResNet loses its lowest level where an axis would keep
fewer than three voxels is our choice, and so is the estimate of what memory allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from neonet3d.cohort.geometry import Grid
from neonet3d.config import SegmenterConfig, SegmenterPlan
from neonet3d.errors import InputError
from neonet3d.segmentation.networks import (
    HAAR_BANDS,
    SEGRESNET_BLOCKS,
    VNET_KERNEL,
    VNET_LEVELS,
    VNET_WIDTH,
    size_multiple,
)
from neonet3d.types import Shape, Triple

SHORTEST_AXIS = 4  # voxels that an axis keeps at the lowest level
SHORTEST_TOGETHER = 3  # the same where all axes are halved together
MAX_CHANNELS = 320  # nnU-Net's
MAX_LEVELS = 6
BYTES_PER_FEATURE = 64.0  # of training, per voxel and channel of the first level: 16 float32 maps
MEMORY_SHARE = 0.5  # of the device's memory that activations may take


@dataclass(frozen=True)
class Fingerprint:
    """What the plan knows of the training cases.

    Attributes:
        n: scans.
        spacing_mm: median voxel size per axis.
        extent_mm: median extent of the scans per axis.
        memory_bytes: of the device that trains.
    """

    n: int
    spacing_mm: Triple
    extent_mm: Triple
    memory_bytes: int

    @classmethod
    def of(cls, grids: Sequence[Grid], *, memory_bytes: int) -> Fingerprint:
        """From the grids of the training scans."""
        spacing_mm = _triple(np.median([grid.spacing_mm for grid in grids], axis=0))
        extent_mm = _triple(np.median([grid.extent_mm for grid in grids], axis=0))
        return cls(len(grids), spacing_mm, extent_mm, memory_bytes)


def make_plan(fingerprint: Fingerprint, config: SegmenterConfig) -> SegmenterPlan:
    """Every size that the configuration leaves open.

    Raises:
        InputError: sizes in the configuration that contradict each other or the network.
    """
    spacing_mm = config.spacing_mm or fingerprint.spacing_mm
    if config.patch is not None:
        return _with_patch(config, spacing_mm, config.patch)
    most = MEMORY_SHARE * fingerprint.memory_bytes / config.loop.batch_size
    for wanted in _patches(fingerprint, spacing_mm):
        plan = _with_patch(config, spacing_mm, wanted)
        if math.prod(plan.patch) <= config.patch_voxels and activation_bytes(plan) <= most:
            break
    return plan  # the least there is, where even that is more than wanted


def _with_patch(config: SegmenterConfig, spacing_mm: Triple, wanted: Shape) -> SegmenterPlan:
    """The plan of a patch of at least so many voxels."""
    strides, levels = config.strides, _levels(config)
    stem = config.stem
    if stem is None:
        stem = math.prod(wanted) * _effort(config) > config.full_resolution_voxels
    if strides is None:
        halved = 2 if stem else 1
        grid = np.ceil(np.array(wanted) / halved)
        strides = _strides(grid, np.array(spacing_mm, dtype=float) * halved, levels)
    width = _width(config, stem=stem)
    channels = config.channels or tuple(
        min(width * 2**level, MAX_CHANNELS) for level in range(len(strides) + 1)
    )
    if len(channels) != len(strides) + 1:
        raise InputError(
            f"segmenter.channels names {len(channels)} levels and segmenter.strides lead to "
            f"{len(strides) + 1}. Give one stride fewer than channels, or leave one of them null."
        )
    plan = SegmenterPlan(
        network=config.network,
        stem=stem,
        spacing_mm=spacing_mm,
        patch=wanted,
        channels=channels,
        strides=strides,
    )
    multiple = np.array(size_multiple(plan))
    voxels = np.ceil(np.array(wanted) / multiple) * multiple
    if (voxels == multiple).all():
        voxels *= 2  # norms over space need more than one voxel at the lowest level
    x, y, z = voxels.astype(int).tolist()
    return plan.model_copy(update={"patch": (x, y, z)})


class _Levels(NamedTuple):
    """How deep a network may be, and whether every stride halves all axes."""

    least: int
    most: int
    together: bool


LEVELS = {
    "dynunet": _Levels(3, MAX_LEVELS, together=False),  # MONAI's least
    "segresnet": _Levels(3, len(SEGRESNET_BLOCKS), together=True),
    "vnet": _Levels(VNET_LEVELS, VNET_LEVELS, together=True),
}


def _levels(config: SegmenterConfig) -> _Levels:
    levels = LEVELS.get(config.network, _Levels(2, MAX_LEVELS, together=False))
    strides, channels = config.strides, config.channels
    given = [len(channels)] if channels is not None else []
    given += [len(strides) + 1] if strides is not None else []
    if levels.together:
        _require_published(config, levels, given)
    elif given and min(given) < levels.least:
        raise InputError(
            f"segmenter.channels and strides make {min(given)} levels, and "
            f"segmenter.network={config.network} needs {levels.least} or more. Add a level."
        )
    if channels is None:
        return levels
    return levels._replace(least=len(channels), most=len(channels))


def _require_published(config: SegmenterConfig, levels: _Levels, given: list[int]) -> None:
    first = config.channels[0] if config.channels is not None else config.width
    doubled = tuple(first * 2**level for level in range(max(given, default=0)))
    alike = (
        all(levels.least <= n <= levels.most for n in given)
        and config.channels in (None, doubled)
        and set(config.strides or ()) <= {(2, 2, 2)}
    )
    if not alike or (config.network == "vnet" and config.channels and first != VNET_WIDTH):
        depth = " or ".join(str(n) for n in sorted({levels.least, levels.most}))
        raise InputError(
            f"segmenter.network={config.network} has {depth} levels of twice the channels at "
            "half the size, as published. Leave segmenter.channels and segmenter.strides null."
        )


def _width(config: SegmenterConfig, *, stem: bool) -> int:
    """Channels of the first level; behind the stem that is the second of a network without."""
    if config.network == "vnet":
        return VNET_WIDTH
    return 2 * config.width if stem else config.width


def _effort(config: SegmenterConfig) -> float:
    """Of a voxel, relative to kernels of 3x3x3."""
    return (VNET_KERNEL / 3) ** 3 if config.network == "vnet" else 1.0


def _strides(shape: np.ndarray, spacing_mm: np.ndarray, levels: _Levels) -> tuple[Shape, ...]:
    """From each level to the next, until the grid is too small to halve."""
    strides: list[Shape] = []
    while len(strides) < levels.most - 1:
        if levels.together:
            halved = np.full(3, (shape / 2 >= SHORTEST_TOGETHER).all())
        else:
            long_enough = shape / 2 >= SHORTEST_AXIS
            halved = long_enough & (spacing_mm < 2 * spacing_mm[long_enough].min(initial=np.inf))
        if not halved.any():
            if len(strides) >= levels.least - 1:
                break
            halved = np.ones(3, dtype=bool)  # the patch grows to fit
        x, y, z = np.where(halved, 2, 1).tolist()
        strides.append((x, y, z))
        shape = np.ceil(shape / (x, y, z))
        spacing_mm = spacing_mm * (x, y, z)
    return tuple(strides)


def activation_bytes(plan: SegmenterPlan) -> float:
    """What training holds of one patch, about; weights are few beside it."""
    voxels = math.prod(plan.patch) / (HAAR_BANDS if plan.stem else 1)
    return BYTES_PER_FEATURE * plan.channels[0] * voxels


def _patches(fingerprint: Fingerprint, spacing_mm: Triple) -> list[Shape]:
    """Cubes in mm, no larger than the median scan, from the largest to the smallest."""
    scan = np.maximum(np.round(np.array(fingerprint.extent_mm) / spacing_mm), 1)
    sides_mm = np.geomspace(4 * max(spacing_mm), max(fingerprint.extent_mm), 200)
    patches = np.minimum(np.round(sides_mm[:, None] / spacing_mm).clip(1), scan).astype(int)
    return [(x, y, z) for x, y, z in dict.fromkeys(map(tuple, patches[::-1].tolist()))]


def _triple(values: np.ndarray) -> Triple:
    x, y, z = (round(float(v), 6) for v in values)
    return (x, y, z)
