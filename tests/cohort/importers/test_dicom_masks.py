"""Masks beside DICOM scans are laid on them by world coordinates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from neonet3d.cohort.importers.classes import ClassMap
from neonet3d.cohort.importers.dicom import import_dicom
from neonet3d.errors import InputError

SIZE = (20, 24)
OBLIQUE = (0.96, 0.28, 0.0, -0.28 * 0.8, 0.96 * 0.8, 0.6)
LABELS = ("Liver", "Portal vein", "Tumour")


def anatomy(n: int = 8) -> np.ndarray:
    """Label map (slice, row, column) of a liver with a vein, and a tumour at one end."""
    label_map = np.zeros((n, *SIZE), dtype=np.uint8)
    label_map[1 : n - 1, 3:15, 4:20] = 1
    label_map[1 : n - 1, 8, 4:20] = 2
    label_map[1:3, 4:7, 5:9] = 3
    return label_map


def scan(make_series: Callable[..., Any], **options: Any) -> Any:
    """A scan whose grey values are the anatomy's, so that a misplaced mask shows."""
    written = make_series(n=8, size=SIZE, **options)
    values = anatomy().astype(int) * 100 + 50
    for k in range(8):
        written.rewrite(k, PixelData=values[k].astype("<u2").tobytes())
    return written


def save_seg(
    written: Any,
    folder: Path,
    *,
    kind: str = "BINARY",
    segments: int = 3,
    overlap: bool = False,
    name: str = "seg",
) -> Path:
    label_map = anatomy()
    pixels = np.stack([label_map == v for v in range(1, segments + 1)], axis=-1).astype(np.uint8)
    if overlap:
        pixels[..., 0] = label_map > 0
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=LABELS[number - 1],
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number in range(1, segments + 1)
    ]
    seg = hd.seg.Segmentation(
        source_images=written.datasets,
        pixel_array=label_map if kind == "LABELMAP" else pixels,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=99,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    )
    folder.mkdir(exist_ok=True)
    seg.save_as(folder / name)
    return folder / name


def save_nifti(written: Any, path: Path, values: np.ndarray) -> None:
    """A mask on the scan's slices, written the way that converters write it: RAS, (c, r, k)."""
    first = written.datasets[0]
    orientation = np.array(first.ImageOrientationPatient, dtype=float)
    position = [np.array(d.ImagePositionPatient, dtype=float) for d in written.datasets]
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * float(first.PixelSpacing[1])
    affine[:3, 1] = orientation[3:] * float(first.PixelSpacing[0])
    affine[:3, 2] = (position[-1] - position[0]) / (len(position) - 1)
    affine[:3, 3] = position[0]
    affine = np.diag([-1, -1, 1, 1]) @ affine
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(values.transpose(2, 1, 0), affine), path)


def require_laid_right(cohort: Any, expected: dict[int, int]) -> None:
    """The grey value under each class is that of its anatomy."""
    image, mask = cohort["case_0001"].read_with_mask()
    assert set(np.unique(mask.data)) == {0, *expected}
    for value, source in expected.items():
        found = image.data == source * 100 + 50
        np.testing.assert_array_equal(mask.data == value, found)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_seg_lies_on_its_scan(
    make_series: Callable[..., Any], tmp_path: Path, kind: str, reverse: bool
) -> None:
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    written = scan(make_series, orientation=OBLIQUE, step=normal * (-3 if reverse else 3))
    save_seg(written, tmp_path / "masks", kind=kind)
    classes = ClassMap.parse("tumour=3,vein=Portal vein")
    cohort = import_dicom(
        written.folder, tmp_path / "out", masks=tmp_path / "masks", class_map=classes
    )
    assert cohort.schema.names == ("background", "tumour", "vein")
    require_laid_right(cohort, {1: 3, 2: 2})


def test_where_segments_overlap_the_later_class_is_drawn_over(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    written = scan(make_series)
    path = save_seg(written, tmp_path / "masks", overlap=True)
    classes = ClassMap.parse("liver=Liver,vein=2,tumour=Tumour")
    cohort = import_dicom(written.folder, tmp_path / "out", masks=path, class_map=classes)
    require_laid_right(cohort, {1: 1, 2: 2, 3: 3})
    tumour_first = ClassMap.parse("tumour=Tumour,liver=Liver")
    with pytest.raises(InputError, match="none has a voxel of 'tumour'"):
        import_dicom(written.folder, tmp_path / "b", masks=path, class_map=tumour_first)


def test_segments_are_listed_and_never_guessed(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    written = scan(make_series)
    path = save_seg(written, written.folder)  # among the scan's slices
    label_map = anatomy()
    counts = [int((label_map == value).sum()) for value in (1, 2, 3)]
    listed = rf"1 'Liver' \({counts[0]} voxels\), 2 'Portal vein' \({counts[1]} voxels\)"
    with pytest.raises(InputError, match=listed):
        import_dicom(written.folder, tmp_path / "out", masks=written.folder)
    with pytest.raises(InputError, match=r"case_0001: .* has none of .* \{1: 'Liver'"):
        import_dicom(
            written.folder, tmp_path / "out", masks=path, class_map=ClassMap.parse("liver=liver")
        )
    with pytest.raises(InputError, match=r"there are none\. Add '--masks'"):
        import_dicom(written.folder, tmp_path / "out", class_map=ClassMap.parse("liver=1"))
    assert not (tmp_path / "out").exists()
    assert import_dicom(written.folder, tmp_path / "out")["case_0001"].mask_path is None


def test_masks_go_to_the_scan_they_were_drawn_on(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    """One patient's mask references the series, another's only shares the frame of reference."""
    first = scan(make_series, patient="P-1")
    second = scan(make_series, patient="P-2")
    sibling = make_series(
        "sibling",
        patient="P-2",
        n=8,
        size=SIZE,
        FrameOfReferenceUID=second.datasets[0].FrameOfReferenceUID,
        StudyInstanceUID=second.datasets[0].StudyInstanceUID,
    )
    make_series(patient="P-3")
    save_seg(first, tmp_path / "masks", name="a")
    save_seg(sibling, tmp_path / "masks", name="b")
    classes = ClassMap.parse("liver=1")
    cohort = import_dicom(
        first.folder, tmp_path / "out", masks=tmp_path / "masks", class_map=classes, keep_ids=True
    )
    with_mask = {case.participant: case.mask_path is not None for case in cohort}
    assert with_mask == {"P-1": True, "P-2": True, "P-3": False}
    for case in cohort:
        if case.mask_path is not None:
            image, mask = case.read_with_mask()
            np.testing.assert_array_equal(mask.data == 1, image.data == 150)
    save_seg(first, tmp_path / "masks", name="c")
    with pytest.raises(InputError, match=r"case_000\d: two masks, .*masks/a and .*masks/c"):
        import_dicom(first.folder, tmp_path / "b", masks=tmp_path / "masks", class_map=classes)


def test_a_seg_of_nobody_is_refused(make_series: Callable[..., Any], tmp_path: Path) -> None:
    written = scan(make_series)
    other = scan(make_series, folder="other", patient="P-2")
    path = save_seg(other, tmp_path / "masks")
    classes = ClassMap.parse("liver=1")
    with pytest.raises(InputError, match="None of the 1 DICOM SEG"):
        import_dicom(written.folder, tmp_path / "out", masks=path, class_map=classes)


def test_a_fractional_or_damaged_seg_is_refused(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    written = scan(make_series)
    path = save_seg(written, tmp_path / "masks", kind="FRACTIONAL")
    classes = ClassMap.parse("liver=1")
    with pytest.raises(InputError, match=r"case_0001: .* is a FRACTIONAL segmentation"):
        import_dicom(written.folder, tmp_path / "out", masks=path, class_map=classes)
    path = save_seg(written, tmp_path / "masks")
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(InputError, match=r"case_0001: "):
        import_dicom(written.folder, tmp_path / "out", masks=path, class_map=classes)


@pytest.mark.parametrize("flip", [False, True])
def test_a_nifti_lies_on_its_scan_by_its_affine(
    make_series: Callable[..., Any], tmp_path: Path, flip: bool
) -> None:
    """Converters write the slices in either order; the affine says which."""
    written = scan(make_series, orientation=OBLIQUE)
    save_nifti(written, tmp_path / "m.nii.gz", anatomy() * 7)
    if flip:
        image = nib.load(tmp_path / "m.nii.gz").as_reoriented(np.array([[2, 1], [0, -1], [1, -1]]))
        nib.save(image, tmp_path / "m.nii.gz")
    cohort = import_dicom(
        written.folder,
        tmp_path / "out",
        masks=tmp_path / "m.nii.gz",
        class_map=ClassMap.parse("liver=7,vein=14,tumour=21"),
    )
    require_laid_right(cohort, {1: 1, 2: 2, 3: 3})


def test_a_nifti_on_another_grid_is_drawn_on_the_scans(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    """Half the slices' distance, a wider field of view: the liver has the same place."""
    written = scan(make_series)
    save_nifti(written, tmp_path / "m.nii", anatomy())
    original = nib.load(tmp_path / "m.nii")
    fine = np.pad(np.repeat(np.asarray(original.dataobj), 2, axis=2), 4)
    affine = original.affine.copy()
    affine[:3, 2] /= 2
    affine[:3, 3] -= affine[:3, 2] / 2 + affine[:3, :3] @ [4, 4, 4]
    nib.save(nib.Nifti1Image(fine, affine), tmp_path / "m.nii")
    cohort = import_dicom(
        written.folder,
        tmp_path / "out",
        masks=tmp_path / "m.nii",
        class_map=ClassMap.parse("liver=1,vein=2,tumour=3"),
    )
    require_laid_right(cohort, {1: 1, 2: 2, 3: 3})


def test_niftis_are_told_apart_by_patient_id(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    first = scan(make_series, patient="P-1")
    scan(make_series, patient="P-2")
    masks, classes = tmp_path / "masks", ClassMap.parse("tumour=3")
    save_nifti(first, masks / "P-2.nii.gz", anatomy())
    cohort = import_dicom(first.folder, tmp_path / "out", masks=masks, class_map=classes)
    assert sorted(case.mask_path is None for case in cohort) == [False, True]
    save_nifti(first, masks / "P-7.nii.gz", anatomy())
    with pytest.raises(InputError, match=r"P-7\.nii\.gz has the name of no scan"):
        import_dicom(first.folder, tmp_path / "b", masks=masks, class_map=classes)
    save_seg(first, masks)
    with pytest.raises(InputError, match="Keep the masks in one of the two forms"):
        import_dicom(first.folder, tmp_path / "b", masks=masks, class_map=classes)


def test_masks_that_do_not_fit_are_refused(make_series: Callable[..., Any], tmp_path: Path) -> None:
    written, classes = scan(make_series), ClassMap.parse("liver=1")
    save_nifti(written, tmp_path / "m.nii", anatomy())
    image = nib.load(tmp_path / "m.nii")
    far = image.affine.copy()
    far[:3, 3] += 500
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), far), tmp_path / "far.nii")
    with pytest.raises(InputError, match=r"case_0001: the mask lies outside the scan"):
        import_dicom(
            written.folder, tmp_path / "out", masks=tmp_path / "far.nii", class_map=classes
        )
    with pytest.raises(InputError, match=r"hold values without names: 1 \("):
        import_dicom(written.folder, tmp_path / "out", masks=tmp_path / "m.nii")
    for name in ("absent", "empty"):
        if name == "empty":
            (tmp_path / name).mkdir()
        with pytest.raises(InputError, match="Check '--masks'"):
            import_dicom(written.folder, tmp_path / "out", masks=tmp_path / name, class_map=classes)
    assert not (tmp_path / "out").exists()


def test_two_segs_of_one_series_go_to_their_own_scans(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    """Some archives put all segmentations of a patient into one series."""
    written = scan(make_series)
    other = scan(make_series, description="T1 PV", StudyInstanceUID=generate_uid())
    series = generate_uid()
    for source, name in ((written, "a"), (other, "b")):
        path = save_seg(source, tmp_path / "masks", name=name)
        seg = hd.seg.segread(path)
        seg.SeriesInstanceUID, seg.StudyInstanceUID = series, "1.2.3"
        seg.save_as(path)
    classes = ClassMap.parse("liver=1")
    cohort = import_dicom(
        written.folder,
        tmp_path / "out",
        series="PV",
        masks=tmp_path / "masks",
        class_map=classes,
    )
    image, mask = cohort["case_0001"].read_with_mask()
    np.testing.assert_array_equal(mask.data == 1, image.data == 150)


@pytest.mark.parametrize("slices", [(3,), (1, 6)])
def test_a_seg_that_leaves_out_empty_slices_keeps_its_place(
    make_series: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    slices: tuple[int, ...],
) -> None:
    """Most programmes write the slices with something on them alone."""
    written = scan(make_series)
    whole = anatomy()
    part = np.where(np.isin(np.arange(8), slices)[:, None, None], whole, 0).astype(np.uint8)
    monkeypatch.setitem(globals(), "anatomy", lambda: part)
    path = save_seg(written, tmp_path / "masks", segments=2)
    classes = ClassMap.parse("liver=1")
    cohort = import_dicom(written.folder, tmp_path / "out", masks=path, class_map=classes)
    image, mask = cohort["case_0001"].read_with_mask()
    assert np.flatnonzero(mask.data.any(axis=(0, 1))).tolist() == list(slices)
    expected = (image.data == 150) & np.isin(np.arange(8), slices)
    np.testing.assert_array_equal(mask.data == 1, expected)
