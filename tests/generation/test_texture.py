from __future__ import annotations

import numpy as np
import pytest
import torch

from neonet3d.generation.texture import BANDS, PROFILE, texture_profiles
from neonet3d.generation.wavelet import haar_inverse

SHAPE = (16, 16, 16)


def noise(n: int, spread: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Patches whose Haar bands have these spreads, (n, 8)."""
    generator = torch.Generator().manual_seed(seed)
    bands = torch.randn(n, BANDS, *(s // 2 for s in SHAPE), generator=generator)
    return haar_inverse(bands * spread[..., None, None, None])[:, 0]


def test_the_spread_of_each_band_is_found() -> None:
    spread = torch.linspace(0.02, 0.3, 2 * BANDS).view(2, BANDS)
    maps = torch.ones(2, *SHAPE, dtype=torch.uint8)
    found = texture_profiles(noise(2, spread), torch.zeros(2, *SHAPE), maps)
    assert found.shape == (2, PROFILE)
    np.testing.assert_allclose(found[:, :BANDS].exp(), spread, rtol=0.25)


def test_inside_and_outside_are_told_apart() -> None:
    maps = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    maps[:, :8] = 2
    loud, quiet = noise(1, torch.full((1, BANDS), 0.4)), noise(1, torch.full((1, BANDS), 0.1), 1)
    images = torch.where(maps > 0, loud, quiet)
    found = texture_profiles(images, torch.zeros_like(images), maps).exp()[0]
    np.testing.assert_allclose(found[:BANDS], 0.4, rtol=0.25)
    np.testing.assert_allclose(found[BANDS:], 0.1, rtol=0.25)


def test_anatomy_that_the_reconstruction_missed_is_not_noise() -> None:
    """An edge in residual and reconstruction lies where neither is smooth."""
    spread = torch.full((1, BANDS), 0.1)
    images, plain = noise(1, spread), torch.zeros(1, *SHAPE)
    plain[:, 5:7] = 1  # detail
    images = images + plain
    images[:, 5:7] += torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(3))
    maps = torch.ones(1, *SHAPE, dtype=torch.uint8)
    found = texture_profiles(images, plain, maps)[0, :BANDS].exp()
    np.testing.assert_allclose(found, 0.1, rtol=0.3)


def test_a_region_that_a_case_lacks_gets_the_mean_of_the_others() -> None:
    images = noise(3, torch.full((3, BANDS), 0.2))
    maps = torch.ones(3, *SHAPE, dtype=torch.uint8)
    maps[1:, :8] = 0
    found = texture_profiles(images, torch.zeros_like(images), maps)
    torch.testing.assert_close(found[0, BANDS:], found[1:, BANDS:].mean(0))


@pytest.mark.parametrize("value", [0, 1])
def test_a_region_that_nobody_has_gets_what_the_other_has(value: int) -> None:
    """Such as tumours too small for any band: noise of deviation 1 would be far from theirs."""
    images = noise(2, torch.full((2, BANDS), 0.2))
    maps = torch.full((2, *SHAPE), value, dtype=torch.uint8)
    found = texture_profiles(images, torch.zeros_like(images), maps)
    own = slice(0, BANDS) if value == 1 else slice(BANDS, None)
    other = slice(BANDS, None) if value == 1 else slice(0, BANDS)
    torch.testing.assert_close(found[0, other], found[:, own].mean(0))
    assert float(found.exp().max()) < 0.4
