from __future__ import annotations

import pytest
import torch

from neonet3d.config import LoopConfig, UNetConfig
from neonet3d.generation.condition import Condition
from neonet3d.generation.controlnet import ControlNet, class_fractions, one_hot, space_to_depth
from neonet3d.generation.unet import FlowUNet

LOOP = LoopConfig(steps=1, batch_size=1, learning_rate=1e-3, weight_decay=0, ema_decay=0)
CONFIG = UNetConfig(channels=(8, 16), dropout=0.0, null_label_fraction=0.1, loop=LOOP)
LATENT, K = (6, 4, 4), 4
T = torch.tensor([0.1, 0.8])
LABEL = Condition(torch.tensor([0, 2]), torch.zeros(2, 3))
LIVER, VEIN = 1, 2


def shake(module: torch.nn.Module) -> None:
    """Weights as after a training."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.fixture
def unet() -> FlowUNet:
    torch.manual_seed(0)
    made = FlowUNet(4, LATENT, CONFIG, 3, 0)
    shake(made)
    return made.eval()


@pytest.fixture
def controlnet(unet: FlowUNet) -> ControlNet:
    torch.manual_seed(1)
    return ControlNet(unet, K).eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 4, *LATENT, generator=torch.Generator().manual_seed(1))


def label_maps(n: int) -> torch.Tensor:
    return torch.full((n, *(4 * size for size in LATENT)), LIVER, dtype=torch.uint8)


def test_space_to_depth_moves_each_voxel_to_its_block() -> None:
    x = torch.arange(2 * 4 * 6 * 2.0).reshape(1, 2, 4, 6, 2)
    y = space_to_depth(x)
    assert y.shape == (1, 16, 2, 3, 1)
    assert sorted(y.flatten().tolist()) == x.flatten().tolist()
    block = x[0, 1, 2:4, 4:6, 0:2].flatten()
    assert torch.equal(y[0, 8:, 1, 2, 0], block)


def test_one_hot_leaves_out_the_background() -> None:
    maps = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).view(1, 4, 1, 1)
    assert one_hot(maps, 4)[0, :, :, 0, 0].T.tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
    ]


def test_begins_as_the_unet_bit_for_bit(
    unet: FlowUNet, controlnet: ControlNet, x: torch.Tensor
) -> None:
    maps = torch.randint(K, label_maps(2).shape, dtype=torch.uint8)
    plain = unet(x, T, LABEL)
    assert torch.equal(unet(x, T, LABEL, controlnet(x, T, LABEL, controlnet.hint_of(maps))), plain)


@pytest.mark.parametrize("place", ["fine", "coarse", "middle"])
@torch.no_grad()
def test_each_state_has_its_own_way_out(
    place: str, controlnet: ControlNet, x: torch.Tensor
) -> None:
    layer = controlnet.get_submodule(f"out_{place}")
    assert isinstance(layer, torch.nn.Conv3d)
    torch.nn.init.normal_(layer.weight)
    states = controlnet(x, T, LABEL, controlnet.hint_of(label_maps(2)))
    for name in ("fine", "coarse", "middle"):
        assert bool(getattr(states, name).any()) == (name == place)


def test_the_encoder_is_a_copy(unet: FlowUNet, controlnet: ControlNet) -> None:
    before = {name: p.clone() for name, p in unet.named_parameters()}
    for name, parameter in unet.encoder.named_parameters():
        assert torch.equal(controlnet.encoder.get_parameter(name), parameter)
    shake(controlnet)
    assert all(torch.equal(p, before[name]) for name, p in unet.named_parameters())


def test_the_copy_of_a_frozen_unet_can_learn(unet: FlowUNet) -> None:
    made = ControlNet(unet.requires_grad_(False), K)
    assert all(p.requires_grad for p in made.parameters())


@torch.no_grad()
def test_a_vein_one_voxel_wide_reaches_the_latent(
    unet: FlowUNet, controlnet: ControlNet, x: torch.Tensor
) -> None:
    shake(controlnet)
    with_vein = label_maps(2)
    with_vein[:, 3:21, 9, 6] = VEIN
    plain = unet(x, T, LABEL, controlnet(x, T, LABEL, controlnet.hint_of(label_maps(2))))
    change = unet(x, T, LABEL, controlnet(x, T, LABEL, controlnet.hint_of(with_vein))) - plain
    assert float(change.abs().max()) > 1e-3 * float(plain.std())


@torch.no_grad()
def test_no_place_in_a_latent_voxel_is_blind(controlnet: ControlNet) -> None:
    """Sampling the map at the latent's grid would see 1 voxel of 64."""
    maps = label_maps(65)
    for place in range(64):
        i, j, k = place // 16, place // 4 % 4, place % 4
        maps[place, 8 + i, 8 + j, 8 + k] = VEIN
    hint = controlnet.hint_of(maps)
    assert hint.shape[2:] == LATENT
    seen = (hint[:64] - hint[64:]).abs().amax(1)[:, 2, 2, 2]
    assert float(seen.min()) > 1e-4


@torch.no_grad()
def test_the_mask_of_one_case_does_not_steer_another(
    controlnet: ControlNet, x: torch.Tensor
) -> None:
    shake(controlnet)
    maps = label_maps(2)
    before = controlnet(x, T, LABEL, controlnet.hint_of(maps))
    maps[1] = VEIN
    after = controlnet(x, T, LABEL, controlnet.hint_of(maps))
    assert torch.equal(after.fine[0], before.fine[0])
    assert not torch.equal(after.fine[1], before.fine[1])


def test_needs_a_class(unet: FlowUNet) -> None:
    with pytest.raises(ValueError, match="at least one class"):
        ControlNet(unet, 1)


def test_class_fractions() -> None:
    maps = torch.zeros(1, 8, 4, 4, dtype=torch.uint8)
    maps[0, :4, :2] = VEIN
    maps[0, 4:] = 1
    found = class_fractions(maps, K)
    assert found.shape == (1, K - 1, 2, 1, 1)
    assert found[0, VEIN - 1].flatten().tolist() == [0.5, 0]
    assert found[0, 0].flatten().tolist() == [0, 1]
