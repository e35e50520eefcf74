from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError
from neonet3d.segmentation.evaluate import find_masks, require_same_classes, score_cases
from neonet3d.types import LabelSchema


@pytest.fixture
def cohort(make_cohort: Callable[..., Cohort]) -> Cohort:
    return make_cohort([0, 1, 0], participants=["a", "a", "b"])


def copy_masks(cohort: Cohort, folder: Path, ending: str = ".nii.gz") -> Path:
    for case in cohort:
        mask = case.read_mask()
        assert mask is not None
        mask.write(folder / f"{case.name}{ending}")
    return folder


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_masks_of_another_tool_in_other_orientation(
    cohort: Cohort, tmp_path: Path, ending: str
) -> None:
    folder = tmp_path / "masks"
    for case in cohort:
        mask = case.read_mask()
        assert mask is not None
        turned = Volume(mask.data, mask.affine, user_axes=("L", "P", "S"))
        turned.write(folder / f"{case.name}{ending}")
    scores = score_cases(cohort, find_masks(folder, cohort.cases), tolerance_mm=1)
    assert [(s.case, s.participant) for s in scores] == [
        ("case_000", "a"),
        ("case_001", "a"),
        ("case_002", "b"),
    ]
    assert all(score.classes["tumour"].dice == 1 for score in scores)


def test_a_missing_mask_is_not_left_out(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        find_masks(tmp_path / "nowhere", cohort.cases)
    folder = copy_masks(cohort, tmp_path / "masks")
    (folder / "case_001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"lacks the masks of 1 of 3 cases.*case_001\.nii\.gz"):
        find_masks(folder, cohort.cases)


def test_two_masks_of_a_case_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    folder = copy_masks(cohort, tmp_path / "masks")
    copy_masks(cohort.subset([cohort["case_001"]]), folder, ".nii")
    with pytest.raises(InputError, match=r"both case_001\.nii\.gz and case_001\.nii\. Remove one"):
        find_masks(folder, cohort.cases)


def test_another_grid_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    masks = find_masks(copy_masks(cohort, tmp_path / "masks"), cohort.cases)
    shifted = np.eye(4)
    shifted[0, 3] = 1
    mask = cohort["case_002"].read_mask()
    assert mask is not None
    Volume(mask.data, shifted).write(masks["case_002"])
    with pytest.raises(InputError, match=r"case_002: reference mask is .* corners lie 1 mm apart"):
        score_cases(cohort, masks, tolerance_mm=1)


def test_unknown_labels_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    masks = find_masks(copy_masks(cohort, tmp_path / "masks"), cohort.cases)
    mask = cohort["case_000"].read_mask()
    assert mask is not None
    mask.with_data(mask.data * 2).write(masks["case_000"])
    with pytest.raises(InputError, match=r"case_000\.nii\.gz: .*does not name: 4"):
        score_cases(cohort, masks, tolerance_mm=1)


def test_other_names_in_a_header_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    masks = find_masks(copy_masks(cohort, tmp_path / "masks"), cohort.cases)
    mask = cohort["case_000"].read_mask()
    assert mask is not None
    mask.write(masks["case_000"], schema=LabelSchema(("background", "Liver", "tumour")))
    assert score_cases(cohort, masks, tolerance_mm=1)[0].classes["liver"].dice == 1
    mask.write(masks["case_000"], schema=LabelSchema(("background", "tumour", "liver")))
    with pytest.raises(InputError, match=r"calls the value 1 'tumour'.* it is 'liver'"):
        score_cases(cohort, masks, tolerance_mm=1)


@pytest.mark.parametrize("name", ["labels.json", "dataset.json"])
def test_classes_that_the_folder_declares(cohort: Cohort, tmp_path: Path, name: str) -> None:
    def declare(labels: object) -> None:
        text = {"labels": labels} if name == "dataset.json" else labels
        (tmp_path / name).write_text(json.dumps(text))

    require_same_classes(tmp_path, cohort.schema)  # nothing is declared
    declare({"background": 0, "Liver": 1, "tumour": 2})
    require_same_classes(tmp_path, cohort.schema)
    declare({"background": 0, "tumour": 1, "liver": 2})
    with pytest.raises(InputError, match=r"names the classes .* but the cohort has"):
        require_same_classes(tmp_path, cohort.schema)
    (tmp_path / name).write_text("no json")
    with pytest.raises(InputError, match="does not say which classes"):
        require_same_classes(tmp_path, cohort.schema)
