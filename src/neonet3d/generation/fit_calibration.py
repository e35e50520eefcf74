"""Fitting the band calibrations: what the generator makes for training masks, beside the scans."""

from __future__ import annotations

from pathlib import Path

import torch

from neonet3d.config import Config
from neonet3d.engine.artefact import read_card, save_artefact
from neonet3d.engine.claim import claim_folder
from neonet3d.generation.generator import CALIBRATED, LatentGenerator
from neonet3d.generation.latents import FoldLatents, child_card
from neonet3d.generation.region_features import band_statistics

MOST_CASES = 256  # evenly taken; eighty means need no more


def fit_calibration(data: FoldLatents, config: Config, folder: Path) -> None:
    """The closed-form calibrations of the six parts in ``folder``."""
    parents = {name: read_card(folder / name) for name in CALIBRATED}
    card = child_card("BandCalibration", config.sampler, data, config, **parents)
    if claim_folder(folder / "calibration", card):
        return
    generator, sampler = LatentGenerator.load_uncalibrated(folder), config.sampler
    rows = torch.arange(0, len(data.patches), -(-len(data.patches) // MOST_CASES))
    images, outcomes = data.patches.images[rows], data.patches.outcomes[rows]
    maps = data.patches.required_label_maps()[rows]
    made = {
        "draws": generator.sample(
            maps,
            outcomes,
            steps=sampler.steps,
            seed=card.seed,
            method=sampler.method,
            guidance=sampler.guidance,
            mask_guidance=sampler.mask_guidance,
            log_scale=data.patches.log_scale[rows],
        ),
        "reconstructions": generator.reconstruct(images, maps, seed=card.seed),
    }
    real = band_statistics(images, maps, len(card.classes))
    for name, of in made.items():
        generator.calibration_of(name).fit(of, maps, real)
    save_artefact(folder / "calibration", generator.calibrations, card)
