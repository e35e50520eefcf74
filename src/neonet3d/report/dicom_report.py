"""DICOM SR: a measurement report (TID 1500) of a probability and of the segments' volumes.

Comprehensive 3D SR, complete, unverified. The probability is a measurement group of its own
(TID 1501) with its interval, how sure it is and the model's version; each segment of a SEG has a
group of volumetric measurements (TID 1411). Every group has a tracking UID and says that it is for
research.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import highdicom as hd
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from neonet3d.report.dicom_segmentation import MANUFACTURER, MODEL, Algorithm, Segments
from neonet3d.report.dicom_series import SourceSeries, written_by_highdicom
from neonet3d.report.dicom_terms import (
    INTENDED_USE,
    INTERVAL,
    LIKE_TRAINING,
    MAY_BE,
    NO,
    OUR_SCHEME,
    PROCEDURES,
    RESEARCH_ONLY,
    YES,
    prediction_set,
    probability_of,
    uid_of,
)

SERIES_NUMBER = 9002
MILLILITRE = Code("mL", "UCUM", "milliliter")


@dataclass(frozen=True)
class Sureness:
    """What ``Classifier.assess`` adds to a probability.

    Attributes:
        low, high: 95 % interval.
        may_be: values of the outcome that are in the prediction set.
        unfamiliar: the case is like hardly any of training, and no figure is to be trusted.
    """

    low: float
    high: float
    may_be: tuple[int, ...]
    unfamiliar: bool


@dataclass(frozen=True)
class ReportedProbability:
    """What a classifier said of the patient.

    Attributes:
        outcome: name of it, such as ``pni``.
        sureness: None for a model that states none.
    """

    outcome: str
    value: float
    sureness: Sureness | None
    algorithm: Algorithm


def write_structured_report(
    source: SourceSeries, segments: Segments, probability: ReportedProbability | None
) -> hd.sr.Comprehensive3DSR:
    """The report of one series; it references the segmentation and the images.

    Raises:
        InputError: an outcome whose name no code can carry, a header that DICOM does not allow.
    """
    segmentation = segments.dataset
    groups: list[hd.sr.MeasurementsAndQualitativeEvaluations] = []
    if probability is not None:
        groups.append(_probability_group(probability, str(segmentation.SOPInstanceUID)))
    groups += [
        _segment_group(source, segmentation, number, ml)
        for number, ml in segments.volumes_ml.items()
    ]
    made_of = (str(segmentation.SOPInstanceUID), repr(probability), version("neonet3d"))
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", version("neonet3d")), name=MODEL, manufacturer_name=MANUFACTURER
    )
    with written_by_highdicom("structured report"):
        report = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(
                observer_device_context=hd.sr.ObserverContext(
                    observer_type=codes.DCM.Device, observer_identifying_attributes=device
                )
            ),
            procedure_reported=PROCEDURES[source.modality],
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
            referenced_images=source.headers,
        )
        return hd.sr.Comprehensive3DSR(
            evidence=[segmentation, *source.headers],
            content=report,
            series_instance_uid=uid_of("sr series", *made_of),
            series_number=SERIES_NUMBER,
            sop_instance_uid=uid_of("sr", *made_of),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL,
            software_versions=version("neonet3d"),
            is_complete=True,
            is_final=False,
            is_verified=False,
            series_description="neonet3d report (research use only)",
            coding_schemes=[OUR_SCHEME],
        )


def _research_only() -> hd.sr.QualitativeEvaluation:
    return hd.sr.QualitativeEvaluation(name=INTENDED_USE, value=RESEARCH_ONLY)


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
    sure, properties, evaluations = said.sureness, None, [_research_only()]
    if sure is not None:
        properties = hd.sr.MeasurementProperties(
            upper_measurement_uncertainty=round(sure.high - said.value, 6),
            lower_measurement_uncertainty=round(said.value - sure.low, 6),
        )
        evaluations += [
            hd.sr.QualitativeEvaluation(name=LIKE_TRAINING, value=NO if sure.unfamiliar else YES),
            hd.sr.QualitativeEvaluation(
                name=MAY_BE, value=prediction_set(said.outcome, list(sure.may_be))
            ),
        ]
    measured = hd.sr.Measurement(
        name=probability_of(said.outcome),
        value=said.value,
        unit=codes.UCUM.NoUnits,
        method=None if sure is None else INTERVAL,
        properties=properties,
    )
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=uid_of("probability", segmentation, repr(said)),
            identifier=f"{said.outcome} by {said.algorithm.name} {said.algorithm.version}",
        ),
        algorithm_id=_identified(said.algorithm),
        measurements=[measured],
        qualitative_evaluations=evaluations,
    )


def _segment_group(
    source: SourceSeries, segmentation: hd.seg.Segmentation, number: int, ml: float
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    described = segmentation.get_segment_description(number)
    algorithm = described.algorithm_identification
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=described.tracking_uid, identifier=described.tracking_id
        ),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=str(segmentation.SOPClassUID),
            sop_instance_uid=str(segmentation.SOPInstanceUID),
            segment_number=number,
            source_series=hd.sr.SourceSeriesForSegmentation(source.uid),
        ),
        finding_type=described.segmented_property_type,
        algorithm_id=_identified(Algorithm(algorithm.name, algorithm.version)),
        measurements=[hd.sr.Measurement(name=codes.SCT.Volume, value=ml, unit=MILLILITRE)],
        qualitative_evaluations=[_research_only()],
    )
