from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neonet3d.errors import InputError
from neonet3d.generation.appearance import (
    BANDWIDTH,
    AmplitudeBank,
    fit_factors,
    n_factors,
    solve_amplitudes,
)

CASES, VOXELS, FEATURES, CHANNELS, FACTORS = 60, 80, 6, 3, 2


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sums(features: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor]:
    return features.transpose(1, 2) @ features, features.transpose(1, 2) @ residuals


def patients(seed: int, factors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features and residuals of cases, and the amplitudes that made them."""
    rng = generator(seed)
    features = torch.randn(CASES, VOXELS, FEATURES, generator=rng)
    amplitudes = torch.randn(CASES, FACTORS, generator=rng)
    clean = torch.einsum("ivf,kfc,ik->ivc", features, factors, amplitudes)
    noise = 0.5 * torch.randn(clean.shape, generator=rng)
    return features, clean + noise, amplitudes


def test_factors_explain_patients_they_have_not_seen() -> None:
    true = torch.randn(FACTORS, FEATURES, CHANNELS, generator=generator(0))
    features, residuals, _ = patients(1, true)
    found = fit_factors(*sums(features, residuals), FACTORS)
    assert found.shape == true.shape

    features, residuals, amplitudes = patients(2, true)
    patterns = torch.einsum("ivf,kfc->ikvc", features, found)
    own = solve_amplitudes(
        torch.einsum("ikvc,ilvc->ikl", patterns, patterns),
        torch.einsum("ikvc,ivc->ik", patterns, residuals),
    )
    left = residuals - torch.einsum("ik,ikvc->ivc", own, patterns)
    assert float(left.std()) == pytest.approx(0.5, rel=0.1)  # the noise alone
    # The factors are found up to a mixture of them.
    mixture = torch.linalg.lstsq(own, amplitudes).solution
    torch.testing.assert_close(own @ mixture, amplitudes, rtol=0, atol=0.5)
    assert float((own @ mixture - amplitudes).std()) < 0.15


def test_amplitudes_of_the_cases_that_fitted_the_factors_have_unit_variance() -> None:
    true = torch.randn(FACTORS, FEATURES, CHANNELS, generator=generator(0))
    grams, moments = sums(*patients(1, true)[:2])
    found = fit_factors(grams, moments, FACTORS)
    own = solve_amplitudes(
        torch.einsum("kfc,ifg,lgc->ikl", found, grams, found),
        torch.einsum("kfc,ifc->ik", found, moments),
    )
    assert own.square().mean(0).sqrt().tolist() == pytest.approx([1, 1], rel=0.05)


def test_few_cases_have_few_factors() -> None:
    assert [n_factors(n) for n in (1, 7, 8, 64, 128, 1000)] == [0, 0, 1, 8, 12, 12]


def bank() -> AmplitudeBank:
    found = AmplitudeBank(400, 2)
    found.outcomes.copy_(torch.arange(400) % 2)
    noise = torch.randn(400, 2, generator=generator(3))
    found.amplitudes.copy_(noise + torch.tensor([[-1.0, 0.0], [2.0, 0.0]])[found.outcomes])
    return found


def test_drawn_amplitudes_have_mean_and_spread_of_their_outcome() -> None:
    source = bank()
    for outcome in (0, 1, -1):
        same = source.amplitudes[(source.outcomes == outcome) | (outcome < 0)]
        drawn = source.draw(torch.full((4000,), outcome), generator(4))
        torch.testing.assert_close(drawn.mean(0), same.mean(0), rtol=0, atol=0.1)
        torch.testing.assert_close(drawn.std(0), same.std(0), rtol=0.06, atol=0)


def test_no_draw_is_a_training_case() -> None:
    """Each lies about a bandwidth off the case it came from."""
    source = bank()
    drawn = source.draw(torch.zeros(200, dtype=torch.long), generator(5))
    nearest = torch.cdist(drawn, source.amplitudes).amin(1)
    assert float(nearest.min()) > 0
    few = AmplitudeBank(2, 2)
    few.amplitudes.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    apart = few.draw(torch.full((500,), -1), generator(6)).abs() - (1 - BANDWIDTH**2) ** 0.5
    assert float(apart.square().mean().sqrt()) == pytest.approx(BANDWIDTH, rel=0.1)


def test_a_draw_follows_its_seed() -> None:
    source, outcomes = bank(), torch.tensor([0, 1, -1, 1])
    first, again, other = (source.draw(outcomes, generator(s)) for s in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_guidance_moves_along_the_contrast() -> None:
    source, outcomes = bank(), torch.tensor([1, 1, 0])
    plain, guided = (source.draw(outcomes, generator(9), guidance=g) for g in (1.0, 3.0))
    expected = torch.stack([source.contrast(o) for o in outcomes.tolist()])
    torch.testing.assert_close(guided - plain, 2 * expected)
    torch.testing.assert_close(source.contrast(-1), torch.zeros(2))
    assert float(source.contrast(1)[0]) > 1


def test_an_outcome_without_cases_is_refused() -> None:
    source = bank()
    source.outcomes.fill_(0)
    with pytest.raises(InputError, match="No training case of the generator has the outcome 1"):
        source.draw(torch.tensor([0, 1]), generator(0))
