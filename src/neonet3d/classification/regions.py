"""Where a sign of perineural invasion can be: soft region maps for guided pooling.

Global pooling loses a sparse peritumoural sign among 50,000 voxels.
The regions follow the anatomy that PNI follows: the tumour, the shell around it, the portal
branches near it (the Glisson sheath runs along them), the liver, and the whole patch. Classes of
other organs are regions as they are.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from neonet3d.classification.distances import distance_mm
from neonet3d.cohort.patches import Patches
from neonet3d.types import LabelMap, LabelSchema, Triple

PORTAL_SHEATH_MM = 5.0  # a cuff lies within this distance of a portal branch
PORTAL_REACH_MM = 40.0  # and within this distance of the tumour
OF_THE_LIVER = ("liver", "portal_vein", "hepatic_vein", "tumour")


def region_names(schema: LabelSchema) -> tuple[str, ...]:
    """Regions that a schema allows, in the order of ``region_maps``; ``whole`` is always there."""
    names = ["whole"]
    if "liver" in schema:
        names.append("liver")
    if "tumour" in schema:
        names += ["tumour", "shell"]
        if "portal_vein" in schema:
            names.append("portal_neighbourhood")
    return (*names, *_others(schema))


def _others(schema: LabelSchema) -> list[str]:
    return [name for name in schema.names[1:] if name not in OF_THE_LIVER]


def region_maps(
    label_map: LabelMap, schema: LabelSchema, *, spacing_mm: Triple, shell_mm: float
) -> Float[np.ndarray, "r x y z"]:
    """Binary maps of the regions of one case; a region that is absent is all zero."""
    maps = {"whole": np.ones(label_map.shape, dtype=bool)}
    if "liver" in schema:
        maps["liver"] = label_map == schema.value("liver")
    if "tumour" in schema:
        tumour = label_map == schema.value("tumour")
        from_tumour = distance_mm(tumour, spacing_mm)
        maps["tumour"] = tumour
        maps["shell"] = (from_tumour > 0) & (from_tumour <= shell_mm)
        if "portal_vein" in schema:
            portal = label_map == schema.value("portal_vein")
            near = distance_mm(portal, spacing_mm) <= PORTAL_SHEATH_MM
            maps["portal_neighbourhood"] = near & (from_tumour <= PORTAL_REACH_MM) & ~tumour
    maps |= {name: label_map == schema.value(name) for name in _others(schema)}
    return np.stack([maps[name] for name in region_names(schema)]).astype(np.float32)


def batch_region_maps(
    patches: Patches, schema: LabelSchema, *, shell_mm: float
) -> Float[Tensor, "n r x y z"]:
    """Region maps of many cases; only ``whole`` (one for all, n = 1) where there are no masks."""
    if patches.label_maps is None or len(schema) == 1:
        return torch.ones(1, 1, *patches.shape)
    return torch.stack(
        [
            torch.from_numpy(
                region_maps(label_map, schema, spacing_mm=spacing_mm, shell_mm=shell_mm)
            )
            for label_map, spacing_mm in zip(
                patches.label_maps.numpy(), patches.spacings_mm, strict=True
            )
        ]
    )


def shrink(maps: Float[Tensor, "n r x y z"], factor: int) -> Float[Tensor, "n r x y z"]:
    """Fraction of each coarse voxel that a region fills."""
    n, r = maps.shape[:2]  # r may be 0
    return F.avg_pool3d(maps.flatten(0, 1)[:, None], factor)[:, 0].unflatten(0, (n, r))
