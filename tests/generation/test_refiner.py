from __future__ import annotations

import torch
import torch.nn.functional as F

from neonet3d.generation.refiner import Refiner
from neonet3d.generation.wavelet import haar_inverse

K = 3
SHAPE = (16, 12, 8)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def label_maps(n: int, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(n, K, *(s + 4 for s in SHAPE), generator=generator(seed))
    return F.avg_pool3d(noise, 5, stride=1).argmax(1).byte()


def scans(maps: torch.Tensor) -> torch.Tensor:
    """Organs of one brightness each, in [-1, 1]."""
    return torch.tensor([-0.8, 0.6, -0.1])[maps.long()][:, None]


def blocky(scan: torch.Tensor, seed: int) -> torch.Tensor:
    """Blurred, with noise in blocks of four voxels: like the draw of a hardly trained flow."""
    noise = 0.2 * torch.randn(len(scan), 1, *(s // 4 for s in SHAPE), generator=generator(seed))
    blurred = F.avg_pool3d(scan, 3, 1, 1, count_include_pad=False)
    return blurred + F.interpolate(noise, scale_factor=4)


def fitted(drawn: torch.Tensor, maps: torch.Tensor, scan: torch.Tensor) -> Refiner:
    refiner = Refiner(K)
    regression = refiner.regression()
    refiner.show(regression, drawn, maps, scan)
    assert regression.rows == len(drawn) * 8 * 6 * 4
    refiner.weight.copy_(regression.solve())
    return refiner


def test_unfitted_it_is_the_identity() -> None:
    drawn = torch.randn(2, 1, *SHAPE, generator=generator(3))
    torch.testing.assert_close(Refiner(K)(drawn, label_maps(2)), drawn)


def test_takes_blocks_out_and_sharpens_by_the_mask() -> None:
    maps = label_maps(24)
    scan = scans(maps)
    refiner = fitted(blocky(scan, 1), maps, scan)
    new_maps = label_maps(4, seed=9)
    new_scan = scans(new_maps)
    drawn = blocky(new_scan, 2)
    before, after = ((x - new_scan).square().mean() for x in (drawn, refiner(drawn, new_maps)))
    assert float(after) < 0.25 * float(before)


def test_the_convolutions_are_the_regression() -> None:
    drawn, maps = torch.randn(2, 1, *SHAPE, generator=generator(4)), label_maps(2, seed=5)
    refiner = Refiner(K)
    refiner.weight.copy_(torch.randn(refiner.weight.shape, generator=generator(6)))
    expected = haar_inverse((refiner.features(drawn, maps) @ refiner.weight).movedim(-1, 1))
    torch.testing.assert_close(refiner(drawn, maps), expected, rtol=1e-4, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert refiner(drawn.bfloat16(), maps).dtype == torch.float32


def test_a_voxel_depends_on_its_surroundings_only() -> None:
    maps = label_maps(4)
    scan = scans(maps)
    refiner = fitted(blocky(scan, 1), maps, scan)
    drawn = blocky(scan[:1], 6)
    changed = drawn.clone()
    changed[..., 10:, :, :] += 1
    first, second = refiner(drawn, maps[:1]), refiner(changed, maps[:1])
    assert torch.equal(first[..., :8, :, :], second[..., :8, :, :])
    assert not torch.equal(first[..., 8:, :, :], second[..., 8:, :, :])
