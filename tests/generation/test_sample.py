from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.volume import Volume
from neonet3d.config import SamplerConfig
from neonet3d.errors import InputError, RunError
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.lesion_edit import TumourEdit
from neonet3d.generation.sample import as_volume, masks_on_grid, sample_cohort
from neonet3d.types import LabelSchema

SAMPLER = SamplerConfig(method="exponential", steps=2, guidance=1.0, mask_guidance=1.0)


def without_outcomes(g: LatentGenerator) -> LatentGenerator:
    card = g.card.model_copy(update={"outcome": None})
    return LatentGenerator(g, g.detail, card)


def test_one_pair_for_each_mask(patients: Cohort, trained: Any, tmp_path: Path) -> None:
    out = sample_cohort(trained.generator, patients, tmp_path / "out", SAMPLER, seed=3)
    assert [case.name for case in out] == [case.name for case in patients]
    assert (out.schema, out.outcome_name, out.channel) == (patients.schema, "pni", "synthetic")
    for made, source in zip(out, patients, strict=True):
        assert made.synthetic
        assert made.outcome == source.outcome
        image, mask = made.read_with_mask()
        assert np.array_equal(mask.data, source.read_with_mask()[1].data)
        assert float(np.median(image.data[mask.data == 1])) == pytest.approx(1, abs=0.5)


def test_provenance(patients: Cohort, trained: Any, tmp_path: Path) -> None:
    sample_cohort(trained.generator, patients, tmp_path / "out", SAMPLER, seed=3)
    table = pd.read_csv(tmp_path / "out" / "participants.tsv", sep="\t", dtype=str)
    assert table["source_mask"].tolist() == [case.digest()[:16] for case in patients]
    assert set(table["generator"]) == {trained.generator.card.weights_sha256[:16]}
    constant = {"synthetic": "1", "draw_seed": "3", "fold": "fold-0"}
    for column, value in constant.items():
        assert set(table[column]) == {value}


def test_going_round_the_masks(patients: Cohort, trained: Any, tmp_path: Path) -> None:
    two = patients.subset(patients.cases[:2])
    out = sample_cohort(trained.generator, two, tmp_path / "out", SAMPLER, seed=0, n=5, label=1)
    names = ["patient_0", "patient_1", "patient_0-2", "patient_1-2", "patient_0-3"]
    assert [case.name for case in out] == names
    assert [case.outcome for case in out] == [1] * 5
    first, second = out["patient_0"], out["patient_0-2"]
    assert first.mask_path is not None
    assert second.mask_path is not None
    assert first.mask_path.read_bytes() == second.mask_path.read_bytes()
    assert first.image_path.read_bytes() != second.image_path.read_bytes()


def test_the_seed_decides(patients: Cohort, trained: Any, tmp_path: Path) -> None:
    two = patients.subset(patients.cases[:2])
    first, again, other = (
        sample_cohort(trained.generator, two, tmp_path / name, SAMPLER, seed=seed).cases[0].digest()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other


def test_another_outcome_is_not_taken_for_the_generators_own(
    patients: Cohort, trained: Any, tmp_path: Path
) -> None:
    strangers = replace(patients, outcome_name="aneurysm")
    with pytest.raises(InputError, match=r"draws pni, and .* says aneurysm.*--label"):
        sample_cohort(trained.generator, strangers, tmp_path / "out", SAMPLER, seed=0)
    out = sample_cohort(trained.generator, strangers, tmp_path / "out", SAMPLER, seed=0, label=1)
    assert {case.outcome for case in out} == {1}


def test_an_edit_that_fails_names_the_case(patients: Cohort, trained: Any, tmp_path: Path) -> None:
    huge = TumourEdit(move=False, volume_mm3=1e9)
    with pytest.raises((InputError, RunError), match=f"^{patients.cases[0].name}: "):
        sample_cohort(trained.generator, patients, tmp_path / "out", SAMPLER, seed=0, edit=huge)


def test_a_generator_without_outcomes(patients: Cohort, trained: Any, tmp_path: Path) -> None:
    blind = without_outcomes(trained.generator)
    out = sample_cohort(blind, patients, tmp_path / "out", SAMPLER, seed=0, n=1)
    assert (out.outcome_name, out.cases[0].outcome) == (None, None)
    with pytest.raises(InputError, match="without outcomes"):
        sample_cohort(blind, patients, tmp_path / "b", SAMPLER, seed=0, n=1, label=1)
    assert not (tmp_path / "b").exists()


def test_what_cannot_be_drawn(patients: Cohort, trained: Any, tmp_path: Path) -> None:
    g, out = trained.generator, tmp_path / "out"
    with pytest.raises(InputError, match="no mask to draw an image for"):
        sample_cohort(g, patients.subset([]), out, SAMPLER, seed=0)
    with pytest.raises(InputError, match="patient_0 has no mask"):
        sample_cohort(g, patients.with_overlaid_masks({}, patients.schema), out, SAMPLER, seed=0)
    with pytest.raises(InputError, match="label 3"):
        sample_cohort(g, patients, out, SAMPLER, seed=0, n=1, label=3)
    volume, mask = patients.cases[0].read_with_mask()
    writer = CohortWriter(
        tmp_path / "other",
        LabelSchema(("background", "liver", "hepatic_vein", "tumour")),
        outcome_name=None,
        channel="MR",
    )
    writer.add("a", volume, mask)
    with pytest.raises(InputError, match="knows the classes"):
        sample_cohort(g, writer.finish(), out, SAMPLER, seed=0)
    assert not out.exists()


def test_masks_of_another_grid_are_centred(patients: Cohort, trained: Any, tmp_path: Path) -> None:
    """A mask of 1 mm voxels and another size comes onto the generator's 2 mm grid."""
    data = np.zeros((60, 40, 40), np.uint8)
    data[24:36, 14:26, 14:26] = 3  # 12 mm in the middle
    writer = CohortWriter(tmp_path / "fine", patients.schema, outcome_name=None, channel="MR")
    image = np.random.default_rng(0).normal(100, 5, data.shape).astype(np.float32)
    writer.add("a", Volume(image, np.eye(4)), Volume(data, np.eye(4)))
    found = masks_on_grid(trained.generator, writer.finish())[0].numpy()
    assert found.shape == (1, *trained.generator.card.shape)
    expected = np.zeros(found.shape[1:], np.uint8)
    expected[9:15, 5:11, 5:11] = 3
    np.testing.assert_array_equal(found[0], expected)


def test_a_volume_lies_around_the_origin(trained: Any) -> None:
    grid = trained.generator.card.grid
    volume = as_volume(trained.generator, np.full(grid.shape, -1, np.float32), torch.zeros(3))
    assert volume.spacing_mm == grid.spacing_mm
    corners = [volume.affine @ [*index, 1] for index in ((0, 0, 0), np.array(grid.shape) - 1)]
    np.testing.assert_allclose(corners[0][:3], -corners[1][:3])
    assert float(volume.data.max()) == 0  # -1 is no signal
    mask = as_volume(
        trained.generator, np.full(grid.shape, 3, np.uint8), torch.tensor([0.0, 0.0, 1.2]).log1p()
    )
    assert (mask.data == 3).all()
    np.testing.assert_allclose(mask.spacing_mm, np.array(grid.spacing_mm) * [1, 1, 2.2], rtol=1e-6)


def test_the_tumour_of_a_mask_is_edited_first(
    patients: Cohort, trained: Any, tmp_path: Path
) -> None:
    two = patients.subset(patients.cases[:2])
    edit = TumourEdit(move=False, volume_mm3=800.0)  # 100 voxels
    out = sample_cohort(trained.generator, two, tmp_path / "a", SAMPLER, seed=0, edit=edit)
    for case, source in zip(out, two, strict=True):
        tumour = case.read_with_mask()[1].data == 3
        assert tumour.sum() == 100 != (source.read_with_mask()[1].data == 3).sum()
