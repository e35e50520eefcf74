"""Fitting the refiner: training patches beside what the flow redraws of them."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from neonet3d.config import Config
from neonet3d.engine.artefact import claim_folder, save_artefact
from neonet3d.engine.device import fabric
from neonet3d.engine.progress import progress
from neonet3d.generation.condition import Condition
from neonet3d.generation.latent_flow import LatentFlow
from neonet3d.generation.latents import (
    ENCODE_BATCH,
    FoldLatents,
    child_card,
    explain_latents,
    n_views,
)

PAIRS = 96  # as many redrawn patches, evenly taken, are plenty for a few hundred weights
STARTS = (0.6, 1.0)  # how far they are noised before they are drawn again


def fit_refiner(data: FoldLatents, config: Config, folder: Path) -> None:
    """The closed-form refiner of the flow in ``folder``."""
    flow = LatentFlow.load(folder)
    card = child_card("Refiner", config.sampler, data, config, controlnet=flow.card)
    if claim_folder(folder / "refiner", card):
        return
    here, rng = fabric(), torch.Generator().manual_seed(card.seed)
    latents, label_maps, outcomes, scales = data.encoded
    step = math.ceil(len(latents) / PAIRS)
    regression = flow.refiner.regression()
    with progress(f"{data.fold.name}: refiner", n_views(len(data.patches))) as advance:
        for number, view in enumerate(data.views()):
            first = number * len(view)
            rows = [row for row in range(first, first + len(view)) if row % step == 0]
            for part in torch.tensor(rows, dtype=torch.long).split(ENCODE_BATCH):
                residual, own = explain_latents(flow.anatomy, latents[part], label_maps[part])
                residual, amplitudes, maps, outcome, scale, scans = (
                    here.to_device(x)
                    for x in (
                        residual,
                        own,
                        label_maps[part],
                        outcomes[part],
                        scales[part],
                        view.images[part - first, None],
                    )
                )
                drawn = flow.redraw(
                    residual,
                    maps,
                    Condition.of(outcome, scale),
                    amplitudes,
                    start=float(torch.empty(()).uniform_(*STARTS, generator=rng)),
                    sampler=config.sampler,
                    generator=rng,
                )
                flow.refiner.show(regression, drawn, maps, scans)
            advance()
    flow.refiner.weight.copy_(regression.solve())
    save_artefact(folder / "refiner", flow.refiner, card)
