from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import load_patches
from neonet3d.cohort.volume import Volume
from neonet3d.config import BalanceConfig, Config
from neonet3d.errors import InputError, RunError
from neonet3d.generation.balance import (
    Wanted,
    balance_cohort,
    plan_balance,
)
from neonet3d.generation.gate import QualityGate, tumour_dice
from neonet3d.generation.generator import LatentGenerator
from neonet3d.types import LabelSchema


def recipe(mode: str, share: float = 0.33) -> BalanceConfig:
    told = {"mode": mode, "masks": "either", "synthetic_share": share}
    return BalanceConfig.model_validate(told | {"adherence_quantile": 0.1, "attempts": 2})


@pytest.mark.parametrize(
    ("mode", "share", "real", "wanted"),
    [
        ("rare_class", 0.33, (20, 8), Wanted(0, 12)),
        ("rare_class", 0.33, (8, 20), Wanted(12, 0)),
        ("rare_class", 0.33, (9, 9), Wanted(0, 0)),
        ("both_classes", 0.33, (20, 8), Wanted(10, 22)),
        ("both_classes", 0.5, (20, 8), Wanted(20, 32)),
        ("both_classes", 0.0, (20, 8), Wanted(0, 12)),
        ("both_classes", 0.33, (9, 9), Wanted(5, 5)),
        ("pretrain", 0.33, (20, 8), Wanted(20, 20)),
    ],
)
def test_plan(mode: str, share: float, real: tuple[int, int], wanted: Wanted) -> None:
    planned = plan_balance(*real, recipe(mode, share))
    assert planned == wanted
    kept = (0, 0) if mode == "pretrain" else real
    assert kept[0] + planned.negative == kept[1] + planned.positive
    if mode == "both_classes":
        assert (
            min(planned.negative, planned.positive)
            / (max(real) + min(planned.negative, planned.positive))
            >= share
        )


def segmenter(find: Callable[[np.ndarray], np.ndarray], schema: LabelSchema) -> Any:
    """Stands for NeoSeg: ``find`` makes a label map of an image in any units."""
    return SimpleNamespace(
        card=SimpleNamespace(schema_=schema),
        segment=lambda image: SimpleNamespace(label_map=image.with_data(find(image.data))),
    )


def by_threshold(image: np.ndarray) -> np.ndarray:
    """Tumour where the signal lies between air and liver."""
    relative = image / np.median(image[image > image.max() / 4])
    return np.where((relative > 0.3) & (relative < 0.75), 3, 0).astype(np.uint8)


def nothing(image: np.ndarray) -> np.ndarray:
    return np.zeros(image.shape, np.uint8)


ORGANS = LabelSchema(("background", "liver"))


def test_tumour_dice(patients: Cohort) -> None:
    image, mask = patients.cases[0].read_with_mask()
    schema = patients.schema
    assert tumour_dice(segmenter(lambda _: mask.data, schema), image, mask) == 1
    assert tumour_dice(segmenter(nothing, schema), image, mask) == 0
    assert tumour_dice(segmenter(by_threshold, schema), image, mask) > 0.8
    assert np.isnan(tumour_dice(segmenter(nothing, ORGANS), image, mask))
    healthy = mask.with_data(nothing(mask.data))
    assert np.isnan(tumour_dice(segmenter(nothing, schema), image, healthy))


def test_the_gate_refuses_copies_and_lost_tumours(patients: Cohort, trained: Any) -> None:
    generator: LatentGenerator = trained.generator
    gate = QualityGate.of(
        patients, generator, segmenter(by_threshold, patients.schema), recipe("both_classes")
    )
    normaliser = generator.card.normaliser
    assert normaliser is not None
    images = load_patches(patients, generator.card.grid, normaliser).images
    assert 0.8 < gate.least_dice <= 1

    volume, mask = patients.cases[0].read_with_mask()
    assert not gate.accepts(images[0] + 0.001, volume, mask)
    other = images[0].flip(0)
    assert gate.accepts(other, volume, mask)
    healthy = np.full(volume.shape, 100, np.float32)
    assert not gate.accepts(other, Volume(healthy, volume.affine), mask)


def test_organs_without_a_tumour_need_no_segmenter(patients: Cohort, trained: Any) -> None:
    with pytest.raises(InputError, match="Give the segmenter of the same fold"):
        QualityGate.of(patients, trained.generator, None, recipe("both_classes"))
    organs = replace(patients, schema=LabelSchema(("background", "liver", "vein", "cyst")))
    gate = QualityGate.of(organs, trained.generator, None, recipe("both_classes"))
    volume, mask = patients.cases[0].read_with_mask()
    images = load_patches(patients, *trained.generator.card.reading).images
    assert gate.accepts(images[0].flip(0), volume, mask)
    assert not gate.accepts(images[0] + 0.001, volume, mask)


def test_patients_that_the_generator_never_saw_are_refused(
    patients: Cohort, trained: Any, tiny_config: Callable[[int], Config], tmp_path: Path
) -> None:
    generator = SimpleNamespace(
        card=trained.generator.card.model_copy(
            update={"training_scans": tuple(case.scan_digest() for case in patients.cases[:4])}
        )
    )
    with pytest.raises(InputError, match="2 of the 6 cases to balance did not train this gen"):
        balance_cohort(
            patients,
            generator,  # type: ignore[arg-type]
            None,
            tmp_path / "out",
            recipe("both_classes"),
            tiny_config(0).sampler,
            seed=0,
        )
    assert not (tmp_path / "out").exists()


def test_one_to_one_with_provenance(
    patients: Cohort, trained: Any, tiny_config: Callable[[int], Config], tmp_path: Path
) -> None:
    def make(name: str, seed: int) -> Cohort:
        return balance_cohort(
            patients,
            trained.generator,
            segmenter(nothing, ORGANS),  # knows no tumour, so that only copies are refused
            tmp_path / name,
            recipe("both_classes"),
            tiny_config(0).sampler,
            seed=seed,
        )

    balanced = make("a", 1)
    assert np.bincount(balanced.outcomes).tolist() == [6, 6]
    synthetic = [case for case in balanced if case.synthetic]
    assert [case.outcome for case in synthetic] == [0, 0, 1, 1, 1, 1]
    record = json.loads((tmp_path / "a" / "balance.json").read_text())
    assert record["real"] == {"negative": 4, "positive": 2}
    assert record["synthetic"] == {"negative": 2, "positive": 4}
    assert record["drawn"] == 6 + record["rejected"]

    digests = {case.digest()[:16]: case.outcome for case in patients}
    table = pd.read_csv(tmp_path / "a" / "participants.tsv", sep="\t", dtype=str)
    drawn = table[table["synthetic"] == "1"]
    assert set(drawn["generator"]) == {trained.generator.card.weights_sha256[:16]}
    assert set(drawn["fold"]) == {"fold-0"}
    own = [
        digests[source] == int(outcome)
        for source, outcome in zip(drawn["source_mask"], drawn["pni"], strict=True)
    ]
    assert True in own
    assert False in own  # masks of either class, so that a mask says nothing of the outcome

    again, other = make("b", 1), make("c", 2)
    same = [a.digest() == b.digest() for a, b in zip(balanced, again, strict=True)]
    assert all(same)
    assert any(a.digest() != c.digest() for a, c in zip(balanced, other, strict=True))


def test_masks_keep_their_outcome_where_it_is_asked_for(
    patients: Cohort, trained: Any, tiny_config: Callable[[int], Config], tmp_path: Path
) -> None:
    balance_cohort(
        patients,
        trained.generator,
        segmenter(nothing, ORGANS),
        tmp_path / "out",
        recipe("both_classes").model_copy(update={"masks": "same"}),
        tiny_config(0).sampler,
        seed=1,
    )
    digests = {case.digest()[:16]: case.outcome for case in patients}
    table = pd.read_csv(tmp_path / "out" / "participants.tsv", sep="\t", dtype=str)
    drawn = table[table["synthetic"] == "1"]
    assert len(drawn) == 6
    assert [digests[source] for source in drawn["source_mask"]] == drawn["pni"].astype(int).tolist()


def test_a_gate_that_never_opens(
    patients: Cohort, trained: Any, tiny_config: Callable[[int], Config], tmp_path: Path
) -> None:
    real = {case.read_image().data.tobytes(): case for case in patients}

    def only_real(image: np.ndarray) -> np.ndarray:
        case = real.get(image.tobytes())
        return nothing(image) if case is None else case.read_with_mask()[1].data

    with pytest.raises(RunError, match="refused 2 times"):
        balance_cohort(
            patients,
            trained.generator,
            segmenter(only_real, patients.schema),
            tmp_path / "out",
            recipe("rare_class"),
            tiny_config(0).sampler,
            seed=0,
        )


def test_needs_outcomes(
    patients: Cohort, trained: Any, tiny_config: Callable[[int], Config], tmp_path: Path
) -> None:
    g = trained.generator
    blind = LatentGenerator(g, g.detail, g.card.model_copy(update={"outcome": None}))
    one_class = patients.subset(case for case in patients if case.outcome == 0)
    for training, generator, sentence in (
        (patients, blind, "trained without outcomes"),
        (one_class, g, "no case with pni = 1"),
    ):
        with pytest.raises(InputError, match=sentence):
            balance_cohort(
                training,
                generator,
                segmenter(nothing, ORGANS),
                tmp_path / "out",
                recipe("rare_class"),
                tiny_config(0).sampler,
                seed=0,
            )
