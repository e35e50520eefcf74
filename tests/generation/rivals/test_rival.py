from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from neonet3d.cohort.patches import Patches
from neonet3d.errors import InputError
from neonet3d.generation.rivals import RIVALS, Rival, build_rival
from neonet3d.generation.rivals.alpha_wgan import Downward, Generator
from neonet3d.generation.rivals.budget import Budget
from neonet3d.generation.rivals.ha_networks import CODE, HierarchicalGenerator
from neonet3d.generation.rivals.med_ddpm import NoiseUNet
from neonet3d.segmentation.convolution import guard_short_grids

NAMES = ("alpha-wgan", "ha-gan", "med-ddpm", "monai-ldm")
SHAPE = (24, 24, 24)


def test_the_registry_knows_four_rivals_by_name() -> None:
    assert tuple(RIVALS) == NAMES
    assert build_rival("ha-gan", (48, 48, 24), 4, labelled=False).shape == (48, 48, 24)
    with pytest.raises(InputError, match="no rival 'stylegan'"):
        build_rival("stylegan", SHAPE, 3, labelled=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_an_image_for_each_label_map(
    name: str, trained: Callable[[str], Rival], patches: Patches
) -> None:
    maps = patches.required_label_maps()[:2]
    images = trained(name).sample(maps, torch.tensor([0, -1]), seed=0)
    assert images.shape == maps.shape
    assert images.dtype == torch.float32
    assert images.device.type == "cpu"
    assert bool(torch.isfinite(images).all())
    assert -1 <= float(images.min()) < float(images.max()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_mask_label_and_noise_each_change_the_sample(
    name: str, trained: Callable[[str], Rival], patches: Patches
) -> None:
    maps = patches.required_label_maps()
    rival = trained(name)

    def draw(case: int, label: int, seed: int) -> torch.Tensor:
        return rival.sample(maps[case : case + 1], torch.tensor([label]), seed=seed)

    first = draw(0, 1, 0)
    assert not torch.equal(first, draw(1, 1, 0))
    assert not torch.equal(first, draw(0, 0, 0))
    assert not torch.equal(first, draw(0, -1, 0))
    assert not torch.equal(first, draw(0, 1, 1))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes(
    name: str,
    trained: Callable[[str], Rival],
    build: Callable[..., Rival],
    steps: Callable[[int], Budget],
    patches: Patches,
) -> None:
    maps, labels = patches.required_label_maps()[:1], torch.tensor([1])
    again = build(name)
    torch.manual_seed(123)  # what was drawn before does not matter
    again.train(patches, steps(4), seed=0)
    drawn = again.sample(maps, labels, seed=5)
    assert torch.equal(drawn, trained(name).sample(maps, labels, seed=5))


def test_another_seed_of_the_training_gives_another_rival(
    trained: Callable[[str], Rival],
    build: Callable[..., Rival],
    steps: Callable[[int], Budget],
    patches: Patches,
) -> None:
    maps, labels = patches.required_label_maps()[:1], torch.tensor([1])
    other = build("ha-gan")
    other.train(patches, steps(4), seed=1)
    drawn = other.sample(maps, labels, seed=5)
    assert not torch.equal(drawn, trained("ha-gan").sample(maps, labels, seed=5))


def test_fit_counts_all_of_its_time(build: Callable[..., Rival], patches: Patches) -> None:
    rival, began = build("ha-gan", labelled=False), time.perf_counter()
    record = rival.fit(patches, seconds=3, seed=0)
    elapsed = time.perf_counter() - began
    assert record.steps["gan"] >= 1
    assert record.seconds == pytest.approx(elapsed, abs=0.1)
    assert set(record.losses) == {"generator", "discriminator", "reconstruction"}
    assert rival.sample(patches.required_label_maps()[:1], torch.tensor([-1]), seed=0).shape == (
        1,
        *SHAPE,
    )


@pytest.mark.parametrize("shape", [(24, 24, 20), (16, 24, 24)])
def test_a_grid_that_does_not_halve_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="multiple of 8 and at least 24"):
        build_rival("ha-gan", shape, 3, labelled=False)


def test_masks_without_a_class_are_refused() -> None:
    with pytest.raises(InputError, match="no class to draw"):
        build_rival("ha-gan", SHAPE, 1, labelled=False)


def test_a_rival_that_is_not_trained_draws_nothing(
    build: Callable[..., Rival], patches: Patches
) -> None:
    with pytest.raises(InputError, match="not trained"):
        build("ha-gan").sample(patches.required_label_maps(), patches.outcomes, seed=0)


def test_what_it_was_not_trained_for_is_refused(
    trained: Callable[[str], Rival],
    build: Callable[..., Rival],
    steps: Callable[[int], Budget],
    patches: Patches,
) -> None:
    rival, maps = trained("ha-gan"), patches.required_label_maps()[:1]
    with pytest.raises(InputError, match="Bring them onto its grid"):
        rival.sample(maps[:, :16], torch.tensor([0]), seed=0)
    with pytest.raises(InputError, match="cannot draw the label 2"):
        rival.sample(maps, torch.tensor([2]), seed=0)
    with pytest.raises(InputError, match="hold the value 7"):
        rival.sample(torch.full_like(maps, 7), torch.tensor([0]), seed=0)
    untold = build("ha-gan", labelled=False)
    untold.train(patches, steps(1), seed=0)
    with pytest.raises(InputError, match="built without labels"):
        untold.sample(maps, torch.tensor([1]), seed=0)


def test_patches_that_it_cannot_train_on_are_refused(
    build: Callable[..., Rival], patches: Patches
) -> None:
    rival = build("ha-gan")
    with pytest.raises(InputError, match="needs a mask for every case"):
        rival.fit(replace(patches, label_maps=None), seconds=1, seed=0)
    with pytest.raises(InputError, match="cases without one"):
        rival.fit(replace(patches, outcomes=torch.full((6,), -1)), seconds=1, seed=0)
    with pytest.raises(InputError, match="this rival draws"):
        build_rival("ha-gan", (48, 48, 24), 3, labelled=False).fit(patches, seconds=1, seed=0)
    with pytest.raises(InputError, match="cannot train for 0 seconds"):
        rival.fit(patches, seconds=0, seed=0)


def networks() -> dict[str, tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]]:
    torch.manual_seed(0)
    x, masks, label = torch.randn(2, 1, *SHAPE), torch.rand(2, 2, *SHAPE), torch.eye(2)
    code, labels, time = torch.randn(2, CODE), torch.tensor([0, 1]), torch.tensor([0.2, 0.7])
    unet = NoiseUNet(2)
    nn.init.normal_(unet.head[-1].weight, std=0.1)
    return {
        "alpha-wgan generator": (Generator(SHAPE, 2, 2), lambda g: g(code, label, masks)),
        "alpha-wgan critic": (Downward(SHAPE, 1, 1, critic=True), lambda d: d(x)),
        "ha-gan generator": (
            HierarchicalGenerator(SHAPE, 2, 2),
            lambda g: g.fine(g.trunk(code, label, masks)[:, :, 1:3], masks[:, :, 4:12]),
        ),
        "med-ddpm": (unet, lambda u: u(x, time, masks, labels)),
    }


@pytest.mark.parametrize("name", networks())
def test_gradients_in_bf16_are_those_in_float32_on_the_smallest_grid(name: str) -> None:
    """oneDNN gives garbage for some short grids; the guard keeps the networks off them."""
    network, call = networks()[name]
    guard_short_grids(network)
    weights = [p for p in network.parameters() if p.ndim > 1]
    exact = torch.autograd.grad(call(network).square().mean(), weights, allow_unused=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = call(network).float().square().mean()
    rough = torch.autograd.grad(loss, weights, allow_unused=True)
    for a, b in zip(exact, rough, strict=True):
        assert (a is None) == (b is None)
        if a is not None and float(a.norm()) > 0:
            assert float((a - b).norm() / a.norm()) < 0.2
