from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from neonet3d.generation.anatomy import PRIOR_PATCHES, PRIOR_VOXELS, AnatomyPrior
from neonet3d.generation.controlnet import one_hot
from neonet3d.types import LabelSchema, Shape

K = 3
SCHEMA = LabelSchema(("background", "liver", "tumour"))
SMALL, LARGE = (4, 4, 4), (8, 8, 8)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prior_of(channels: int, shape: Shape, n_cases: int = 1) -> AnatomyPrior:
    """Of one case, so without factors, unless there are more."""
    return AnatomyPrior(SCHEMA, channels, shape, n_cases)


def explained(
    prior: AnatomyPrior, z: torch.Tensor, maps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    residual, amplitudes = prior.explain(z, maps)
    return residual, maps, amplitudes


def blobs(n: int) -> torch.Tensor:
    """Smooth label maps of three classes, 16x16x16 voxels."""
    noise = torch.randn(n, K, 20, 20, 20, generator=generator(0))
    return F.avg_pool3d(noise, 5, stride=1).argmax(1).byte()


def pure(n: int) -> torch.Tensor:
    """Label maps in which every latent voxel is filled by one class."""
    classes = torch.randint(K, (n, 8, 8, 8), generator=generator(1), dtype=torch.uint8)
    for axis in (1, 2, 3):
        classes = classes.repeat_interleave(4, dim=axis)
    return classes


def test_recovers_a_latent_that_is_linear_in_the_fractions() -> None:
    maps = blobs(24)
    fractions = F.avg_pool3d(one_hot(maps, K), 4)
    weight = torch.tensor([[2.0, -1.0], [0.5, 3.0], [-2.0, 1.0]])  # 3 channels of 2 classes
    z = torch.einsum("ck,bkxyz->bcxyz", weight, fractions) + 0.7
    prior = prior_of(3, SMALL)
    explained = prior.fit(z, maps)
    assert explained.shape == (3,)
    assert float(explained.min()) > 0.995
    assert float((prior.mean(maps) - z).abs().mean()) < 0.05
    held_out = blobs(26)[24:]
    expected = torch.einsum("ck,bkxyz->bcxyz", weight, F.avg_pool3d(one_hot(held_out, K), 4)) + 0.7
    assert float((prior.mean(held_out) - expected).abs().mean()) < 0.08


def test_a_latent_of_noise_is_not_explained() -> None:
    maps = pure(24)
    z = torch.randn(24, 2, 8, 8, 8, generator=generator(2))
    prior = prior_of(2, LARGE)
    assert float(prior.fit(z, maps).abs().max()) < 0.05
    assert float(prior.mean(maps).abs().mean()) < 0.2


def test_residual_and_restore_are_inverse() -> None:
    maps = blobs(8)
    z = torch.randn(8, 3, 4, 4, 4, generator=generator(3))
    prior = prior_of(3, SMALL)
    prior.fit(z, maps)
    torch.testing.assert_close(prior.restore(*explained(prior, z, maps)), z)
    nothing = torch.zeros(8, 0)
    torch.testing.assert_close(prior.restore(torch.zeros_like(z), maps, nothing), prior.mean(maps))


def test_spread_is_measured_place_by_place() -> None:
    maps = pure(32)
    dominant = maps[:, ::4, ::4, ::4].long()
    sigma = torch.tensor([0.2, 1.0, 3.0])[dominant][:, None]
    centre = torch.tensor([-1.0, 0.0, 2.0])[dominant][:, None]
    z = centre + sigma * torch.randn(32, 1, 8, 8, 8, generator=generator(4))
    prior = prior_of(1, LARGE)
    prior.fit(z, maps)
    overall = float((z - prior.mean(maps)).square().mean())
    for k, known in enumerate((0.2, 1.0, 3.0)):
        n = int((dominant == k).sum())
        # The mean of each place is noisy, too, with 32 patches.
        noisy = known**2 + 32 * overall / (32 + PRIOR_PATCHES) ** 2
        shrunk = (n * noisy + PRIOR_VOXELS * overall) / (n + PRIOR_VOXELS)
        assert float(prior.spread[K + k, 0]) == pytest.approx(shrunk**0.5, rel=0.1)
    # No latent voxel is mixed: those places get the overall spread.
    assert prior.spread[:K, 0].tolist() == pytest.approx([overall**0.5] * K, rel=1e-3)
    residual = prior.residual(z, maps)
    for k in (1, 2):
        assert float(residual[:, 0][dominant == k].std()) == pytest.approx(1, abs=0.08)


def test_mixed_voxels_have_their_own_spread() -> None:
    maps = pure(1)
    prior = prior_of(1, LARGE)
    prior.spread.copy_(torch.arange(2.0 * K)[:, None])
    maps[:] = 1
    z = torch.ones(len(maps), 1, *prior.place_mean.shape[1:])
    assert (1 / prior.centred(z, maps)[0]).unique().tolist() == pytest.approx([K + 1])
    maps[0, :2, :4, :4] = 2  # half of one latent voxel: liver still dominates (the first of two)
    assert float(prior.centred(z, maps)[0][0, 0, 0, 0, 0]) == 1


def test_what_a_place_has_of_its_own_is_found() -> None:
    """All patches are cut alike, so something may stand at one place whatever the map says."""
    maps = blobs(60)
    z = 0.1 * torch.randn(60, 1, 4, 4, 4, generator=generator(6))
    z[:, :, 1, 2, 3] += 3
    prior = prior_of(1, SMALL)
    prior.fit(z, maps)
    found = prior.mean(maps).mean(0)[0]
    shrunk = 3 * 60 / (60 + PRIOR_PATCHES)
    assert float(found[1, 2, 3]) == pytest.approx(shrunk, rel=0.1)
    found[1, 2, 3] = 0
    assert float(found.abs().max()) < 0.3


def patients(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents whose tumours differ in brightness from patient to patient, and by how much."""
    maps = blobs(n)
    brightness = torch.randn(n, generator=generator(7))
    tumour = F.avg_pool3d(one_hot(maps, K), 4)[:, 1:]
    z = 0.1 * torch.randn(n, 2, 4, 4, 4, generator=generator(8))
    z[:, :1] += brightness.view(-1, 1, 1, 1, 1) * tumour
    return z, maps, brightness


def test_how_patients_differ_is_a_factor() -> None:
    z, maps, brightness = patients(96)
    prior = prior_of(2, SMALL, n_cases=48)
    prior.fit(z[:48], maps[:48])
    prior.fit_factors(z[:48], maps[:48], torch.arange(48))
    prior.fill_bank(z[:48], maps[:48], torch.arange(48) % 2)
    assert prior.bank.outcomes.tolist() == [0, 1] * 24
    held_out = z[48:], maps[48:]
    residual, amplitudes = prior.explain(*held_out)
    found = torch.corrcoef(torch.stack([*amplitudes.T, brightness[48:]]))[-1, :-1]
    assert float(found.square().sum()) > 0.9  # one factor, or a mixture of a few
    before, _ = prior.centred(*held_out)
    assert float(residual[:, 0].var()) < 0.5 * float(before[:, 0].var())
    torch.testing.assert_close(
        prior.restore(residual, held_out[1], amplitudes), held_out[0], rtol=1e-3, atol=1e-3
    )


def test_positions_of_one_case_share_its_amplitudes() -> None:
    """Twice the same rows say what once says."""
    z, maps, _ = patients(24)
    once, twice = (prior_of(2, SMALL, n_cases=24) for _ in range(2))
    for prior in (once, twice):
        prior.fit(z, maps)
    cases = torch.arange(24)
    once.fit_factors(z, maps, cases)
    twice.fit_factors(torch.cat([z, z]), torch.cat([maps, maps]), torch.cat([cases, cases]))
    patterns = [prior.explain(z, maps)[0] for prior in (once, twice)]
    torch.testing.assert_close(*patterns, rtol=1e-2, atol=1e-2)
