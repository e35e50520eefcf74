from __future__ import annotations

from collections.abc import Callable

import torch

from neonet3d.cohort.patches import Patches
from neonet3d.engine.device import fabric
from neonet3d.generation.controlnet import one_hot
from neonet3d.generation.rivals.alpha_wgan import LEARNING_RATE, AlphaWGAN, Downward
from neonet3d.generation.rivals.batches import label_vector
from neonet3d.generation.rivals.budget import Budget

SHAPE = (24, 24, 24)


def error(rival: AlphaWGAN, patches: Patches) -> float:
    """Mean absolute error of reconstructions."""
    here = fabric()
    images = here.to_device(patches.images[:, None])
    masks = one_hot(here.to_device(patches.required_label_maps()), 3)
    label = label_vector(here.to_device(patches.outcomes), rival.n_labels)
    with torch.no_grad(), here.autocast():
        again = rival.generator(rival.encoder(images), label, masks)
    return float((again - images).abs().mean())


def test_reconstructions_get_better_and_show_the_mask(
    patches: Patches, steps: Callable[[int], Budget]
) -> None:
    rival = AlphaWGAN(SHAPE, 3, labelled=True)
    rival.train(patches, steps(1), seed=0)
    at_first = error(rival, patches)
    record = rival.train(patches, steps(10), seed=0)
    assert record.steps == {"gan": 10}
    assert error(rival, patches) < 0.8 * at_first
    maps = patches.required_label_maps()
    drawn = rival.sample(maps, patches.outcomes, seed=1)
    assert float(drawn[maps > 0].mean()) > float(drawn[maps == 0].mean()) + 0.1


def test_the_critic_judges_each_case_by_itself() -> None:
    torch.manual_seed(0)
    critic, x = Downward(SHAPE, 1, 1, critic=True), torch.randn(3, 1, *SHAPE)
    torch.testing.assert_close(critic(x)[:1], critic(x[:1]), rtol=1e-4, atol=1e-5)


def test_all_four_networks_learn(patches: Patches, steps: Callable[[int], Budget]) -> None:
    """By Adam's second step, at most sqrt(1.9) learning rates long with betas of 0 and 0.9."""
    rival, weights = AlphaWGAN(SHAPE, 3, labelled=False), []
    for n in (1, 2):
        rival.train(patches, steps(n), seed=0)
        weights.append(
            [
                next(iter(network.parameters())).detach().clone()
                for network in (rival.encoder, rival.generator, rival.critic, rival.code_critic)
            ]
        )
    for after_one, after_two in zip(*weights, strict=True):
        assert 0 < float((after_two - after_one).abs().max()) < 1.4 * LEARNING_RATE
