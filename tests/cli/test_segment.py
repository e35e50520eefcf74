from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.volume import corner_distance_mm, read_label_map
from neonet3d.engine.artefact import read_card


def test_training_says_what_it_trained_on_and_is_not_repeated(
    run: Callable[..., Any], scans: Cohort, tiny_options: tuple[str, ...], trained: Any
) -> None:
    weights = trained.segmenter / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    command = ("segment", "train", scans.root, trained.segmenter, "--fold", "0/2")
    found = run(*command, *tiny_options, "--json").json()
    assert found == {"model": str(trained.segmenter), "fold": "fold-0", "training_cases": 4}
    assert weights.stat().st_mtime_ns == stamp
    assert len(read_card(trained.segmenter, kind="Segmenter").training_cases) == 4


def test_another_training_does_not_overwrite_a_model(
    run: Callable[..., Any], scans: Cohort, tiny_options: tuple[str, ...], trained: Any
) -> None:
    done = run("segment", "train", scans.root, trained.segmenter, "--fold", "1/2", *tiny_options)
    assert done.status == 2
    assert "is not empty" in done.stderr
    assert read_card(trained.segmenter).fold == "fold-0"


def test_held_out_scans_are_segmented_on_their_own_grid(
    run: Callable[..., Any], scans: Cohort, trained: Any, tmp_path: Path
) -> None:
    command = ("segment", "predict", trained.segmenter, scans.root, tmp_path / "masks")
    found = run(*command, "--fold", "0/2", "--json").json()
    assert found["cases"] == 4
    assert set(found["dice"]) <= {"liver", "tumour"}
    assert all(interval["n"] <= 4 for interval in found["dice"].values())
    written = sorted((tmp_path / "masks").glob("*.nii.gz"))
    assert len(written) == 4
    assert json.loads((tmp_path / "masks" / "labels.json").read_text()) == {
        "background": 0,
        "liver": 1,
        "tumour": 2,
    }
    for path in written:
        image = scans[path.name.removesuffix(".nii.gz")].read_image()
        mask = read_label_map(path, n_classes=3)
        assert mask.shape == image.shape
        assert corner_distance_mm(mask, image) < 1e-3


def test_a_segmenter_is_not_judged_on_its_training_scans(
    run: Callable[..., Any], scans: Cohort, trained: Any, tmp_path: Path
) -> None:
    """All are segmented; the Dice is that of the four which did not train it."""
    command = ("segment", "predict", trained.segmenter, scans.root)
    everyone = run(*command, tmp_path / "all", "--json").json()
    held_out = run(*command, tmp_path / "fold", "--fold", "0/2", "--json").json()
    assert (everyone["cases"], held_out["cases"]) == (8, 4)
    assert len(list((tmp_path / "all").glob("*.nii.gz"))) == 8
    assert everyone["dice"] == held_out["dice"]
    assert "4 of them trained the model" in run(*command, tmp_path / "said").stdout


def test_an_ensemble_is_not_judged_on_what_trained_any_member(
    run: Callable[..., Any],
    scans: Cohort,
    tiny_options: tuple[str, ...],
    trained: Any,
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    assert run("segment", "train", scans.root, other, "--fold", "1/2", *tiny_options).status == 0
    command = ("segment", "predict", trained.segmenter, scans.root, tmp_path / "out")
    found = run(*command, "--ensemble", other, "--probabilities", "--json").json()
    assert found["training_cases_not_judged"] == 8
    assert found["dice"] == {}
    written = {path.name for path in (tmp_path / "out" / "probabilities").iterdir()}
    assert written == {f"{c.name}_{name}.nii.gz" for c in scans for name in ("liver", "tumour")}


@pytest.mark.parametrize("predicted", [False, True])
def test_cropping_writes_a_cohort_of_patches(
    predicted: bool,
    run: Callable[..., Any],
    scans: Cohort,
    tiny_options: tuple[str, ...],
    trained: Any,
    tmp_path: Path,
) -> None:
    segmenter = ("--segmenter", trained.segmenter) if predicted else ()
    command = ("crop", scans.root, tmp_path / "crops", *segmenter, *tiny_options, "--json")
    assert run(*command).json() == {"cohort": str(tmp_path / "crops"), "cases": 8}
    crops = Cohort.open(tmp_path / "crops")
    np.testing.assert_array_equal(crops.outcomes, scans.outcomes)
    for case in crops:
        image, mask = case.read_with_mask()
        assert image.shape == mask.shape == (24, 16, 8)
    records = [json.loads(p.read_text()) for p in (crops.root / "crops").glob("*.json")]
    assert len(records) == 8
    if not predicted:
        assert all(record["fallback"] is None for record in records)
