from __future__ import annotations

import pytest
import torch

from neonet3d.config import load_config
from neonet3d.generation.controlnet import space_to_depth
from neonet3d.generation.mask_autoencoder import (
    MaskAutoencoder,
    MaskObjective,
    class_weights,
    depth_to_space,
)


def autoencoder() -> MaskAutoencoder:
    torch.manual_seed(0)
    config = load_config("demo").masks.autoencoder.model_copy(update={"channels": 8})
    return MaskAutoencoder(config, 4)


def maps(n: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 4, (n, 3, 2, 2), generator=generator, dtype=torch.uint8)
    for axis in (1, 2, 3):
        coarse = coarse.repeat_interleave(8, dim=axis)
    return coarse


def test_depth_to_space_is_the_inverse() -> None:
    x = torch.randn(2, 3, 4, 6, 8)
    assert torch.equal(depth_to_space(space_to_depth(x)), x)


def test_a_map_becomes_a_latent_four_times_coarser_and_logits_again() -> None:
    model = autoencoder()
    latent = model.encode(maps())
    assert latent.shape == (2, 8, 6, 4, 4)
    assert model.decode(latent).shape == (2, 4, 24, 16, 16)


def test_standardised_latents_decode_to_the_same_logits() -> None:
    model = autoencoder()
    mean = model.posterior(maps())[0]
    model.fit_latent_statistics(mean)
    latent = model.encode(maps())
    torch.testing.assert_close(latent.mean((0, 2, 3, 4)), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(latent.std((0, 2, 3, 4)), torch.ones(8), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.decode(latent), model.logits(mean), atol=1e-5, rtol=1e-4)


def test_a_voxel_far_away_changes_nothing() -> None:
    """So that tiles and the whole agree."""
    model, far = autoencoder(), torch.zeros(1, 64, 16, 16, dtype=torch.uint8)
    near = far.clone()
    near[0, 0] = 3
    first, second = (model.encode(x)[..., 12:, :, :] for x in (far, near))
    assert torch.equal(first, second)


def test_rare_classes_weigh_more_and_absent_ones_nothing() -> None:
    label_maps = torch.zeros(1, 10, 10, 10, dtype=torch.uint8)
    label_maps[0, 0] = 1  # a tenth
    label_maps[0, 1, 0] = 2  # a hundredth
    weight = class_weights(label_maps, 4)
    assert float(weight[2] / weight[1]) == pytest.approx(10**0.5, rel=1e-5)
    assert weight[3] == 0
    share = torch.tensor([0.89, 0.1, 0.01, 0.0])
    assert float((weight * share).sum()) == pytest.approx(1, rel=1e-5)


def test_it_learns_a_map() -> None:
    model = autoencoder()
    objective = MaskObjective(model, 1e-4, class_weights(maps(), 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        objective(maps()).backward()
        optimizer.step()
    returned = model.decode(model.encode(maps())).argmax(1)
    assert (returned == maps()).float().mean() > 0.95
