"""Counterfactuals: the patient's own patch, drawn again with either outcome.

The flow is run backwards from the patch's latent to its noise, with the patient's mask and no
label; from that noise it is run forwards again with the label 1, with 0 and with none. Mask and
noise are the same, so what differs between the two is what the generator believes the outcome
changes. Inverting a flow to edit an image is from DDIM inversion (Song et al. 2021, arXiv
2010.02502, 4.3); drawing both outcomes from the noise of an unlabelled inversion, so that no
outcome need be known, is our choice. It says what the generator has learned of the outcome, not
what the classifier looks at, and not what caused it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neonet3d.cohort.patches import Patches
from neonet3d.engine.device import fabric
from neonet3d.errors import InputError
from neonet3d.generation.condition import Condition
from neonet3d.generation.generator import SAMPLE_BATCH, LatentGenerator
from neonet3d.generation.latents import explain_latents, standardised_latents

Images = Float[Tensor, "n x y z"]


@dataclass(frozen=True)
class Counterfactuals:
    """Patches without acquisition noise, about in [-1, 1], on the CPU.

    Attributes:
        positive, negative: drawn with the outcome 1 and 0.
        unlabelled: drawn with none; how well the inversion returns the patient.
    """

    positive: Images
    negative: Images
    unlabelled: Images

    @property
    def difference(self) -> Images:
        """What the outcome adds, in units of the patches."""
        return self.positive - self.negative


@torch.inference_mode()
def draw_counterfactuals(
    generator: LatentGenerator, patches: Patches, *, steps: int, guidance: float = 1.0
) -> Counterfactuals:
    """Draw every patch again with either outcome.

    Args:
        patches: with masks, on the generator's grid; their outcomes are not looked at.
        steps: of the flow, each way.
        guidance: of the label; more than 1 exaggerates the difference.

    Raises:
        InputError: a generator that was trained without outcomes, or cases without masks.
    """
    if generator.card.outcome is None:
        raise InputError(
            "The generator was trained without outcomes, so it cannot draw a patient with another. "
            "Train one on a cohort with outcomes."
        )
    here, maps = fabric(), patches.required_label_maps()
    latents = standardised_latents(generator.autoencoder, patches.images)
    residuals, amplitudes = explain_latents(generator.anatomy, latents, maps)
    drawn: dict[int, list[Tensor]] = {label: [] for label in (1, 0, -1)}
    for rows in torch.arange(len(patches)).split(SAMPLE_BATCH):
        residual, looks, own, scale = (
            here.to_device(x[rows]) for x in (residuals, amplitudes, maps, patches.log_scale)
        )
        told = {
            label: Condition.of(torch.full((len(rows),), label, device=own.device), scale)
            for label in drawn
        }
        noise = generator.noise_of(residual, own, told[-1], steps=steps)
        for label, parts in drawn.items():
            weight = guidance if label >= 0 else 1.0
            moved = looks + weight * generator.anatomy.bank.contrast(label)
            image = generator.decoded(
                noise, own, told[label], moved, steps=steps, guidance=weight, refined=False
            )
            parts.append(image[:, 0].float().cpu())
    positive, negative, unlabelled = (torch.cat(parts) for parts in drawn.values())
    return Counterfactuals(positive, negative, unlabelled)
