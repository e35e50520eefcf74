"""Training sets of a fold's classifiers, each a cohort, made once: balanced, or augmented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.geometry import Grid
from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.cohort.volume import Volume
from neonet3d.config import AugmentationConfig, BalanceConfig, Config, fingerprint
from neonet3d.engine.artefact import read_card
from neonet3d.engine.progress import progress
from neonet3d.engine.run import once
from neonet3d.generation.balance import add_real_cases, balance_cohort, plan_balance
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.sources import SOURCE_COLUMN, SOURCE_DIGITS
from neonet3d.segmentation.augment import IntensityNoise
from neonet3d.segmentation.patch_segmenter import augment_patch
from neonet3d.segmentation.predict import Segmenter
from neonet3d.study.arms import Arm
from neonet3d.study.paths import FoldPaths


def training_set(arm: Arm, crops: Fold, config: Config, paths: FoldPaths) -> Cohort:
    """What an arm is trained on; of ``pretrain`` what comes first.

    Args:
        crops: the fold's patches; only ``crops.training`` is read.
    """
    match arm.settings.data:
        case "real":
            return crops.training
        case "classic":
            return _augmented(crops, config, paths)
        case "synthetic" | "pretrain":
            return _balanced(arm, crops, config, paths, {"mode": "pretrain"})
        case mode:
            changed: dict[str, object] = {"mode": mode}
            if arm.settings.share is not None:
                changed["synthetic_share"] = arm.settings.share
            return _balanced(arm, crops, config, paths, changed)


def _balanced(
    arm: Arm, crops: Fold, config: Config, paths: FoldPaths, changed: dict[str, object]
) -> Cohort:
    settings = BalanceConfig.model_validate(config.balance.model_dump() | changed)
    segmenter = Segmenter.load(paths.segmenter)
    generator = LatentGenerator.load(paths.generator_of(leaky=arm.settings.leaky))
    key = fingerprint(
        "balanced",
        segmenter.hashes,
        generator.card.weights_sha256,
        _described(crops.training),
        settings,
        config.sampler,
        config.seed,
    )
    outcomes = crops.training.outcomes
    wanted = plan_balance(int((outcomes == 0).sum()), int((outcomes == 1).sum()), settings)
    total = wanted.negative + wanted.positive

    def build(out: Path) -> None:
        with progress(f"{crops.name}: synthetic cases ({arm.data_set})", total) as advance:
            balance_cohort(
                crops.training,
                generator,
                segmenter,
                out,
                settings,
                config.sampler,
                seed=config.seed,
                advance=advance,
            )

    return Cohort.open(once(paths.data(arm.data_set), key, build))


def _augmented(crops: Fold, config: Config, paths: FoldPaths) -> Cohort:
    """Real cases and as many turned, bent and changed copies as ``both_classes`` has synthetic."""
    training, outcomes = crops.training, crops.training.outcomes
    normaliser = read_card(paths.generator / "autoencoder").reading.normaliser
    settings = config.balance.model_copy(update={"mode": "both_classes"})
    wanted = plan_balance(int((outcomes == 0).sum()), int((outcomes == 1).sum()), settings)
    key = fingerprint(
        "classic", [case.digest() for case in training], _described(training),
        config.segmenter.augmentation, settings, config.seed,
    )  # fmt: skip

    def build(out: Path) -> None:
        writer = CohortWriter(
            out,
            training.schema,
            outcome_name=training.outcome_name,
            channel=training.channel,
            durable=False,
        )
        add_real_cases(writer, training)
        generator = torch.Generator().manual_seed(config.seed)
        posed = config.segmenter.augmentation.model_copy(update={"spatial": 1.0})
        noise = IntensityNoise(posed.intensity)
        for outcome, count in ((0, wanted.negative), (1, wanted.positive)):
            of_class = [case for case in training if case.outcome == outcome]
            for place in range(count):
                source = of_class[place % len(of_class)]
                image, mask = _changed(
                    *source.read_with_mask(), normaliser, posed, noise, generator
                )
                writer.add(
                    f"augmented_{outcome}_{place:04d}", image, mask, outcome=outcome,
                    extra={"synthetic": "1", SOURCE_COLUMN: source.digest()[:SOURCE_DIGITS]},
                )  # fmt: skip
        writer.finish()

    return Cohort.open(once(paths.data("classic"), key, build))


def _described(training: Cohort) -> tuple[object, ...]:
    """What is copied into a training set and is in no digest."""
    return training.said_of_all, [(case.name, case.participant) for case in training]


def _changed(
    image: Volume,
    mask: Volume,
    normaliser: IntensityNormaliser,
    augmentation: AugmentationConfig,
    noise: IntensityNoise,
    generator: torch.Generator,
) -> tuple[Volume, Volume]:
    """A patch in another pose, from another scanner; in units of the reference intensity."""
    seen = normaliser.apply(image.data, mask.data, name="a training case")
    moved, labels = augment_patch(
        torch.from_numpy(seen),
        torch.from_numpy(mask.data),
        Grid(image.shape, image.spacing_mm),
        augmentation,
        noise,
        generator,
    )
    changed = normaliser.invert(moved.clamp(-1, 1).numpy())
    return (
        image.with_data(np.ascontiguousarray(changed)),
        mask.with_data(np.ascontiguousarray(labels.numpy())),
    )
