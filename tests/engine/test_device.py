from __future__ import annotations

import pytest
import torch

from neonet3d.engine.device import (
    SHORTEST_X,
    best_precision,
    cast_frozen,
    cpu_has_fast_bf16,
    device_summary,
    fabric,
)


def test_precision_is_one_of_two() -> None:
    assert best_precision() in ("bf16-mixed", "32-true")


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({"avx2": True}, False),
        ({"avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
    ],
)
def test_emulated_bf16_is_not_used(
    capabilities: dict[str, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cpu_has_fast_bf16() == fast
    assert best_precision() == ("bf16-mixed" if fast else "32-true")


def test_one_fabric_and_deterministic_on_the_cpu() -> None:
    assert fabric() is fabric()
    if fabric().device.type == "cpu":
        assert torch.are_deterministic_algorithms_enabled()
        assert device_summary().startswith("cpu, ")
    assert best_precision() in device_summary()


@torch.no_grad()
def test_frozen_weights_that_are_cast_once_are_as_exact() -> None:
    here = fabric()
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(4, 8, 3, padding=1),
        torch.nn.GroupNorm(2, 8),
        torch.nn.ConvTranspose3d(8, 4, 2, stride=2),
        torch.nn.Flatten(2),
        torch.nn.Linear(512, 5),
    )
    here.to_device(network)
    image = here.to_device(torch.randn(2, 4, 4, 4, 4))
    exact = network(image)
    with here.autocast():
        before = network(image)
    cast_frozen(network)
    with here.autocast():
        after = network(image)
    errors = [float((of.float() - exact).norm() / exact.norm()) for of in (before, after)]
    assert errors[1] <= 1.2 * errors[0]  # sums are rounded in another order
    assert errors[1] < 0.02
    wanted = torch.bfloat16 if best_precision() == "bf16-mixed" else torch.float32
    assert network[0].weight.dtype == wanted
    assert network[1].weight.dtype == torch.float32


@pytest.mark.parametrize("x", [1, SHORTEST_X, 4, 6])
def test_the_gradient_of_a_convolution_is_right_at_this_width(x: int) -> None:
    """In the precision that is used, against float64; see ``SHORTEST_X``."""
    torch.manual_seed(0)
    image, conv = torch.randn(2, 16, x, 4, 2), torch.nn.Conv3d(16, 16, 3, padding=1)
    exact = torch.nn.Conv3d(16, 16, 3, padding=1).double()
    exact.load_state_dict(conv.state_dict())
    exact(image.double()).square().sum().backward()
    here = fabric()
    conv, image = here.to_device(conv), here.to_device(image)
    with here.autocast():
        conv(image).float().square().sum().backward()
    assert conv.weight.grad is not None
    assert exact.weight.grad is not None
    difference = conv.weight.grad.cpu().double() - exact.weight.grad
    assert float(difference.norm() / exact.weight.grad.norm()) < 0.02
