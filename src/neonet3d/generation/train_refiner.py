"""Fitting the refiner: training patches beside what the flow redraws of them."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from neonet3d.config import Config
from neonet3d.engine.artefact import save_artefact
from neonet3d.engine.claim import claim_folder
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

PAIRS = 96  # as many redrawn patches are plenty for a few hundred weights
STARTS = (0.6, 1.0)  # how far they are noised before they are drawn again


def fit_refiner(data: FoldLatents, config: Config, folder: Path) -> None:
    """The closed-form refiner of the flow in ``folder``."""
    flow = LatentFlow.load(folder)
    card = child_card("Refiner", config.sampler, data, config, controlnet=flow.card)
    if claim_folder(folder / "refiner", card):
        return
    here, rng = fabric(), torch.Generator().manual_seed(card.seed)
    latents, label_maps, outcomes, scales = data.encoded
    n = len(data.patches)
    chosen = pair_rows(n, n_views(n))
    regression = flow.refiner.regression()
    with progress(f"{data.fold.name}: refiner", n_views(n)) as advance:
        for number, view in enumerate(data.views()):
            for part in chosen[chosen // n == number].split(ENCODE_BATCH):
                residual, own = explain_latents(flow.anatomy, latents[part], label_maps[part])
                residual, amplitudes, maps, outcome, scale, scans = (
                    here.to_device(x)
                    for x in (
                        residual,
                        own,
                        label_maps[part],
                        outcomes[part],
                        scales[part],
                        view.images[part % n, None],
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


def pair_rows(n_cases: int, n_positions: int) -> Int[Tensor, " m"]:
    """Up to ``PAIRS`` rows of ``FoldLatents.encoded``, of as many cases and positions as can be."""
    pair = torch.arange(min(PAIRS, n_cases * n_positions))
    turn, place = pair // n_cases, pair % n_cases
    case = place if n_cases <= PAIRS else pair * n_cases // PAIRS
    return (place + turn) % n_positions * n_cases + case
