from __future__ import annotations

import pytest
import torch

from neonet3d.config import DetailConfig, LoopConfig
from neonet3d.generation import detail as detail_module
from neonet3d.generation.detail import DetailDecoder
from neonet3d.generation.texture import BANDS, PROFILE
from neonet3d.generation.wavelet import haar

LOOP = LoopConfig(steps=1, batch_size=1, learning_rate=1e-3, weight_decay=0, ema_decay=0)
K, N = 3, 5
SHAPE = (16, 16, 16)


@pytest.fixture
def detail() -> DetailDecoder:
    torch.manual_seed(0)
    made = DetailDecoder(K, N, DetailConfig(channels=8, loop=LOOP))
    images, plain = 0.1 * torch.randn(2, N, *SHAPE)
    made.fit_texture(images, plain, torch.ones(N, *SHAPE, dtype=torch.uint8))
    return made.eval()


def shake(detail: DetailDecoder) -> None:
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in detail.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def patches(n: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    maps = torch.randint(K, (n, *SHAPE), generator=g, dtype=torch.uint8)
    return 0.2 * torch.randn(n, 1, *SHAPE, generator=g), maps


@torch.no_grad()
def test_begins_as_white_noise_of_the_measured_levels(detail: DetailDecoder) -> None:
    decoded, maps = patches(4)
    noise = torch.randn(4, BANDS, 8, 8, 8)
    profile = detail.profiles[:4]
    added = detail(detail.inputs(decoded, maps, noise), profile) * detail.band_spread.view(
        -1, 1, 1, 1
    )
    level = (profile * detail.profile_spread + detail.profile_mean)[:, :BANDS].exp()
    torch.testing.assert_close(added, noise * level[..., None, None, None])
    assert float(level.mean()) == pytest.approx(0.14, rel=0.2)  # of the difference of two noises


@torch.no_grad()
def test_the_generator_decides_and_the_range_is_kept(detail: DetailDecoder) -> None:
    shake(detail)
    decoded, maps = patches(2)
    first, again, other = (
        detail.draw(decoded, maps, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == decoded.shape
    assert float(first.abs().max()) <= 1
    assert float((haar(first - decoded)).std()) > 0.05


@torch.no_grad()
def test_map_and_profile_matter(detail: DetailDecoder) -> None:
    shake(detail)
    decoded, maps = patches(1)
    noise = torch.zeros(1, BANDS, 8, 8, 8)
    plain = detail(detail.inputs(decoded, maps, noise), torch.zeros(1, PROFILE))
    others = (
        detail(detail.inputs(decoded, 0 * maps, noise), torch.zeros(1, PROFILE)),
        detail(detail.inputs(decoded, maps, noise), torch.ones(1, PROFILE)),
    )
    assert not any(torch.allclose(plain, other) for other in others)


@torch.no_grad()
def test_in_tiles_as_in_the_whole(detail: DetailDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    shake(detail)
    g = torch.Generator().manual_seed(5)
    maps = torch.randint(K, (2, 160, 16, 16), generator=g, dtype=torch.uint8)
    decoded = 0.1 * torch.randn(2, 1, 160, 16, 16, generator=g)
    whole = detail.draw(decoded, maps, torch.Generator().manual_seed(3))
    monkeypatch.setattr(detail_module, "LARGEST_TILE", 400)
    tiled = detail.draw(decoded, maps, torch.Generator().manual_seed(3))
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)
