from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from neonet3d.cohort.patches import Patches
from neonet3d.generation.rivals.budget import Budget
from neonet3d.generation.rivals.ha_gan import HAGAN, Slab, class_loss, real_or_fake
from neonet3d.generation.rivals.ha_networks import (
    CODE,
    FeatureEncoder,
    HierarchicalGenerator,
    SlabDiscriminator,
)

SHAPE = (48, 24, 24)


def test_reconstructions_get_better_and_samples_show_the_mask(
    patches: Patches, steps: Callable[[int], Budget]
) -> None:
    rival = HAGAN((24, 24, 24), 3, labelled=True)
    at_first = rival.train(patches, steps(2), seed=0).losses["reconstruction"]
    assert rival.train(patches, steps(40), seed=0).losses["reconstruction"] < 0.8 * at_first
    maps = patches.required_label_maps()
    drawn = rival.sample(maps, patches.outcomes, seed=1)
    assert float(drawn[maps > 0].mean()) > float(drawn[maps == 0].mean()) + 0.1


def test_a_slab_is_what_it_is_in_the_whole_but_for_its_ends() -> None:
    torch.manual_seed(0)
    generator = HierarchicalGenerator(SHAPE, 2, 0).eval()
    masks = torch.rand(1, 2, *SHAPE)
    slab = Slab(first=4, planes=4, of=12)
    with torch.no_grad():
        h = generator.trunk(torch.randn(1, CODE), torch.zeros(1, 0), masks)
        whole = slab.voxels(generator.fine(h, masks))
        part = generator.fine(slab.features(h), slab.voxels(masks))
    assert part.shape == (1, 1, 16, 24, 24)
    torch.testing.assert_close(part[:, :, 4:-4], whole[:, :, 4:-4], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(part, whole, atol=1e-3)


def test_features_and_voxels_of_a_slab_lie_upon_each_other() -> None:
    """Voxels hold their plane of the trunk."""
    planes = torch.arange(12.0)
    voxels = planes.repeat_interleave(4).view(1, 1, 48, 1, 1)
    for first in range(9 + 1):
        slab = Slab(first, 3, 12)
        of = slab.features(planes.view(1, 1, 12, 1, 1)).flatten()
        assert torch.equal(slab.voxels(voxels).flatten(), of.repeat_interleave(4))
    assert (Slab(0, 3, 12).place, Slab(9, 3, 12).place) == (0, 1)


def test_slabs_are_a_quarter_of_the_axis_and_two_planes_at_least() -> None:
    assert HAGAN((48, 24, 24), 3, labelled=False).planes == (3, 12)
    assert HAGAN((24, 24, 24), 3, labelled=False).planes == (2, 6)


def test_the_encoder_gives_the_trunk_s_features() -> None:
    torch.manual_seed(0)
    generator = HierarchicalGenerator(SHAPE, 1, 0)
    h = generator.trunk(torch.randn(1, CODE), torch.zeros(1, 0), torch.zeros(1, 1, *SHAPE))
    assert FeatureEncoder()(torch.zeros(1, 1, *SHAPE)).shape == h.shape == (1, 64, 12, 6, 6)
    assert generator.small(h).shape == (1, 1, 12, 6, 6)


def test_the_discriminator_knows_where_a_slab_lies() -> None:
    torch.manual_seed(0)
    judge = SlabDiscriminator((8, 24, 24), 1, 2).eval()
    slab, masks = torch.randn(2, 1, 8, 24, 24), torch.zeros(2, 1, 8, 24, 24)
    assert judge(slab, masks, 0.0).shape == (2, 3)
    assert not torch.equal(judge(slab, masks, 0.0), judge(slab, masks, 1.0))


def test_losses_of_discriminator_and_classifier_are_cross_entropies() -> None:
    logits = torch.tensor([[0.0, 1.0, 3.0], [2.0, 5.0, 5.0]])
    real = (math.log(2) + math.log1p(math.exp(-2))) / 2
    assert float(real_or_fake(logits, 1.0)) == pytest.approx(real)
    assert float(real_or_fake(logits, 0.0)) == pytest.approx(real + 1)
    one_said = class_loss(logits[:, 1:], torch.tensor([1, -1]))
    assert float(one_said) == pytest.approx(math.log1p(math.exp(-2)))
    assert float(class_loss(logits[:, 1:], torch.tensor([-1, -1]))) == 0
    assert float(class_loss(logits[:, :0], torch.tensor([0, 1]))) == 0
