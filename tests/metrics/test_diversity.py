import numpy as np
import pytest
import torch

from neonet3d.metrics.diversity import _ring, pairwise_ms_ssim


def blobs(n: int, shape: tuple[int, ...], own: float, seed: int = 0) -> torch.Tensor:
    """One smooth volume for all, and as much of an own one as asked."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n + 1, 1, *(size // 4 for size in shape), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[:, 0]
    return ((1 - own) * smooth[:1] + own * smooth[1:]).div(4).clamp(-1, 1)


@pytest.mark.parametrize("shape", [(48, 48, 24), (40, 56, 40), (40, 40, 16), (24, 16, 8)])
def test_more_diverse_is_lower_on_every_grid(shape: tuple[int, ...]) -> None:
    alike, diverse = (pairwise_ms_ssim(blobs(6, shape, own), 0) for own in (0.1, 1.0))
    assert 0 <= diverse.high < alike.low < alike.value <= 1
    assert diverse.low < diverse.value < diverse.high
    assert (alike.n, alike.method) == (6, "bootstrap over volumes, 12 pairs, 2000 resamples, 95%")


def test_copies_of_one_volume_are_one() -> None:
    found = pairwise_ms_ssim(blobs(5, (16, 16, 16), 0.0), 0)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1), abs=1e-6)


def test_every_volume_is_in_as_many_pairs_and_no_pair_comes_twice() -> None:
    for n, partners in ((3, 1), (4, 1), (8, 3), (9, 4), (50, 4)):
        pairs = _ring(n, 4, np.random.default_rng(0))
        assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs) == n * partners
        np.testing.assert_array_equal(np.bincount(pairs.ravel()), 2 * partners)


def test_same_seed_same_value() -> None:
    volumes = blobs(7, (16, 16, 16), 1.0)
    assert pairwise_ms_ssim(volumes, 3) == pairwise_ms_ssim(volumes, 3)


def test_errors_are_sentences() -> None:
    with pytest.raises(ValueError, match="at least 3 volumes"):
        pairwise_ms_ssim(torch.zeros(2, 16, 16, 16), 0)
    with pytest.raises(ValueError, match="at least 4 voxels"):
        pairwise_ms_ssim(torch.zeros(4, 16, 16, 2), 0)
    with pytest.raises(ValueError, match="not finite"):
        pairwise_ms_ssim(torch.full((4, 16, 16, 16), torch.nan), 0)
