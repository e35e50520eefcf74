from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from neonet3d.classification.baseline import ResNetBaseline

SIZES = [(24, 16, 16), (40, 40, 16), (32, 24, 8)]


def patch(n: int, size: tuple[int, int, int], n_classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((n, 1, *size), generator=generator) * 2 - 1
    label_map = torch.randint(n_classes, (n, *size), generator=generator, dtype=torch.uint8)
    return image, label_map


def network(n_classes: int) -> ResNetBaseline:
    torch.manual_seed(0)
    return ResNetBaseline(n_classes, width=0.25).eval()


@pytest.mark.parametrize("n_classes", [1, 2, 5])
@pytest.mark.parametrize("size", SIZES)
def test_one_logit_per_case_for_any_patch(size: tuple[int, int, int], n_classes: int) -> None:
    with torch.no_grad():
        logit = network(n_classes)(*patch(2, size, n_classes))
    assert logit.shape == (2,)
    assert logit.dtype == torch.float32
    assert bool(torch.isfinite(logit).all())


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
        sum(p.numel() for p in ResNetBaseline(2, width=w).parameters()) for w in (0.25, 0.5)
    )
    assert wide / narrow == pytest.approx(4, rel=0.1)


def test_no_batch_norm_is_left() -> None:
    """MONAI gives its blocks batch norms whatever ``norm`` says."""
    kinds = {type(module) for module in network(2).modules()}
    assert torch.nn.GroupNorm in kinds
    assert not any("BatchNorm" in kind.__name__ for kind in kinds)
