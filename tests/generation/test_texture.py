from __future__ import annotations

import pytest
import torch

from neonet3d.generation.texture import ResidualTexture, smooth_voxels

SHAPE = (16, 12, 8)


def shape_of_spectrum() -> torch.Tensor:
    """Amplitude that falls along x and grows along y, unit variance, no mean."""
    fx = torch.fft.fftfreq(SHAPE[0]).abs()[:, None, None]
    fy = torch.fft.fftfreq(SHAPE[1]).abs()[None, :, None]
    amplitude = ((0.1 + fy) / (0.05 + fx)).expand(*SHAPE).clone()
    amplitude[0, 0, 0] = 0
    return amplitude / amplitude.square().mean().sqrt()


def coloured(n: int, levels: torch.Tensor, seed: int = 0) -> torch.Tensor:
    white = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.fft.fftn(white, dim=(1, 2, 3)) * shape_of_spectrum()
    return torch.fft.ifftn(spectrum, dim=(1, 2, 3)).real * levels.view(-1, 1, 1, 1)


def fitted(residuals: torch.Tensor, reconstruction: torch.Tensor | None = None) -> ResidualTexture:
    """On a flat reconstruction by default: smooth everywhere."""
    texture = ResidualTexture(SHAPE, len(residuals))
    returned = torch.zeros_like(residuals)
    if reconstruction is not None:
        returned = returned + reconstruction
    texture.fit(returned + residuals, returned)
    return texture


def test_measures_spectrum_and_levels() -> None:
    levels = torch.linspace(0.02, 0.08, 60)
    texture = fitted(coloured(60, levels) + 0.01)  # an offset is the decoder's business
    torch.testing.assert_close(texture.levels, levels, rtol=0.15, atol=0)
    assert float((texture.levels / levels).mean()) == pytest.approx(1, abs=0.02)
    assert bool((texture.levels.diff() >= 0).all())
    ratio = texture.amplitude / shape_of_spectrum()[..., : SHAPE[2] // 2 + 1]
    assert float(texture.amplitude[0, 0, 0]) == 0
    assert float(ratio[ratio.isfinite()].mean()) == pytest.approx(1, abs=0.05)
    assert float(ratio[ratio.isfinite()].std()) < 0.15


def test_measured_where_the_reconstruction_is_smooth() -> None:
    """Half of each patch is full of detail that the decoder gets wrong by ten deviations."""
    levels = torch.full((20,), 0.05)
    clean = coloured(20, levels)
    detail = torch.zeros(SHAPE)
    detail[:8:2] = 1.0
    smooth = smooth_voxels(detail.expand(20, *SHAPE))
    assert bool(smooth[:, 9:].any())
    assert not bool(smooth[:, :8].any())
    wrong = clean + 0.5 * detail
    before, after = fitted(clean, detail), fitted(wrong, detail)
    assert torch.equal(after.levels, before.levels)
    torch.testing.assert_close(after.amplitude, before.amplitude)
    torch.testing.assert_close(after.levels, levels, rtol=0.4, atol=0)


def test_errors_at_organ_borders_move_the_level_little() -> None:
    levels = torch.full((20,), 0.05)
    clean = coloured(20, levels)
    dirty = clean.clone()
    dirty[:, 4] += 1.0  # one slab in sixteen is wrong by twenty deviations
    before, after = fitted(clean), fitted(dirty)
    assert float((after.levels / before.levels - 1).abs().max()) < 0.15
    assert float(dirty[0].std()) > 4 * float(after.levels[0])
    # Nor do they become the spectrum: a slab is all low frequencies along y and z.
    power = [texture.amplitude[:, 0, 0].square().sum() for texture in (before, after)]
    total = [texture.amplitude.square().sum() for texture in (before, after)]
    assert float(power[1] / total[1]) < 0.65  # unclipped it would be 0.96
    assert float(power[0] / total[0]) < 0.1


def test_what_is_added_has_that_spectrum_and_those_levels() -> None:
    texture = fitted(coloured(40, torch.full((40,), 0.05)))
    zeros = torch.zeros(60, *SHAPE)
    noise = texture.add(zeros, torch.Generator().manual_seed(3))
    assert float(noise.std()) == pytest.approx(float(texture.levels.mean()), rel=0.03)
    assert float(noise.mean((1, 2, 3)).abs().max()) < 1e-6
    again = fitted(noise)
    ratio = again.amplitude.square().sum((1, 2)) / texture.amplitude.square().sum((1, 2))
    torch.testing.assert_close(ratio, torch.ones(SHAPE[0]), rtol=0, atol=0.2)


def test_levels_are_drawn_from_the_training_cases() -> None:
    texture = fitted(coloured(2, torch.tensor([0.01, 0.2])))
    noise = texture.add(torch.zeros(40, *SHAPE), torch.Generator().manual_seed(0))
    quiet = noise.std((1, 2, 3)) < 0.05
    assert 8 < int(quiet.sum()) < 32
    assert float(noise[quiet].std()) == pytest.approx(float(texture.levels[0]), rel=0.1)


def test_reproducible_and_within_bounds() -> None:
    texture = fitted(coloured(4, torch.full((4,), 0.5)))
    images = torch.full((2, *SHAPE), -0.9)
    first = texture.add(images, torch.Generator().manual_seed(5))
    assert torch.equal(first, texture.add(images, torch.Generator().manual_seed(5)))
    assert not torch.equal(first, texture.add(images, torch.Generator().manual_seed(6)))
    assert float(first.min()) == -1
    assert float(first.max()) <= 1
    assert bool((images == -0.9).all())
