"""DICOM SR: a measurement report (TID 1500) of a probability and of the segments' volumes.

Comprehensive 3D SR, complete, unverified. The probability is a measurement group of its own
(TID 1501) with its interval and the model's version; each segment of a SEG has a group of
volumetric measurements (TID 1411). Every group has a tracking UID and says that it is for research.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import highdicom as hd
import numpy as np
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from neonet3d.report.dicom_segmentation import MANUFACTURER, MODEL, Algorithm
from neonet3d.report.dicom_series import SourceSeries
from neonet3d.report.dicom_terms import (
    INTENDED_USE,
    PROBABILITY,
    RESEARCH_ONLY,
    finding,
    uid_of,
)

SERIES_NUMBER = 9002
MR_IMAGING = Code("113091000", "SCT", "Magnetic resonance imaging")
MILLILITRE = Code("mL", "UCUM", "milliliter")


@dataclass(frozen=True)
class ReportedProbability:
    """What a classifier said of the patient.

    Attributes:
        outcome: name of it, such as ``pni``.
        low, high: 95 % interval; None for a model that states none.
    """

    outcome: str
    value: float
    low: float | None
    high: float | None
    algorithm: Algorithm


def write_structured_report(
    source: SourceSeries, segmentation: hd.seg.Segmentation, probability: ReportedProbability | None
) -> hd.sr.Comprehensive3DSR:
    """The report of one series; it references the segmentation and the images."""
    groups: list[hd.sr.MeasurementsAndQualitativeEvaluations] = []
    if probability is not None:
        groups.append(_probability_group(probability, str(segmentation.SOPInstanceUID)))
    groups += [_segment_group(segmentation, int(number)) for number in segmentation.segment_numbers]
    made_of = (
        str(segmentation.SOPInstanceUID),
        "" if probability is None else repr(probability),
    )
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", version("neonet3d")), name=MODEL, manufacturer_name=MANUFACTURER
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=hd.sr.ObserverContext(
                observer_type=codes.DCM.Device, observer_identifying_attributes=device
            )
        ),
        procedure_reported=MR_IMAGING,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[segmentation, *source.headers],
        content=report,
        series_instance_uid=uid_of("sr series", *made_of),
        series_number=SERIES_NUMBER,
        sop_instance_uid=uid_of("sr", *made_of),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="neonet3d report (research use only)",
    )


def _research_only() -> Sequence[hd.sr.QualitativeEvaluation]:
    return [hd.sr.QualitativeEvaluation(name=INTENDED_USE, value=RESEARCH_ONLY)]


def _identified(algorithm: Algorithm) -> hd.sr.AlgorithmIdentification:
    return hd.sr.AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        family=codes.DCM.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
    )


def _probability_group(
    said: ReportedProbability, segmentation: str
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    properties = None
    if said.low is not None and said.high is not None:
        properties = hd.sr.MeasurementProperties(
            upper_measurement_uncertainty=round(said.high - said.value, 6),
            lower_measurement_uncertainty=round(said.value - said.low, 6),
        )
    measured = hd.sr.Measurement(
        name=PROBABILITY, value=said.value, unit=codes.UCUM.NoUnits, properties=properties
    )
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=uid_of("probability", segmentation, repr(said)),
            identifier=f"{said.outcome} by {said.algorithm.name} {said.algorithm.version}",
        ),
        finding_type=finding(said.outcome),
        algorithm_id=_identified(said.algorithm),
        measurements=[measured],
        qualitative_evaluations=_research_only(),
    )


def _segment_group(
    segmentation: hd.seg.Segmentation, number: int
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    described = segmentation.get_segment_description(number)
    algorithm = described.algorithm_identification
    volume = segmentation.get_volume(segment_numbers=[number], combine_segments=True)
    voxel_mm3 = float(np.prod(volume.spacing))
    ml = int((volume.array > 0).sum()) * voxel_mm3 / 1000
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=described.tracking_uid, identifier=described.tracking_id
        ),
        referenced_segment=hd.sr.ReferencedSegment.from_segmentation(segmentation, number),
        finding_type=described.segmented_property_type,
        algorithm_id=_identified(Algorithm(algorithm.name, algorithm.version)),
        measurements=[hd.sr.Measurement(name=codes.SCT.Volume, value=ml, unit=MILLILITRE)],
        qualitative_evaluations=_research_only(),
    )
