from __future__ import annotations

import pytest
import torch

from neonet3d.generation.wavelet import haar, haar_inverse


def field(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_nothing_is_lost() -> None:
    x = field(2, 3, 8, 6, 10)
    y = haar(x)
    assert y.shape == (2, 24, 4, 3, 5)
    torch.testing.assert_close(haar_inverse(y), x, rtol=0, atol=1e-6)
    z = field(1, 16, 2, 3, 4)
    torch.testing.assert_close(haar(haar_inverse(z)), z, rtol=0, atol=1e-6)


def test_mixed_precision_does_not_round_it() -> None:
    y = field(1, 8, 4, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(haar_inverse(y), haar_inverse(y.double()).float())


def test_orthogonal() -> None:
    a, b = field(1, 2, 8, 8, 8, seed=1), field(1, 2, 8, 8, 8, seed=2)
    assert float((haar(a) * haar(b)).sum()) == pytest.approx(float((a * b).sum()), abs=1e-3)
    assert float(haar(a).square().sum()) == pytest.approx(float(a.square().sum()), rel=1e-5)
    coefficients = field(1, 16, 4, 4, 4, seed=3)
    there = float((haar(a) * coefficients).sum())
    assert float((a * haar_inverse(coefficients)).sum()) == pytest.approx(there, abs=1e-3)


def test_a_constant_has_only_a_mean() -> None:
    y = haar(torch.full((1, 1, 4, 4, 4), 3.0))
    torch.testing.assert_close(y[:, :1], torch.full((1, 1, 2, 2, 2), 3.0 * 8**0.5))
    assert float(y[:, 1:].abs().max()) == 0


@pytest.mark.parametrize(("axis", "band"), [(2, 1), (3, 2), (4, 4)])
def test_a_step_inside_a_pair_shows_in_the_band_of_its_axis(axis: int, band: int) -> None:
    x = torch.zeros(1, 1, 4, 4, 4)
    x.select(axis, 0).fill_(1)
    energy = haar(x).square().sum((0, 2, 3, 4))
    assert energy.nonzero().flatten().tolist() == [0, band]


def test_two_levels_mix_blocks_of_64_voxels() -> None:
    x = torch.zeros(1, 1, 8, 8, 8)
    x[..., 4:, :4, :4] = field(4, 4, 4)
    y = haar(haar(x))
    assert y.shape == (1, 64, 2, 2, 2)
    assert float(y[0, :, 1, 0, 0].square().sum()) == pytest.approx(
        float(x.square().sum()), rel=1e-5
    )
    assert float(y.square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-5)


@pytest.mark.parametrize(("shape", "axis"), [((7, 4, 4), 2), ((4, 7, 4), 3), ((4, 4, 7), 4)])
def test_an_odd_size_is_refused(shape: tuple[int, int, int], axis: int) -> None:
    with pytest.raises(ValueError, match=f"axis {axis} has 7 voxels"):
        haar(torch.zeros(1, 1, *shape))
