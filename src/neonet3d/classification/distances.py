"""The mask as PattenNet's network sees it on request: how deep in, or far from, every class.

A distance says at one voxel what a mask says only of many: where a vessel is thick, how near a
tumour is to a branch.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from neonet3d.cohort.patches import Patches
from neonet3d.types import LabelMap, LabelSchema, Triple


def signed_distances(
    label_map: LabelMap, schema: LabelSchema, *, spacing_mm: Triple
) -> Float[np.ndarray, "k x y z"]:
    """Of every class but the background: positive inside, negative outside.

    log(1 + d / s) of the distance d to the class's surface in mm, s being the size of a voxel, so
    that near and thin places differ much and far ones little. A class that is absent is as far as
    the patch is long.
    """
    size_mm = float(np.prod(spacing_mm)) ** (1 / 3)
    longest = float(np.linalg.norm(np.array(label_map.shape) * spacing_mm))
    found = []
    for value in range(1, len(schema)):
        inside = label_map == value
        depth, away = (np.minimum(distance_mm(of, spacing_mm), longest) for of in (~inside, inside))
        found.append(np.log1p(depth / size_mm) - np.log1p(away / size_mm))
    return np.stack(found).astype(np.float32)


def batch_distances(patches: Patches, schema: LabelSchema) -> Float[Tensor, "n k x y z"]:
    """Of every case, in its own mm.

    Raises:
        InputError: a case without a mask.
    """
    maps = patches.required_label_maps().numpy()
    return torch.stack(
        [
            torch.from_numpy(signed_distances(label_map, schema, spacing_mm=spacing_mm))
            for label_map, spacing_mm in zip(maps, patches.spacings_mm, strict=True)
        ]
    )


def distance_mm(mask: np.ndarray, spacing_mm: Triple) -> np.ndarray:
    """Of every voxel to the mask in mm; infinite everywhere when the mask is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return np.asarray(distance_transform_edt(~mask, sampling=spacing_mm))
