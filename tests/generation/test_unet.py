from __future__ import annotations

import pytest
import torch

from neonet3d.config import LoopConfig, UNetConfig
from neonet3d.generation.condition import NULL_LABEL, Condition
from neonet3d.generation.unet import EncoderStates, FlowUNet, path_scale

LOOP = LoopConfig(steps=1, batch_size=1, learning_rate=1e-3, weight_decay=0, ema_decay=0)
CONFIG = UNetConfig(channels=(8, 16), dropout=0.3, null_label_fraction=0.1, loop=LOOP)
T = torch.tensor([0.1, 0.8])
LABEL = Condition(torch.tensor([0, 1]), torch.tensor([[0.0, 0.1, 0.2]] * 2))


@pytest.fixture
def unet() -> FlowUNet:
    torch.manual_seed(0)
    made = FlowUNet(4, (6, 4, 4), CONFIG, 3, 2)
    made.gaussian.variance.uniform_(0.1, 3)
    return made.eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 4, 6, 4, 4, generator=torch.Generator().manual_seed(1))


def shake(unet: FlowUNet) -> None:
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def test_begins_as_the_gaussian_closed_form(unet: FlowUNet, x: torch.Tensor) -> None:
    assert torch.equal(unet(x, T, LABEL), unet.gaussian(x, T))


def test_path_scale_is_the_deviation_of_the_path() -> None:
    torch.testing.assert_close(
        path_scale(torch.tensor([0.0, 0.5, 1.0])).flatten() ** 2, torch.tensor([1.0, 0.5, 1.0])
    )
    z, e = torch.randn(2, 50_000, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.3])
    assert float((0.7 * z + 0.3 * e).std()) == pytest.approx(float(path_scale(t)), rel=0.02)


def test_the_network_sees_unit_variance(unet: FlowUNet, x: torch.Tensor) -> None:
    """Input and output are scaled by the deviation of the path."""
    seen: list[torch.Tensor] = []
    unet.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    torch.nn.init.ones_(unet.head[2].bias)
    velocity = unet(x, T, LABEL)
    torch.testing.assert_close(seen[0], x / path_scale(T))
    torch.testing.assert_close(
        velocity - unet.gaussian(x, T), (1 / path_scale(T)).expand_as(x), rtol=1e-4, atol=1e-5
    )


def test_time_label_and_scale_matter(unet: FlowUNet, x: torch.Tensor) -> None:
    shake(unet)
    same = x[:1].expand(3, -1, -1, -1, -1)
    times = torch.full((3,), 0.4)
    alike = Condition(torch.tensor([0, 0, 0]), torch.zeros(3, 3))
    labels = Condition(torch.tensor([0, 1, NULL_LABEL]), torch.zeros(3, 3))
    scales = Condition(alike.label, torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [0, 0, 0.2]]))
    for condition in (labels, scales):
        velocity = unet(same, times, condition)
        assert velocity.shape == same.shape
        assert len({tuple(v.flatten().tolist()) for v in velocity}) == 3
    network = unet(same, times, alike) - unet.gaussian(same, times)
    later = unet(same, times + 0.2, alike) - unet.gaussian(same, times + 0.2)
    assert not torch.allclose(network * path_scale(times), later * path_scale(times + 0.2))


def test_cases_of_a_batch_do_not_mix(unet: FlowUNet, x: torch.Tensor) -> None:
    shake(unet)
    rows = [slice(0, 1), slice(1, 2)]
    own = [Condition(LABEL.label[row], LABEL.numbers[row]) for row in rows]
    alone = torch.cat([unet(x[row], T[row], one) for row, one in zip(rows, own, strict=True)])
    torch.testing.assert_close(unet(x, T, LABEL), alone, rtol=1e-4, atol=1e-4)


def test_control_is_added_to_every_state(unet: FlowUNet, x: torch.Tensor) -> None:
    shake(unet)
    states = unet.encoder(x, unet.encoder.embed(T, LABEL), None)
    assert states.fine.shape == (2, 8, 6, 4, 4)
    assert states.coarse.shape == states.middle.shape == (2, 16, 3, 2, 2)
    plain = unet(x, T, LABEL)
    zeros = [torch.zeros_like(s) for s in (states.fine, states.coarse, states.middle)]
    assert torch.equal(unet(x, T, LABEL, EncoderStates(*zeros)), plain)
    for place in range(3):
        parts = [z + (i == place) for i, z in enumerate(zeros)]
        assert not torch.allclose(unet(x, T, LABEL, EncoderStates(*parts)), plain)


@torch.no_grad()
def test_where_the_organs_are_matters(unet: FlowUNet, x: torch.Tensor) -> None:
    """No mask is something else than a mask that is all background."""
    shake(unet)
    fractions = torch.rand(2, 2, 6, 4, 4, generator=torch.Generator().manual_seed(3))
    found = [
        unet(x, T, condition)
        for condition in (
            LABEL,
            LABEL.with_mask(0 * fractions),
            LABEL.with_mask(fractions),
            LABEL.with_mask(fractions).without_mask(),
        )
    ]
    assert torch.equal(found[0], found[3])
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[1], found[2])
