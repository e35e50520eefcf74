from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.importers import ImportOptions, import_cohort, plan_import, recognise
from neonet3d.errors import InputError


def medmnist(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    made = {}
    for split in ("train", "val", "test"):
        made[f"{split}_images"] = rng.integers(0, 256, (2, 4, 4, 4)).astype(np.uint8)
        made[f"{split}_labels"] = np.array([[0], [1]], np.uint8)
    np.savez(folder / "vesselmnist3d.npz", **made)
    return folder / "vesselmnist3d.npz"


def test_a_medmnist_file_is_recognised(tmp_path: Path) -> None:
    source = medmnist(tmp_path)
    assert plan_import(source, ImportOptions()).n_cases == 6
    cohort = import_cohort(source, tmp_path / "out")
    assert cohort.outcome_name == "aneurysm"
    assert (
        import_cohort(source, tmp_path / "b", ImportOptions(outcome="shape")).outcome_name
        == "shape"
    )
    with pytest.raises(InputError, match="holds its own labels"):
        import_cohort(source, tmp_path / "c", ImportOptions(labels=tmp_path / "t.csv"))


def test_a_decathlon_folder_is_recognised(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    source = real_data("Task04_Hippocampus")
    assert plan_import(source, ImportOptions()).n_cases == 160
    table = tmp_path / "t.csv"
    table.write_text("case;pni\nhippocampus_1;1\n")
    with pytest.raises(InputError, match="No row of the table names a scan"):
        import_cohort(source, tmp_path / "out", ImportOptions(labels=table, outcome="pni"))
    with pytest.raises(InputError, match=r"Add '--labels TABLE.csv'"):
        import_cohort(source, tmp_path / "out", ImportOptions(outcome="pni"))
    assert not (tmp_path / "out").exists()


def test_anything_else_is_told_what_is_understood(
    tmp_path: Path, make_cohort: Callable[..., Cohort]
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"Understood are .*Decathlon.* MedMNIST3D"):
        import_cohort(tmp_path / "folder", tmp_path / "out")
    with pytest.raises(InputError, match="There is no"):
        import_cohort(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(InputError, match="is a cohort already"):
        recognise(make_cohort([0, 1]).root)


def test_a_full_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder"):
        import_cohort(medmnist(tmp_path), tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "keep"
