from __future__ import annotations

import copy

import pytest
import torch

from neonet3d.engine.device import (
    SHORTEST_X,
    OneDnnConv3d,
    best_precision,
    channels_last,
    cpu_has_fast_bf16,
    device_summary,
    fabric,
    ready_for_inference,
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
    )
    here.to_device(network)
    image = here.to_device(torch.randn(2, 4, 4, 4, 4))
    exact = network(image)
    with here.autocast():
        before = network(image)
    ready_for_inference(network)
    with here.autocast():
        after = network(image)
    errors = [float((of.float() - exact).norm() / exact.norm()) for of in (before, after)]
    assert errors[1] <= 1.2 * errors[0]  # sums are rounded in another order
    assert errors[1] < 0.02
    wanted = torch.bfloat16 if best_precision() == "bf16-mixed" else torch.float32
    assert network[0].weight.dtype == wanted
    assert network[1].weight.dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
def test_onednn_computes_what_torch_does(stride: int) -> None:
    """A single small patch in float32, which torch would take elsewhere, and one it would not."""
    torch.manual_seed(0)
    plain = torch.nn.Conv3d(4, 8, 3, stride=stride, padding=1, dilation=2 // stride)
    fast = copy.deepcopy(plain)
    fast.__class__ = OneDnnConv3d
    for batch in (1, 3):
        image = torch.randn(batch, 4, 9, 6, 5)
        torch.testing.assert_close(fast(image), plain(image), rtol=1e-5, atol=1e-5)


def test_without_bf16_frozen_convolutions_go_to_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neonet3d.engine.device.best_precision", lambda: "32-true")
    network = torch.nn.Sequential(torch.nn.Conv3d(4, 8, 3, padding=1), torch.nn.Conv3d(8, 8, 1))
    ready_for_inference(network)
    assert [type(layer) for layer in network] == [OneDnnConv3d, torch.nn.Conv3d]
    calls, convolve = [], torch.mkldnn_convolution
    monkeypatch.setattr(torch, "mkldnn_convolution", lambda *a: (calls.append(a), convolve(*a))[1])
    network(torch.randn(1, 4, 4, 4, 4))
    assert len(calls) == 1


def test_channels_last_lays_weights_and_what_they_make_out() -> None:
    network = channels_last(torch.nn.Sequential(torch.nn.Conv3d(4, 8, 3, padding=1)))
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    made = network(torch.randn(2, 4, 4, 5, 6))
    assert made.is_contiguous(memory_format=torch.channels_last_3d)


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
