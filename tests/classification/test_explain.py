from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neonet3d.classification.explain import CUBE, Explanation, explain
from neonet3d.classification.predict import Classifier
from neonet3d.classification.train import train_patten
from neonet3d.classification.train_baseline import train_baseline
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import Patches, load_patches
from neonet3d.config import Config
from neonet3d.engine.artefact import read_card
from neonet3d.errors import InputError


@pytest.fixture(scope="module")
def classifier(
    fold: Fold, encoder_folder: Path, tiny: Config, tmp_path_factory: pytest.TempPathFactory
) -> Classifier:
    """Learned that a darker tumour is positive; two members."""
    settings = tiny.classifier
    loop = settings.loop.model_copy(update={"steps": 30, "batch_size": 8, "learning_rate": 3e-3})
    settings = settings.model_copy(update={"loop": loop, "members": 2})
    folder = tmp_path_factory.mktemp("explained") / "patten"
    train_patten(fold, encoder_folder, tiny.model_copy(update={"classifier": settings}), folder)
    return Classifier.load(folder)


@pytest.fixture(scope="module")
def patches(classifier: Classifier, fold: Fold) -> Patches:
    return load_patches(fold.held_out, *classifier.card.reading)


@pytest.fixture(scope="module")
def explained(classifier: Classifier, patches: Patches) -> Explanation:
    return explain(classifier, patches)


def test_maps_lie_on_the_patch(explained: Explanation, patches: Patches) -> None:
    for maps in (explained.attention, explained.grad_cam, explained.occlusion):
        assert maps.shape == patches.images.shape
        assert bool(torch.isfinite(maps).all())
    np.testing.assert_allclose(explained.attention.mean((1, 2, 3)), 1, atol=0.05)
    assert float(explained.attention.min()) >= 0
    assert float(explained.grad_cam.min()) >= 0


def test_occlusion_finds_the_tumour_that_says_it(
    explained: Explanation, classifier: Classifier, patches: Patches
) -> None:
    """Nothing else differs between the classes; a cube is one value."""
    tumour = patches.required_label_maps() == classifier.card.schema_.value("tumour")
    fall = explained.occlusion.abs()
    for case in range(len(patches)):
        first = fall[case, ::CUBE, ::CUBE, ::CUBE]
        assert torch.equal(fall[case, CUBE - 1 :: CUBE, CUBE - 1 :: CUBE, CUBE - 1 :: CUBE], first)
    assert float(fall[tumour].mean()) > float(fall[~tumour].mean())


def test_explaining_changes_no_weight(classifier: Classifier, patches: Patches) -> None:
    before = {name: value.clone() for name, value in classifier.model.state_dict().items()}
    explain(classifier, patches)
    for name, value in classifier.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_other_classifiers_are_refused(
    fold: Fold, encoder_folder: Path, tiny: Config, patches: Patches, tmp_path: Path
) -> None:
    train_baseline(fold, read_card(encoder_folder).reading, tiny, tmp_path / "baseline")
    with pytest.raises(InputError, match="this is a VolumeClassifier"):
        explain(Classifier.load(tmp_path / "baseline"), patches)


def test_a_patch_without_the_mask_it_learned_with_is_refused(
    classifier: Classifier, patches: Patches
) -> None:
    with pytest.raises(InputError, match="needs a mask for every case"):
        explain(classifier, replace(patches, label_maps=None))
