from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy.fft import dctn

from neonet3d.generation.flow import euler, exponential, heun, interpolate
from neonet3d.generation.gaussian import GaussianVelocity, cosine_matrix

SHAPE = (6, 4, 3)


def with_spectrum(variance: torch.Tensor) -> GaussianVelocity:
    field = GaussianVelocity(len(variance), SHAPE)
    field.variance.copy_(variance)
    return field


def spectrum() -> torch.Tensor:
    """Falls with frequency, from 4 to 0.1, as a smooth field's does."""
    axes = torch.meshgrid(*[torch.arange(n) / n for n in SHAPE], indexing="ij")
    falling = 4 * torch.exp(-3 * torch.stack(axes).sum(0) / 2)
    return torch.stack([falling, 0.5 * falling]).clamp_min(0.1)


def draw(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, *SHAPE, generator=torch.Generator().manual_seed(seed))


def coefficients(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(dctn(x.numpy(), axes=(2, 3, 4), norm="ortho"))


def synthesise(variance: torch.Tensor, n: int) -> torch.Tensor:
    x = draw(n, seed=1) * variance.sqrt()
    for axis, size in zip((2, 3, 4), SHAPE, strict=True):
        x = torch.tensordot(x, cosine_matrix(size), dims=([axis], [0])).movedim(-1, axis)
    return x


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_cosines_are_orthonormal(n: int) -> None:
    matrix = cosine_matrix(n)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(n), rtol=0, atol=1e-6)
    torch.testing.assert_close(matrix[0], torch.full((n,), 1 / math.sqrt(n)))


def test_unit_spectrum_needs_no_transform() -> None:
    """S = 1 in every coefficient: (2t - 1) / (t^2 + (1 - t)^2) x."""
    x, t = draw(4), torch.tensor([0.0, 0.3, 0.5, 1.0])
    gain = ((2 * t - 1) / (t**2 + (1 - t) ** 2)).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(GaussianVelocity(2, SHAPE)(x, t), gain * x, rtol=1e-4, atol=1e-5)


def test_one_coefficient_is_scaled_by_the_wiener_gain() -> None:
    variance = torch.ones(1, *SHAPE)
    variance[0, 2, 1, 0] = s = 7.0
    fx, fy, fz = (cosine_matrix(n)[f] for n, f in zip(SHAPE, (2, 1, 0), strict=True))
    wave = (fx[:, None, None] * fy[:, None] * fz)[None, None]
    for t in (0.1, 0.6, 0.95):
        velocity = with_spectrum(variance)(3 * wave, torch.tensor([t]))
        gain = (t - (1 - t) * s) / ((1 - t) ** 2 * s + t**2)
        torch.testing.assert_close(velocity, gain * 3 * wave, rtol=1e-4, atol=1e-5)


def test_it_is_the_conditional_mean_of_the_target() -> None:
    """Regress e - z on x_t, coefficient by coefficient, over many draws."""
    variance, n, t = spectrum(), 20_000, 0.4
    z, e = synthesise(variance, n), draw(n, seed=2)
    x = interpolate(z, e, torch.full((n,), t))
    x_f, target_f = coefficients(x), coefficients(e - z)
    slope = (x_f * target_f).mean(0) / x_f.square().mean(0)
    closed = (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2)
    torch.testing.assert_close(slope, closed, rtol=0, atol=0.06)


def test_fit_measures_the_spectrum() -> None:
    variance = spectrum()
    field = GaussianVelocity(2, SHAPE)
    field.fit(synthesise(variance, 4000))
    torch.testing.assert_close(field.variance, variance, rtol=0.12, atol=0)


def test_a_dead_coefficient_keeps_the_velocity_finite() -> None:
    field = GaussianVelocity(2, SHAPE)
    field.fit(torch.zeros(3, 2, *SHAPE))
    times = torch.tensor([0.0, 0.5, 1.0])
    assert bool(torch.isfinite(field(draw(3), times)).all())


def test_the_flow_carries_noise_to_the_fitted_spectrum() -> None:
    """The exact flow multiplies coefficient f by sqrt(S_f); the samples have variance S_f."""
    variance = spectrum()
    field, start = with_spectrum(variance), draw(400)
    exact = coefficients(start) * variance.sqrt()
    torch.testing.assert_close(coefficients(heun(field, start, 60)), exact, rtol=0, atol=0.02)
    samples = coefficients(euler(field, start, 200))
    torch.testing.assert_close(samples, exact, rtol=0, atol=0.15)
    torch.testing.assert_close(samples.square().mean(0), variance, rtol=0.35, atol=0)
    ratio = samples.square().mean(0) / variance
    assert float(ratio.mean()) == pytest.approx(1, abs=0.03)


def test_only_the_spectrum_is_saved() -> None:
    assert list(GaussianVelocity(2, SHAPE).state_dict()) == ["variance"]


def followed(
    field: GaussianVelocity, x: torch.Tensor, excess: torch.Tensor, *ends: float
) -> torch.Tensor:
    """The ODE with a constant excess, in many small steps."""
    for now, after in pairwise(torch.linspace(*ends, 2001)):
        ahead = x + 0.5 * (after - now) * (field(x, now.expand(len(x))) + excess)
        middle = field(ahead, ((now + after) / 2).expand(len(x))) + excess
        x = x + (after - now) * middle
    return x


def test_a_step_of_any_length_is_exact() -> None:
    field, x = with_spectrum(spectrum()), draw(2)
    for excess, now, after in ((torch.zeros_like(x), 1.0, 0.0), (draw(2, seed=7), 0.8, 0.3)):
        ends = torch.tensor(now), torch.tensor(after)
        once = field.step(x, excess, *ends)
        torch.testing.assert_close(
            once, followed(field, x, excess, now, after), rtol=1e-3, atol=1e-3
        )
        middle = torch.tensor((now + after) / 2)
        twice = field.step(field.step(x, excess, ends[0], middle), excess, middle, ends[1])
        torch.testing.assert_close(twice, once, rtol=1e-4, atol=1e-4)


def test_one_exponential_step_is_enough_for_a_gaussian_field() -> None:
    field, x = with_spectrum(spectrum()), draw(2)

    def nothing(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)

    torch.testing.assert_close(
        exponential(nothing, field, x, 1), exponential(nothing, field, x, 8), rtol=1e-4, atol=1e-4
    )


def test_the_exponential_sampler_is_of_second_order() -> None:
    field, x = with_spectrum(spectrum()), draw(2)

    def excess(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.sin(3 * t).view(-1, 1, 1, 1, 1) * torch.tanh(x)

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return field(x, t) + excess(x, t)

    exact = exponential(excess, field, x, 1024)
    errors = [
        float((exponential(excess, field, x, steps) - exact).abs().max()) for steps in (16, 32)
    ]
    assert errors[0] / errors[1] > 3.2
    assert errors[1] < float((euler(velocity, x, 32) - exact).abs().max()) / 5
