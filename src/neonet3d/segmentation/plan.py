"""Sizes of a segmenter from a fingerprint of its training cases (after Isensee et al., 2021).

The rules are nnU-Net's: the median spacing, a patch of equal extent in mm on every axis but no
larger than the median scan, an axis halved only while its voxels are not coarser than twice the
finest and four or more remain. What memory allows is our own estimate.
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
    VNET_LEVELS,
    VNET_WIDTH,
    size_multiple,
)
from neonet3d.types import Shape, Triple

SHORTEST_AXIS = 4  # voxels that an axis keeps at the lowest level
MAX_CHANNELS = 320  # nnU-Net's
MAX_LEVELS = 6
DYNUNET_LEAST_LEVELS = 3  # MONAI's
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
    most = min(config.patch_voxels, _affordable_voxels(fingerprint.memory_bytes, config))
    for wanted in _patches(fingerprint, spacing_mm):
        plan = _with_patch(config, spacing_mm, wanted)
        if math.prod(plan.patch) <= most:
            break
    return plan  # the least there is, where even that is more than wanted


def _with_patch(config: SegmenterConfig, spacing_mm: Triple, wanted: Shape) -> SegmenterPlan:
    """The plan of a patch of at least so many voxels."""
    strides, levels = config.strides, _levels(config)
    if strides is None:
        stem = 2 if config.stem else 1
        grid = np.ceil(np.array(wanted) / stem)
        strides = _strides(grid, np.array(spacing_mm, dtype=float) * stem, levels)
    width = _width(config)
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
        stem=config.stem,
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
    """How deep a network may be, and whether its strides are always 2."""

    least: int
    most: int
    fixed: bool


def _levels(config: SegmenterConfig) -> _Levels:
    published = {"vnet": VNET_LEVELS, "segresnet": len(SEGRESNET_BLOCKS)}.get(config.network)
    if published is None:
        least = DYNUNET_LEAST_LEVELS if config.network == "dynunet" else 2
        if config.channels is None:
            return _Levels(least, MAX_LEVELS, fixed=False)
        if len(config.channels) < least:
            raise InputError(
                f"segmenter.channels names {len(config.channels)} levels, and "
                f"segmenter.network={config.network} needs {least} or more. Add a level."
            )
        return _Levels(len(config.channels), len(config.channels), fixed=False)
    if config.strides is not None or config.channels is not None:
        raise InputError(
            f"segmenter.network={config.network} has the levels that were published. Leave "
            "segmenter.strides and segmenter.channels null."
        )
    return _Levels(published, published, fixed=True)


def _width(config: SegmenterConfig) -> int:
    return VNET_WIDTH if config.network == "vnet" else config.width


def _strides(shape: np.ndarray, spacing_mm: np.ndarray, levels: _Levels) -> tuple[Shape, ...]:
    """From each level to the next, until the grid is too small to halve."""
    strides: list[Shape] = []
    while len(strides) < levels.most - 1:
        long_enough = shape / 2 >= SHORTEST_AXIS
        fine = spacing_mm < 2 * spacing_mm[long_enough].min(initial=np.inf)
        halved = long_enough & fine
        if levels.fixed or not halved.any():
            if len(strides) >= levels.least - 1 and not levels.fixed:
                break
            halved = np.ones(3, dtype=bool)  # the patch grows to fit
        x, y, z = np.where(halved, 2, 1).tolist()
        strides.append((x, y, z))
        shape = np.ceil(shape / (x, y, z))
        spacing_mm = spacing_mm * (x, y, z)
    return tuple(strides)


def _affordable_voxels(memory_bytes: int, config: SegmenterConfig) -> int:
    """Of a patch, so that a batch's activations fit their share of the memory."""
    width = config.channels[0] if config.channels else _width(config)
    per_voxel = BYTES_PER_FEATURE * width * config.loop.batch_size
    if config.stem:
        per_voxel /= HAAR_BANDS
    return int(MEMORY_SHARE * memory_bytes / per_voxel)


def _patches(fingerprint: Fingerprint, spacing_mm: Triple) -> list[Shape]:
    """Cubes in mm, no larger than the median scan, from the largest to the smallest."""
    scan = np.maximum(np.round(np.array(fingerprint.extent_mm) / spacing_mm), 1)
    sides_mm = np.geomspace(4 * max(spacing_mm), max(fingerprint.extent_mm), 200)
    patches = np.minimum(np.round(sides_mm[:, None] / spacing_mm).clip(1), scan).astype(int)
    return [(x, y, z) for x, y, z in dict.fromkeys(map(tuple, patches[::-1].tolist()))]


def _triple(values: np.ndarray) -> Triple:
    x, y, z = (round(float(v), 6) for v in values)
    return (x, y, z)
