from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from neonet3d.classification.logistic import LARGEST, LogisticModel
from neonet3d.classification.predict import Classifier
from neonet3d.classification.radiomics.patient import feature_names, radiomics_table
from neonet3d.classification.train_radiomics import train_radiomics
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import load_patches
from neonet3d.config import Config
from neonet3d.engine.artefact import read_card
from neonet3d.errors import InputError
from neonet3d.metrics.discrimination import auc
from neonet3d.types import LabelSchema


def test_a_darker_tumour_is_learnt(
    fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    train_radiomics(fold, read_card(encoder_folder).reading, tiny, tmp_path / "radiomics")
    classifier = Classifier.load(tmp_path / "radiomics")
    probability = classifier.predict(fold.held_out)
    assert auc(fold.held_out.outcomes, probability) == 1
    assert classifier.prevalence == pytest.approx(0.5)
    stamp = (tmp_path / "radiomics" / "model.safetensors").stat().st_mtime_ns
    train_radiomics(fold, read_card(encoder_folder).reading, tiny, tmp_path / "radiomics")
    assert (tmp_path / "radiomics" / "model.safetensors").stat().st_mtime_ns == stamp


def test_features_are_named_and_unknown_where_a_region_is_empty(
    write_patches: Callable[..., Cohort], fold: Fold, encoder_folder: Path, tiny: Config
) -> None:
    card = read_card(encoder_folder)
    seen = load_patches(fold.training, *card.reading)
    names = feature_names(card.schema_, tiny.radiomics)
    table = radiomics_table(seen, card.schema_, tiny.radiomics)
    assert table.shape == (8, len(names)) == (8, len(set(names)))
    assert np.isfinite(table).all()
    assert {name.split(".")[0] for name in names} == {"tumour", "shell", "portal_neighbourhood"}
    volume = names.index("tumour.shape.approximate_volume")
    voxels = (seen.required_label_maps()[0] == card.schema_.value("tumour")).sum()
    assert table[0, volume] == pytest.approx(float(voxels) * np.prod(card.grid.spacing_mm))

    none = load_patches(write_patches(2, seed=9, tumour=False), *card.reading)
    table = radiomics_table(none, card.schema_, tiny.radiomics)
    assert np.isnan(table[:, [name.startswith("tumour.") for name in names]]).all()


def test_a_ratio_of_intensities_is_of_the_signal(
    fold: Fold, encoder_folder: Path, tiny: Config
) -> None:
    """In [-1, 1] the zero lies among the tissues, and such a ratio is anything."""
    card = read_card(encoder_folder)
    seen = load_patches(fold.training, *card.reading)
    names = feature_names(card.schema_, tiny.radiomics)
    table = radiomics_table(seen, card.schema_, tiny.radiomics)
    found = table[:, names.index("tumour.intensity.coefficient_of_variation")]
    tumour = seen.required_label_maps() == card.schema_.value("tumour")
    signal = (seen.images.double() + 1) / 2
    expected = [
        float(s[t].std(correction=0) / s[t].mean()) for s, t in zip(signal, tumour, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_column_that_no_case_has_says_nothing() -> None:
    rng = np.random.default_rng(0)
    outcomes = np.arange(20) % 2
    features = np.stack([outcomes + 0.1 * rng.normal(size=20), np.full(20, np.nan)], axis=1)
    model = LogisticModel(2)
    model.fit(features, outcomes, np.ones(20), np.arange(20), np.arange(20), seed=0)
    assert model.weight[0] > 0
    assert model.weight[1] == 0
    assert torch.isfinite(model(torch.from_numpy(features))).all()


def test_unknown_features_count_as_the_mean_and_far_ones_are_bounded() -> None:
    model = LogisticModel(2)
    model.mean.copy_(torch.tensor([3.0, 0.0]))
    model.weight.fill_(1.0)
    features = torch.tensor([[float("nan"), 1.0], [3.0, 1.0], [1e9, 0.0]])
    assert model(features).tolist() == [1.0, 1.0, LARGEST]


def test_inner_folds_need_patients_of_both_classes() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(12), 3)
    outcomes = (patients % 2).astype(int)
    features = rng.normal(size=(36, 4)) + outcomes[:, None]
    model = LogisticModel(4)
    everyone = np.arange(36)
    strength = model.fit(features, outcomes, np.ones(36), patients, everyone, seed=0)
    assert strength > 0
    logits = model(torch.from_numpy(features)).numpy()
    assert auc(outcomes, logits) > 0.8
    with pytest.raises(InputError, match="patients of each class"):
        model.fit(features, outcomes, np.ones(36), outcomes, everyone, seed=0)


def test_the_penalty_is_chosen_on_known_cases_alone() -> None:
    """Ten synthetic cases of each patient, in which one feature gives the outcome away."""
    rng = np.random.default_rng(1)
    real = np.arange(40) % 2
    outcomes, patients = np.tile(real, 11), np.tile(np.arange(40), 11)
    features = rng.normal(size=(440, 30))
    features[40:, 0] += 6 * outcomes[40:]
    chosen = [
        LogisticModel(30).fit(features, outcomes, np.ones(440), patients, known, seed=0)
        for known in (np.arange(440), np.arange(40))
    ]
    assert chosen[0] != chosen[1]
    one_class = np.flatnonzero(outcomes == 0)
    with pytest.raises(InputError, match="real patients of both classes"):
        LogisticModel(30).fit(features, outcomes, np.ones(440), patients, one_class, seed=0)


def test_a_cohort_without_tumours_is_refused(
    write_patches: Callable[..., Cohort], encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    schema = LabelSchema(("background", "liver", "portal_vein", "lesion"))
    cohort = write_patches(4, seed=11, schema=schema)
    fold = Fold("all", cohort, cohort.subset([]))
    with pytest.raises(InputError, match="Radiomics are those of a tumour"):
        train_radiomics(
            fold, read_card(encoder_folder).reading, tiny, tmp_path / "out", allow_no_tumour=True
        )
    assert not (tmp_path / "out").exists()
