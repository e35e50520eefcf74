from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.importers.medmnist import import_medmnist
from neonet3d.errors import InputError

COUNTS = {"train": 6, "val": 2, "test": 4}


def arrays(classes: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {}
    for split, n in COUNTS.items():
        made[f"{split}_images"] = rng.integers(0, 256, (n, 6, 7, 8)).astype(np.uint8)
        made[f"{split}_labels"] = (np.arange(n) % classes).astype(np.uint8)[:, None]
    return made


def saved(folder: Path, made: dict[str, np.ndarray], name: str = "vesselmnist3d.npz") -> Path:
    np.savez(folder / name, **made)
    return folder / name


def test_the_official_split_and_the_outcome_come_through(tmp_path: Path) -> None:
    made = arrays()
    cohort = import_medmnist(saved(tmp_path, made), tmp_path / "out")
    assert cohort.outcome_name == "aneurysm"
    assert cohort.schema.names == ("background",)
    for split, n in COUNTS.items():
        cases = [case for case in cohort if case.split == split]
        assert [case.name for case in cases] == [f"{split}_{index:04d}" for index in range(n)]
        assert [case.outcome for case in cases] == made[f"{split}_labels"][:, 0].tolist()
        for index, case in enumerate(cases):
            image, mask = case.read()
            np.testing.assert_array_equal(image.data, made[f"{split}_images"][index])
            assert mask is None
    assert len({case.participant for case in cohort}) == len(cohort)
    description = json.loads((cohort.root / "dataset.json").read_text())
    assert description["neonet3d"]["source"]["spacing"] == "unknown; 1 mm is written"


@pytest.mark.parametrize(
    ("name", "shape"), [("vesselmnist3d.npz", "vessel"), ("tubesmnist3d.npz", "shape")]
)
def test_a_shape_is_its_own_mask(tmp_path: Path, name: str, shape: str) -> None:
    made = arrays()
    for split in COUNTS:
        made[f"{split}_images"] = 255 * (made[f"{split}_images"] > 200).astype(np.uint8)
    cohort = import_medmnist(saved(tmp_path, made, name), tmp_path / "out", outcome_name="wide")
    assert cohort.schema.names == ("background", shape)
    for case in cohort:
        image, mask = case.read_with_mask()
        np.testing.assert_array_equal(mask.data, image.data > 0)
    # One image of grey levels, and all of them are images.
    made["test_images"][0, 0, 0, 0] = 7
    (tmp_path / "grey").mkdir()
    source = saved(tmp_path / "grey", made, name)
    grey = import_medmnist(source, tmp_path / "grey" / "out", outcome_name="wide")
    assert grey.schema.names == ("background",)
    assert all(case.mask_path is None for case in grey)


def test_another_data_set_needs_a_name_for_its_outcome(tmp_path: Path) -> None:
    source = saved(tmp_path, arrays(), "nodulemnist3d_64.npz")
    with pytest.raises(InputError, match="Name the outcome"):
        import_medmnist(source, tmp_path / "out")
    cohort = import_medmnist(source, tmp_path / "out", outcome_name="malignant")
    assert cohort.outcome_name == "malignant"


def pickled(made: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return made | {"train_images": np.array([{"a": 1}, None], dtype=object)}


BAD = {
    "many classes": (arrays(3), "the labels are 0 to 2, 3 classes"),
    "no test": ({k: v for k, v in arrays().items() if "test" not in k}, "is not a MedMNIST file"),
    "2D": (arrays() | {"train_images": np.zeros((6, 28, 28), np.uint8)}, "Only the 3D files"),
    "float": (arrays() | {"train_images": np.zeros((6, 6, 7, 8))}, "Only the 3D files"),
    "multi-label": (arrays() | {"val_labels": np.zeros((2, 14), np.uint8)}, "one label per sample"),
    "constant": (arrays() | {"val_images": np.zeros((2, 6, 7, 8), np.uint8)}, "val_0000: every"),
    "pickle": (pickled(arrays()), "cannot be read"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_and_nothing_is_left(tmp_path: Path, kind: str) -> None:
    made, sentence = BAD[kind]
    with pytest.raises(InputError, match=sentence):
        import_medmnist(saved(tmp_path, made), tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["vesselmnist3d.npz"]


def test_an_array_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "vesselmnist3d.npy", np.zeros(3))
    source = (tmp_path / "vesselmnist3d.npy").rename(tmp_path / "vesselmnist3d.npz")
    with pytest.raises(InputError, match="cannot be read"):
        import_medmnist(source, tmp_path / "out")


@pytest.mark.parametrize("kept", [0, 0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float) -> None:
    source = saved(tmp_path, arrays())
    whole = source.read_bytes()
    source.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match="cannot be read"):
        import_medmnist(source, tmp_path / "out")


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    source = saved(tmp_path, arrays())
    flipped = bytearray(source.read_bytes())
    flipped[900] ^= 16  # inside train_images
    source.write_bytes(flipped)
    with pytest.raises(InputError, match="cannot be read"):
        import_medmnist(source, tmp_path / "out")


@pytest.mark.slow
def test_the_real_vessels(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    cohort = import_medmnist(real_data("medmnist3d") / "vesselmnist3d.npz", tmp_path / "out")
    assert len(cohort) == 1908
    assert cohort.outcomes.mean() == pytest.approx(0.11, abs=0.005)
    assert [sum(c.split == s for c in cohort) for s in ("train", "val", "test")] == [1335, 191, 382]
