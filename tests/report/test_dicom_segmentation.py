"""DICOM out, read back: by highdicom as viewers do, by our importer for where it lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from neonet3d.cohort.importers.classes import ClassMap
from neonet3d.cohort.importers.dicom_masks import MaskFile, read_mask
from neonet3d.cohort.importers.dicom_pixels import read_stack
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError
from neonet3d.report.dicom_report import ReportedProbability, Sureness, write_structured_report
from neonet3d.report.dicom_segmentation import Algorithm, write_segmentation
from neonet3d.report.dicom_series import SourceSeries
from neonet3d.report.dicom_terms import term_of
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "portal_vein", "hepatic_vein", "tumour"))
NEOSEG = Algorithm("NeoSeg", "0123456789abcdef")
ANGLE = np.deg2rad(20)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (np.cos(ANGLE), np.sin(ANGLE), 0.0, -np.sin(ANGLE), np.cos(ANGLE), 0.0)
SERIES = {
    "axial": {},
    "reversed": {"step": (0.0, 0.0, -3.0)},
    "coronal": {"orientation": CORONAL},
    "oblique": {"orientation": OBLIQUE},
}


def drawn(image: Volume) -> Volume:
    """Boxes of different sizes, none in the middle."""
    mask = np.zeros(image.shape, dtype=np.uint8)
    x, y, z = image.shape
    mask[1 : x - 1, 1 : y - 2, 1 : z - 1] = 1
    mask[2:4, 2:4, 1:3] = 2
    mask[x - 3 : x - 1, 2:4, z - 3 : z - 1] = 4
    return image.with_data(mask)


def centroid_mm(mask: Volume, value: int) -> np.ndarray:
    return mask.affine[:3, :3] @ np.argwhere(mask.data == value).mean(0) + mask.affine[:3, 3]


@dataclass(frozen=True)
class Written:
    """A series, a mask of it, and the SEG that was made of both."""

    source: SourceSeries
    mask: Volume
    segments: Segments
    path: Path


@pytest.fixture(params=SERIES)
def written(
    request: pytest.FixtureRequest, make_series: Callable[..., Any], tmp_path: Path
) -> Written:
    series = make_series(n=8, size=(9, 10), **SERIES[request.param])
    source = SourceSeries.open(series.folder)
    mask = drawn(read_stack(source.stack, name="scan"))
    frames = source.in_slices(mask, SCHEMA, name="scan")
    segments = write_segmentation(source, frames, SCHEMA, NEOSEG)
    path = tmp_path / "seg.dcm"
    segments.dataset.save_as(path)
    return Written(source, mask, segments, path)


def test_segments_lie_where_the_nifti_has_them(
    written: Written,
) -> None:
    source, mask, path = written.source, written.mask, written.path
    image = read_stack(source.stack, name="scan")
    names = ("liver", "portal_vein", "tumour")
    classes = ClassMap.parse(",".join(f"{name}={name}" for name in names))
    found = read_mask(MaskFile(path, is_seg=True), image, classes, name="scan")
    voxel = np.array(mask.spacing_mm)
    for index, name in enumerate(names, start=1):
        value = SCHEMA.value(name)
        volumes = [int((m.data == v).sum()) for m, v in ((found, index), (mask, value))]
        assert volumes[0] == volumes[1] > 0
        apart = np.abs(centroid_mm(found, index) - centroid_mm(mask, value))
        assert (apart < voxel.min() / 2).all()


def test_segments_are_coded_tracked_and_attributed(
    written: Written,
) -> None:
    source, seg = written.source, hd.seg.segread(written.path)
    assert list(seg.segment_numbers) == [1, 2, 3]  # hepatic veins do not occur in the mask
    described = [seg.get_segment_description(number) for number in (1, 2, 3)]
    assert [d.segment_label for d in described] == ["liver", "portal_vein", "tumour"]
    assert [d.segmented_property_type.value for d in described] == [
        "10200004",
        "32764006",
        "108369006",
    ]
    assert len({str(d.tracking_uid) for d in described}) == 3
    for d in described:
        assert d.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
        assert (d.algorithm_identification.name, d.algorithm_identification.version) == (
            NEOSEG.name,
            NEOSEG.version,
        )
    assert seg.SegmentationType == "BINARY"
    assert "research use only" in seg.SeriesDescription
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == source.uid
    header = source.headers[0]
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert getattr(seg, keyword) == getattr(header, keyword)
    assert seg.SeriesInstanceUID != source.uid


def test_the_same_mask_has_the_same_uids_and_another_has_others(
    make_series: Callable[..., Any],
) -> None:
    source = SourceSeries.open(make_series(n=8, size=(9, 10)).folder)
    mask = drawn(read_stack(source.stack, name="scan"))
    frames = source.in_slices(mask, SCHEMA, name="scan")
    one, two = (write_segmentation(source, frames, SCHEMA, NEOSEG).dataset for _ in range(2))
    other = write_segmentation(source, np.where(frames == 4, 1, frames), SCHEMA, NEOSEG).dataset
    newer = write_segmentation(source, frames, SCHEMA, Algorithm("NeoSeg", "ffff")).dataset
    assert one.SOPInstanceUID == two.SOPInstanceUID
    assert len({one.SOPInstanceUID, other.SOPInstanceUID, newer.SOPInstanceUID}) == 3
    assert one.SOPInstanceUID.is_valid


def test_a_mask_on_another_grid_is_drawn_on_the_series(make_series: Callable[..., Any]) -> None:
    source = SourceSeries.open(make_series(n=8, size=(12, 12), spacing=(1.0, 1.0)).folder)
    mask = drawn(read_stack(source.stack, name="scan"))
    finer = Volume(
        np.repeat(mask.data, 2, axis=0),
        mask.affine @ np.array([[0.5, 0, 0, -0.25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    )
    same, other = (source.in_slices(m, SCHEMA, name="s") for m in (mask, finer))
    assert np.array_equal(same, other)


def test_an_empty_mask_is_refused(make_series: Callable[..., Any]) -> None:
    source = SourceSeries.open(make_series(n=8, size=(9, 10)).folder)
    with pytest.raises(InputError, match="The mask is empty"):
        write_segmentation(source, np.zeros((8, 9, 10), np.uint8), SCHEMA, NEOSEG)


def test_two_patients_are_refused(make_series: Callable[..., Any]) -> None:
    make_series(patient="P-1")
    folder = make_series(patient="P-2").folder
    with pytest.raises(InputError, match="scans of 2 patients"):
        SourceSeries.open(folder)


def test_the_report_says_the_probability_and_the_volumes(written: Written, tmp_path: Path) -> None:
    source, mask, seg = written.source, written.mask, written.segments.dataset
    sure = Sureness(0.41, 0.8, (0, 1), unfamiliar=True)
    said = ReportedProbability("pni", 0.62, sure, Algorithm("PattenNet", "feed"))
    path = tmp_path / "report.dcm"
    write_structured_report(source, written.segments, said).save_as(path)
    report = hd.sr.srread(path)
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert "research use only" in report.SeriesDescription
    assert report.PatientID == source.headers[0].PatientID
    content = report.content
    (group,) = content.get_image_measurement_groups()
    (probability,) = group.get_measurements()
    assert probability.value == 0.62
    assert group.tracking_uid is not None
    assert probability.name.meaning == "Probability of pni"
    assert probability.method.meaning.startswith("95 % interval")
    kinds = {e.name.meaning: e.value.meaning for e in group.get_qualitative_evaluations()}
    assert kinds["Prediction set of 90 % coverage"] == "pni = 0 or pni = 1"
    assert kinds["Like the training cases"].startswith("No")
    assert kinds["Intended use"].startswith("Research use only")
    groups = content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 3
    voxel_ml = np.prod(mask.spacing_mm) / 1000
    for value, of in zip((1, 2, 4), groups, strict=True):
        (volume,) = of.get_measurements()
        expected = int((mask.data == value).sum()) * voxel_ml
        assert volume.value == pytest.approx(expected, rel=1e-6)
    tracked = {str(seg.get_segment_description(n).tracking_uid) for n in (1, 2, 3)}
    assert {str(of.tracking_uid) for of in groups} == tracked
    referenced = {
        item.ReferencedSOPInstanceUID
        for study in dcmread(path).CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert seg.SOPInstanceUID in referenced


def test_a_report_without_a_probability_has_the_volumes_alone(
    written: Written,
) -> None:
    report = write_structured_report(written.source, written.segments, None)
    content = hd.sr.Comprehensive3DSR.from_dataset(report).content
    assert len(content.get_image_measurement_groups()) == 0
    assert len(content.get_volumetric_roi_measurement_groups()) == 3


def one_class(source: SourceSeries) -> np.ndarray:
    frames = np.zeros((8, 9, 10), np.uint8)
    frames[2:5, 3:6, 2:8] = 1
    return frames


def test_a_mask_of_one_class(make_series: Callable[..., Any]) -> None:
    source = SourceSeries.open(make_series(n=8, size=(9, 10)).folder)
    segments = write_segmentation(source, one_class(source), SCHEMA, NEOSEG)
    report = hd.sr.Comprehensive3DSR.from_dataset(write_structured_report(source, segments, None))
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    (volume,) = group.get_measurements()
    assert volume.value == pytest.approx(54 * 0.9 * 0.8 * 3.0 / 1000)
    (referenced,) = segments.dataset.segment_numbers
    assert group.referenced_segment.referenced_segment_numbers == [referenced]


@pytest.mark.parametrize(
    "headers",
    [
        {"SpacingBetweenSlices": 0.6},
        {"SpacingBetweenSlices": 0},
        {"PatientName": "Doe Jane with no caret"},
        {"PatientSex": ""},
    ],
)
def test_headers_that_lie_or_are_odd_do_not_matter(
    headers: dict[str, Any], make_series: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """The gap in the place of the step, and a name that a library would quote."""
    source = SourceSeries.open(make_series(n=8, size=(9, 10), **headers).folder)
    segments = write_segmentation(source, one_class(source), SCHEMA, NEOSEG)
    write_structured_report(source, segments, None)
    assert segments.volumes_ml[1] == pytest.approx(54 * 0.9 * 0.8 * 3.0 / 1000)
    step = segments.dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(step.SpacingBetweenSlices) == pytest.approx(3.0)
    assert "Jane" not in "".join(capfd.readouterr())


def test_tags_that_deidentified_series_lack_are_left_empty(make_series: Callable[..., Any]) -> None:
    series = make_series(n=8, size=(9, 10))
    for path, dataset in zip(series.files, series.datasets, strict=True):
        for keyword in ("PatientName", "PatientBirthDate", "StudyID", "StudyTime", "StudyDate"):
            delattr(dataset, keyword)
        dataset.save_as(path, enforce_file_format=True)
    source = SourceSeries.open(series.folder)
    segments = write_segmentation(source, one_class(source), SCHEMA, NEOSEG)
    assert not segments.dataset.PatientName
    write_structured_report(source, segments, None)


@pytest.mark.parametrize(
    ("keyword", "sentence"),
    [
        ("FrameOfReferenceUID", "has no FrameOfReferenceUID"),
        ("StudyInstanceUID", "has no StudyInstanceUID"),
    ],
)
def test_a_series_that_nothing_can_refer_to_is_refused(
    keyword: str, sentence: str, make_series: Callable[..., Any]
) -> None:
    series = make_series(n=8, size=(9, 10))
    for path, dataset in zip(series.files, series.datasets, strict=True):
        delattr(dataset, keyword)
        dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(InputError, match=sentence):
        SourceSeries.open(series.folder)


def test_another_modality_is_refused(make_series: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="series of modality PT"):
        SourceSeries.open(make_series(n=8, size=(9, 10), Modality="PT").folder)


def test_a_value_that_dicom_does_not_allow_is_a_sentence(make_series: Callable[..., Any]) -> None:
    source = SourceSeries.open(make_series(n=8, size=(9, 10), PatientSex="X").folder)
    with pytest.raises(InputError, match="No DICOM SEG can be made of this series"):
        write_segmentation(source, one_class(source), SCHEMA, NEOSEG)


def test_a_mask_that_lies_half_outside_is_refused(make_series: Callable[..., Any]) -> None:
    source = SourceSeries.open(make_series(n=8, size=(9, 10)).folder)
    mask = drawn(read_stack(source.stack, name="scan"))
    affine = mask.affine.copy()
    affine[0, 3] += 4.0
    with pytest.raises(InputError, match="ml of liver are in the mask and"):
        source.in_slices(Volume(mask.data, affine), SCHEMA, name="scan")


def test_names_that_are_alike_have_different_codes() -> None:
    terms = [term_of(f"liver_segment_{i}") for i in range(1, 9)]
    assert len({term.kind.value for term in terms}) == 8
    assert all(len(term.kind.value) <= 16 for term in terms)
    with pytest.raises(InputError, match="is no meaning of a DICOM code"):
        term_of("x" * 70)
