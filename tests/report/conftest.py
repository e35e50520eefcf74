"""A finished run of two folds and six small cases, without any training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import ndimage

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.volume import Volume
from neonet3d.config import load_config
from neonet3d.metrics.discrimination import auc, delong, delong_paired
from neonet3d.metrics.fidelity import FidelityScore
from neonet3d.metrics.interval import bootstrap_mean, wilson
from neonet3d.study.judgement import judge
from neonet3d.study.results import Arm, Comparison, FoldBalance, StudyResults
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "portal_vein", "tumour"))
NAMES = tuple(f"smith-{i}" for i in range(6))
OUTCOMES = (0, 1, 1, 0, 0, 1)
FOLDS = (0, 1, 0, 1, 0, 1)
VOLUMES = ("lowest third (1 to 2 ml)",) * 3 + ("highest third (3 to 4 ml)",) * 3
SPACING_MM = (2.0, 2.0, 4.0)


def write_cohort(
    root: Path, shape: tuple[int, int, int], chosen: list[int], *, seed: int, scale: float
) -> None:
    """Cases with a liver, a vein and a round tumour of another size in each."""
    writer = CohortWriter(root, SCHEMA, outcome_name="pni", channel="MR", durable=False)
    for i in chosen:
        rng = np.random.default_rng([seed, i])
        x, y, z = np.indices(shape)
        mask = np.zeros(shape, dtype=np.uint8)
        mask[2:-2, 3:-3, 1:-1] = 1
        mask[4:6, 4:-4, 3:6] = 2
        around = np.array([(shape[0] + i) / 2, shape[1] / 2, shape[2] / 2])
        off_mm = [(g - c) * s for g, c, s in zip((x, y, z), around, SPACING_MM, strict=True)]
        mask[np.sqrt(sum(o**2 for o in off_mm)) < 6 + i] = 3
        image = np.array([0.1, 1.0, 1.3, 0.5])[mask] + rng.normal(0, 0.1, shape)
        volume = Volume((scale * image).astype(np.float32), np.diag([*SPACING_MM, 1.0]))
        writer.add(NAMES[i], volume, volume.with_data(mask), outcome=OUTCOMES[i])
    writer.finish()


def study_results() -> StudyResults:
    outcomes = np.array(OUTCOMES)
    folds = np.array(FOLDS)
    scores = {
        "first": np.array([0.2, 0.9, 0.4, 0.3, 0.6, 0.8]),
        "second": np.array([0.5, 0.4, 0.6, 0.7, 0.1, 0.3]),
    }
    arms = tuple(
        Arm(
            key=key,
            title=f"The {key} arm",
            auc=delong(outcomes, values),
            fold_aucs=tuple(auc(outcomes[folds == k], values[folds == k]) for k in (0, 1)),
            probabilities=tuple(values.tolist()),
            judgement=judge(outcomes, values, folds, {"tumour volume": VOLUMES}, seed=0),
            leaky=False,
        )
        for key, values in scores.items()
    )
    paired = delong_paired(outcomes, scores["first"], scores["second"])
    dice = {
        name: bootstrap_mean(np.linspace(low, 0.95, 6), seed=0)
        for name, low in (("liver", 0.9), ("portal_vein", 0.4), ("tumour", 0.6))
    }
    return StudyResults(
        title="A study of six",
        outcome="pni",
        classes=SCHEMA.names,
        cases=NAMES,
        folds=FOLDS,
        outcomes=OUTCOMES,
        arms=arms,
        comparisons=(
            Comparison(
                first="first",
                second="second",
                difference=paired.difference,
                low=paired.interval.low,
                high=paired.interval.high,
                p_value=paired.p_value,
            ),
        ),
        ceiling_auc=delong(outcomes, np.array([0.1, 0.9, 0.8, 0.2, 0.3, 0.25])),
        segmentation=dice,
        no_tumour_found=1,
        balance=tuple(
            FoldBalance(
                fold=f"fold-{k}", data="both_classes", real=(1, 2), synthetic=(7, 5),
                drawn=17, rejected=5,
            )
            for k in (0, 1)
        ),
        fidelity=(
            FidelityScore(
                kid=0.0321, kid_low=0.0123, kid_high=0.0456, kid_floor=0.00789,
                fid=12.34, fid_low=11.11, fid_high=13.57,
                fid_floor=5.678, fid_floor_low=4.44, fid_floor_high=6.66,
                n_real=6, n_synthetic=6, n_matched=3, slices_per_case=4,
                extractor="A network (ImageNet)", plane="axial",
            ),
        ),
        adherence={name: dice[name] for name in ("liver", "tumour")},
        adherence_of_real=dice,
        copying_share=wilson(2, 6),
        copying_expected=0.5,
        membership=tuple(
            delong(np.array([1, 1, 0, 0]), np.array(scores))
            for scores in ([4.0, 2.0, 3.0, 1.0], [3.0, 1.0, 4.0, 2.0])
        ),
        two_sample=delong(np.repeat([0, 1], 6), np.array([1., 2, 3, 4, 5, 9, 6, 7, 8, 10, 11, 0])),
        psnr_db=bootstrap_mean(np.linspace(26, 28, 6), seed=0),
        seconds={"train_segmenter": 75.0, "predict": 3.2},
    )  # fmt: skip


def build_run(root: Path) -> Path:
    run, cohort = root / "run", root / "cohort"
    write_cohort(cohort, (28, 24, 12), list(range(6)), seed=1, scale=300.0)
    write_cohort(run / "crops", (16, 16, 8), list(range(6)), seed=2, scale=300.0)
    for k in (0, 1):
        chosen = [i for i in range(6) if FOLDS[i] == k]
        write_cohort(run / f"fold-{k}" / "pairs", (16, 16, 8), chosen, seed=3, scale=1.0)
        for i in chosen:
            mask = Cohort.open(cohort)[NAMES[i]].read_mask()
            assert mask is not None
            smaller = ndimage.binary_erosion(mask.data == 3)
            found = np.where((mask.data == 3) & ~smaller, 1, mask.data).astype(np.uint8)
            mask.with_data(found).write(run / f"fold-{k}" / "masks" / f"{NAMES[i]}.nii.gz")
    manifest = {
        "starts": ["2026-01-02T03:04:05+00:00", "2026-01-03T03:04:05+00:00"],
        "command": "neonet3d study pni COHORT RUN",
        "package": "0.1.0",
        "python": "3.11.2",
        "torch": "2.13.0",
        "device": "cpu, 1 threads",
        "config_hash": "0123456789abcdef",
        "cohort": str(cohort.resolve()),
        "peak_memory_gib": 1.25,
    }
    (run / "manifest.json").write_text(json.dumps(manifest))
    settings = load_config("demo").model_dump(mode="json")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    (run / "results.json").write_text(study_results().model_dump_json(), encoding="utf-8")
    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all tests: read it, and write to a copy."""
    return build_run(tmp_path_factory.mktemp("study"))


@pytest.fixture
def results() -> StudyResults:
    return study_results()
