from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from neonet3d.generation.flow import (
    draw_times,
    euler,
    guided,
    heun,
    interpolate,
    time_steps,
)

CPU = torch.device("cpu")


def noise(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, 2, 2, 2, generator=generator, dtype=torch.float64)


def test_the_path_has_its_ends_and_its_speed() -> None:
    z, e = noise(1), noise(2)
    assert torch.equal(interpolate(z, e, torch.zeros(3)), z)
    assert torch.equal(interpolate(z, e, torch.ones(3)), e)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    slope = (interpolate(z, e, t + 1e-3) - interpolate(z, e, t - 1e-3)) / 2e-3
    torch.testing.assert_close(slope, e - z)


@pytest.mark.parametrize("solver", [euler, heun])
def test_a_straight_path_is_exact_in_one_step(solver: Callable[..., torch.Tensor]) -> None:
    z, e = noise(1), noise(2)
    torch.testing.assert_close(solver(lambda x, t: e - z, e, 1), z)


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2)])
def test_order_of_accuracy(solver: Callable[..., torch.Tensor], order: int) -> None:
    """dx/dt = x from t = 1 to t = 0 divides by e."""
    start = noise()

    def error(steps: int) -> float:
        return float((solver(lambda x, t: x, start, steps) - start / math.e).abs().max())

    assert error(40) < 0.02
    assert math.log2(error(40) / error(80)) == pytest.approx(order, abs=0.05)


def test_closed_form_of_the_discrete_solution() -> None:
    start = noise()
    torch.testing.assert_close(euler(lambda x, t: x, start, 10), start * (1 - 0.1) ** 10)
    factor = (1 - 0.1 + 0.1**2 / 2) ** 10
    torch.testing.assert_close(heun(lambda x, t: x, start, 10), start * factor)


def test_time_runs_from_noise_to_data() -> None:
    """dx/dt = 2t: the trapezoid rule of Heun integrates it exactly, Euler from the late side."""
    assert time_steps(4, CPU).tolist() == [1, 0.75, 0.5, 0.25, 0]
    start = noise()

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert t.shape == (len(x),)
        return 2 * t.to(x).view(-1, 1, 1, 1, 1).expand_as(x)

    torch.testing.assert_close(heun(velocity, start, 4), start - 1)
    torch.testing.assert_close(euler(velocity, start, 4), start - 2 * (1 + 0.75 + 0.5 + 0.25) / 4)


def test_one_evaluation_a_step_or_two() -> None:
    calls: list[float] = []

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(float(t[0]))
        return x

    euler(velocity, noise(), 4)
    assert calls == [1, 0.75, 0.5, 0.25]
    calls.clear()
    heun(velocity, noise(), 2)
    assert calls == [1, 0.5, 0.5, 0]


def test_times_are_logit_normal() -> None:
    torch.manual_seed(0)
    t = draw_times(20_000, CPU)
    assert 0 < float(t.min()) < float(t.max()) < 1
    logit = torch.logit(t)
    assert float(logit.mean()) == pytest.approx(0, abs=0.03)
    assert float(logit.std()) == pytest.approx(1, abs=0.03)


def test_guidance() -> None:
    c, u = noise(1), noise(2)
    torch.testing.assert_close(guided(c, u, 1), c)
    torch.testing.assert_close(guided(c, u, 0), u)
    torch.testing.assert_close(guided(c, u, 3), c + 2 * (c - u))
