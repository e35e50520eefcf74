from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.volume import Volume, corner_distance_mm, read_label_map, read_volume
from neonet3d.config import RoiConfig
from neonet3d.errors import InputError
from neonet3d.segmentation.crop_record import (
    cut_without_tumour,
    place_file_back,
    read_record,
    write_record,
)
from neonet3d.segmentation.tlcr import crop_cohort
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "tumour"))
ROI = RoiConfig(
    around="tumour", shape=(16, 12, 10), spacing_mm=(2, 2, 3), margin_mm=4, minimum_volume_mm3=0
)
AFFINE = np.diag([1.5, 1.5, 3.0, 1.0])


@pytest.fixture
def crops(tmp_path: Path) -> Cohort:
    """Patches of two scans that are stored as L, P, S; the second shows no tumour."""
    writer = CohortWriter(tmp_path / "scans", SCHEMA, outcome_name=None, channel="MR")
    for name in ("with", "without"):
        mask = np.ones((30, 28, 14), np.uint8)
        if name == "with":
            mask[6:16, 10:18, 3:9] = 2
        image = np.random.default_rng(0).normal(100, 5, mask.shape).astype(np.float32)
        writer.add(
            name,
            Volume(image, AFFINE, user_axes=("L", "P", "S")),
            Volume(mask, AFFINE, user_axes=("L", "P", "S")),
        )
    return crop_cohort(writer.finish(), tmp_path / "crops", ROI)


def test_a_record_names_its_case_and_the_scans_grid(crops: Cohort) -> None:
    record = read_record(crops.root, "with")
    assert record is not None
    assert (record.case, record.lesion, record.n_lesions) == ("with", 1, 1)
    assert (record.scan_shape, record.scan_axes) == ((30, 28, 14), ("L", "P", "S"))
    np.testing.assert_array_equal(record.scan_affine, AFFINE)
    without = read_record(crops.root, "without")
    assert without is not None
    assert (without.lesion, without.n_lesions, without.fallback) == (0, 0, "liver")
    assert cut_without_tumour(crops) == ["without"]


def test_a_case_that_was_not_cropped_has_no_record(crops: Cohort, tmp_path: Path) -> None:
    assert read_record(tmp_path / "scans", "with") is None
    assert cut_without_tumour(Cohort.open(tmp_path / "scans")) == []


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0},
        {"fallback": "spleen"},
        {"first_mm": [0, 0]},
        {"scan_shape": [0, 1, 1]},
        {"x": 1},
    ],
)
def test_a_record_that_was_changed_is_refused(crops: Cohort, change: dict[str, object]) -> None:
    path = crops.root / "crops" / "with.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=r"with.json does not say how .* 'neonet3d crop'"):
        read_record(crops.root, "with")
    path.write_text("{")
    with pytest.raises(InputError, match=r"with.json does not say how"):
        read_record(crops.root, "with")


def test_a_mask_file_goes_back_without_the_scan(crops: Cohort, tmp_path: Path) -> None:
    """Drawn in the patch, it lies on the scan's own grid and axes, where the tumour is."""
    case, out = crops["with"], tmp_path / "back.nii.gz"
    assert case.mask_path is not None
    scan = tmp_path / "scans" / "imagesTr" / "with_0000.nii.gz"
    reference = read_label_map(tmp_path / "scans" / "labelsTr" / "with.nii.gz", n_classes=3)
    scan_volume = read_volume(scan)
    scan.unlink()
    place_file_back(crops.root, "with", case.mask_path, out)
    back = read_label_map(out, n_classes=3)
    assert (back.shape, back.user_axes) == (scan_volume.shape, scan_volume.user_axes)
    assert corner_distance_mm(back, scan_volume) < 1e-3
    drawn, tumour = back.data == 2, reference.data == 2
    assert 2 * (drawn & tumour).sum() / (drawn.sum() + tumour.sum()) > 0.9


def test_what_does_not_fit_is_refused(crops: Cohort, tmp_path: Path) -> None:
    mask, out = crops["with"].mask_path, tmp_path / "back.nii.gz"
    assert mask is not None
    with pytest.raises(InputError, match=r"holds no record crops/nobody\.json"):
        place_file_back(crops.root, "nobody", mask, out)
    with pytest.raises(InputError, match="holds no record"):
        place_file_back(crops.root, "../crops/with", mask, out)
    with pytest.raises(InputError, match=r"does not end in \.nii"):
        place_file_back(crops.root, "with", mask, tmp_path / "back.txt")
    with pytest.raises(InputError, match="corners lie"):
        place_file_back(crops.root, "without", mask, out)
    Volume(np.ones((4, 4, 4), np.uint8), np.eye(4)).write(tmp_path / "small.nii.gz")
    with pytest.raises(InputError, match="with: image is 16x12x10"):
        place_file_back(crops.root, "with", tmp_path / "small.nii.gz", out)
    assert not out.exists()
    place_file_back(crops.root, "with", mask, out)
    with pytest.raises(InputError, match="exists"):
        place_file_back(crops.root, "with", mask, out)
    record = read_record(crops.root, "with")
    assert record is not None
    with pytest.raises(
        InputError, match=r"\(4, 4, 4\) voxels and the patch of with \(16, 12, 10\)"
    ):
        record.place_back(np.ones((4, 4, 4), np.uint8))


def test_records_are_written_where_they_are_read(crops: Cohort, tmp_path: Path) -> None:
    record = read_record(crops.root, "with")
    assert record is not None
    write_record(tmp_path / "other", "copy", record)
    assert read_record(tmp_path / "other", "copy") == record
