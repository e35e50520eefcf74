"""One fold of the NeoNet experiment: segment, crop, generate, balance, classify.

A fold is a list of tasks, which an executor does. Everything that is fitted is handed
``fold.training`` or something made from it; held-out cases are only predicted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from neonet3d.classification.predict import Classifier
from neonet3d.classification.train import train_patten
from neonet3d.classification.train_baseline import train_baseline
from neonet3d.classification.train_clinical import train_clinical
from neonet3d.classification.train_radiomics import train_radiomics
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.volume import write_atomically
from neonet3d.config import Config, LoopConfig, fingerprint
from neonet3d.engine.artefact import read_card
from neonet3d.engine.executor import Task
from neonet3d.engine.progress import progress
from neonet3d.engine.run import Timer, once
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
from neonet3d.study.arms import Arm, study_arms
from neonet3d.study.paths import FoldPaths
from neonet3d.study.training_sets import training_set


@dataclass(frozen=True)
class FoldWork:
    """What the stages of a fold are handed.

    Attributes:
        fold: whole scans with reference masks.
        crops: the same division of the cohort of TLCR patches (reference masks).
        paths: of this fold.
    """

    fold: Fold
    crops: Fold
    config: Config
    paths: FoldPaths

    def task(
        self, stage: str, work: Callable[..., None], *arguments: Arm, after: tuple[str, ...] = ()
    ) -> Task:
        """A task that calls ``work(self, *arguments, timed)``."""
        name, locks = f"{self.fold.name}: {stage}", self.paths.root.parent / ".locks"
        return Task(name, partial(work, self, *arguments), locks, after)


def fold_tasks(work: FoldWork, after: Sequence[str] = ()) -> list[Task]:
    """Every stage of one fold; stages that stand are not run again.

    Args:
        after: tasks of the study that leaky arms wait for.
    """
    training = training_tasks(work, after)
    name, fitted = work.fold.name, [task.name for task in training]
    return [
        *training,
        work.task("masks", _segment_held_out, after=(f"{name}: segmenter",)),
        work.task("pairs", _sample_held_out, after=(f"{name}: generator",)),
        work.task("predictions", _predict, after=(*fitted, f"{name}: masks")),
    ]


def training_tasks(work: FoldWork, after: Sequence[str] = ()) -> list[Task]:
    """Everything of a fold that is fitted; nothing here reads a held-out case's voxels.

    But for leaky arms, whose generator (``paths.leaky_generator``) did, in ``after``.
    """
    name = work.fold.name
    segmenter, generator = f"{name}: segmenter", f"{name}: generator"
    tasks = {
        segmenter: work.task("segmenter", _train_segmenter),
        generator: work.task("generator", _train_generator),
    }
    for arm in study_arms(work.config):
        data, classifier = f"data {arm.data_set}", arm.classifier
        waits = (segmenter, generator) if arm.has_synthetic else (generator,)
        waits = (*waits, *after) if arm.settings.leaky else waits
        # Arms that differ in what they are judged on share a classifier, and others a data set.
        made, trained = f"{name}: {data}", f"{name}: {classifier}"
        tasks.setdefault(made, work.task(data, _make_training_set, arm, after=waits))
        tasks.setdefault(trained, work.task(classifier, _train_arm, arm, after=(made, *waits)))
    return list(tasks.values())


def _train_segmenter(work: FoldWork, timed: Timer) -> None:
    with timed("train segmenter"):
        train_segmenter(work.fold, work.config, work.paths.segmenter)


def _train_generator(work: FoldWork, timed: Timer) -> None:
    train_generator(work.crops, work.config, work.paths.generator, timed)


def _make_training_set(work: FoldWork, arm: Arm, timed: Timer) -> None:
    with timed("make training sets"):
        training_set(arm, work.crops, work.config, work.paths)


def _train_arm(work: FoldWork, arm: Arm, timed: Timer) -> None:
    """The study refuses reference masks without a tumour before its first fold."""
    training = training_set(arm, work.crops, work.config, work.paths)
    part = Fold(work.fold.name, training, work.crops.held_out)
    with timed("train classifiers"):
        _train_classifier(arm, part, work.crops, work.config, work.paths)


def _segment_held_out(work: FoldWork, timed: Timer) -> None:
    """NeoSeg's masks of the held-out scans, and patches that are cut with them."""
    held_out, paths, config = work.fold.held_out, work.paths, work.config
    with timed("segment held-out scans"):
        segmenter = Segmenter.load(paths.segmenter)
        key = fingerprint("masks", segmenter.hashes, _held_out_key(work))
        once(paths.masks, key, lambda out: _predict_masks(segmenter, held_out, out))
        key = fingerprint("crops", RECORD_FIELDS, key, held_out.table_sha256(), config.roi)
        predicted = held_out.with_overlaid_masks(
            {case.name: paths.masks / f"{case.name}.nii.gz" for case in held_out}, held_out.schema
        )
        once(paths.crops, key, lambda out: _crop(predicted, paths.masks, out, config))


def _sample_held_out(work: FoldWork, timed: Timer) -> None:
    """A synthetic image for each held-out mask, to judge the generator by."""
    paths, config = work.paths, work.config
    with timed("sample held-out masks"):
        generator = LatentGenerator.load(paths.generator)
        weights, held_out = generator.card.weights_sha256, work.crops.held_out
        patches = [case.digest() for case in held_out]
        key = fingerprint(
            "pairs", weights, _held_out_key(work), patches, config.sampler, config.seed
        )
        once(paths.pairs, key, lambda out: _sample(generator, held_out, out, config))


def _predict(work: FoldWork, timed: Timer) -> None:
    """Every arm's probability of every held-out case."""
    paths = work.paths
    with timed("predict"):
        arms = study_arms(work.config)
        models = [read_card(paths.classifier(arm.classifier)).weights_sha256 for arm in arms]
        patches = [(paths.crops / ".done").read_text()]
        patches += [case.digest() for case in work.crops.held_out]
        patches.append(work.crops.held_out.table_sha256())
        key = fingerprint(
            "predictions", [arm.key for arm in arms], models, patches, _held_out_key(work)
        )
        by_masks = {"predicted": Cohort.open(paths.crops), "reference": work.crops.held_out}
        once(
            paths.predictions.parent,
            key,
            lambda out: _predict_outcomes(arms, paths, by_masks, out),
        )


def _held_out_key(work: FoldWork) -> str:
    held_out = work.fold.held_out
    digests = [case.digest() for case in held_out]
    return fingerprint(digests, [case.name for case in held_out], held_out.said_of_all)


def _train_classifier(arm: Arm, part: Fold, crops: Fold, config: Config, paths: FoldPaths) -> None:
    """``pretrain``: on its set first, then from those weights on the real cases."""
    settings, out = arm.config(config), paths.classifier(arm.classifier)
    if arm.settings.data != "pretrain":
        _fit(arm, part, settings, out, paths, None)
        return
    first, half = paths.classifier(f"{arm.classifier}-first"), _half_the_steps(settings)
    _fit(arm, part, half, first, paths, None)
    _fit(arm, crops, half, out, paths, first)


def _half_the_steps(config: Config) -> Config:
    """Of classifiers, so that two trainings take together what one takes in another arm."""

    def halved(loop: LoopConfig) -> dict[str, LoopConfig]:
        return {"loop": loop.model_copy(update={"steps": max(1, loop.steps // 2)})}

    return config.model_copy(
        update={
            "classifier": config.classifier.model_copy(update=halved(config.classifier.loop)),
            "baseline": config.baseline.model_copy(update=halved(config.baseline.loop)),
        }
    )


def _fit(
    arm: Arm, part: Fold, config: Config, out: Path, paths: FoldPaths, start: Path | None
) -> None:
    encoder = paths.generator_of(leaky=arm.settings.leaky) / "autoencoder"
    if arm.settings.leaky:  # the trainings refuse an encoder that saw what they hold out
        part = Fold(part.name, part.training, part.held_out.subset([]))
    match arm.settings.model:
        case "patten":
            train_patten(part, encoder, config, out, start=start, allow_no_tumour=True)
        case "clinical":
            train_clinical(part, config, out)
        case "radiomics":
            train_radiomics(part, read_card(encoder).reading, config, out, allow_no_tumour=True)
        case _:
            reading = read_card(encoder).reading
            train_baseline(part, reading, config, out, start=start, allow_no_tumour=True)


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


def _predict_outcomes(
    arms: Sequence[Arm], paths: FoldPaths, by_masks: Mapping[str, Cohort], out: Path
) -> None:
    """One column for each arm, on patches that were cut with predicted or with reference masks."""
    table = {
        arm.key: _probabilities(
            Classifier.load(paths.classifier(arm.classifier)), by_masks[arm.settings.masks]
        )
        for arm in arms
    }
    text = io.StringIO()
    writer = csv.writer(text, delimiter=",", lineterminator="\n")
    writer.writerow(["case", "outcome", *table])
    for case in by_masks["reference"]:
        row = (repr(of_arm[case.name]) for of_arm in table.values())
        writer.writerow([case.name, case.outcome, *row])
    write_atomically(out / "predictions.csv", text.getvalue().encode())


def _probabilities(classifier: Classifier, held_out: Cohort) -> dict[str, float]:
    """Of every held-out case, also where NeoSeg found no tumour: none may drop out of the estimate.

    The liver's middle is classified like any patch. Without a liver there is no reference
    intensity either, so nothing is known of such a case but the prevalence, and what a table says.
    """
    no_liver = cut_without_liver(held_out) if classifier.reads_scans else []
    seen = held_out.subset(case for case in held_out if case.name not in no_liver)
    known = dict.fromkeys(no_liver, classifier.prevalence)
    if len(seen):
        predicted = classifier.predict(seen, allow_no_tumour=True)
        known |= {case.name: float(p) for case, p in zip(seen, predicted, strict=True)}
    return known


def count_without_tumour(crops: Path) -> int:
    """Held-out cases in which NeoSeg found no tumour, so that the patch is a fallback."""
    return len(cut_without_tumour(Cohort.open(crops)))
