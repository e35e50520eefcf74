"""DICOM SEG: a label map as a binary segmentation object that viewers lay over its series."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version

import highdicom as hd
import numpy as np
from jaxtyping import UInt8
from pydicom.sr.codedict import codes

from neonet3d.errors import InputError
from neonet3d.report.dicom_series import SourceSeries, written_by_highdicom
from neonet3d.report.dicom_terms import OUR_SCHEME, term_of, uid_of
from neonet3d.types import LabelSchema

MANUFACTURER, MODEL = "neonet3d", "neonet3d (research use only)"
SERIES_NUMBER = 9001
VERSION_DIGITS = 16


@dataclass(frozen=True)
class Algorithm:
    """What made something.

    Attributes:
        name: NeoSeg or PattenNet.
        version: the first digits of its weights' SHA-256.
    """

    name: str
    version: str

    @classmethod
    def of(cls, name: str, weights_sha256: str) -> Algorithm:
        return cls(name, weights_sha256[:VERSION_DIGITS])


@dataclass(frozen=True)
class Segments:
    """A SEG, and how large each of its segments is.

    Attributes:
        volumes_ml: by segment number, counted on the slices of the series.
    """

    dataset: hd.seg.Segmentation
    volumes_ml: dict[int, float]


def write_segmentation(
    source: SourceSeries,
    frames: UInt8[np.ndarray, "slices rows columns"],
    schema: LabelSchema,
    algorithm: Algorithm,
) -> Segments:
    """One object of one series, a segment for each class that occurs, numbered from 1.

    Patient and study are those of the series, and every frame names the image it lies on. The UIDs
    are a function of series, algorithm, classes, mask and the version of this package.

    Args:
        frames: label map in the slices of the series (``SourceSeries.in_slices``).

    Raises:
        InputError: a label map without any class, a class whose name no code can carry, a header
            that DICOM does not allow.
    """
    present = [(name, value) for name, value in schema.as_mapping().items() if value > 0]
    present = [(name, value) for name, value in present if (frames == value).any()]
    if not present:
        raise InputError("The mask is empty, and a DICOM SEG cannot be. Give a mask of this scan.")
    numbered, volumes = np.zeros_like(frames), {}
    for number, (_, value) in enumerate(present, start=1):
        inside = frames == value
        numbered[inside] = number
        volumes[number] = int(inside.sum()) * source.voxel_ml
    content = hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
    made_of = (
        source.uid, algorithm.name, algorithm.version, ",".join(schema.names), content,
        version("neonet3d"),
    )  # fmt: skip
    described = [
        _describe(number, name, algorithm, made_of)
        for number, (name, _) in enumerate(present, start=1)
    ]
    with written_by_highdicom("DICOM SEG"):
        dataset = hd.seg.Segmentation(
            source_images=source.headers,
            pixel_array=numbered,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=described,
            series_instance_uid=uid_of("seg series", *made_of),
            series_number=SERIES_NUMBER,
            sop_instance_uid=uid_of("seg", *made_of),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL,
            software_versions=version("neonet3d"),
            device_serial_number=algorithm.version,
            content_description="Research use only",
            content_label="NEOSEG",
            series_description=f"{algorithm.name} (research use only)",
            coding_schemes=[OUR_SCHEME],
        )
    return Segments(dataset, volumes)


def _describe(
    number: int, name: str, algorithm: Algorithm, made_of: tuple[str, ...]
) -> hd.seg.SegmentDescription:
    term = term_of(name)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=term.category,
        segmented_property_type=term.kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=algorithm.name,
            family=codes.DCM.ArtificialIntelligence,
            version=algorithm.version,
        ),
        tracking_uid=uid_of("segment", name, *made_of),
        tracking_id=f"{name} of {algorithm.name} {algorithm.version}",
    )
