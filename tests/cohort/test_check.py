from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest

from neonet3d.cohort.check import check_cohort
from neonet3d.cohort.check_case import CaseReport
from neonet3d.cohort.cohort import Case, Cohort
from neonet3d.cohort.findings import Finding

Make = Callable[..., Cohort]


def redraw(case: Case, draw: Callable[[np.ndarray], None]) -> None:
    _, mask = case.read_with_mask()
    data = mask.data.copy()
    draw(data)
    assert case.mask_path is not None
    mask.with_data(data).write(case.mask_path)


def only(cohort: Cohort) -> Finding:
    findings = check_cohort(Cohort.open(cohort.root))
    assert len(findings) == 1, findings
    assert findings[0].mend.endswith(".") or findings[0].mend.endswith("?")
    return findings[0]


@pytest.fixture
def cohort(make_cohort: Make) -> Cohort:
    return make_cohort([0, 1, 0], splits=["train", "train", "test"])


def test_a_sound_cohort_has_no_findings_and_every_case_is_counted(cohort: Cohort) -> None:
    seen: list[str] = []

    def advance(n: int = 1, note: str = "") -> None:
        seen.append(note)

    assert check_cohort(cohort, advance) == []
    assert seen == ["case_000", "case_001", "case_002"]


def test_a_damaged_image_does_not_stop_the_others(cohort: Cohort) -> None:
    path = cohort["case_000"].image_path
    path.write_bytes(path.read_bytes()[:-20])
    shutil.copy(cohort["case_001"].image_path, cohort["case_002"].image_path)
    damaged, twin = check_cohort(cohort)
    assert (damaged.case, damaged.severity) == ("case_000", "error")
    assert "is damaged" in damaged.problem
    assert damaged.mend == "Copy it again from its source."
    assert (twin.case, twin.severity) == ("case_002", "error")
    assert "same voxels as case_001, of another patient" in twin.problem


def test_the_same_pixels_are_found_on_other_axes(cohort: Cohort) -> None:
    """The bytes of the files differ; what they show does not."""
    image = nib.load(cohort["case_001"].image_path)
    turned = image.as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
    nib.save(turned, cohort["case_000"].image_path)
    assert "case_000" in only(cohort).problem


def test_a_mask_on_another_grid(cohort: Cohort) -> None:
    path = cohort["case_001"].mask_path
    moved = np.diag([1.0, 1, 1.5, 1])
    nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), moved), path)
    finding = only(cohort)
    assert finding.severity == "error"
    assert "corners lie 3.5 mm apart" in finding.problem


def test_masks_that_cannot_be_meant(cohort: Cohort) -> None:
    redraw(cohort["case_000"], lambda data: data.fill(0))
    redraw(cohort["case_001"], lambda data: np.place(data, data == 2, 1))

    def away_from_the_liver(data: np.ndarray) -> None:
        data[...] = 0
        data[:3], data[6:9] = 1, 2

    redraw(cohort["case_002"], away_from_the_liver)
    findings = check_cohort(cohort)
    assert {finding.severity for finding in findings} == {"warning"}
    problems = [finding.problem for finding in findings]
    assert problems[0] == "the mask is empty"
    assert "no tumour in the mask" in problems[1]
    assert problems[2] == "no tumour voxel touches the liver"


def test_missing_masks_and_outcomes_are_warnings(make_cohort: Make) -> None:
    findings = check_cohort(make_cohort([0, 1, None, 0, 1], masks=False), n_folds=2)
    assert [finding.severity for finding in findings] == ["warning"] * 6
    assert [finding.problem for finding in findings].count("there is no mask") == 5
    assert findings[3].problem == "there is no 'pni'"


@pytest.mark.parametrize(
    ("outcomes", "sentence"), [([1, 1, 1], "is 1 for every case"), ([None, None], "is missing")]
)
def test_one_class_only_is_an_error(
    make_cohort: Make, outcomes: list[int | None], sentence: str
) -> None:
    finding = check_cohort(make_cohort(outcomes))[0]
    assert (finding.case, finding.severity) == (None, "error")
    assert sentence in finding.problem


def test_a_patient_in_both_splits_is_an_error(make_cohort: Make) -> None:
    cohort = make_cohort([0, 1, 1], participants=["a", "b", "b"], splits=["train", "train", "test"])
    finding = only(cohort)
    assert finding.severity == "error"
    assert "patient b" in finding.problem
    assert "case_001 in 'train' and case_002 in 'test'" in finding.problem


def test_files_without_a_row_are_orphans(cohort: Cohort) -> None:
    (cohort.root / "labelsTr" / "case_999.nii.gz").write_bytes(b"")
    finding = only(cohort)
    assert (finding.severity, finding.case) == ("warning", None)
    assert "labelsTr/case_999.nii.gz" in finding.problem
    # A subset knows the table, so its other cases are no orphans.
    assert len(check_cohort(cohort.subset(cohort.cases[:2]), n_folds=1)) == 1


def test_text_in_a_header_is_named_and_not_quoted(cohort: Cohort) -> None:
    path = cohort["case_001"].image_path
    image = nib.load(path)
    image.header["descrip"] = b"MUSTERMANN^ERIKA"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"born 1964-08-12"))
    nib.save(image, path)
    finding = only(cohort)
    assert finding.severity == "warning"
    assert "descrip, an extension" in finding.problem
    assert "MUSTERMANN" not in str(finding)


def test_an_interrupted_check_reads_no_further_cases(
    make_cohort: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def slow(case: Case, outcome_name: str | None) -> CaseReport:
        begun.append(case.name)
        time.sleep(0.01)
        return CaseReport(case, (), None)

    def interrupt(n: int = 1, note: str = "") -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("neonet3d.cohort.check.check_case", slow)
    cohort = make_cohort([0, 1] * 30)
    with pytest.raises(KeyboardInterrupt):
        check_cohort(cohort, interrupt)
    assert len(begun) < 40
