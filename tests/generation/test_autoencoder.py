from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neonet3d.config import AutoencoderConfig, LoopConfig
from neonet3d.generation.autoencoder import INITIAL_LOG_VARIANCE, Autoencoder, AutoencoderObjective

LOOP = LoopConfig(steps=1, batch_size=1, learning_rate=1e-3, weight_decay=0, ema_decay=0)
C = 5
CONFIG = AutoencoderConfig(channels=8, latent_channels=C, kl_weight=1e-4, loop=LOOP)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    noise = torch.randn(10, 1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    return F.avg_pool3d(noise, 5, stride=1) + 0.05 * noise[..., 2:-2, 2:-2, 2:-2] - 0.3


@pytest.fixture
def model() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(CONFIG)


def shake(model: Autoencoder) -> None:
    """Weights as after a training, so that the deep paths do something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def blocks_of(images: torch.Tensor) -> np.ndarray:
    """(n, 64): the 4x4x4 blocks of 16x16x16 images."""
    parts = images.numpy().reshape(-1, 4, 4, 4, 4, 4, 4).astype(np.float64)
    return parts.transpose(0, 1, 3, 5, 2, 4, 6).reshape(-1, 64)


@torch.no_grad()
def test_starts_as_the_principal_components_of_blocks(
    model: Autoencoder, images: torch.Tensor
) -> None:
    model.start_from_principal_components(images)
    blocks = blocks_of(images)
    mean = blocks.mean(0)
    _, singular, directions = np.linalg.svd(blocks - mean, full_matrices=False)
    kept = directions[:C].T @ directions[:C]
    expected = mean + (blocks - mean) @ kept
    np.testing.assert_allclose(blocks_of(model.decode(model.encoder(images))), expected, atol=1e-4)
    # Whitened, so that the latent already has the prior's variance.
    latent = model.encoder.posterior(images)[0]
    torch.testing.assert_close(latent.var((0, 2, 3, 4)), torch.ones(C), rtol=1e-3, atol=0)
    # One unit of a channel moves the image by that component's deviation.
    model.fit_latent_statistics(latent)
    deviation = singular[:C][::-1] / singular[:C].mean()
    np.testing.assert_allclose(model.encoder.latent_gain.numpy(), deviation, rtol=1e-3)


@torch.no_grad()
def test_latents_are_standardised_and_reconstructions_stay(
    model: Autoencoder, images: torch.Tensor
) -> None:
    model.start_from_principal_components(images)
    shake(model)
    before = model.decode(model.encoder(images))
    model.fit_latent_statistics(model.encoder.posterior(images)[0])
    latent = model.encoder(images)
    assert latent.shape == (10, C, 4, 4, 4)
    torch.testing.assert_close(latent.mean((0, 2, 3, 4)), torch.zeros(C), rtol=0, atol=1e-4)
    torch.testing.assert_close(latent.std((0, 2, 3, 4)), torch.ones(C), rtol=1e-4, atol=0)
    assert float(model.encoder.latent_gain.mean()) == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(model.decode(latent), before, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_latent_is_a_mean_and_no_sample(model: Autoencoder, images: torch.Tensor) -> None:
    shake(model)
    model.train()
    torch.manual_seed(1)
    first = model.encoder(images)
    torch.manual_seed(2)
    assert torch.equal(model.encoder(images), first)
    maps = model.encoder.maps(images)
    assert torch.equal(maps.latent, first)
    shapes = [tuple(part.shape[1:]) for part in (maps.haar, maps.fine, maps.coarse)]
    assert shapes == [(8, 8, 8, 8), (8, 8, 8, 8), (16, 4, 4, 4)]


@torch.no_grad()
def test_statistics_travel_with_the_weights(model: Autoencoder, images: torch.Tensor) -> None:
    shake(model)
    model.fit_latent_statistics(model.encoder.posterior(images)[0])
    other = Autoencoder(CONFIG)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.encoder(images), model.encoder(images))


@torch.no_grad()
def test_kl_is_the_closed_form_averaged_over_the_latent(
    model: Autoencoder, images: torch.Tensor
) -> None:
    model.start_from_principal_components(images)
    losses = []
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        losses.append(float(AutoencoderObjective(model, weight)(images)))
    mean = model.encoder.posterior(images)[0]
    variance = np.exp(INITIAL_LOG_VARIANCE)
    kl = 0.5 * float((mean.square() + variance - 1 - INITIAL_LOG_VARIANCE).mean())
    assert (losses[1] - losses[0]) / 2 == pytest.approx(kl, rel=1e-4)


def test_every_part_gets_a_gradient(model: Autoencoder, images: torch.Tensor) -> None:
    shake(model)
    AutoencoderObjective(model, 1.0)(images[:2]).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert without == []
