from __future__ import annotations

import pytest
import torch
from torch import nn

from neonet3d.engine.device import cpu_has_fast_bf16
from neonet3d.segmentation.convolution import guard_short_grids, norm_by_instance


def gradient(convolution: nn.Conv3d, x: torch.Tensor, *, bf16: bool) -> torch.Tensor:
    convolution.weight.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        y = convolution(x)
    y.float().square().sum().backward()
    assert convolution.weight.grad is not None
    return convolution.weight.grad.clone()


@pytest.mark.skipif(not cpu_has_fast_bf16(), reason="this processor has no bf16 of its own")
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_the_gradient_is_right_on_short_grids(kernel: int, n: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(16, 16, kernel, padding=kernel // 2))
    guard_short_grids(network)
    convolution, x = network[0], torch.randn(2, 16, n, 4, 4)
    assert isinstance(convolution, nn.Conv3d)
    exact = gradient(convolution, x, bf16=False)
    error = gradient(convolution, x, bf16=True) - exact
    assert float(error.norm() / exact.norm()) < 0.02


@pytest.mark.skipif(not cpu_has_fast_bf16(), reason="this processor has no bf16 of its own")
@pytest.mark.parametrize("size", [(6, 4, 1), (6, 4, 2), (2, 6, 4), (6, 1, 4), (6, 4, 4)])
def test_strided_convolutions_are_right_down_to_one_voxel(size: tuple[int, int, int]) -> None:
    """Memory is spoilt before, since what is wrong is what was left there."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(16, 16, 3, padding=1, stride=2)).eval()
    guard_short_grids(network)
    convolution, x = network[0], torch.randn(2, 16, *size)
    assert isinstance(convolution, nn.Conv3d)
    exact, exact_gradient = convolution(x).detach(), gradient(convolution, x, bf16=False)
    spoilt = [torch.full((4 * convolution.weight.numel(),), torch.nan) for _ in range(8)]
    del spoilt
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = convolution(x).float()
    error = gradient(convolution, x, bf16=True) - exact_gradient
    assert float((found - exact).norm() / exact.norm()) < 0.02
    assert float(error.norm() / exact_gradient.norm()) < 0.02


def test_frozen_weights_in_bf16_are_guarded_too() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(8, 8, 3, padding=1, stride=2)).eval()
    guard_short_grids(network)
    x = torch.randn(1, 8, 6, 4, 2)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        exact = network(x)
        found = network.bfloat16()(x)
    torch.testing.assert_close(found.float(), exact.float(), rtol=0.02, atol=0.02)


def test_guarding_keeps_the_weights() -> None:
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.Conv3d(4, 4, 1))
    before = {name: value.clone() for name, value in network[0].state_dict().items()}
    guard_short_grids(network)
    norm_by_instance(network)
    assert all(torch.equal(before[name], value) for name, value in network[0].state_dict().items())
    assert isinstance(network[1], nn.InstanceNorm3d)
    assert network[1].weight.shape == (4,)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in network.modules())
