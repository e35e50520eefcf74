from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neonet3d.classification.baseline import VolumeClassifier
from neonet3d.classification.predict import Classifier
from neonet3d.classification.train import train_patten
from neonet3d.classification.train_baseline import train_baseline
from neonet3d.classification.training_set import has_masks
from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.config import Config
from neonet3d.engine.artefact import read_card
from neonet3d.errors import InputError
from neonet3d.generation.latents import FoldLatents
from neonet3d.generation.train import fit_anatomy, fit_reading, train_autoencoder
from neonet3d.types import LabelSchema

WITHOUT_LIVER = LabelSchema(("background", "spleen", "portal_vein", "tumour"))


@pytest.fixture(scope="module")
def models(
    fold: Fold, encoder_folder: Path, tiny: Config, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of a PattenNet and a ResNet of the same fold."""
    root = tmp_path_factory.mktemp("models")
    train_patten(fold, encoder_folder, tiny, root / "patten")
    train_baseline(fold, read_card(encoder_folder).reading, tiny, root / "resnet")
    return root


@pytest.mark.parametrize("kind", ["patten", "resnet"])
def test_one_probability_per_case(kind: str, models: Path, fold: Fold) -> None:
    probability = Classifier.load(models / kind).predict(fold.held_out)
    assert probability.shape == (4,)
    assert ((probability > 0) & (probability < 1)).all()
    np.testing.assert_array_equal(
        Classifier.load(models / kind).predict(fold.held_out), probability
    )


@pytest.mark.parametrize("kind", ["patten", "resnet"])
def test_a_case_does_not_depend_on_the_others(kind: str, models: Path, fold: Fold) -> None:
    classifier = Classifier.load(models / kind)
    together = classifier.predict(fold.held_out)
    alone = [classifier.predict(fold.held_out.subset([case]))[0] for case in fold.held_out]
    np.testing.assert_allclose(alone, together, atol=2e-3)  # bfloat16


def test_the_baseline_is_averaged_over_all_flips(models: Path, fold: Fold, tmp_path: Path) -> None:
    """A mirrored patient has the same probability."""
    writer = CohortWriter(
        tmp_path / "mirrored", fold.held_out.schema, outcome_name=None, channel=""
    )
    for case in fold.held_out:
        image, mask = case.read_with_mask()
        writer.add(
            case.name,
            image.with_data(image.data[::-1, :, ::-1]),
            mask.with_data(mask.data[::-1, :, ::-1]),
        )
    classifier = Classifier.load(models / "resnet")
    np.testing.assert_allclose(
        classifier.predict(writer.finish()), classifier.predict(fold.held_out), atol=1e-5
    )


def test_training_prevalence_is_in_the_probability(models: Path, fold: Fold) -> None:
    classifier = Classifier.load(models / "resnet")
    balanced = classifier.predict(fold.held_out)
    assert isinstance(classifier.model, VolumeClassifier)
    classifier.model.prior_logit.add_(np.log(0.25))
    shifted = classifier.predict(fold.held_out)
    odds = shifted / (1 - shifted) / (balanced / (1 - balanced))
    np.testing.assert_allclose(odds, 0.25, rtol=1e-4)


@pytest.mark.parametrize("kind", ["patten", "resnet"])
def test_a_case_without_tumour_is_refused_unless_allowed(
    kind: str, models: Path, write_patches: Callable[..., Cohort]
) -> None:
    cohort = write_patches(2, seed=5, tumour=False)
    classifier = Classifier.load(models / kind)
    with pytest.raises(InputError, match=r"2 cases show no tumour \(the first is case_5_0"):
        classifier.predict(cohort)
    probability = classifier.predict(cohort, allow_no_tumour=True)
    assert np.isfinite(probability).all()


@pytest.mark.parametrize("kind", ["patten", "resnet"])
def test_whole_scans_are_refused(
    kind: str, models: Path, write_patches: Callable[..., Cohort]
) -> None:
    scans = write_patches(2, seed=6, shape=(48, 32, 16))
    with pytest.raises(InputError, match=r"case_6_0 is .* whole scan.*neonet3d crop"):
        Classifier.load(models / kind).predict(scans)


@pytest.mark.parametrize("kind", ["patten", "resnet"])
def test_other_classes_are_refused(
    kind: str, models: Path, write_patches: Callable[..., Cohort]
) -> None:
    cohort = write_patches(2, seed=7, schema=WITHOUT_LIVER)
    with pytest.raises(InputError, match=r"knows the classes .*spleen.*same classes"):
        Classifier.load(models / kind).predict(cohort)


def test_another_model_is_no_classifier(encoder_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a Autoencoder, not a classifier"):
        Classifier.load(encoder_folder)
    with pytest.raises(InputError, match="no trained model"):
        Classifier.load(tmp_path)


def fit(cohort: Cohort, tiny: Config, root: Path) -> Classifier:
    fold = Fold("all", cohort, cohort.subset([]))
    train_autoencoder(fold, tiny, root / "autoencoder")
    if has_masks(fold):
        fit_anatomy(FoldLatents(fold, root / "autoencoder"), tiny, root)
    train_patten(fold, root / "autoencoder", tiny, root / "patten")
    return Classifier.load(root / "patten")


def bare(cohort: Cohort) -> Cohort:
    return replace(cohort, cases=tuple(replace(case, mask_path=None) for case in cohort))


def test_a_network_of_masked_cases_needs_them_all(
    write_patches: Callable[..., Cohort], tiny: Config, tmp_path: Path
) -> None:
    """And one that was trained without looks at none."""
    cohort = write_patches(4, seed=8, schema=WITHOUT_LIVER)
    new = write_patches(2, seed=9, schema=WITHOUT_LIVER)
    some = replace(new, cases=(new.cases[0], replace(new.cases[1], mask_path=None)))
    for name, training in (("masked", cohort), ("bare", bare(cohort))):
        fold = Fold("all", training, training.subset([]))
        train_baseline(fold, fit_reading(fold), tiny, tmp_path / name, allow_no_tumour=True)
    masked, blind = (Classifier.load(tmp_path / name) for name in ("masked", "bare"))
    assert np.isfinite(masked.predict(new)).all()
    with pytest.raises(InputError, match="needs a mask for every case"):
        masked.predict(some, allow_no_tumour=True)
    found = [blind.predict(one, allow_no_tumour=True) for one in (new, some)]
    np.testing.assert_array_equal(*found)


def test_a_classifier_of_masked_cases_needs_masks(
    write_patches: Callable[..., Cohort], tiny: Config, tmp_path: Path
) -> None:
    classifier = fit(write_patches(4, seed=8, schema=WITHOUT_LIVER), tiny, tmp_path)
    new = write_patches(2, seed=9, schema=WITHOUT_LIVER, masks=False)
    with pytest.raises(InputError, match="needs a mask for every case"):
        classifier.predict(new)


def test_a_classifier_without_masks_looks_at_none(
    write_patches: Callable[..., Cohort], tiny: Config, tmp_path: Path
) -> None:
    bare_cohort = write_patches(4, seed=8, schema=WITHOUT_LIVER, masks=False)
    with pytest.raises(InputError, match="has cases without masks"):
        fit(bare_cohort, tiny, tmp_path / "anatomy")
    maps = tiny.classifier.model_copy(update={"features": "maps", "readings": ("deep",)})
    classifier = fit(bare_cohort, tiny.model_copy(update={"classifier": maps}), tmp_path / "maps")
    assert classifier.card.parts["regions"] == ["whole"]
    new = write_patches(2, seed=9, schema=WITHOUT_LIVER)
    np.testing.assert_array_equal(classifier.predict(new), classifier.predict(bare(new)))


def test_masks_without_liver_or_tumour_are_read_all_the_same(
    write_patches: Callable[..., Cohort], tiny: Config, tmp_path: Path
) -> None:
    """They are regions as they are."""
    schema = LabelSchema(("background", "anterior", "portal_vein", "posterior"))
    classifier = fit(write_patches(4, seed=8, schema=schema), tiny, tmp_path)
    assert classifier.card.parts["regions"] == ["whole", "anterior", "posterior"]
    new = write_patches(2, seed=9, schema=schema)
    assert np.isfinite(classifier.predict(new)).all()
    with pytest.raises(InputError, match="needs a mask for every case"):
        classifier.predict(bare(new))


def test_a_patten_says_how_sure_it_is(models: Path, fold: Fold) -> None:
    classifier = Classifier.load(models / "patten")
    found = classifier.assess(fold.held_out)
    np.testing.assert_array_equal(found.probability, classifier.predict(fold.held_out))
    assert bool(((found.low <= found.probability) & (found.probability <= found.high)).all())
    assert found.may_be.shape == (4, 2)
    # Four training cases of a class are too few to leave it out of any set of 90 % coverage.
    assert bool(found.may_be.all())
    assert bool((found.familiarity > 0).all())
    with pytest.raises(InputError, match="Only a PattenNet says how sure it is"):
        Classifier.load(models / "resnet").assess(fold.held_out)


def test_a_scan_of_something_else_is_unfamiliar(
    models: Path, fold: Fold, write_patches: Callable[..., Cohort]
) -> None:
    """The same anatomy under heavy noise."""
    classifier = Classifier.load(models / "patten")
    cohort = write_patches(4, seed=12)
    rng = np.random.default_rng(0)
    for case in cohort:
        image = case.read_image()
        noisy = image.data * (1 + 0.5 * rng.standard_normal(image.shape))
        image.with_data(noisy.clip(1).astype(np.float32)).write(case.image_path)
    found = classifier.assess(cohort)
    assert bool(found.unfamiliar.all())
    assert bool((found.familiarity <= 1 / 9).all())


def test_loading_leaves_the_model_frozen(models: Path) -> None:
    classifier = Classifier.load(models / "patten")
    assert not classifier.model.training
    assert not any(
        isinstance(m, torch.nn.Dropout) and m.training for m in classifier.model.modules()
    )
