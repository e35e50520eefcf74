from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort


@pytest.fixture
def decathlon(tmp_path: Path) -> Path:
    """Two cases in the Medical Segmentation Decathlon's layout, and a table of outcomes."""
    folder = tmp_path / "Task99"
    rng = np.random.default_rng(0)
    names = ("liver_1", "liver_2")
    for part, high in (("imagesTr", 200), ("labelsTr", 2)):
        (folder / part).mkdir(parents=True)
        for name in names:
            data = rng.integers(0, high, (6, 7, 8)).astype(np.uint8)
            nib.save(nib.Nifti1Image(data, np.eye(4)), folder / part / f"{name}.nii.gz")
    description = {
        "labels": {"0": "background", "1": "liver"},
        "modality": {"0": "MRI"},
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in names
        ],
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "labels.csv").write_text("case,pni\nliver_1,1\nliver_2,0\n")
    return folder


def test_a_phantom_cohort_is_written(run: Callable[..., Any], tmp_path: Path) -> None:
    coarse = ("--preset", "demo", "--set", "phantom.spacing_mm=[10, 10, 20]")
    found = run("cohort", "phantom", tmp_path / "out", "--n", 2, "--json", *coarse).json()
    cohort = Cohort.open(tmp_path / "out")
    assert found == {
        "cohort": str(tmp_path / "out"),
        "cases": 2,
        "positive": int(cohort.outcomes.sum()),
    }
    again = run("cohort", "phantom", tmp_path / "out", "--n", 2, *coarse)
    assert (again.status, again.stdout) == (2, "")
    assert "is not an empty folder" in again.stderr


def test_a_decathlon_task_is_imported_with_its_labels(
    run: Callable[..., Any], decathlon: Path, tmp_path: Path
) -> None:
    labels = ("--labels", tmp_path / "labels.csv", "--outcome", "pni")
    found = run("cohort", "import", decathlon, tmp_path / "out", *labels, "--json").json()
    assert found == {
        "cohort": str(tmp_path / "out"),
        "cases": 2,
        "masks": 2,
        "classes": ["background", "liver"],
        "outcome": "pni",
    }
    assert Cohort.open(tmp_path / "out").outcomes.tolist() == [1, 0]
    said = run("cohort", "import", decathlon, tmp_path / "bare").stdout
    assert said == f"{tmp_path / 'bare'}: 2 cases; classes background, liver; outcome none.\n"


def test_a_sound_cohort_has_no_errors(run: Callable[..., Any], scans: Cohort) -> None:
    found = run("cohort", "check", scans.root, "--folds", 4, "--json").json()
    assert (found["cases"], found["errors"]) == (8, 0)
    assert len(found["findings"]) == found["warnings"] + found["notes"]


def test_errors_of_a_cohort_are_listed_and_are_its_exit_status(
    run: Callable[..., Any], make_cohort: Callable[..., Cohort]
) -> None:
    cohort = make_cohort([0, 1, 0, 1, 0])
    damaged = cohort.cases[1].image_path
    damaged.write_bytes(gzip.compress(b"no scan"))
    printed = run("cohort", "check", cohort.root, "--folds", 2)
    assert printed.status == 2
    assert "case_001" in printed.stdout
    assert printed.stdout.splitlines()[-1].startswith("5 cases checked: 1 errors")
    machine = run("cohort", "check", cohort.root, "--folds", 2, "--json")
    assert machine.status == 2
    findings = json.loads(machine.stdout)["findings"]
    errors = [finding for finding in findings if finding["severity"] == "error"]
    assert [finding["case"] for finding in errors] == ["case_001"]
    assert errors[0]["problem"]
    assert errors[0]["mend"]


def test_series_are_listed_and_nothing_is_written(
    run: Callable[..., Any], real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    source = real_data("totalseg_dicom_ct")
    found = run("cohort", "import", source, tmp_path / "out", "--list-series", "--json").json()
    assert (found["usable"], found["files_not_dicom"]) == (1, 1)
    assert found["series"][0]["description"] == "CT Body 3.0"
    assert found["series"][0]["spacing_mm"] == [0.9766, 0.9766, 2.0]
    printed = run("cohort", "import", source, "--list-series")
    assert "JPEG 2000" in printed.stdout
    assert printed.stdout.splitlines()[-1] == "1 series, 1 usable; 1 files are no DICOM."
    assert list(tmp_path.iterdir()) == []


def test_bad_input_ends_with_two_and_writes_nothing(
    run: Callable[..., Any],
    real_data: Callable[[str], Path],
    decathlon: Path,
    tmp_path: Path,
) -> None:
    dicom = real_data("totalseg_dicom_ct")
    for arguments, sentence in (
        ((dicom, tmp_path / "out", "--masks", dicom), "hold values without names: 1 ("),
        ((dicom, tmp_path / "out", "--series", "HBP"), "1 of 1 patients have no series"),
        ((dicom,), "OUT is missing"),
        ((decathlon, tmp_path / "out", "--label-map", "liver"), "'liver' is not CLASS=VALUE"),
        ((decathlon, tmp_path / "out", "--keep-ids"), "--keep-ids is for DICOM"),
        ((decathlon, "--list-series"), "which has no series"),
        ((decathlon, tmp_path / "out", "--labels", tmp_path / "t.xlsx"), "There is no table"),
    ):
        refused = run("cohort", "import", *arguments)
        assert refused.status == 2
        assert sentence in refused.stderr
        assert not (tmp_path / "out").exists()
