from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neonet3d.config import LoopConfig, UNetConfig
from neonet3d.generation.condition import N_SCALES, Condition
from neonet3d.generation.controlnet import ControlNet, class_fractions
from neonet3d.generation.objectives import (
    NULL_MASK,
    ControlObjective,
    FlowObjective,
    control_error,
)
from neonet3d.generation.unet import FlowUNet
from neonet3d.types import LabelSchema

LOOP = LoopConfig(steps=1, batch_size=1, learning_rate=1e-3, weight_decay=0, ema_decay=0)
CONFIG = UNetConfig(channels=(8, 16), dropout=0.3, null_label_fraction=0.1, loop=LOOP)
SCHEMA = LabelSchema(("background", "liver", "portal_vein", "tumour"))
C, LATENT = 3, (4, 4, 2)


@pytest.fixture
def objective() -> ControlObjective:
    torch.manual_seed(0)
    unet = FlowUNet(C, LATENT, CONFIG, N_SCALES, len(SCHEMA) - 1)
    nn.init.normal_(unet.head[2].weight, std=0.1)  # an untrained head passes no gradient on
    return ControlObjective(unet, ControlNet(unet, len(SCHEMA)), torch.ones(C), SCHEMA, 5.0, 0.1)


def batch(n: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = [4 * size for size in LATENT]
    return (
        torch.randn(n, C, *LATENT, generator=generator),
        torch.tensor([0, 1] * (n // 2)),
        torch.zeros(n, N_SCALES),
        torch.randint(len(SCHEMA), (n, *shape), generator=generator, dtype=torch.uint8),
    )


def test_the_unet_stays_bit_for_bit_while_the_controlnet_learns(
    objective: ControlObjective,
) -> None:
    unet = {name: value.clone() for name, value in objective.unet.state_dict().items()}
    control = {name: p.clone() for name, p in objective.controlnet.named_parameters()}
    objective.train()
    assert not objective.unet.training  # its dropout is off
    assert objective.controlnet.training
    optimizer = torch.optim.AdamW(
        [p for p in objective.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1
    )
    for _ in range(3):
        optimizer.zero_grad()
        objective(*batch()).backward()
        optimizer.step()
    assert all(torch.equal(value, unet[n]) for n, value in objective.unet.state_dict().items())
    assert all(p.grad is None for p in objective.unet.parameters())
    moved = {
        n for n, p in objective.controlnet.named_parameters() if not torch.equal(p, control[n])
    }
    assert {"out_fine.weight", "out_coarse.weight", "out_middle.weight", "hint.0.weight"} <= moved


def test_small_structures_weigh_more_where_they_touch(objective: ControlObjective) -> None:
    maps = torch.ones(1, 16, 16, 8, dtype=torch.uint8)
    maps[0, 0, 0, 0] = SCHEMA.value("tumour")
    maps[0, 5, 15, 7] = SCHEMA.value("portal_vein")
    maps[0, 8:12, :4, :4] = 0
    weight = objective.voxel_weight(maps)
    expected = torch.ones(1, *LATENT)
    expected[0, 0, 0, 0] = expected[0, 1, 3, 1] = 5
    assert torch.equal(weight, expected)


class Known(nn.Module):
    """The velocity when every latent is 0.5: (x_t - z) / t."""

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return (x - 0.5) / t.view(-1, 1, 1, 1, 1)


class Still(nn.Module):
    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return torch.zeros_like(x)


def test_the_true_velocity_has_no_loss() -> None:
    objective = FlowObjective(Known(), torch.ones(C), 0.1)  # type: ignore[arg-type]
    z, outcome, scale, _ = batch(8)
    assert float(objective(torch.full_like(z, 0.5), outcome, scale)) < 1e-6


def test_the_loss_of_rest_is_the_energy_of_the_target() -> None:
    """E |e - z|^2 = 1 + z^2, and each channel counts by its gain."""
    z = torch.zeros(64, 2, 4, 4, 4)
    z[:, 1] = 2
    outcome, scale = torch.zeros(64, dtype=torch.long), torch.zeros(64, N_SCALES)
    for gain, expected in (((1.0, 1.0), 3.0), ((2.0, 0.0), 1.0), ((0.0, 2.0), 5.0)):
        torch.manual_seed(0)
        objective = FlowObjective(Still(), torch.tensor(gain), 0.1)  # type: ignore[arg-type]
        assert float(objective(z, outcome, scale)) == pytest.approx(expected, rel=0.05)


@torch.no_grad()
def test_at_first_both_objectives_agree(objective: ControlObjective) -> None:
    """The ControlNet begins silent, and without small structures no voxel weighs more."""
    z, outcome, scale, maps = batch()
    liver = torch.ones_like(maps)
    flow = FlowObjective(objective.unet, torch.ones(C), 0.1)
    objective.eval()
    torch.manual_seed(3)
    plain = float(flow(z, outcome, scale, class_fractions(liver, len(SCHEMA))))
    torch.manual_seed(3)
    assert float(objective(z, outcome, scale, liver)) == pytest.approx(plain, rel=1e-5)


class Curious(nn.Module):
    """Remembers whether it was told the mask."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bool] = []

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.told.append(condition.fractions is not None)
        return torch.zeros_like(x)


def test_a_share_of_batches_has_no_mask() -> None:
    watched = Curious()
    objective = FlowObjective(watched, torch.ones(C), 0.1)  # type: ignore[arg-type]
    z, outcome, scale, _ = batch()
    torch.manual_seed(0)
    for _ in range(1000):
        objective(z, outcome, scale, torch.zeros(2, 3, *LATENT))
    assert np.mean(watched.told) == pytest.approx(1 - NULL_MASK, abs=0.03)


class Guided(nn.Module):
    """At rest without a mask; with one, ``times`` the velocity when every latent is 0.5."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor, t: Tensor, condition: Condition, control: object = None) -> Tensor:
        known = (x - 0.5) / t.view(-1, 1, 1, 1, 1)
        return torch.zeros_like(x) if condition.fractions is None else self.times * known


@pytest.mark.parametrize(("times", "expected"), [(2.5, 0.0), (1.0, 0.36), (0.0, 1.0)])
def test_the_controlnet_learns_the_guided_velocity(
    objective: ControlObjective, times: float, expected: float
) -> None:
    """u + 2.5 (e - z - u) with u = 0; the loss is the share of the way that is missing, squared."""
    control = objective.controlnet
    control.guidance = 2.5
    z, outcome, scale, maps = batch(8)
    noise, t = torch.randn(z.shape), torch.linspace(0.1, 0.9, 8)
    told = Condition.of(outcome, scale).with_mask(class_fractions(maps, len(SCHEMA)))
    z = torch.full_like(z, 0.5)
    found = control_error(Guided(times), control, z, noise, t, told, maps)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected * (noise - z).square(), rtol=1e-3, atol=1e-6)
