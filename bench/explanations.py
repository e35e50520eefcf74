"""Do explanations fall where the phantom put the signs? Part of ``bench/classification.py``.

The truth of a patient: the same body rendered with strong signs (cuff, margin, ducts) and with
none; where the two differ by a tenth of the liver's signal, a sign can be seen. Maps are judged
among the voxels of liver, veins and tumour: the pointing game (largest value within
``TOLERANCE_MM`` of the truth; chance is the share of voxels that would hit) and the AUC over
voxels, each the mean over held-out patients.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from segmentation import command

from neonet3d.classification.explain import explain
from neonet3d.classification.predict import Classifier
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import load_patches
from neonet3d.cohort.phantom.patient import draw_label, simulate_roi
from neonet3d.config import Config
from neonet3d.generation.counterfactual import draw_counterfactuals
from neonet3d.generation.generator import LatentGenerator
from neonet3d.metrics.interval import bootstrap_mean
from neonet3d.metrics.localisation import chance_of_hit, hits, voxel_auc
from neonet3d.types import Triple

STRONG = 1.5  # standard deviations of the three signs; the other rendering has minus that
SEEN = 0.1  # of the liver's signal
TOLERANCE_MM = 6.0


def sign_truth(seed: int, config: Config) -> np.ndarray:
    """(x, y, z) bool: where this patient's patch would show signs."""
    own = draw_label(seed)
    rendered = [
        simulate_roi(
            seed,
            shape=config.roi.shape,
            spacing_mm=config.roi.spacing_mm,
            invasion=replace(own, cuff=strength, margin=strength, duct=strength),
        )
        for strength in (STRONG, -STRONG)
    ]
    shown, hidden = (case.image for case in rendered)
    liver = np.median(hidden[rendered[1].label_map == 1])
    return np.asarray(np.abs(shown - hidden) > SEEN * liver)


def measure(
    fold: Fold, splits: Path, work: Path, patten: Path, seeds: list[int], config: Config
) -> dict[str, Any]:
    """Hits and voxel AUC of every kind of map on the held-out patients of a fold.

    Args:
        splits: file whose first division is this fold.
        patten: the classifier of this fold.
        seeds: of the held-out phantoms, in the fold's order.
    """
    words = ("--splits", splits, "--fold", "0", "--preset", "cpu")
    folder = work / "generator"
    command(work / "generator.json", "generate", "train", fold.training.root, folder, *words)
    generator, classifier = LatentGenerator.load(folder), Classifier.load(patten)
    card = generator.card
    patches = load_patches(fold.held_out, *card.reading)
    looked = explain(classifier, patches)
    drawn = draw_counterfactuals(generator, patches, steps=config.sampler.steps)
    maps = {
        "attention": looked.attention,
        "Grad-CAM": looked.grad_cam,
        "occlusion": looked.occlusion.abs(),
        "counterfactual": drawn.difference.abs(),
    }
    spacing_mm: Triple = card.grid.spacing_mm
    rows: dict[str, Any] = {name: {"hits": [], "auc": []} for name in maps}
    chance = []
    for index, seed in enumerate(seeds):
        truth = sign_truth(seed, config)
        within = patches.required_label_maps()[index].numpy() > 0
        truth &= within
        if not truth.any():
            continue
        chance.append(
            chance_of_hit(truth, within, spacing_mm=spacing_mm, tolerance_mm=TOLERANCE_MM)
        )
        for name, values in maps.items():
            importance = np.where(within, values[index].numpy(), -np.inf)
            rows[name]["hits"].append(
                hits(importance, truth, spacing_mm=spacing_mm, tolerance_mm=TOLERANCE_MM)
            )
            rows[name]["auc"].append(voxel_auc(values[index].numpy(), truth, within))
    return {
        "n": len(chance),
        "chance": float(np.mean(chance)),
        "maps": {
            name: {
                key: _plain(np.array(values, dtype=float), config.seed)
                for key, values in row.items()
            }
            for name, row in rows.items()
        },
    }


def _plain(values: np.ndarray, seed: int) -> dict[str, float]:
    interval = bootstrap_mean(values, seed)
    return {"value": interval.value, "low": interval.low, "high": interval.high}
