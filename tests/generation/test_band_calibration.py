from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neonet3d.generation.band_calibration import LARGEST_GAIN, BandCalibration
from neonet3d.generation.region_features import band_statistics

K, N, SHAPE = 3, 160, (16, 16, 8)


def label_maps(n: int, seed: int) -> torch.Tensor:
    """Regions of whole 2x2x2 blocks."""
    coarse = torch.randn(n, K, *(s // 4 for s in SHAPE), generator=gen(seed)).argmax(1)
    return F.interpolate(coarse[:, None].float(), scale_factor=4)[:, 0].byte()


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scans(maps: torch.Tensor, seed: int, spread: float) -> torch.Tensor:
    """Each class has its brightness and its texture."""
    level = torch.tensor([-0.5, 0.2, 0.0])[maps.long()]
    texture = spread * torch.tensor([0.05, 0.06, 0.02])[maps.long()]
    return level + texture * torch.randn(maps.shape, generator=gen(seed))


def test_unfitted_it_is_the_identity() -> None:
    maps = label_maps(4, 0)
    images = scans(maps, 1, 1.0)[:, None]
    torch.testing.assert_close(BandCalibration(K)(images, maps), images)


def test_spread_and_mean_become_those_of_scans_on_average() -> None:
    maps, new_maps = label_maps(N, 0), label_maps(N, 5)
    real, made = scans(maps, 1, 1.0), scans(maps, 2, 0.7) + 0.03
    calibration = BandCalibration(K)
    calibration.fit(made, maps, band_statistics(real, maps, K))
    np.testing.assert_allclose(calibration.gain.numpy(), 1 / 0.7, rtol=0.05)
    # A shift of the image moves the lowpass band alone, by sqrt(8) times as much.
    np.testing.assert_allclose(calibration.shift[:, 0].numpy(), -0.03 * 8**0.5, atol=0.01)
    np.testing.assert_allclose(calibration.shift[:, 1:].numpy(), 0, atol=0.01)
    made = (scans(new_maps, 3, 0.7) + 0.03)[:, None]
    found = band_statistics(calibration(made, new_maps)[:, 0], new_maps, K).mean(0)
    wanted = band_statistics(scans(new_maps, 4, 1.0), new_maps, K).mean(0)
    np.testing.assert_allclose(found[:, 8:], wanted[:, 8:], rtol=0.05)
    np.testing.assert_allclose(found[:, :8], wanted[:, :8], atol=0.015)


def test_what_a_case_has_of_its_own_stays() -> None:
    """A patch with twice the texture has twice the texture of its neighbours afterwards too."""
    maps = label_maps(N, 0)
    calibration = BandCalibration(K)
    calibration.fit(scans(maps, 1, 0.8), maps, band_statistics(scans(maps, 1, 1.0), maps, K))
    one, two = (calibration(scans(maps, 2, s)[:, None], maps)[:, 0] for s in (0.8, 1.6))
    ratio = band_statistics(two, maps, K)[..., 8:] / band_statistics(one, maps, K)[..., 8:]
    np.testing.assert_allclose(ratio, 2, rtol=1e-3)


def test_a_class_that_one_side_lacks_is_left_as_it_is() -> None:
    maps = label_maps(N, 0)
    two = maps.clamp(max=1)
    calibration = BandCalibration(K)
    calibration.fit(scans(two, 1, 0.5), two, band_statistics(scans(maps, 2, 1.0), maps, K))
    assert torch.equal(calibration.gain[2], torch.ones(8))
    assert torch.equal(calibration.shift[2], torch.zeros(8))
    assert float(calibration.gain[1].mean()) == pytest.approx(2, rel=0.1)


def test_no_gain_is_larger_than_its_bound() -> None:
    maps = label_maps(N, 0)
    calibration = BandCalibration(K)
    calibration.fit(scans(maps, 1, 0.1), maps, band_statistics(scans(maps, 1, 1.0), maps, K))
    assert float(calibration.gain.max()) == LARGEST_GAIN


def test_blocks_on_borders_are_reckoned_with() -> None:
    """Blocks in two classes are moved by both; measured again, the spread comes nearer."""
    maps = torch.randint(K, (N, *SHAPE), generator=gen(0)).byte()
    maps[:, ::2] = maps[:, 1::2]  # borders along y and z alone
    real, made = scans(maps, 1, 1.0), scans(maps, 2, 0.5)
    made[maps == 1] = scans(maps, 2, 2.0)[maps == 1]
    wanted = np.log(band_statistics(real, maps, K)[..., 8:]).mean(0)
    calibration = BandCalibration(K)

    def off() -> float:
        found = band_statistics(calibration(made[:, None], maps)[:, 0], maps, K)[..., 8:]
        return float(np.abs(np.log(found).mean(0) - wanted).max())

    before = off()
    calibration.fit(made, maps, band_statistics(real, maps, K))
    assert off() < before / 3
