from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from neonet3d.cohort.patches import Patches
from neonet3d.generation.rivals.batches import TrainingSet
from neonet3d.generation.rivals.budget import Budget
from neonet3d.generation.rivals.cosine_schedule import kept_variance
from neonet3d.generation.rivals.med_ddpm import N_TIMES, MedDDPM, NoiseUNet, noise_loss

TRIVIAL = math.sqrt(2 / math.pi)  # mean of |noise|


def test_an_untrained_network_predicts_no_noise(patches: Patches) -> None:
    torch.manual_seed(0)
    batch = TrainingSet(patches, 3, labelled=True).draw(2)
    loss = noise_loss(NoiseUNet(2), batch, kept_variance(N_TIMES).float())
    assert float(loss.detach()) == pytest.approx(TRIVIAL, abs=0.01)


def test_the_loss_falls_below_the_trivial_one(
    patches: Patches, steps: Callable[[int], Budget]
) -> None:
    rival = MedDDPM((24, 24, 24), 3, labelled=True)
    rival.train(patches, steps(25), seed=0)
    data, kept = TrainingSet(patches, 3, labelled=True), kept_variance(N_TIMES).float()
    torch.manual_seed(0)
    with torch.no_grad():
        losses = [float(noise_loss(rival.unet, data.draw(2), kept)) for _ in range(4)]
    assert sum(losses) / 4 < 0.9 * TRIVIAL


def test_the_average_follows_the_trained_weights(
    patches: Patches, steps: Callable[[int], Budget]
) -> None:
    """After one step 0.9 of the way, as the decay begins with 1 / 10; Adam's first step is 2e-4."""
    rival = MedDDPM((24, 24, 24), 3, labelled=True)
    rival.train(patches, steps(1), seed=0)
    bias = rival.unet.head[-1].bias
    assert float(bias.abs()) == pytest.approx(0.9 * 2e-4, rel=1e-3)
    assert not bias.requires_grad
