"""The job that draws a volume: the pair, its record, and the patient beside it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from neonet3d.app.drawing import DrawVolume
from neonet3d.app.edits import EditedMask, edited_mask
from neonet3d.cohort.volume import read_label_map, read_volume
from neonet3d.report.viewer import STEPS

Served = Any
GROWN = {"case": 2, "edits": [{"kind": "grow", "by_mm": 4.0}]}


def draw(served: Served, folder: Path, *, outcome: int, seed: int) -> dict[str, object]:
    session = served.session
    mask = EditedMask.model_validate(GROWN)
    work = DrawVolume(session.models, session.crops.root, mask, outcome, seed)
    folder.mkdir()
    stages: list[str] = []
    result = work.run(folder, stages.append)
    assert stages[-1] == "writing it"
    return result


def test_the_pair_says_where_it_comes_from(served: Served, tmp_path: Path) -> None:
    session = served.session
    result = draw(served, tmp_path / "job", outcome=1, seed=5)
    with zipfile.ZipFile(tmp_path / "job" / str(result["pair"])) as pair:
        assert set(pair.namelist()) == {"image.nii.gz", "mask.nii.gz", "provenance.json"}
        pair.extractall(tmp_path / "pair")
    record = json.loads((tmp_path / "pair" / "provenance.json").read_text())
    assert record["synthetic"] is True
    assert record["edits"] == GROWN["edits"]
    assert record["outcome"] == {"pni": 1}
    assert record["draw_seed"] == 5
    assert record["fold"] == "fold-0"
    source = session.crops.cases[1]
    assert source.digest().startswith(record["source_mask"])
    image = read_volume(tmp_path / "pair" / "image.nii.gz")
    mask = read_label_map(tmp_path / "pair" / "mask.nii.gz", n_classes=3)
    wanted = edited_mask(session.crops, session.card, EditedMask.model_validate(GROWN))
    assert np.array_equal(mask.data, wanted.label_map)
    assert image.shape == mask.shape
    trained = source.digest() in session.card.training_cases
    assert result["trained_on_the_mask"] is trained
    assert source.name not in json.dumps(result)


def test_the_patient_lies_where_the_draw_lies(served: Served, tmp_path: Path) -> None:
    draw(served, tmp_path / "job", outcome=0, seed=0)
    shown = {
        name: read_volume(tmp_path / "job" / f"{name}.nii.gz") for name in ("synthetic", "real")
    }
    assert np.allclose(shown["real"].affine, shown["synthetic"].affine)
    assert shown["real"].shape == shown["synthetic"].shape
    for one in shown.values():
        assert 0 <= one.data.min() < one.data.max() <= STEPS


def test_a_draw_is_repeated_by_its_numbers(served: Served, tmp_path: Path) -> None:
    images = []
    for number, (outcome, seed) in enumerate([(1, 7), (1, 7), (0, 7), (1, 8)]):
        draw(served, tmp_path / str(number), outcome=outcome, seed=seed)
        images.append((tmp_path / str(number) / "image.nii.gz").read_bytes())
    assert images[0] == images[1]
    assert len(set(images)) == 3
