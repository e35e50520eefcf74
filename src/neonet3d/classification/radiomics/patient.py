"""Radiomics of a patient: shape of the tumour, intensities and texture in and around it.

Texture and intensities are taken in the regions of PattenNet (``regions.py``) but the whole patch
and the whole liver, so that the two see the same anatomy. Which regions is our choice; the features
are the IBSI's.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from neonet3d.classification.radiomics.glcm import (
    co_occurrence,
    co_occurrence_features,
    discretise,
)
from neonet3d.classification.radiomics.intensity import intensity_features
from neonet3d.classification.radiomics.shape import shape_features
from neonet3d.classification.regions import region_maps, region_names
from neonet3d.cohort.patches import Patches
from neonet3d.config import RadiomicsConfig
from neonet3d.errors import InputError
from neonet3d.types import LabelMap, LabelSchema, Triple

TOO_WIDE = ("whole", "liver")


def radiomics_of(
    image: Float[np.ndarray, "x y z"],
    label_map: LabelMap,
    schema: LabelSchema,
    *,
    spacing_mm: Triple,
    settings: RadiomicsConfig,
) -> dict[str, float]:
    """All features of one patch by name, ``region.family.feature``; nan where a region is empty.

    Args:
        image: 0 where there is no signal, in any unit.

    Raises:
        InputError: a schema without a tumour.
    """
    if "tumour" not in schema:
        raise InputError(
            f"Radiomics are those of a tumour, and the masks know {list(schema.names[1:])}. "
            "Use a cohort whose masks have one."
        )
    maps = region_maps(label_map, schema, spacing_mm=spacing_mm, shell_mm=settings.shell_mm)
    found: dict[str, float] = {}
    for name, region in zip(region_names(schema), maps > 0, strict=True):
        if name in TOO_WIDE:
            continue
        if name == "tumour":
            found |= _named(f"{name}.shape", _shape(region, spacing_mm))
        found |= _named(f"{name}.intensity", _intensity(image, region))
        found |= _named(f"{name}.texture", _texture(image, region, settings.bins))
    return found


def feature_names(schema: LabelSchema, settings: RadiomicsConfig) -> tuple[str, ...]:
    """Of ``radiomics_of``, in its order.

    Raises:
        InputError: a schema without a tumour.
    """
    nothing = np.zeros((2, 2, 2), np.uint8)
    image, spacing_mm = nothing.astype(np.float32), (1.0, 1.0, 1.0)
    return tuple(radiomics_of(image, nothing, schema, spacing_mm=spacing_mm, settings=settings))


def radiomics_table(
    patches: Patches, schema: LabelSchema, settings: RadiomicsConfig
) -> Float[np.ndarray, "n f"]:
    """Features of every patch, in the order of ``feature_names``.

    Of images from 0 up, in shares of the ceiling: a ratio of intensities means nothing where the
    zero lies among the tissues, as it does in [-1, 1].

    Raises:
        InputError: cases without masks, or a schema without a tumour.
    """
    maps, rows = patches.required_label_maps().numpy(), []
    for image, label_map, spacing_mm in zip(
        (patches.images.numpy() + 1) / 2, maps, patches.spacings_mm, strict=True
    ):
        row = radiomics_of(image, label_map, schema, spacing_mm=spacing_mm, settings=settings)
        rows.append(list(row.values()))
    return np.array(rows)


def _named(prefix: str, features: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}.{name}": float(value) for name, value in features.items()}


Region = Bool[np.ndarray, "x y z"]
_ONE = np.ones((1, 1, 1), dtype=bool)


def _shape(region: Region, spacing_mm: Triple) -> dict[str, float]:
    if region.any():
        return shape_features(region, spacing_mm)
    return dict.fromkeys(shape_features(_ONE, spacing_mm), np.nan)


def _intensity(image: Float[np.ndarray, "x y z"], region: Region) -> dict[str, float]:
    if region.any():
        return intensity_features(image[region])
    return dict.fromkeys(intensity_features(np.ones(1)), np.nan)


def _texture(image: Float[np.ndarray, "x y z"], region: Region, bins: int) -> dict[str, float]:
    return co_occurrence_features(co_occurrence(discretise(image, region, bins), bins))
