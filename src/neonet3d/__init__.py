"""Label-guided 3D generation and diagnosis from liver MR. Research use only.

The names below are imported when they are first used, so that ``import neonet3d`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neonet3d.classification.patten import PattenNet
    from neonet3d.classification.predict import Classifier
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.cohort.volume import Volume, read_volume
    from neonet3d.errors import InputError, RunError
    from neonet3d.generation.generator import LatentGenerator
    from neonet3d.segmentation.predict import Segmenter
    from neonet3d.segmentation.tlcr import RoiCrop, crop_to_lesions, crop_to_tumour

_HOMES = {
    "Classifier": "classification.predict",
    "Cohort": "cohort.cohort",
    "InputError": "errors",
    "LatentGenerator": "generation.generator",
    "PattenNet": "classification.patten",
    "RoiCrop": "segmentation.tlcr",
    "RunError": "errors",
    "Segmenter": "segmentation.predict",
    "Volume": "cohort.volume",
    "crop_to_lesions": "segmentation.tlcr",
    "crop_to_tumour": "segmentation.tlcr",
    "read_volume": "cohort.volume",
}

__all__ = [
    "Classifier",
    "Cohort",
    "InputError",
    "LatentGenerator",
    "PattenNet",
    "RoiCrop",
    "RunError",
    "Segmenter",
    "Volume",
    "crop_to_lesions",
    "crop_to_tumour",
    "read_volume",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'neonet3d' has no attribute {name!r}")
    return getattr(import_module(f"neonet3d.{_HOMES[name]}"), name)
