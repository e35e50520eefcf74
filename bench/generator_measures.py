"""What ``bench/generator.py`` measures of images: fidelity, adherence, C2ST, what a CNN learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from phantom_audit import SHELL_MM, STEPS_LARGE, STEPS_SMALL
from phantom_models import classify
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from neonet3d.classification.regions import batch_region_maps
from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.patches import Patches
from neonet3d.cohort.phantom.writer import PHANTOM_CLASSES
from neonet3d.generation.condition import N_SCALES
from neonet3d.generation.evaluate import (
    both_planes,
    compare_planes,
    mask_adherence,
    summarise,
    tell_slices_apart,
)
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.latents import explain_latents, standardised_latents
from neonet3d.generation.region_features import band_statistics, region_features
from neonet3d.generation.sample import as_volume
from neonet3d.metrics.discrimination import auc
from neonet3d.metrics.two_sample import two_sample_auc
from neonet3d.segmentation.predict import Segmenter

Result = dict[str, Any]
SEEDS = (0, 1, 2)
RESAMPLES = 1000


def write_pairs(
    generator: LatentGenerator, real: Cohort, images: Tensor, maps: Tensor, out: Path
) -> Cohort:
    """Images (n, x, y, z) in [-1, 1] and their label maps as a cohort; names are those of ``real``.

    Real patches take the same way, so that a segmenter reads all on one grid.
    """
    if not out.is_dir():
        with new_folder(out) as folder:
            writer = CohortWriter(
                folder, real.schema, outcome_name=None, channel="MR", durable=False
            )
            scale = torch.zeros(N_SCALES)
            for case, image, label_map in zip(real, images, maps, strict=True):
                volumes = (as_volume(generator, x.numpy(), scale) for x in (image, label_map))
                writer.add(case.name, *volumes)
            writer.finish()
    return Cohort.open(out)


def fidelity(real: Patches, images: Tensor) -> Result:
    """KID and FID against the held-out reals (each plane, and their means), C2ST on slices."""
    planes, cases = both_planes(real, replace(real, images=images)), np.arange(len(real))
    scores = compare_planes(*planes, cases, cases, seed=0)
    means = {
        key: float(np.mean([getattr(score, key) for score in scores]))
        for key in ("kid", "kid_floor", "fid", "fid_floor")
    }
    slices = asdict(tell_slices_apart(*planes, cases, cases, seed=0))
    return means | {"planes": [asdict(score) for score in scores], "c2st_slices": slices}


def adherence(segmenter: Segmenter, pairs: Cohort) -> dict[str, dict[str, object]]:
    """Mean Dice of each class with its interval."""
    return {k: asdict(v) for k, v in summarise(mask_adherence(segmenter, pairs), seed=0).items()}


def adherence_ratio(of_images: dict[str, Result], of_real: dict[str, Result]) -> float:
    """The lowest over classes of Dice on synthetic over Dice on real held-out images."""
    ratios = [float(of_images[k]["value"]) / float(v["value"]) for k, v in of_real.items()]
    return min(ratios)


def c2st(real: Patches, images: Tensor, n_classes: int) -> Result:
    """Can a logistic regression on region Haar features tell the images from the held-out reals?

    Row i of both has the same label map, so both belong to case i.
    """
    maps, cases = real.required_label_maps(), np.arange(len(real))
    table = region_features(*(band_statistics(x, maps, n_classes) for x in (real.images, images)))
    found = two_sample_auc(
        table.real, table.synthetic, 0, real_groups=cases, synthetic_groups=cases
    )
    return asdict(found)


def own_rows(outcomes: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """n rows, half of each outcome, going round the cases of each, and these outcomes."""
    halves = []
    for value, wanted in ((0, n - n // 2), (1, n // 2)):
        own = (outcomes == value).nonzero()[:, 0]
        halves.append(own.repeat(math.ceil(wanted / len(own)))[:wanted])
    rows = torch.cat(halves)
    return rows, outcomes[rows]


def crossed_rows(n_cases: int, n: int) -> tuple[Tensor, Tensor]:
    """n rows, going round the cases, and outcomes: each mask with the one, then with the other."""
    return torch.arange(n) // 2 % n_cases, torch.arange(n) % 2


def classifiers(
    generator: LatentGenerator,
    real: Patches,
    synthetic: Patches,
    own_masks: Patches,
    test: Patches,
    kept: Callable[[str, Callable[[], Result]], Result],
) -> dict[str, Result]:
    """AUC on the test patients of the region-pooled CNN, by what it was trained on.

    As many steps as ``phantom_audit.py`` gives that many cases; the mean over three seeds, its
    interval a bootstrap of the test patients, each class by itself. ``synthetic`` has every mask
    with either outcome, ``own_masks`` with that of its patient alone. The last row is no CNN:
    ``by_appearance``.
    """
    both = replace(
        real,
        images=torch.cat([real.images, synthetic.images]),
        label_maps=torch.cat([real.required_label_maps(), synthetic.required_label_maps()]),
        outcomes=torch.cat([real.outcomes, synthetic.outcomes]),
        synthetic=torch.cat([real.synthetic, synthetic.synthetic]),
        log_scale=torch.cat([real.log_scale, synthetic.log_scale]),
    )
    sets = {
        "real": (real, STEPS_SMALL),
        "synthetic": (synthetic, STEPS_LARGE),
        "synthetic_own_masks": (own_masks, STEPS_LARGE),
        "real_and_synthetic": (both, STEPS_LARGE),
    }
    seen_test, found = _seen(test), {}
    outcomes = test.outcomes.numpy()
    for name, (patches, steps) in sets.items():

        def run(seed: int, patches: Patches = patches, steps: int = steps) -> Result:
            labels = patches.outcomes.float()
            scores = classify(*_seen(patches), labels, seen_test, steps=steps, seed=seed)
            return {"scores": scores.tolist()}

        runs = [
            np.array(kept(f"classifier-{name}-{seed}", partial(run, seed))["scores"])
            for seed in SEEDS
        ]
        found[name] = _scored(outcomes, runs) | {"n_train": len(patches)}
    look = kept("classifier-appearance", lambda: by_appearance(generator, real, test))["scores"]
    found["real,_by_appearance_factors"] = _scored(outcomes, [np.array(look)]) | {
        "n_train": len(real)
    }
    return found


def _scored(outcomes: np.ndarray, runs: list[np.ndarray]) -> Result:
    values = [auc(outcomes, scores) for scores in runs]
    low, high = _ends(outcomes, runs)
    return {
        "value": float(np.mean(values)),
        "low": low,
        "high": high,
        "seeds": values,
        "n": len(outcomes),
        "n_positive": int(outcomes.sum()),
    }


def by_appearance(generator: LatentGenerator, real: Patches, test: Patches) -> Result:
    """Scores of a logistic regression on the amplitudes of factors that were fitted unlabelled."""
    tables = [
        explain_latents(
            generator.anatomy,
            standardised_latents(generator.autoencoder, patches.images),
            patches.required_label_maps(),
        )[1].numpy()
        for patches in (real, test)
    ]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    scores = model.fit(tables[0], real.outcomes.numpy()).decision_function(tables[1])
    return {"scores": scores.tolist()}


def _seen(patches: Patches) -> tuple[Tensor, Tensor, Tensor]:
    """Images, class memberships, and the regions to pool in."""
    maps = patches.required_label_maps()
    members = [(maps == value).float() for value in range(1, len(PHANTOM_CLASSES))]
    regions = batch_region_maps(patches, PHANTOM_CLASSES, shell_mm=SHELL_MM)
    return patches.images[:, None], torch.stack(members, dim=1), regions[:, 2:]


def _ends(outcomes: np.ndarray, runs: list[np.ndarray]) -> tuple[float, float]:
    rng, means = np.random.default_rng(0), []
    classes = [np.flatnonzero(outcomes == value) for value in (0, 1)]
    for _ in range(RESAMPLES):
        drawn = np.concatenate([rng.choice(rows, len(rows)) for rows in classes])
        means.append(float(np.mean([auc(outcomes[drawn], run[drawn]) for run in runs])))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def speedups(seconds: dict[str, dict[str, float]], ours: str) -> dict[str, dict[str, float]]:
    """Of one way of ours over the rival: by batch, by the rival's precision."""
    return {
        batch: {name: of[f"rival-{name}"] / of[ours] for name in ("float32", "bf16")}
        for batch, of in seconds.items()
    }


def first_at(curve: Sequence[Sequence[float]], psnr: float) -> float | None:
    return next((seconds for seconds, reached in curve if reached >= psnr), None)


def autoencoder_race(ours: list[list[float]], rivals: dict[str, list[list[float]]]) -> Result:
    """The speed-ups of the module's docstring."""
    seconds, target = ours[-1]
    reached = [s for curve in rivals.values() if (s := first_at(curve, target)) is not None]
    limit = min(curve[-1][0] for curve in rivals.values())
    at, best = max(
        (next(p for p in curve if p[1] == max(q[1] for q in curve)) for curve in rivals.values()),
        key=lambda point: point[1],
    )
    own = first_at(ours, best)
    return {
        "autoencoder_speedup": (min(reached) if reached else limit) / seconds,
        "at_least": not reached,
        "target_psnr": target,
        "rival_best_psnr": best,
        "autoencoder_speedup_at_rival_best": None if own is None else at / own,
    }
