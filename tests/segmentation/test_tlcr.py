from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from neonet3d.cohort.cohort import Case, Cohort, CohortWriter
from neonet3d.cohort.folds import stratified_folds
from neonet3d.cohort.layout import read_participants
from neonet3d.cohort.volume import Volume, read_label_map, read_volume
from neonet3d.config import RoiConfig
from neonet3d.errors import InputError
from neonet3d.segmentation.crop_record import read_record
from neonet3d.segmentation.tlcr import crop_cohort, crop_to_lesions, crop_to_tumour
from neonet3d.types import ImageArray, LabelSchema, Triple

SCHEMA = LabelSchema(("background", "liver", "tumour"))
ROI = RoiConfig(
    around="tumour",
    shape=(24, 24, 12),
    spacing_mm=(2.0, 2.0, 4.0),
    margin_mm=10,
    minimum_volume_mm3=100,
)  # 48 x 48 x 48 mm
SHAPE, SPACING_MM = (100, 90, 60), (1.0, 1.2, 2.0)  # 100 x 108 x 120 mm
MIDDLE_MM = (50.0, 54.0, 60.0)


def oblique() -> np.ndarray:
    affine = np.eye(4)
    c, s = np.cos(0.3), np.sin(0.3)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * SPACING_MM
    affine[:3, 3] = (-30.0, 12.0, 5.0)
    return affine


def positions_mm() -> np.ndarray:
    axes = [(np.arange(n) + 0.5) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def patient(*tumours: tuple[Triple, float], liver_mm: float = 45) -> tuple[Volume, Volume]:
    """A liver in the middle and tumours given by centre and radius, in mm from the corner."""
    position = positions_mm()
    mask = np.zeros(SHAPE, np.uint8)
    mask[np.linalg.norm(position - MIDDLE_MM, axis=-1) <= liver_mm] = 1
    for centre_mm, radius_mm in tumours:
        mask[np.linalg.norm(position - centre_mm, axis=-1) <= radius_mm] = 2
    image = np.random.default_rng(0).normal(50, 3, SHAPE) + 50 * mask
    return Volume(image.astype(np.float32), oblique()), Volume(mask, oblique())


def ball_mm3(radius_mm: float) -> float:
    return 4 / 3 * np.pi * radius_mm**3


def middle_of(crop_affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return (crop_affine @ [*((np.array(shape) - 1) / 2), 1])[:3]


def world(scan: Volume, position_mm: Triple) -> np.ndarray:
    index = np.array(position_mm) / SPACING_MM - 0.5
    return (scan.affine @ [*index, 1])[:3]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_one_lesion_stands_in_the_middle() -> None:
    centre_mm = (45.0, 60.0, 65.0)
    image, mask = patient((centre_mm, 8.0))
    crop = crop_to_tumour(image, mask, SCHEMA, ROI)
    assert (crop.image.shape, crop.label_map.shape) == (ROI.shape, ROI.shape)
    assert crop.image.spacing_mm == pytest.approx(ROI.spacing_mm)
    assert crop.image.data.dtype == np.float32
    assert (
        crop.record.scale,
        crop.record.fallback,
        crop.record.n_lesions,
        crop.record.touches_border,
    ) == (1, None, 1, False)
    assert crop.record.lesion_volume_mm3 == pytest.approx(ball_mm3(8), rel=0.03)
    middle = middle_of(crop.image.affine, ROI.shape)
    assert np.linalg.norm(middle - world(image, centre_mm)) < 1.5
    tumour = (crop.label_map.data == 2).sum() * crop.label_map.voxel_volume_mm3
    assert tumour == pytest.approx(ball_mm3(8), rel=0.13)  # 134 voxels of the ROI
    # Brightness stays with the label: 50 outside, 100 in the liver, 150 in the tumour's inside.
    inside = ndimage.binary_erosion(crop.label_map.data == 2)
    assert np.median(crop.image.data[inside]) == pytest.approx(150, abs=5)
    assert np.median(crop.image.data[crop.label_map.data == 1]) == pytest.approx(100, abs=5)


def test_the_largest_of_several_is_the_index_lesion() -> None:
    image, mask = patient(((30.0, 54.0, 60.0), 6.0), ((70.0, 54.0, 60.0), 9.0))
    crop = crop_to_tumour(image, mask, SCHEMA, ROI)
    assert crop.record.n_lesions == 2
    assert crop.record.lesion_volume_mm3 == pytest.approx(ball_mm3(9), rel=0.03)
    assert (
        np.linalg.norm(middle_of(crop.image.affine, ROI.shape) - world(image, (70, 54, 60))) < 1.5
    )


def test_the_segmenters_doubt_weighs() -> None:
    """729 / 216 = 3.4 times the volume at a tenth of the probability."""
    image, mask = patient(((30.0, 54.0, 60.0), 6.0), ((70.0, 54.0, 60.0), 9.0))
    probability = np.where(positions_mm()[..., 0] > 50, 0.1, 1.0).astype(np.float32)
    crop = crop_to_tumour(image, mask, SCHEMA, ROI, tumour_probability=probability)
    assert crop.record.lesion_volume_mm3 == pytest.approx(ball_mm3(6), rel=0.05)


def test_specks_are_dropped_and_gaps_closed() -> None:
    image, mask = patient(((45.0, 54.0, 60.0), 8.0), ((75.0, 54.0, 60.0), 2.0))
    halves = mask.data.copy()
    halves[45][halves[45] == 2] = 1  # one voxel parts the lesion
    crop = crop_to_tumour(image, mask.with_data(halves), SCHEMA, ROI)
    assert crop.record.n_lesions == 1
    # But for the rim of the gap, which has no tumour on one of its sides.
    assert crop.record.lesion_volume_mm3 == pytest.approx(ball_mm3(8), rel=0.06)


def test_the_last_lesion_is_never_dropped() -> None:
    image, mask = patient(((30.0, 54.0, 60.0), 2.0), ((70.0, 54.0, 60.0), 2.6))
    crop = crop_to_tumour(image, mask, SCHEMA, ROI)
    assert (crop.record.n_lesions, crop.record.fallback) == (1, None)
    assert crop.record.lesion_volume_mm3 < ROI.minimum_volume_mm3
    assert (
        np.linalg.norm(middle_of(crop.image.affine, ROI.shape) - world(image, (70, 54, 60))) < 1.5
    )


def test_a_large_lesion_widens_the_window() -> None:
    image, mask = patient(((50.0, 54.0, 60.0), 25.0))
    crop = crop_to_tumour(image, mask, SCHEMA, ROI)
    assert crop.record.scale == pytest.approx((50 + 2 * 10) / 48, rel=0.03)
    assert crop.image.shape == ROI.shape
    expected = np.array(ROI.spacing_mm) * crop.record.scale
    assert crop.image.spacing_mm == pytest.approx(tuple(expected))
    assert crop.record.window.grid.spacing_mm == pytest.approx(tuple(expected))
    tumour = (crop.label_map.data == 2).sum() * crop.label_map.voxel_volume_mm3
    assert tumour == pytest.approx(ball_mm3(25), rel=0.05)


def test_at_the_border_the_window_moves_and_is_not_cut() -> None:
    image, mask = patient(((3.0, 54.0, 115.0), 8.0))
    crop = crop_to_tumour(image, mask, SCHEMA, ROI)
    assert crop.record.touches_border
    assert crop.record.scale == 1
    assert crop.image.data.min() > 30  # nothing is padded
    # The window's faces lie on the scan's: the first in x, the last in z.
    corner = np.linalg.solve(crop.image.affine, [*world(image, (0.0, 54.0, 120.0)), 1])
    assert corner[0] == pytest.approx(-0.5, abs=1e-6)
    assert corner[2] == pytest.approx(ROI.shape[2] - 0.5, abs=1e-6)
    assert (crop.label_map.data == 2).any()


def test_closing_does_not_eat_a_lesion_at_the_border() -> None:
    image, mask = patient()
    flat = mask.data.copy()
    flat[0, 40:60, 20:40] = 2  # one voxel thick, on the first slice
    crop = crop_to_tumour(image, mask.with_data(flat), SCHEMA, ROI)
    assert crop.record.lesion_volume_mm3 == pytest.approx(400 * mask.voxel_volume_mm3)
    assert crop.record.touches_border


def test_a_scan_smaller_than_the_window_is_padded() -> None:
    image, mask = patient(((45.0, 54.0, 60.0), 8.0))
    inside = (slice(35, 60), slice(30, 60), slice(22, 38))  # 25 x 36 x 32 mm
    small, small_mask = (
        Volume(np.ascontiguousarray(v.data[inside]), v.affine) for v in (image, mask)
    )
    crop = crop_to_tumour(small, small_mask, SCHEMA, ROI)
    padded = crop.image.data == 0
    assert padded.any()
    assert not crop.label_map.data[padded].any()
    # There is room to have the lesion in the middle.
    middle = middle_of(crop.image.affine, ROI.shape)
    assert np.linalg.norm(middle - world(small, (10.0, 18.0, 16.0))) < 1.5
    # The whole scan is in the window: no voxel was moved out.
    held = np.count_nonzero(~padded) * crop.image.voxel_volume_mm3
    assert held == pytest.approx(25 * 36 * 32, rel=0.15)
    back = crop.place_back(crop.label_map.data)
    assert dice(back.data == 2, small_mask.data == 2) > 0.88


def test_without_a_tumour_the_liver_is_taken_and_said_to_be() -> None:
    image, mask = patient()
    crop = crop_to_tumour(image, mask, SCHEMA, ROI)
    assert (crop.record.fallback, crop.record.n_lesions, crop.record.lesion_volume_mm3) == (
        "liver",
        0,
        0.0,
    )
    assert np.linalg.norm(middle_of(crop.image.affine, ROI.shape) - world(image, MIDDLE_MM)) < 1.5
    schema = LabelSchema(("background", "liver"))
    assert crop_to_tumour(image, mask, schema, ROI).record.fallback == "liver"


def test_with_neither_there_is_nowhere_to_crop() -> None:
    image, mask = patient()
    empty = mask.with_data(np.zeros_like(mask.data))
    with pytest.raises(InputError, match="neither tumour nor liver"):
        crop_to_tumour(image, empty, SCHEMA, ROI)
    with pytest.raises(InputError, match="neither tumour nor liver"):
        crop_to_tumour(image, mask, LabelSchema(("background", "spleen")), ROI)


def test_a_segmenter_that_found_nothing_leaves_the_scans_middle() -> None:
    image, mask = patient()
    empty = mask.with_data(np.zeros_like(mask.data))
    (crop,) = crop_to_lesions(image, empty, SCHEMA, ROI, allow_empty=True)
    assert (crop.record.fallback, crop.record.lesion) == ("scan", 0)
    assert np.linalg.norm(middle_of(crop.image.affine, ROI.shape) - world(image, MIDDLE_MM)) < 1.5


def test_another_grid_is_refused() -> None:
    image, mask = patient(((45.0, 54.0, 60.0), 8.0))
    with pytest.raises(InputError, match="corners lie"):
        crop_to_tumour(image, Volume(mask.data, np.eye(4)), SCHEMA, ROI)


@pytest.mark.parametrize("radius_mm", [8.0, 20.0, 30.0])
def test_a_mask_drawn_in_the_roi_returns_to_the_scan(radius_mm: float) -> None:
    image, mask = patient(((45.0, 60.0, 65.0), radius_mm))
    fine = ROI.model_copy(update={"shape": (48, 48, 32), "spacing_mm": (1.0, 1.0, 1.5)})
    crop = crop_to_tumour(image, mask, SCHEMA, fine)
    back = crop.place_back(crop.label_map.data)
    assert back.shape == image.shape
    assert back.data.dtype == np.uint8
    np.testing.assert_array_equal(back.affine, image.affine)
    assert dice(back.data == 2, mask.data == 2) > 0.95
    assert not crop.place_back(np.zeros_like(crop.label_map.data)).data.any()


def test_a_crop_does_not_depend_on_how_the_file_was_stored(tmp_path: Path) -> None:
    image, mask = patient(((45.0, 60.0, 65.0), 8.0))
    stored = Volume(image.data, image.affine, user_axes=("P", "S", "L"))
    stored.write(tmp_path / "image.nii.gz")
    mask.write(tmp_path / "mask.nii.gz")
    crop = crop_to_tumour(image, mask, SCHEMA, ROI)
    again = crop_to_tumour(
        read_volume(tmp_path / "image.nii.gz"),
        read_label_map(tmp_path / "mask.nii.gz", n_classes=3),
        SCHEMA,
        ROI,
    )
    np.testing.assert_allclose(again.image.data, crop.image.data, atol=1e-2)
    # The affine was rounded to float32, which tips voxels that two classes fill by half.
    assert (again.label_map.data != crop.label_map.data).mean() < 2e-3
    assert again.image.user_axes == ("P", "S", "L")


def cohort_of(root: Path, patients: list[tuple[Volume, Volume | None]]) -> Cohort:
    writer = CohortWriter(root, SCHEMA, outcome_name="pni", channel="MR")
    for index, (image, mask) in enumerate(patients):
        writer.add(
            f"case_{index}",
            image,
            mask,
            outcome=index % 2,
            participant=f"p{index // 2}",
            extra={"split": "test" if index else "train", "age": str(60 + index)},
        )
    return writer.finish()


def test_a_cohort_is_cropped_with_its_table(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "scans", [patient(((45.0, 60.0, 65.0), 8.0)), patient()])
    seen: list[str] = []

    def advance(n: int = 1, note: str = "") -> None:
        seen.append(note)

    cropped = crop_cohort(cohort, tmp_path / "rois", ROI, advance)
    assert seen == ["case_0", "case_1"]
    assert (tmp_path / "rois" / "participants.tsv").read_text() == (
        tmp_path / "scans" / "participants.tsv"
    ).read_text()
    assert (cropped.schema, cropped.channel) == (cohort.schema, "MR")
    image, _ = cropped["case_0"].read_with_mask()
    assert image.shape == ROI.shape
    records = [
        json.loads((cropped.root / "crops" / f"case_{i}.json").read_text()) for i in range(2)
    ]
    assert [record["fallback"] for record in records] == [None, "liver"]
    assert records[0]["n_lesions"] == 1
    description = json.loads((cropped.root / "dataset.json").read_text())
    assert RoiConfig.model_validate(description["neonet3d"]["roi"]) == ROI


TWO = (((30.0, 54.0, 60.0), 6.0), ((70.0, 54.0, 60.0), 9.0))


def test_every_lesion_has_its_window() -> None:
    image, mask = patient(*TWO)
    crops = crop_to_lesions(image, mask, SCHEMA, ROI)
    for crop, (centre_mm, radius_mm) in zip(crops, reversed(TWO), strict=True):
        middle = middle_of(crop.image.affine, ROI.shape)
        assert np.linalg.norm(middle - world(image, centre_mm)) < 1.5
        assert crop.record.lesion_volume_mm3 == pytest.approx(ball_mm3(radius_mm), rel=0.05)
    assert [(crop.record.lesion, crop.record.n_lesions) for crop in crops] == [(1, 2), (2, 2)]


def test_without_a_lesion_there_is_one_crop_of_the_liver() -> None:
    image, mask = patient()
    (crop,) = crop_to_lesions(image, mask, SCHEMA, ROI)
    assert (crop.record.fallback, crop.record.lesion, crop.record.n_lesions) == ("liver", 0, 0)


def test_every_lesion_is_a_case_of_its_patient(tmp_path: Path) -> None:
    """Same participant, outcome, split and further columns."""
    cohort = cohort_of(tmp_path / "scans", [patient(*TWO), patient()])
    cropped = crop_cohort(cohort, tmp_path / "rois", ROI, all_lesions=True)
    table = read_participants(cropped.root, "pni").set_index("case")
    assert list(table.index) == ["case_0-1", "case_0-2", "case_1-1"]
    assert table["participant_id"].tolist() == ["p0", "p0", "p0"]
    assert table["age"].tolist() == ["60", "60", "61"]
    assert [case.outcome for case in cropped] == [0, 0, 1]
    assert [case.split for case in cropped] == ["train", "train", "test"]
    records = [read_record(cropped.root, case.name) for case in cropped]
    assert [(r.case, r.lesion, r.fallback) for r in records if r] == [
        ("case_0", 1, None),
        ("case_0", 2, None),
        ("case_1", 0, "liver"),
    ]


def test_folds_keep_the_lesions_of_a_patient_together(tmp_path: Path) -> None:
    """Also where participants.tsv has one row per patient and no further ids."""
    writer = CohortWriter(tmp_path / "scans", SCHEMA, outcome_name="pni", channel="MR")
    for index in range(6):
        mask = np.ones((20, 16, 10), np.uint8)
        mask[2:6, 4:9, 2:6] = 2
        if index % 2:
            mask[12:15, 4:9, 2:6] = 2
        image = np.random.default_rng(index).normal(100, 9, mask.shape).astype(np.float32)
        writer.add(
            f"case_{index}",
            Volume(image, np.eye(4)),
            Volume(mask, np.eye(4)),
            outcome=index // 2 % 2,
        )
    roi = ROI.model_copy(update={"minimum_volume_mm3": 0})
    cropped = crop_cohort(writer.finish(), tmp_path / "rois", roi, all_lesions=True)
    assert len(cropped) == 9
    for fold in stratified_folds(cropped, 2, seed=0):
        training, held_out = (
            {case.name.rpartition("-")[0] for case in part}
            for part in (fold.training, fold.held_out)
        )
        assert not training & held_out
        assert training | held_out == {f"case_{index}" for index in range(6)}


def test_a_cohort_is_cropped_by_the_segmenters_probability(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "scans", [patient(*TWO), patient(*TWO)])
    doubt = np.where(positions_mm()[..., 0] > 50, 0.1, 1.0).astype(np.float32)

    def probability(case: Case) -> ImageArray | None:
        return doubt if case.name == "case_0" else None

    cropped = crop_cohort(cohort, tmp_path / "rois", ROI, tumour_probability=probability)
    records = [read_record(cropped.root, case.name) for case in cropped]
    volumes = [record.lesion_volume_mm3 for record in records if record]
    assert volumes == [
        pytest.approx(ball_mm3(6), rel=0.05),
        pytest.approx(ball_mm3(9), rel=0.05),
    ]


def test_a_grid_of_the_scans_own_spacing_copies_its_voxels() -> None:
    """No blur, and a mask comes back as it was drawn, wherever the lesion lies."""
    rng = np.random.default_rng(3)
    for start in rng.integers(0, 20, size=(8, 3)):
        image = rng.normal(100, 10, (40, 40, 40)).astype(np.float32)
        mask = np.ones(image.shape, np.uint8)
        x, y, z = start
        mask[x : x + 5, y : y + 6, z : z + 7] = 2
        roi = RoiConfig(
            around="tumour",
            shape=(20, 21, 22),
            spacing_mm=(1, 1, 1),
            margin_mm=5,
            minimum_volume_mm3=0,
        )
        crop = crop_to_tumour(Volume(image, np.eye(4)), Volume(mask, np.eye(4)), SCHEMA, roi)
        i, j, k = (round(mm) for mm in crop.record.first_mm)
        seen = image[i : i + 20, j : j + 21, k : k + 22]
        np.testing.assert_allclose(crop.image.data, seen, rtol=1e-6)
        back = crop.place_back(crop.label_map.data)
        np.testing.assert_array_equal(back.data == 2, mask == 2)


def test_a_case_without_mask_stops_the_cropping_and_leaves_nothing(tmp_path: Path) -> None:
    image, mask = patient(((45.0, 60.0, 65.0), 8.0))
    cohort = cohort_of(tmp_path / "scans", [(image, mask), (image, None)])
    with pytest.raises(InputError, match="case_1: there is no mask"):
        crop_cohort(cohort, tmp_path / "rois", ROI)
    assert [entry.name for entry in tmp_path.iterdir()] == ["scans"]


def test_a_real_liver_is_cropped(real_data: Callable[[str], Path]) -> None:
    folder = real_data("totalseg_mr_ct")
    image = read_volume(folder / "example_mr_sm.nii.gz")
    labels = read_label_map(folder / "example_seg_mr.nii.gz", n_classes=51)
    mask = labels.with_data((labels.data == 5).astype(np.uint8))
    wide = RoiConfig(
        around="tumour",
        shape=(96, 96, 48),
        spacing_mm=(1.0, 1.0, 2.0),
        margin_mm=10,
        minimum_volume_mm3=100,
    )
    crop = crop_to_tumour(image, mask, LabelSchema(("background", "liver")), wide)
    assert crop.record.fallback == "liver"
    assert (crop.label_map.data == 1).mean() > 0.2
    back = crop.place_back(crop.label_map.data).data == 1
    assert (mask.data[back] == 1).mean() > 0.97
