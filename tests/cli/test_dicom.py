from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest

from neonet3d.cohort.importers.dicom_pixels import read_stack
from neonet3d.cohort.volume import Volume, read_volume
from neonet3d.engine.artefact import read_card
from neonet3d.report.dicom_series import SourceSeries


@pytest.fixture
def scan(make_series: Callable[..., Any], tmp_path: Path) -> tuple[Path, Path]:
    """A series and a mask of it, with a liver and a tumour."""
    series = make_series(n=8, size=(9, 10)).folder
    image = read_stack(SourceSeries.open(series).stack, name="scan")
    mask = np.zeros(image.shape, dtype=np.uint8)
    mask[1:8, 1:8, 1:7] = 1
    mask[3:5, 3:5, 3:5] = 2
    path = tmp_path / "case_0001.nii.gz"
    image.with_data(mask).write(path)
    image.write(scan_of(path))
    return series, path


def scan_of(mask: Path) -> Path:
    return mask.parent / "case_0001_0000.nii.gz"


def said(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "prediction.json"
    content = {
        "outcome": "pni",
        "model": {"kind": "PattenNet", "weights_sha256": "ab" * 32},
        "probability": {"case_0001": 0.7},
        "certainty": {"case_0001": {"interval": [0.5, 0.85], "may_be": [1], "unfamiliar": True}},
    }
    path.write_text(json.dumps(content | changes))
    return path


def test_a_mask_and_a_probability_become_two_objects(
    scan: tuple[Path, Path], trained: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    series, mask = scan
    words = ("--mask", mask, "--scan", scan_of(mask), "--segmenter", trained.segmenter)
    found = run(
        "dicom", series, tmp_path / "out", *words, "--prediction", said(tmp_path), "--json"
    ).json()
    assert list(found["volumes_ml"]) == ["liver", "tumour"]
    assert (found["probability"], found["unfamiliar"]) == (0.7, True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "segmentation.dcm",
        "report.dcm",
    }
    seg, report = hd.seg.segread(found["segmentation"]), hd.sr.srread(found["report"])
    version = read_card(trained.segmenter).weights_sha256[:16]
    assert seg.get_segment_description(1).algorithm_identification.version == version
    (group,) = report.content.get_image_measurement_groups()
    (measured,) = group.get_measurements()
    assert measured.value == 0.7


def test_without_a_prediction_the_report_has_the_volumes(
    scan: tuple[Path, Path], trained: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    series, mask = scan
    words = ("--mask", mask, "--scan", scan_of(mask), "--segmenter", trained.segmenter)
    done = run("dicom", series, tmp_path / "out", *words)
    assert "unverified" in done.stdout
    assert "Research use only" in done.stdout
    report = hd.sr.srread(tmp_path / "out" / "report.dcm")
    assert len(report.content.get_image_measurement_groups()) == 0
    assert len(report.content.get_volumetric_roi_measurement_groups()) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"probability": {"case_0002": 0.1}, "certainty": {}}, "says nothing of case_0001"),
        ({"model": None}, "is not what 'neonet3d classify predict --json' prints"),
        ({"probability": 0.7}, "is not what"),
        ({"probability": {"case_0001": 1.7}}, "is not what"),
        ({"probability": {"case_0001": 0.2}}, "is not what"),  # outside its interval
    ],
)
def test_a_prediction_that_is_not_of_the_scan_is_refused(
    changes: dict[str, Any],
    sentence: str,
    scan: tuple[Path, Path],
    trained: Any,
    run: Callable[..., Any],
    tmp_path: Path,
) -> None:
    series, mask = scan
    given = ("--mask", mask, "--scan", scan_of(mask), "--segmenter", trained.segmenter)
    prediction = ("--prediction", said(tmp_path, **changes))
    done = run("dicom", series, tmp_path / "out", *given, *prediction)
    assert done.status == 2
    assert sentence in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_mask_of_other_classes_is_refused(
    scan: tuple[Path, Path], trained: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    series, mask = scan
    (mask.parent / "labels.json").write_text(json.dumps({"background": 0, "tumour": 1}))
    given = ("--mask", mask, "--scan", scan_of(mask), "--segmenter", trained.segmenter)
    done = run("dicom", series, tmp_path / "out", *given)
    assert done.status == 2
    assert "names the classes" in done.stderr


@pytest.mark.parametrize(
    ("factor", "noise", "shift_mm", "sentence"),
    [(3.0, 0.0, 0.0, None), (1.0, 1.0, 0.0, "voxels are another"), (1.0, 0.0, 5.0, "grid is")],
)
def test_another_patients_series_is_refused(
    factor: float,
    noise: float,
    shift_mm: float,
    sentence: str | None,
    scan: tuple[Path, Path],
    trained: Any,
    run: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Scaled by a converter it is still the same scan; with other voxels or elsewhere it is not."""
    series, mask = scan
    image = read_volume(scan_of(mask))
    other = np.random.default_rng(0).normal(size=image.shape) * image.data.std() * noise
    affine = image.affine.copy()
    affine[0, 3] += shift_mm
    Volume((factor * (image.data + other)).astype(np.float32), affine).write(scan_of(mask))
    words = ("--mask", mask, "--scan", scan_of(mask), "--segmenter", trained.segmenter)
    done = run("dicom", series, tmp_path / "out", *words)
    assert done.status == (0 if sentence is None else 2)
    assert sentence is None or f"is not the scan of this series: its {sentence}" in done.stderr


def test_the_scan_of_another_case_is_refused(
    scan: tuple[Path, Path], trained: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    series, mask = scan
    other = scan_of(mask).rename(mask.parent / "case_0002_0000.nii.gz")
    words = ("--mask", mask, "--scan", other, "--segmenter", trained.segmenter)
    done = run("dicom", series, tmp_path / "out", *words)
    assert done.status == 2
    assert "is no scan of it" in done.stderr
