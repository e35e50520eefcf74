from __future__ import annotations

import pytest
import torch

from neonet3d.generation.energy_score import energy_score, two_of_each

SHAPE = (64, 8, 8, 8, 8)


def white(seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def smooth(x: torch.Tensor) -> torch.Tensor:
    """The same energy, neighbours alike."""
    return (x + x.roll(1, 2)) / 2**0.5


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.25, 2.0])
def test_the_right_amount_of_noise_scores_best(scale: float) -> None:
    right = energy_score(white(0), white(1), white(2))
    assert energy_score(white(0, scale), white(1, scale), white(2)) > right


def test_the_right_texture_scores_best() -> None:
    """Marginals are alike; only neighbours differ."""
    target = smooth(white(2))
    right = energy_score(smooth(white(0)), smooth(white(1)), target)
    assert energy_score(white(0), white(1), target) > right


def test_a_draw_that_knows_the_place_of_the_noise_scores_better() -> None:
    place = torch.ones(SHAPE)
    place[:, :, :4] = 0.2
    target = white(2) * place
    right = energy_score(white(0) * place, white(1) * place, target)
    spread = place.square().mean().sqrt()
    assert energy_score(white(0) * spread, white(1) * spread, target) > right


def test_the_mean_is_no_draw() -> None:
    """A blurred answer has the least absolute error, and not the best score."""
    still = torch.zeros(SHAPE)
    assert energy_score(still, still, white(2)) > energy_score(white(0), white(1), white(2))


def test_the_target_itself_scores_zero() -> None:
    assert float(energy_score(white(2), white(2), white(2))) == pytest.approx(0, abs=1e-6)


def test_gradients_are_finite_where_draws_agree() -> None:
    x = torch.zeros(2, 8, 4, 4, 4, requires_grad=True)
    energy_score(x, x * 1, torch.zeros(2, 8, 4, 4, 4)).backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_two_of_each() -> None:
    assert two_of_each(torch.tensor([1, 2])).tolist() == [1, 2, 1, 2]
