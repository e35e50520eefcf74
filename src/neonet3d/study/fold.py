"""One fold of the NeoNet experiment: segment, crop, generate, balance, classify.

``run_fold`` is handed the training and the held-out cohort of a fold. Everything that is fitted
is handed ``fold.training`` or something made from it; held-out cases are only predicted.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from neonet3d.classification.networks import TITLES
from neonet3d.classification.predict import Classifier
from neonet3d.classification.train import train_patten
from neonet3d.classification.train_baseline import train_baseline
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.volume import write_atomically
from neonet3d.config import Config, fingerprint
from neonet3d.engine.artefact import read_card
from neonet3d.engine.progress import progress
from neonet3d.engine.run import Timer, once
from neonet3d.generation.balance import balance_cohort, plan_balance
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.sample import sample_cohort
from neonet3d.generation.train import train_generator
from neonet3d.segmentation.crop_record import (
    RECORD_FIELDS,
    cut_without_liver,
    cut_without_tumour,
)
from neonet3d.segmentation.predict import (
    Segmenter,
    kept_for_cropping,
    lesion_probability,
    predict_cases,
)
from neonet3d.segmentation.tlcr import crop_cohort
from neonet3d.segmentation.train import train_segmenter

ARMS = ("patten_balanced", "patten_real", "baseline_real")


def arm_titles(config: Config) -> dict[str, str]:
    """What people read for each arm."""
    titles = (
        "PattenNet, real + synthetic 1:1",
        "PattenNet, real cases",
        f"{TITLES[config.baseline.network]}, real cases",
    )
    return dict(zip(ARMS, titles, strict=True))


@dataclass(frozen=True)
class FoldPaths:
    """Where a fold keeps its stages."""

    root: Path

    @property
    def segmenter(self) -> Path:
        return self.root / "segmenter"

    @property
    def masks(self) -> Path:
        return self.root / "masks"

    @property
    def crops(self) -> Path:
        return self.root / "crops"

    @property
    def generator(self) -> Path:
        return self.root / "generator"

    @property
    def balanced(self) -> Path:
        return self.root / "balanced"

    @property
    def pairs(self) -> Path:
        return self.root / "pairs"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions" / "predictions.csv"

    def classifier(self, arm: str) -> Path:
        return self.root / "classifiers" / arm


def run_fold(fold: Fold, crops: Fold, config: Config, paths: FoldPaths, timed: Timer) -> None:
    """Run every stage of one fold; stages that stand are not run again.

    Args:
        fold: whole scans with reference masks.
        crops: the same division of the cohort of TLCR patches (reference masks).
        paths: of this fold.
        timed: logs how long a kind of stage took.
    """
    train_models(fold, crops, config, paths, timed)
    held_out_key = fingerprint(
        [case.digest() for case in fold.held_out], [case.name for case in fold.held_out]
    )
    segmenter = Segmenter.load(paths.segmenter)
    generator = LatentGenerator.load(paths.generator)
    hashes = [*segmenter.hashes, generator.card.weights_sha256]
    with timed("segment held-out scans"):
        key = fingerprint("masks", segmenter.hashes, held_out_key)
        once(paths.masks, key, lambda out: _predict_masks(segmenter, fold.held_out, out))
        key = fingerprint("crops", RECORD_FIELDS, key, config.roi)
        predicted = fold.held_out.with_overlaid_masks(
            {case.name: paths.masks / f"{case.name}.nii.gz" for case in fold.held_out}
        )
        once(paths.crops, key, lambda out: _crop(predicted, paths.masks, out, config))
    with timed("sample held-out masks"):
        key = fingerprint("pairs", hashes, held_out_key, config.sampler, config.seed)
        once(paths.pairs, key, lambda out: _sample(generator, crops.held_out, out, config))
    with timed("predict"):
        arms = [read_card(paths.classifier(arm)).weights_sha256 for arm in ARMS]
        key = fingerprint("predictions", arms, held_out_key)
        once(
            paths.predictions.parent,
            key,
            lambda out: _predict_outcomes(paths, Cohort.open(paths.crops), out),
        )


def train_models(fold: Fold, crops: Fold, config: Config, paths: FoldPaths, timed: Timer) -> None:
    """Everything of a fold that is fitted; nothing here reads a held-out case's voxels."""
    with timed("train segmenter"):
        train_segmenter(fold, config, paths.segmenter)
    train_generator(crops, config, paths.generator, timed)
    with timed("balance"):
        balanced = _balance(crops, config, paths)
    encoder = paths.generator / "autoencoder"
    reading = read_card(encoder).reading
    for arm in ARMS:
        training = balanced if arm.endswith("balanced") else crops.training
        part = Fold(fold.name, training, crops.held_out)
        with timed("train classifiers"):
            # The study refuses reference masks without a tumour before its first fold.
            if arm.startswith("patten"):
                train_patten(part, encoder, config, paths.classifier(arm), allow_no_tumour=True)
            else:
                train_baseline(part, reading, config, paths.classifier(arm), allow_no_tumour=True)


def _balance(crops: Fold, config: Config, paths: FoldPaths) -> Cohort:
    segmenter = Segmenter.load(paths.segmenter)
    generator = LatentGenerator.load(paths.generator)
    key = fingerprint(
        "balanced",
        segmenter.hashes,
        generator.card.weights_sha256,
        config.balance,
        config.sampler,
        config.seed,
    )
    outcomes = crops.training.outcomes
    wanted = plan_balance(int((outcomes == 0).sum()), int((outcomes == 1).sum()), config.balance)
    total = wanted.negative + wanted.positive

    def build(out: Path) -> None:
        with progress(f"{crops.name}: synthetic cases", total) as advance:
            balance_cohort(
                crops.training,
                generator,
                segmenter,
                out,
                config.balance,
                config.sampler,
                seed=config.seed,
                advance=advance,
            )

    return Cohort.open(once(paths.balanced, key, build))


def _predict_masks(segmenter: Segmenter, held_out: Cohort, out: Path) -> None:
    segmenter.card.refuse_training_cases(held_out)
    predict_cases(segmenter, held_out, out, kept_for_cropping(segmenter))


def _crop(predicted: Cohort, masks: Path, out: Path, config: Config) -> None:
    with progress("cropping", len(predicted)) as advance:
        crop_cohort(
            predicted,
            out,
            config.roi,
            advance,
            tumour_probability=lesion_probability(masks),
            allow_empty=True,
        )


def _sample(generator: LatentGenerator, masks: Cohort, out: Path, config: Config) -> None:
    generator.card.refuse_training_cases(masks)
    sample_cohort(generator, masks, out, config.sampler, seed=config.seed)


def _predict_outcomes(paths: FoldPaths, held_out: Cohort, out: Path) -> None:
    table = {arm: _probabilities(Classifier.load(paths.classifier(arm)), held_out) for arm in ARMS}
    text = io.StringIO()
    writer = csv.writer(text, delimiter=",", lineterminator="\n")
    writer.writerow(["case", "outcome", *ARMS])
    for case in held_out:
        row = (f"{table[arm][case.name]:.6f}" for arm in ARMS)
        writer.writerow([case.name, case.outcome, *row])
    write_atomically(out / "predictions.csv", text.getvalue().encode())


def _probabilities(classifier: Classifier, held_out: Cohort) -> dict[str, float]:
    """Of every held-out case, also where NeoSeg found no tumour: none may drop out of the estimate.

    The liver's middle is classified like any patch. Without a liver there is no reference
    intensity either, so nothing is known of such a case but the prevalence.
    """
    no_liver = cut_without_liver(held_out)
    seen = held_out.subset(case for case in held_out if case.name not in no_liver)
    known = dict.fromkeys(no_liver, classifier.prevalence)
    if len(seen):
        predicted = classifier.predict(seen, allow_no_tumour=True)
        known |= {case.name: float(p) for case, p in zip(seen, predicted, strict=True)}
    return known


def count_without_tumour(crops: Path) -> int:
    """Held-out cases in which NeoSeg found no tumour, so that the patch is a fallback."""
    return len(cut_without_tumour(Cohort.open(crops)))
