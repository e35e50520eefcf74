from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import CohortWriter
from neonet3d.cohort.patches import fit_patches
from neonet3d.cohort.volume import Volume
from neonet3d.config import RoiConfig, load_config
from neonet3d.errors import InputError
from neonet3d.segmentation.crop_record import cut_without_tumour
from neonet3d.segmentation.placement import liver_box
from neonet3d.segmentation.tlcr import crop_cohort, crop_to_liver
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "tumour"))
ROI = RoiConfig(
    around="liver", shape=(24, 24, 16), spacing_mm=(2, 2, 3), margin_mm=4, minimum_volume_mm3=0
)


def patient(*, tumour: bool = True, length: int = 20) -> tuple[Volume, Volume]:
    """A liver of 2 mm voxels off the middle, its tumour at the rim, a speck of liver far away."""
    mask = np.zeros((60, 40, 40), np.uint8)
    mask[8 : 8 + length, 10:26, 6:22] = 1
    if tumour:
        mask[8:12, 26:28, 10:14] = 2
    mask[55:57, 35:37, 35:37] = 1
    image = np.where(mask > 0, 100, 10).astype(np.float32)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    return Volume(image, affine), Volume(mask, affine)


def test_the_box_holds_liver_and_tumour_and_no_speck() -> None:
    box = liver_box(patient()[1], SCHEMA)
    assert box is not None
    np.testing.assert_array_equal(box, [[8, 10, 6], [27, 27, 21]])
    empty = patient()[1].with_data(np.zeros((60, 40, 40), np.uint8))
    assert liver_box(empty, SCHEMA) is None
    assert liver_box(patient()[1], LabelSchema(("background", "organ", "tumour"))) is None


def test_the_whole_liver_is_inside_and_its_tumour_does_not_move_it() -> None:
    for tumour in (True, False):
        image, mask = patient(tumour=tumour)
        crop = crop_to_liver(image, mask, SCHEMA, ROI)
        assert crop.label_map.shape == ROI.shape
        assert crop.image.spacing_mm == pytest.approx(ROI.spacing_mm)
        record = crop.record
        assert (record.around, record.lesion, record.fallback) == ("liver", 0, None)
        assert (record.n_lesions, record.scale) == (int(tumour), 1.0)
        inside = mask.data.copy()
        inside[55:] = 0
        assert np.count_nonzero(crop.label_map.data) * 12 == pytest.approx(
            np.count_nonzero(inside) * 8, rel=0.1
        )


def test_a_larger_liver_widens_the_window() -> None:
    image, mask = patient(length=40)
    crop = crop_to_liver(image, mask, SCHEMA, ROI)
    assert crop.record.scale == pytest.approx((40 * 2 + 2 * 4) / 48)
    assert (crop.label_map.data[[0, -1]] == 0).all()


def test_a_cohort_of_livers_keeps_to_one_grid_and_says_which_show_no_tumour(
    tmp_path: Path,
) -> None:
    writer = CohortWriter(tmp_path / "scans", SCHEMA, outcome_name=None, channel="MR")
    writer.add("healthy", *patient(tumour=False))
    writer.add("ill", *patient())
    cohort = writer.finish()
    crops = crop_cohort(cohort, tmp_path / "livers", ROI)
    assert cut_without_tumour(crops) == ["healthy"]
    grid, _ = fit_patches(crops)
    assert (grid.shape, grid.spacing_mm) == (ROI.shape, pytest.approx(ROI.spacing_mm))
    record = json.loads((crops.root / "crops" / "ill.json").read_text())
    assert record["around"] == "liver"
    with pytest.raises(InputError, match=r"roi\.around is liver"):
        crop_cohort(cohort, tmp_path / "lesions", ROI, all_lesions=True)
    assert not (tmp_path / "lesions").exists()


def test_a_scan_without_a_liver_is_refused_unless_it_was_predicted() -> None:
    image, mask = patient()
    empty = mask.with_data(np.zeros_like(mask.data))
    with pytest.raises(InputError, match="neither tumour nor liver"):
        crop_to_liver(image, empty, SCHEMA, ROI)
    assert crop_to_liver(image, empty, SCHEMA, ROI, allow_empty=True).record.fallback == "scan"


def test_the_preset_holds_a_liver() -> None:
    roi = load_config("liver").roi
    assert roi.around == "liver"
    extent_mm = np.array(roi.shape) * roi.spacing_mm
    assert (extent_mm >= [250, 200, 180]).all()
    assert not (np.array(roi.shape) % 8).any()
