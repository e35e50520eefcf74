"""A patch of the liver's middle is refused, by TLCR's record and by the mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neonet3d.classification.predict import Classifier
from neonet3d.classification.train import train_patten
from neonet3d.classification.train_baseline import train_baseline
from neonet3d.classification.tumourless import refuse_without_tumour
from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.config import Config, RoiConfig
from neonet3d.engine.artefact import read_card
from neonet3d.errors import InputError
from neonet3d.segmentation.tlcr import crop_cohort

REFUSED = r"1 cases show no tumour \(the first is case_20_2\).*--allow-no-tumour"
ROI = RoiConfig(
    around="tumour", shape=(24, 16, 8), spacing_mm=(3, 3, 6), margin_mm=3, minimum_volume_mm3=0
)


@pytest.fixture(scope="module")
def crops(write_patches: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """TLCR's patches of four scans; that of ``case_20_2`` shows the liver's middle."""
    root = tmp_path_factory.mktemp("fallback")
    scans = write_patches(4, seed=20)
    writer = CohortWriter(root / "scans", scans.schema, outcome_name="pni", channel="HBP")
    for case in scans:
        image, mask = case.read_with_mask()
        if case.name == "case_20_2":
            mask = mask.with_data(np.where(mask.data == 3, 1, mask.data).astype(np.uint8))
        writer.add(case.name, image, mask, outcome=case.outcome)
    return crop_cohort(writer.finish(), root / "crops", ROI)


def bare(cohort: Cohort) -> Cohort:
    return replace(cohort, cases=tuple(replace(case, mask_path=None) for case in cohort))


def test_a_fallback_is_known_by_its_record(crops: Cohort) -> None:
    with pytest.raises(InputError, match=REFUSED):
        refuse_without_tumour(crops)
    with pytest.raises(InputError, match=REFUSED):
        refuse_without_tumour(bare(crops))  # the record says it without a mask too
    refuse_without_tumour(crops.subset(case for case in crops if case.name != "case_20_2"))


def test_without_records_the_masks_are_asked(write_patches: Callable[..., Cohort]) -> None:
    refuse_without_tumour(write_patches(2, seed=21))
    cohort = write_patches(2, seed=22, tumour=False)
    with pytest.raises(InputError, match="2 cases show no tumour"):
        refuse_without_tumour(cohort)
    refuse_without_tumour(bare(cohort))


def test_neither_is_trained_nor_asked_about_it_unless_told(
    crops: Cohort, fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    part = Fold("fold-0", crops, fold.held_out)
    patten, resnet, card = tmp_path / "patten", tmp_path / "resnet", read_card(encoder_folder)
    with pytest.raises(InputError, match=REFUSED):
        train_patten(part, encoder_folder, tiny, patten)
    with pytest.raises(InputError, match=REFUSED):
        train_baseline(part, card.reading, tiny, resnet)
    assert not patten.exists()
    assert not resnet.exists()
    train_patten(part, encoder_folder, tiny, patten, allow_no_tumour=True)
    train_baseline(part, card.reading, tiny, resnet, allow_no_tumour=True)
    for model in (patten, resnet):
        with pytest.raises(InputError, match=REFUSED):
            Classifier.load(model).predict(crops)
        assert Classifier.load(model).predict(crops, allow_no_tumour=True).shape == (4,)
