from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from neonet3d.classification.baseline import VolumeClassifier
from neonet3d.config import BaselineName, load_config
from neonet3d.errors import InputError

SIZES = [(24, 16, 16), (40, 40, 16), (32, 24, 8)]


def patch(n: int, size: tuple[int, int, int], n_classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((n, 1, *size), generator=generator) * 2 - 1
    label_map = torch.randint(n_classes, (n, *size), generator=generator, dtype=torch.uint8)
    return image, label_map


def network(
    n_classes: int, name: BaselineName = "resnet18", size: tuple[int, int, int] = SIZES[0]
) -> VolumeClassifier:
    torch.manual_seed(0)
    width = 0.25 if name.startswith("resnet") else 1.0
    return VolumeClassifier(name, n_classes, size, width).eval()


@pytest.mark.parametrize("n_classes", [1, 2, 5])
@pytest.mark.parametrize("size", SIZES)
def test_one_logit_per_case_for_any_patch(size: tuple[int, int, int], n_classes: int) -> None:
    with torch.no_grad():
        logit = network(n_classes)(*patch(2, size, n_classes))
    assert logit.shape == (2,)
    assert logit.dtype == torch.float32
    assert bool(torch.isfinite(logit).all())


@pytest.mark.parametrize("name", get_args(BaselineName))
def test_every_network_learns_from_small_patches(name: BaselineName) -> None:
    """One logit, no batch norm, and gradients that are finite and reach the stem."""
    size = SIZES[0]
    model = network(3, name, size)
    assert not any("BatchNorm" in type(module).__name__ for module in model.modules())
    logit = model(*patch(2, size, 3))
    assert logit.shape == (2,)
    logit.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert float(gradients[0].abs().max()) > 0
    with torch.no_grad():
        alone = model(*(part[1:] for part in patch(2, size, 3)))
    torch.testing.assert_close(alone, logit[1:].detach(), rtol=1e-4, atol=1e-4)


def test_masks_are_seen_where_there_are_classes() -> None:
    image, label_map = patch(2, SIZES[0], 3)
    empty = torch.zeros_like(label_map)
    with torch.no_grad():
        seeing, blind = network(3), network(1)
        assert not torch.allclose(seeing(image, label_map), seeing(image, empty))
        assert torch.equal(blind(image, label_map), blind(image, empty))


def test_it_keeps_no_running_statistics() -> None:
    """A case alone and in a batch, in training and in use: the same logit."""
    image, label_map = patch(3, SIZES[0], 3)
    model = network(3)
    with torch.no_grad():
        together = model(image, label_map)
        torch.testing.assert_close(model(image[1:2], label_map[1:2]), together[1:2])
        torch.testing.assert_close(model.train()(image, label_map), together)
    assert [name for name, _ in model.named_buffers()] == ["prior_logit"]


def test_autocast_does_not_reach_it() -> None:
    image, label_map = patch(2, SIZES[0], 3)
    model = network(3)
    with torch.no_grad():
        plain = model(image, label_map)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(model(image, label_map), plain)


def test_probability_adds_the_log_odds_of_the_prior() -> None:
    model = network(1)
    model.prior_logit.fill_(np.log(0.3 / 0.7))
    assert float(model.probability(torch.zeros(1))) == pytest.approx(0.3)


def test_width_scales_the_channels() -> None:
    narrow, wide = (
        sum(p.numel() for p in VolumeClassifier("resnet18", 2, SIZES[0], w).parameters())
        for w in (0.25, 0.5)
    )
    assert wide / narrow == pytest.approx(4, rel=0.1)


def test_width_is_of_resnets() -> None:
    with pytest.raises(InputError, match="only a resnet has a width"):
        load_config("cpu", overrides=["baseline.network=vit", "baseline.width=0.5"])
