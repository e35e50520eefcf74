"""From the files of every fold to the figures of ``results.json``: reading and counting only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.layout import read_participants
from neonet3d.cohort.patches import Patches, load_patches
from neonet3d.config import Config
from neonet3d.engine.log import stage_seconds
from neonet3d.generation.audit import case_losses
from neonet3d.generation.evaluate import compare_patches, mask_adherence, summarise, tell_apart
from neonet3d.generation.generator import LatentGenerator
from neonet3d.metrics.discrimination import auc, delong, delong_paired
from neonet3d.metrics.fidelity import FidelityScore
from neonet3d.metrics.interval import Interval, bootstrap_mean, wilson
from neonet3d.metrics.memorisation import infer_membership, nearest_neighbour_ratio
from neonet3d.metrics.overlap import dice
from neonet3d.segmentation.predict import Segmenter
from neonet3d.study.arms import Arm as StudyArm
from neonet3d.study.arms import study_arms
from neonet3d.study.fold import count_without_tumour
from neonet3d.study.judgement import divide, judge, tumour_volumes_ml
from neonet3d.study.paths import FoldPaths
from neonet3d.study.results import Arm, Comparison, FoldBalance, StudyResults

PHANTOM_TRUTH = "pni_probability"  # column of a phantom's table: the best possible prediction


@dataclass(frozen=True)
class FinishedFold:
    """A fold with everything that was made in it.

    Attributes:
        scans: whole scans with reference masks.
        crops: the same cases as TLCR patches.
        paths: where the fold keeps its stages.
    """

    scans: Fold
    crops: Fold
    paths: FoldPaths


def summarise_study(
    cohort: Cohort, folds: Sequence[FinishedFold], log: Path, *, title: str, config: Config
) -> StudyResults:
    """Pool what the folds predicted and drew for their held-out cases."""
    seed = config.seed
    table = pd.concat(
        # a case may be called NA, and no figure is missing
        pd.read_csv(fold.paths.predictions, dtype={"case": str}, keep_default_na=False).assign(
            fold=index
        )
        for index, fold in enumerate(folds)
    )
    outcomes = table["outcome"].to_numpy(dtype=np.int64)
    names = tuple(str(name) for name in table["case"])
    volumes_ml: dict[str, float] = {}
    for fold in folds:
        volumes_ml |= tumour_volumes_ml(fold.crops.held_out)
    groups = divide(cohort, volumes_ml, names)
    arms = tuple(_arm(arm, table, outcomes, groups, seed) for arm in study_arms(config))
    held_out = [_held_out(fold, seed) for fold in folds]
    real = _join([pair.real for pair in held_out])
    synthetic = _join([pair.synthetic for pair in held_out])
    fidelity, share, expected = _compare(real, synthetic, held_out, seed)
    adherence, adherence_of_real = [], []
    for fold in folds:
        segmenter = Segmenter.load(fold.paths.segmenter)
        adherence += mask_adherence(segmenter, Cohort.open(fold.paths.pairs))
        adherence_of_real += mask_adherence(segmenter, fold.crops.held_out)
    return StudyResults(
        title=title,
        outcome=str(cohort.outcome_name),
        classes=cohort.schema.names,
        cases=names,
        folds=tuple(int(k) for k in table["fold"]),
        outcomes=tuple(int(y) for y in outcomes),
        arms=arms,
        comparisons=tuple(_comparisons(arms, outcomes)),
        ceiling_auc=_ceiling(cohort, names, outcomes),
        segmentation=_segmentation(folds, seed),
        no_tumour_found=sum(count_without_tumour(fold.paths.crops) for fold in folds),
        balance=tuple(row for fold in folds for row in _balance(fold, study_arms(config))),
        fidelity=fidelity,
        adherence=summarise(adherence, seed=seed),
        adherence_of_real=summarise(adherence_of_real, seed=seed),
        copying_share=share,
        copying_expected=expected,
        membership=tuple(pair.membership for pair in held_out),
        two_sample=_two_sample(real, synthetic, cohort.schema.names, seed),
        psnr_db=bootstrap_mean(np.concatenate([pair.psnr_db for pair in held_out]), seed),
        seconds=stage_seconds(log),
    )


def _arm(
    arm: StudyArm,
    table: pd.DataFrame,
    outcomes: Int[np.ndarray, " n"],
    groups: dict[str, tuple[str, ...]],
    seed: int,
) -> Arm:
    key = arm.key
    scores = table[key].to_numpy(dtype=np.float64)
    by_fold = [part for _, part in table.groupby("fold")]
    return Arm(
        key=key,
        title=arm.title,
        auc=delong(outcomes, scores),
        fold_aucs=tuple(
            auc(part["outcome"].to_numpy(dtype=np.int64), part[key].to_numpy(dtype=np.float64))
            for part in by_fold
        ),
        probabilities=tuple(float(p) for p in scores),
        judgement=judge(outcomes, scores, table["fold"].to_numpy(), groups, seed=seed),
        leaky=arm.settings.leaky,
    )


def _comparisons(arms: Sequence[Arm], outcomes: Int[np.ndarray, " n"]) -> Iterator[Comparison]:
    """The first arm with every other."""
    first, *others = arms
    for second in others:
        test = delong_paired(
            outcomes, np.array(first.probabilities), np.array(second.probabilities)
        )
        yield Comparison(
            first=first.key,
            second=second.key,
            difference=test.difference,
            low=test.interval.low,
            high=test.interval.high,
            p_value=test.p_value,
        )


@dataclass(frozen=True)
class _HeldOut:
    real: Patches
    synthetic: Patches
    training: Patches
    psnr_db: np.ndarray
    membership: Interval


def _held_out(fold: FinishedFold, seed: int) -> _HeldOut:
    """Held-out patches, synthetic ones on their masks, and what the generator makes of both."""
    generator = LatentGenerator.load(fold.paths.generator)
    card = generator.card
    real = load_patches(fold.crops.held_out, *card.reading)
    training = load_patches(fold.crops.training, *card.reading)
    membership = infer_membership(
        case_losses(generator, training, seed=seed), case_losses(generator, real, seed=seed), seed
    )
    return _HeldOut(
        real=real,
        synthetic=load_patches(Cohort.open(fold.paths.pairs), *card.reading),
        training=training,
        psnr_db=generator.reconstruction_psnr_db(real.images).numpy(),
        membership=membership.auc,
    )


def _join(parts: Sequence[Patches]) -> Patches:
    return replace(
        parts[0],
        images=torch.cat([part.images for part in parts]),
        label_maps=torch.cat([part.required_label_maps() for part in parts]),
        outcomes=torch.cat([part.outcomes for part in parts]),
        synthetic=torch.cat([part.synthetic for part in parts]),
    )


def _compare(
    real: Patches, synthetic: Patches, held_out: Sequence[_HeldOut], seed: int
) -> tuple[tuple[FidelityScore, ...], Interval, float]:
    """Fidelity over all folds; copying fold by fold, since each fold has its own generator.

    Copying is judged on the voxels: is a synthetic patch nearer to a training patch or to a
    held-out one? The held-out patch on whose mask it was drawn is left out, or it would always win.
    """
    scores = compare_patches(real, synthetic, seed=seed)
    nearer, expected, total = 0, 0.0, 0
    for pair in held_out:
        n = len(pair.synthetic)
        found = nearest_neighbour_ratio(
            *(of.images.flatten(1).numpy() for of in (pair.synthetic, pair.training, pair.real)),
            not_held_out=np.eye(n, dtype=bool),
        )
        nearer += int((found.training_distance < found.held_out_distance).sum())
        expected += n * found.expected_share
        total += n
    return scores, wilson(nearer, total), expected / total


def _two_sample(real: Patches, synthetic: Patches, classes: tuple[str, ...], seed: int) -> Interval:
    """Patch i of both sides has one mask, so both stay in one fold of the test."""
    return tell_apart(
        real, synthetic, classes, np.arange(len(real)), np.arange(len(synthetic)), seed=seed
    )[0]


def _segmentation(folds: Sequence[FinishedFold], seed: int) -> dict[str, Interval]:
    """Dice of NeoSeg on the held-out whole scans."""
    scores = []
    for fold in folds:
        held_out = fold.scans.held_out
        labels = {n: v for n, v in held_out.schema.as_mapping().items() if v > 0}
        masks = {c.name: fold.paths.masks / f"{c.name}.nii.gz" for c in held_out}
        predicted = held_out.with_overlaid_masks(masks, held_out.schema)
        for case, reference in zip(predicted, held_out, strict=True):
            found, drawn = case.read_mask(), reference.read_mask()
            assert found is not None  # predict_cases wrote one for each
            assert drawn is not None  # the study refuses cases without
            scores.append(dice(found.data, drawn.data, labels))
    return summarise(scores, seed=seed)


def _balance(fold: FinishedFold, arms: Sequence[StudyArm]) -> Iterator[FoldBalance]:
    """Of the training sets that these arms have, each once; the folder may hold older ones."""
    for name in dict.fromkeys(arm.data_set for arm in arms if arm.has_synthetic):
        record = json.loads((fold.paths.data(name) / "balance.json").read_text())
        yield FoldBalance(
            fold=fold.scans.name,
            data=name,
            real=(record["real"]["positive"], record["real"]["negative"]),
            synthetic=(record["synthetic"]["positive"], record["synthetic"]["negative"]),
            drawn=record["drawn"],
            rejected=record["rejected"],
        )


def _ceiling(
    cohort: Cohort, names: Sequence[str], outcomes: Int[np.ndarray, " n"]
) -> Interval | None:
    """AUC of the true probabilities, where a phantom wrote them; no model can expect more."""
    table = read_participants(cohort.root, cohort.outcome_name).set_index("case")
    if PHANTOM_TRUTH not in table:
        return None
    truth = table.loc[list(names), PHANTOM_TRUTH].astype(float).to_numpy()
    return None if np.isnan(truth).any() else delong(outcomes, truth)  # real patients among them
