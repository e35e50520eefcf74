"""Distances between the surfaces of two masks, in mm; MONAI measures them."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Integer
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from torch import Tensor

from neonet3d.errors import InputError
from neonet3d.metrics.box import bounding_box
from neonet3d.types import Triple

MARGIN = 1  # voxels left around both masks, so that the surface closes


@dataclass(frozen=True)
class SurfaceScore:
    """How far two surfaces are apart.

    Attributes:
        hd95_mm: 95th percentile of the distances from either surface to the other, the greater of
            the two directions.
        surface_dice: share of both surfaces' area that lies within the tolerance of the other.
    """

    hd95_mm: float
    surface_dice: float


def surface_scores(
    prediction: Integer[np.ndarray, "x y z"],
    reference: Integer[np.ndarray, "x y z"],
    labels: Mapping[str, int],
    *,
    spacing_mm: Triple,
    tolerance_mm: float,
) -> dict[str, SurfaceScore]:
    """95 % Hausdorff distance and surface Dice of each class, on two label maps of one grid.

    Both are as fine as the grid: surface Dice is right to about half a voxel of tolerance, upwards,
    so choose a tolerance of a voxel or more.

    Empty masks: where neither map holds a class both are **nan**, which means leave out. Where only
    one does, there is no surface to measure to: surface Dice is **0** and the distance is
    **infinite**, so that a missed tumour is worse than any that was found badly, whatever the size
    of the scan. Average such distances by their median (``bootstrap_patients``).

    Source: Nikolov et al. 2018 (arXiv 1809.04430) for surface Dice and its areas.

    Args:
        labels: Name to label value; other values are ignored.
        spacing_mm: Voxel size along x, y, z.
        tolerance_mm: Distance that counts as no distance, such as the disagreement of two readers.

    Raises:
        InputError: The shapes differ, or the tolerance is negative.
    """
    _require_alike(prediction, reference)
    if tolerance_mm < 0:
        raise InputError(f"The tolerance is {tolerance_mm} mm. Give 0 or more.")
    return {
        name: SurfaceScore(
            _hd95(found, wanted, spacing_mm),
            _surface_dice(found, wanted, spacing_mm, tolerance_mm),
        )
        for name, found, wanted in _by_class(prediction, reference, labels)
    }


def hd95_mm(
    prediction: Integer[np.ndarray, "x y z"],
    reference: Integer[np.ndarray, "x y z"],
    labels: Mapping[str, int],
    *,
    spacing_mm: Triple,
) -> dict[str, float]:
    """The distances of ``surface_scores`` without its surface Dice.

    Raises:
        InputError: The shapes differ.
    """
    _require_alike(prediction, reference)
    return {
        name: _hd95(found, wanted, spacing_mm)
        for name, found, wanted in _by_class(prediction, reference, labels)
    }


def _by_class(
    prediction: Integer[np.ndarray, "x y z"],
    reference: Integer[np.ndarray, "x y z"],
    labels: Mapping[str, int],
) -> Iterator[tuple[str, Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]]:
    for name, value in labels.items():
        yield name, prediction == value, reference == value


def _require_alike(
    prediction: Integer[np.ndarray, "..."], reference: Integer[np.ndarray, "..."]
) -> None:
    if prediction.shape != reference.shape:
        raise InputError(
            f"The prediction has the shape {prediction.shape} but the reference {reference.shape}. "
            "Bring both to one grid before comparing them."
        )


def _hd95(
    prediction: Bool[np.ndarray, "x y z"], reference: Bool[np.ndarray, "x y z"], spacing_mm: Triple
) -> float:
    empty = _of_empty(prediction, reference, np.inf)
    if empty is not None:
        return empty
    with _quiet():
        found = compute_hausdorff_distance(
            *_batches(prediction, reference),
            include_background=True,
            percentile=95,
            spacing=spacing_mm,
        )
    return float(found)


def _surface_dice(
    prediction: Bool[np.ndarray, "x y z"],
    reference: Bool[np.ndarray, "x y z"],
    spacing_mm: Triple,
    tolerance_mm: float,
) -> float:
    empty = _of_empty(prediction, reference, 0.0)
    if empty is not None:
        return empty
    with _quiet():
        found = compute_surface_dice(
            *_batches(prediction, reference),
            [tolerance_mm],
            include_background=True,
            spacing=spacing_mm,
            use_subvoxels=True,
        )
    return float(found)


def _of_empty(
    prediction: Bool[np.ndarray, "x y z"], reference: Bool[np.ndarray, "x y z"], worst: float
) -> float | None:
    """nan where both are empty, the worst where one is, None where neither is."""
    present = bool(prediction.any()), bool(reference.any())
    return None if all(present) else worst if any(present) else float("nan")


@contextmanager
def _quiet() -> Iterator[None]:
    """MONAI 1.5 calls its own function with an argument that it deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*always_return_as_numpy", category=FutureWarning
        )
        yield


def _batches(*masks: Bool[np.ndarray, "x y z"]) -> list[Tensor]:
    """Cut to what holds any of them, as MONAI takes them."""
    return [torch.from_numpy(mask)[None, None] for mask in _cut(*masks)]


def _cut(*masks: Bool[np.ndarray, "x y z"]) -> list[Bool[np.ndarray, "a b c"]]:
    """All masks cut to the box that holds any of them, with an empty margin."""
    box = bounding_box(np.logical_or.reduce(masks))
    assert box is not None  # empty masks have no surface and are told apart before
    return [np.pad(mask[box], MARGIN) for mask in masks]
