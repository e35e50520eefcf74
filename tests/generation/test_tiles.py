from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from neonet3d.config import AutoencoderConfig, LoopConfig
from neonet3d.generation.autoencoder import Autoencoder
from neonet3d.generation.tiles import (
    choose_core,
    decode_tiled,
    decoder_halo,
    encode_tiled,
    encoder_halo,
    map_tiles,
    reach,
    spans,
)

LOOP = LoopConfig(steps=1, batch_size=1, learning_rate=1e-3, weight_decay=0, ema_decay=0)
CONFIG = AutoencoderConfig(channels=8, latent_channels=4, kl_weight=1e-4, loop=LOOP)
SHAPE = (96, 72, 80)  # 24 x 18 x 20 units
LARGEST = 16 * 16 * 18  # units; several tiles along each axis


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    """Weights as after a training, so that the deep paths do something."""
    torch.manual_seed(0)
    model = Autoencoder(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.encoder.latent_mean.uniform_(-1, 1)
        model.encoder.latent_std.uniform_(0.5, 2)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def latent() -> torch.Tensor:
    units = [n // 4 for n in SHAPE]
    return torch.randn(1, 4, *units, generator=torch.Generator().manual_seed(1))


def test_the_halo_follows_from_the_layers(model: Autoencoder) -> None:
    """By hand: 3 convolutions of 2 voxels and 4 of 4 to encode; 3 of 4 and 3 of 2 to decode.

    The last three see half a latent voxel at their border, which must be whole.
    """
    assert reach(model.encoder.path(), voxel=2) == 3 * 2 + 4 * 4
    assert reach(model.path(), voxel=4) == 3 * 4 + 8
    assert (encoder_halo(model.encoder), decoder_halo(model)) == (6, 5)


def test_a_voxel_sees_as_far_as_the_halo_says_and_no_farther(model: Autoencoder) -> None:
    """Measured: where the gradient of the middle unit is not zero, in units from the middle."""
    cases = ((model.encoder, (1, 1), 4, 1), (model.decode, (1, 4), 1, 4))
    for (function, channels, unit_in, unit_out), halo in zip(
        cases, (encoder_halo(model.encoder), decoder_halo(model)), strict=True
    ):
        middle = 9
        x = torch.randn(*channels, *[(2 * middle + 1) * unit_in] * 3, requires_grad=True)
        y = function(x)
        block = slice(middle * unit_out, (middle + 1) * unit_out)
        y[:, :, block, block, block].square().sum().backward()
        assert x.grad is not None
        units = x.grad.abs().amax((0, 1)).view(*[2 * middle + 1, unit_in] * 3).amax((1, 3, 5))
        for other in ((1, 2), (0, 2), (0, 1)):
            touched = units.amax(other).nonzero().flatten()
            assert (int(touched.min()), int(touched.max())) == (middle - halo, middle + halo)


@pytest.mark.parametrize(
    ("autocast", "tolerance"),
    [(False, 1e-5), (True, 1e-3 * 2)],  # images lie in [-1, 1]
    ids=["float32", "bf16"],
)
def test_tiles_give_what_the_whole_volume_gives(
    model: Autoencoder,
    image: torch.Tensor,
    latent: torch.Tensor,
    autocast: bool,
    tolerance: float,
) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        decoded, whole = decode_tiled(model, latent, LARGEST), model.decode(latent)
        encoded, of_whole = encode_tiled(model, image, LARGEST), model.encoder(image)
    assert (decoded.shape, encoded.shape) == (image.shape, latent.shape)
    torch.testing.assert_close(decoded, whole, rtol=0, atol=tolerance)
    torch.testing.assert_close(encoded, of_whole, rtol=0, atol=tolerance)


def test_a_halo_one_unit_short_shows_a_seam(model: Autoencoder, latent: torch.Tensor) -> None:
    halo, core = decoder_halo(model), (8, 9, 10)
    whole = model.decode(latent)

    def error(halo: int) -> float:
        tiled = map_tiles(model.decode, latent, unit_in=1, unit_out=4, halo=halo, core=core)
        return float((tiled - whole).abs().max())

    assert error(halo) < 1e-5
    assert error(halo - 1) > 1e-4


def test_a_group_norm_would_break_it_and_is_refused(latent: torch.Tensor) -> None:
    network = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.GroupNorm(2, 4))
    with pytest.raises(ValueError, match="A GroupNorm may see the whole volume"):
        reach([network], voxel=1)
    x = latent * torch.linspace(0.1, 3, latent.shape[2]).view(-1, 1, 1)
    with torch.no_grad():
        tiled = map_tiles(network, x, unit_in=1, unit_out=1, halo=1, core=(8, 9, 10))
        assert float((tiled - network(x)).abs().max()) > 0.1


def test_layers_that_are_not_understood_are_refused() -> None:
    for layer in (
        nn.ConvTranspose3d(2, 2, 4, stride=2, padding=1),
        nn.Conv3d(2, 2, 3, padding="same"),
        nn.MultiheadAttention(2, 1),
    ):
        with pytest.raises(ValueError, match=r"whole volume|not a number"):
            reach([layer], voxel=1)
    assert reach([nn.Conv3d(1, 1, 3, padding=2, dilation=2)], voxel=2) == 4
    assert reach([nn.Conv3d(1, 1, 4, stride=2, padding=1)], voxel=1) == 1


def test_the_stretches_of_an_axis_cover_it_once() -> None:
    cut = spans(10, core=4, halo=3)
    kept = [list(range(span.first, span.last)) for span in cut]
    assert list(itertools.chain(*kept)) == list(range(10))
    assert [(s.outer_first, s.outer_last) for s in cut] == [(0, 7), (1, 10), (5, 10)]


def test_what_fits_is_one_tile_and_the_rest_the_cheapest_that_fit() -> None:
    assert choose_core((12, 12, 6), halo=7) == (12, 12, 6)
    # 64 x 64 x 24 units, four tiles of 39 x 39 x 24: cheaper than cuts through the short axis.
    assert choose_core((64, 64, 24), halo=7) == (32, 32, 24)
    with pytest.raises(ValueError, match="No tile with a halo of 7"):
        choose_core((64, 64, 24), halo=7, largest=100)


def test_no_tile_is_larger_than_allowed_and_a_batch_is_divided_first(
    model: Autoencoder, latent: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    decode = Autoencoder.decode

    def watched(self: Autoencoder, part: torch.Tensor) -> torch.Tensor:
        seen.append((len(part), *part.shape[2:]))
        return decode(self, part)

    monkeypatch.setattr(Autoencoder, "decode", watched)
    decode_tiled(model, latent, LARGEST)
    assert len(seen) > 1
    assert all(n * x * y * z <= LARGEST for n, x, y, z in seen)
    seen.clear()
    patches = torch.randn(5, 4, 4, 4, 2)
    torch.testing.assert_close(
        decode_tiled(model, patches, 2 * 4 * 4 * 2), decode(model, patches), rtol=0, atol=1e-5
    )
    assert seen == [(2, 4, 4, 2), (2, 4, 4, 2), (1, 4, 4, 2)]
    seen.clear()
    decode_tiled(model, patches)
    assert seen == [(5, 4, 4, 2)]


def test_sizes_that_are_no_whole_blocks_are_refused(model: Autoencoder) -> None:
    with pytest.raises(ValueError, match="no multiples of 4 voxels"):
        map_tiles(
            model.encoder,
            torch.zeros(1, 1, 10, 8, 8),
            unit_in=4,
            unit_out=1,
            halo=6,
            core=(2, 2, 2),
        )
