from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.phantom.patient import simulate_patient, simulate_roi
from neonet3d.cohort.phantom.writer import PHANTOM_CLASSES, SEED_STRIDE, write_phantom_cohort
from neonet3d.config import PhantomConfig, RoiConfig, load_config
from neonet3d.errors import InputError

CONFIG = PhantomConfig(n=3, spacing_mm=(10.0, 10.0, 20.0), field_of_view_mm=(310.0, 240.0, 200.0))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return write_phantom_cohort(tmp_path_factory.mktemp("phantom") / "cohort", CONFIG, seed=2)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_every_patient_is_the_one_that_its_seed_draws(written: Cohort) -> None:
    assert [case.name for case in written] == ["phantom_0000", "phantom_0001", "phantom_0002"]
    assert written.schema == PHANTOM_CLASSES
    assert (written.outcome_name, written.channel) == ("pni", "HBP")
    for index, case in enumerate(written):
        patient = simulate_patient(
            2 * SEED_STRIDE + index,
            spacing_mm=CONFIG.spacing_mm,
            field_of_view_mm=CONFIG.field_of_view_mm,
        )
        image, mask = case.read_with_mask()
        np.testing.assert_array_equal(image.data, patient.image)
        np.testing.assert_array_equal(mask.data, patient.label_map)
        np.testing.assert_allclose(image.affine, patient.affine, atol=1e-4)
        assert case.outcome == patient.pni
        assert not case.synthetic


def test_a_cohort_of_regions_of_interest(tmp_path: Path) -> None:
    roi = RoiConfig(
        around="tumour",
        shape=(16, 16, 8),
        spacing_mm=(6.0, 6.0, 12.0),
        margin_mm=10,
        minimum_volume_mm3=100,
    )
    cohort = write_phantom_cohort(tmp_path / "rois", CONFIG, seed=2, roi=roi)
    for index, case in enumerate(cohort):
        patient = simulate_roi(2 * SEED_STRIDE + index, shape=roi.shape, spacing_mm=roi.spacing_mm)
        image, mask = case.read_with_mask()
        np.testing.assert_array_equal(image.data, patient.image)
        np.testing.assert_array_equal(mask.data, patient.label_map)
        np.testing.assert_allclose(image.affine, patient.affine, atol=1e-4)
    description = (tmp_path / "rois" / "dataset.json").read_text()
    assert '"roi"' in description


def test_the_truth_stands_in_the_table(written: Cohort) -> None:
    table = pd.read_csv(written.root / "participants.tsv", sep="\t")
    for index, row in table.iterrows():
        patient = simulate_patient(
            2 * SEED_STRIDE + int(str(index)),
            spacing_mm=CONFIG.spacing_mm,
            field_of_view_mm=CONFIG.field_of_view_mm,
        )
        assert row["pni_probability"] == pytest.approx(patient.pni_probability, abs=1e-6)
        for name, value in patient.parameters.items():
            assert row[name] == pytest.approx(value, rel=1e-5)


def test_the_same_seed_gives_the_same_bytes_on_one_core(
    written: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neonet3d.cohort.phantom.writer.cpu_count", lambda: 1)
    seen: list[int] = []

    def advance(n: int = 1, note: str = "") -> None:
        seen.append(n)

    again = write_phantom_cohort(tmp_path / "again", CONFIG, seed=2, advance=advance)
    assert contents(again.root) == contents(written.root)
    assert seen == [1, 1, 1]


def test_nothing_that_stands_is_overwritten(written: Cohort, tmp_path: Path) -> None:
    before = contents(written.root)
    with pytest.raises(InputError, match="is not an empty folder"):
        write_phantom_cohort(written.root, CONFIG, seed=3)
    assert contents(written.root) == before


def test_a_writer_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "phantom_0000")

    def threads(workers: int, mp_context: object) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr("neonet3d.cohort.phantom.writer.ProcessPoolExecutor", threads)
    monkeypatch.setattr("neonet3d.cohort.phantom.writer.CohortWriter.add", full)
    one = CONFIG.model_copy(update={"n": 1})
    with pytest.raises(OSError, match="No space left"):
        write_phantom_cohort(tmp_path / "cohort", one, seed=0)
    assert not any(tmp_path.iterdir())


def test_windows_around_livers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"roi\.around is liver"):
        write_phantom_cohort(tmp_path / "rois", CONFIG, seed=2, roi=load_config("liver").roi)
    assert not (tmp_path / "rois").exists()
