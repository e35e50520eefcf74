from __future__ import annotations

from typing import get_args

import pytest
import torch

from neonet3d.config import NetworkName, SegmenterPlan
from neonet3d.segmentation.networks import SegmentationNetwork, size_multiple
from neonet3d.types import Shape

TWO = (2, 2, 2)
VNET = {"channels": (16, 32, 64, 128, 256), "strides": (TWO,) * 4}
SEGRESNET = {"channels": (8, 16, 32, 64), "strides": (TWO,) * 3}


def plan(network: str = "dynunet", *, stem: bool = True, **sizes: object) -> SegmenterPlan:
    published = {"vnet": VNET, "segresnet": SEGRESNET}.get(network, {})
    flat = {"channels": (4, 8, 8), "strides": ((2, 2, 1), TWO)}
    values = {"spacing_mm": (1, 1, 1), "patch": (16, 16, 16)} | (published or flat) | sizes
    return SegmenterPlan.model_validate({"network": network, "stem": stem} | values)


def build(of: SegmenterPlan, n_classes: int = 3) -> SegmentationNetwork:
    torch.manual_seed(0)
    return SegmentationNetwork(of, n_classes)


@pytest.mark.parametrize("stem", [True, False])
@pytest.mark.parametrize("network", get_args(NetworkName))
def test_logits_come_back_on_the_grid(network: str, stem: bool) -> None:
    made = plan(network, stem=stem)
    shape: Shape = tuple(2 * n for n in size_multiple(made))  # type: ignore[assignment]
    module = build(made)
    image = torch.randn(1, 1, *shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        training = module(image)
    heads = training if training.ndim == 6 else training[:, None]
    assert heads.shape[2:] == (3, *shape)
    assert heads.dtype == torch.float32
    heads.square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    with torch.no_grad():
        assert module.eval()(image).shape == (1, 3, *shape)


def test_only_the_dynunet_is_supervised_deeply() -> None:
    image = torch.randn(1, 1, 32, 32, 32)
    assert build(plan("dynunet", channels=(4, 8, 8, 8), strides=(TWO,) * 3))(image).shape[1] == 3
    assert build(plan("unet"))(image).ndim == 5
    shallow = plan("dynunet", channels=(4, 8, 8), strides=(TWO, TWO))
    assert build(shallow)(image).shape[1] == 2


@pytest.mark.parametrize(
    ("made", "multiple"),
    [
        (plan("unet"), (8, 8, 4)),
        (plan("attention_unet", stem=False), (4, 4, 2)),
        (plan("segresnet"), (16, 16, 16)),
        (plan("vnet", stem=False), (16, 16, 16)),
    ],
)
def test_the_multiple_is_stem_times_strides(made: SegmenterPlan, multiple: Shape) -> None:
    assert size_multiple(made) == multiple


@pytest.mark.parametrize("network", get_args(NetworkName))
def test_a_batch_is_not_mixed(network: str) -> None:
    """No batch norm is left: a patch's logits do not depend on its neighbours in the batch."""
    module = build(plan(network))
    x, y, z = size_multiple(plan(network))
    images = torch.randn(2, 1, 2 * x, 2 * y, 2 * z)
    with torch.no_grad():
        together, alone = module(images)[:1], module(images[:1])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_voxel_is_seen_at_full_resolution() -> None:
    """The wavelet stem halves the grid and still tells neighbours apart."""
    network = build(plan(), 2).eval()
    image = torch.randn(1, 1, 16, 16, 16)
    base, changes = network(image), []
    for i in (8, 9):
        moved = image.clone()
        moved[0, 0, i, 8, 8] += 3
        changes.append(network(moved) - base)
    assert all(bool(change.any()) for change in changes)
    assert not torch.allclose(*changes)
