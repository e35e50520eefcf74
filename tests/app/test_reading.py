"""The job that reads a scan: from the upload to the probability, and what it refuses."""

from __future__ import annotations

import gzip
import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neonet3d.app.models import load_segmenter
from neonet3d.app.reading import ReadScan
from neonet3d.classification.predict import Classifier
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.volume import read_label_map, read_volume
from neonet3d.errors import InputError
from neonet3d.segmentation.predict import Segmentation, Segmenter

Served = Any


def read(served: Served, folder: Path, payload: bytes) -> tuple[dict[str, Any], list[str]]:
    folder.mkdir()
    upload = folder / "upload.bin"
    upload.write_bytes(payload)
    stages: list[str] = []
    work = ReadScan(served.session.models, upload, "own name.nii.gz")
    return work.run(folder, stages.append), stages


@pytest.fixture
def found_tumour(monkeypatch: pytest.MonkeyPatch, scans: Cohort) -> None:
    """A segmenter of two steps finds anything; here it finds the reference."""
    mask = scans.cases[0].read_mask()
    assert mask is not None

    def segment(self: Segmenter, image: Any, keep: Any = None) -> Segmentation:
        sure = (mask.data == 2).astype(np.float32)
        return Segmentation(image.with_data(mask.data), {"tumour": sure}, ())

    monkeypatch.setattr(Segmenter, "segment", segment)


def test_a_scan_is_read(served: Served, scans: Cohort, found_tumour: None, tmp_path: Path) -> None:
    case = scans.cases[0]
    job = tmp_path / "job"
    result, stages = read(served, job, case.image_path.read_bytes())
    assert stages == [
        "reading the scan",
        "segmenting",
        "cropping",
        "classifying",
        "explaining",
        "drawing the counterfactual",
    ]
    said = result["prediction"]
    assert said["outcome"] == "pni"
    assert 0 <= said["low"] <= said["probability"] <= said["high"] <= 1
    assert said["training_cases"] == len(
        Classifier.load(served.session.models.classifier).card.training_cases
    )
    image, mask = case.read_with_mask()
    volume = float((mask.data == 2).sum()) * mask.voxel_volume_mm3 / 1000
    assert result["volumes_ml"]["tumour"] == pytest.approx(volume, abs=0.01)
    assert result["lesions"] == 1
    scan = read_volume(job / "scan.nii.gz")
    drawn = read_label_map(job / "mask.nii.gz", n_classes=3)
    assert np.allclose(scan.affine, image.affine)
    assert np.array_equal(drawn.data, mask.data)
    middle = np.linalg.inv(image.affine) @ [*result["centre_mm"], 1]
    centre = np.argwhere(mask.data == 2).mean(0)
    assert np.abs(middle[:3] - centre).max() < 4
    assert result["maps"] == ["attention", "occlusion", "counterfactual"]
    for name in result["maps"]:
        values = nib.load(job / f"{name}.nii.gz").get_fdata()
        assert values.shape == served.session.card.shape
        largest = np.abs(values).max()  # after two steps the label changes nothing yet
        assert largest == pytest.approx(0 if name == "counterfactual" else 100, rel=1e-5)
    roi = read_label_map(job / "roi.nii.gz", n_classes=2)
    assert roi.shape == scan.shape
    assert roi.data.any()


def test_a_scan_without_a_tumour_is_not_classified(
    served: Served, scans: Cohort, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    liver = scans.cases[0].read_image()

    def segment(self: Segmenter, image: Any, keep: Any = None) -> Segmentation:
        nothing = np.zeros(image.shape, dtype=np.uint8)
        return Segmentation(image.with_data(nothing), {"tumour": nothing.astype(np.float32)}, ())

    monkeypatch.setattr(Segmenter, "segment", segment)
    result, stages = read(served, tmp_path / "job", scans.cases[0].image_path.read_bytes())
    assert stages[-1] == "cropping"
    assert result["prediction"] is None
    assert result["maps"] == []
    assert result["volumes_ml"]["tumour"] == 0
    assert read_volume(tmp_path / "job" / "scan.nii.gz").shape == liver.shape


def test_a_dicom_series_in_a_zip(
    served: Served, make_series: Callable[..., Any], found_tumour: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    series = make_series(n=12, size=(20, 30), spacing=(6.0, 6.0), step=(0.0, 0.0, 10.0))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for file in series.files:
            archive.write(file, f"series/{file.name}")
    result, _ = read(served, tmp_path / "job", stream.getvalue())
    assert result["prediction"]["outcome"] == "pni"
    for one in (tmp_path / "job").iterdir():
        content = gzip.decompress(one.read_bytes())
        assert b"Doe" not in content
        assert b"P-1" not in content


def scan_bytes(data: np.ndarray) -> bytes:
    return bytes(nib.Nifti1Image(data, np.diag([6, 6, 10, 1.0])).to_bytes())


RGB = np.zeros((30, 20, 12), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (scan_bytes(np.ones((30, 20, 12), np.float32))[:-100], "not a whole NIfTI file"),
        (scan_bytes(np.ones((30, 20, 12, 3), np.float32)), "has 4 dimensions"),
        (scan_bytes(RGB), "voxels are RGB"),
        (b"<html>no scan</html>" * 100, "in no layout|not a whole NIfTI file"),
    ],
    ids=["truncated", "4-D", "RGB", "no scan"],
)
def test_what_is_no_scan_is_refused_in_words_without_our_paths(
    served: Served, tmp_path: Path, payload: bytes, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        read(served, tmp_path / "job", payload)
    assert str(tmp_path) not in str(refused.value)


def test_several_scans_are_refused(served: Served, scans: Cohort, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for case in scans.cases[:2]:
            archive.write(case.image_path, case.image_path.name)
    with pytest.raises(InputError, match=r"own name.nii.gz holds 2 scans\. Send one at a time"):
        read(served, tmp_path / "job", stream.getvalue())


def test_several_series_are_refused_in_the_words_of_the_app(
    served: Served, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("one", "two"):
            for file in make_series(name, description=name).files:
                archive.write(file, f"{name}/{file.name}")
    with pytest.raises(InputError, match=r"holds several series\. Zip the files of one of them"):
        read(served, tmp_path / "job", stream.getvalue())


def test_models_stay_loaded(served: Served) -> None:
    where = served.session.models.segmenter
    assert load_segmenter(where) is load_segmenter(where)


def test_a_study_that_is_not_finished_is_refused(
    served: Served, run_folder: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(run_folder, tmp_path / "run")
    (copied / "results.json").unlink()
    with pytest.raises(InputError, match=r"holds no results\.json, so it is no finished study"):
        type(served.session.models).of(copied)
