"""Features of a patch that need no trained network: Haar bands in each class of its label map.

Mean and standard deviation of the eight Haar bands inside each class. A smooth decoder shows in the
standard deviations of the detail bands, a wrong contrast in the means of the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neonet3d.errors import InputError
from neonet3d.generation.wavelet import haar

PRESENT_BLOCKS = 8.0  # of 2x2x2 voxels; less has no standard deviation to speak of
PRESENT_SHARE = 0.8  # of the cases, on either side
AT_ONCE = 16


@dataclass(frozen=True)
class RegionFeatures:
    """Features of real and synthetic cases in the same columns.

    Attributes:
        real: One row for each real case, ``[m, 16 * classes]``.
        synthetic: One row for each synthetic case, ``[k, 16 * classes]``.
        classes: Values of the classes that gave columns; what is missing was too rare.
    """

    real: Float[np.ndarray, "m d"]
    synthetic: Float[np.ndarray, "k d"]
    classes: tuple[int, ...]


def band_statistics(
    images: Float[Tensor, "n x y z"],
    label_maps: UInt8[Tensor, "n x y z"] | None,
    n_classes: int,
) -> Float[np.ndarray, "n k 16"]:
    """Mean and standard deviation of the 8 Haar bands in each class, background included.

    A block of 2x2x2 voxels counts for a class by the share of its voxels in it, so a vein one voxel
    wide is seen too. nan where a class fills less than ``PRESENT_BLOCKS`` blocks of a case. Without
    label maps the whole patch is one class, and ``n_classes`` must be 1.

    Args:
        images: Intensities on one scale, with even sizes, ``[n, x, y, z]``.
        label_maps: Classes 0 to ``n_classes`` - 1, ``[n, x, y, z]``.
        n_classes: Classes of the label maps, with background.

    Returns:
        ``[n, k, 16]``: eight means, then eight standard deviations.

    Raises:
        InputError: No label maps for several classes, or shapes that differ.
    """
    if label_maps is None:
        if n_classes != 1:
            raise InputError(f"There are no label maps for {n_classes} classes. Give them.")
        label_maps = torch.zeros(images.shape, dtype=torch.uint8)
    if label_maps.shape != images.shape:
        raise InputError(
            f"The images are {tuple(images.shape)} but the label maps {tuple(label_maps.shape)}. "
            "Give one label map for each image, on its grid."
        )
    rows = []
    for image, maps in zip(images.split(AT_ONCE), label_maps.split(AT_ONCE), strict=True):
        bands = haar(image[:, None].double()).flatten(2)  # [b, 8, blocks]
        classes = torch.arange(n_classes, device=maps.device).view(-1, 1, 1, 1)
        inside = (maps[:, None] == classes).double()
        share = torch.nn.functional.avg_pool3d(inside, 2).flatten(2)  # [b, k, blocks]
        blocks = share.sum(2, keepdim=True)
        mean = torch.einsum("bkv,bfv->bkf", share, bands) / blocks
        square = torch.einsum("bkv,bfv->bkf", share, bands.square()) / blocks
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        found = torch.cat([mean, deviation], dim=2)
        rows.append(found.masked_fill(blocks < PRESENT_BLOCKS, torch.nan).cpu())
    return torch.cat(rows).numpy()


def region_features(
    real: Float[np.ndarray, "m k 16"], synthetic: Float[np.ndarray, "n k 16"]
) -> RegionFeatures:
    """Band statistics of two sets as tables without gaps.

    A class that is in fewer than ``PRESENT_SHARE`` of the cases of either side is left out. Where a
    case lacks a class that is kept, the mean over the cases *of both sides* stands in, so that the
    filling itself does not tell the sides apart. Both are our choices.

    Args:
        real: From ``band_statistics``; nan where a class is absent.
        synthetic: From ``band_statistics``, with the same classes.

    Raises:
        InputError: The sides have different classes, or no class is common enough.
    """
    if real.shape[1:] != synthetic.shape[1:]:
        raise InputError(
            f"Real cases have statistics of shape {real.shape[1:]}, synthetic ones of "
            f"{synthetic.shape[1:]}. Give both the same classes."
        )
    present = [np.isfinite(side[:, :, 0]).mean(axis=0) for side in (real, synthetic)]
    kept = np.flatnonzero(np.minimum(*present) >= PRESENT_SHARE)
    if not kept.size:
        raise InputError(
            f"No class is in {PRESENT_SHARE:.0%} of the cases of both sides, so there is nothing "
            "to compare. Check that the patches show what the masks name."
        )
    joint = np.concatenate([real, synthetic])[:, kept].reshape(len(real) + len(synthetic), -1)
    filled = np.where(np.isfinite(joint), joint, np.nanmean(joint, axis=0))
    return RegionFeatures(filled[: len(real)], filled[len(real) :], tuple(kept.tolist()))
