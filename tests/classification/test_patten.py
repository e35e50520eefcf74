from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from neonet3d.classification.objective import LogitObjective
from neonet3d.classification.patten import PattenEnsemble, PattenNet, region_statistics
from neonet3d.classification.train import Apart
from neonet3d.config import Config

FINE, COARSE, DISTANCES, REGIONS, FACTORS = 6, 5, 2, 3, 2


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(n: int = 2, size: tuple[int, int, int] = (8, 6, 4), seed: int = 0) -> list[Tensor]:
    half = tuple(s // 2 for s in size)
    return [
        normal(n, FINE, *size, seed=seed),
        normal(n, COARSE, *half, seed=seed + 1),
        normal(n, DISTANCES, *size, seed=seed + 5),
        normal(n, DISTANCES, *half, seed=seed + 6),
        uniform(n, REGIONS, *size, seed=seed + 2),
        uniform(n, REGIONS, *half, seed=seed + 3),
        normal(n, FACTORS, seed=seed + 4),
    ]


def network(tiny: Config) -> PattenNet:
    torch.manual_seed(0)
    return PattenNet((FINE, COARSE), DISTANCES, REGIONS, FACTORS, tiny.classifier).eval()


def test_region_statistics_are_weighted_mean_and_deviation() -> None:
    """Against loops; soft regions, and one that is empty."""
    maps, regions = normal(2, 4, 3, 5, 2), uniform(2, REGIONS, 3, 5, 2, seed=1)
    regions[1, 2] = 0
    found = region_statistics(maps, regions).reshape(2, REGIONS, 2, 4).numpy()
    for b in range(2):
        for r in range(REGIONS):
            for c in range(4):
                values, weight = maps[b, c].numpy().ravel(), regions[b, r].numpy().ravel()
                if weight.sum() == 0:
                    assert found[b, r, 0, c] == 0
                    assert found[b, r, 1, c] == pytest.approx(0, abs=1.1e-4)
                    continue
                mean = sum(v * w for v, w in zip(values, weight, strict=True)) / weight.sum()
                square = sum((v - mean) ** 2 * w for v, w in zip(values, weight, strict=True))
                assert found[b, r, 0, c] == pytest.approx(mean, abs=1e-5)
                assert found[b, r, 1, c] == pytest.approx(np.sqrt(square / weight.sum()), abs=1e-5)


def test_region_statistics_have_finite_gradients_in_empty_and_flat_regions() -> None:
    maps = torch.ones(1, 2, 4, 4, 4, requires_grad=True)
    regions = torch.zeros(1, 2, 4, 4, 4)
    regions[0, 1, :2] = 1
    region_statistics(maps, regions).sum().backward()
    assert bool(torch.isfinite(maps.grad).all())


def test_the_size_of_a_region_does_not_change_its_mean() -> None:
    maps = torch.full((1, 1, 8, 8, 8), 3.0)
    regions = torch.zeros(1, 2, 8, 8, 8)
    regions[0, 0, 0, 0, 0] = 1
    regions[0, 1] = 1
    statistics = region_statistics(maps, regions)[0]
    torch.testing.assert_close(statistics[[0, 2]], torch.tensor([3.0, 3.0]))


@pytest.mark.parametrize("size", [(8, 6, 4), (4, 4, 4), (12, 8, 2)])
def test_one_logit_per_case(tiny: Config, size: tuple[int, int, int]) -> None:
    logit = network(tiny)(*inputs(3, size))
    assert logit.shape == (3,)
    assert logit.dtype == torch.float32
    assert bool(torch.isfinite(logit).all())


def test_a_case_does_not_depend_on_its_batch(tiny: Config) -> None:
    model, batch = network(tiny), inputs(3)
    with torch.no_grad():
        alone = [model(*(part[i : i + 1] for part in batch)) for i in range(3)]
        torch.testing.assert_close(model(*batch), torch.cat(alone))


def test_amplitudes_are_read_linearly_and_clamped(tiny: Config) -> None:
    model, batch = network(tiny), inputs()
    before = model(*batch).detach()
    model.appearance_weight.copy_(torch.tensor([1.0, -2.0]))
    model.appearance_bias.fill_(0.5)
    batch[-1] = torch.tensor([[0.5, 0.25], [100.0, 0.0]])
    moved = (model(*batch) - before).detach()
    torch.testing.assert_close(moved, torch.tensor([0.5, 4.5]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("columns", [0, 2])
def test_without_factors_amplitudes_say_nothing(tiny: Config, columns: int) -> None:
    torch.manual_seed(0)
    model = PattenNet((FINE, COARSE), DISTANCES, REGIONS, 0, tiny.classifier).eval()
    batch = inputs()
    with torch.no_grad():
        expected = network(tiny)(*batch)  # whose weights of the amplitudes are 0
        batch[-1] = 9 * torch.ones(2, columns)
        torch.testing.assert_close(model(*batch), expected)


def test_without_levels_the_amplitudes_alone_speak(tiny: Config) -> None:
    model = PattenNet((), 0, REGIONS, FACTORS, tiny.classifier)
    model.appearance_weight.copy_(torch.tensor([1.0, -2.0]))
    batch = inputs(3)
    expected = batch[-1] @ torch.tensor([1.0, -2.0])
    torch.testing.assert_close(model(*batch), expected)
    assert not list(model.parameters())


def test_one_level_alone_and_finer_ones_come_down(tiny: Config) -> None:
    """With one level nothing comes down; with two, the finer moves what the coarser says."""
    torch.manual_seed(0)
    single = PattenNet((COARSE,), DISTANCES, REGIONS, FACTORS, tiny.classifier).eval()
    _, coarse, _, away, _, where, amplitudes = inputs()
    assert single(coarse, away, where, amplitudes).shape == (2,)
    model, batch = network(tiny), inputs()
    with torch.no_grad():
        (levels, _, _), (other, _, _) = (
            model.unpacked(tuple(b)) for b in (batch, [batch[0] + 1, *batch[1:]])
        )
        before, after = (model.refine(of)[1] for of in (levels, other))
    assert not torch.equal(before, after)


def test_every_parameter_learns(tiny: Config) -> None:
    model, batch = network(tiny), inputs(4)
    model(*batch).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A shift of the logits in front of a softmax changes nothing.
    assert set(still) <= {"gaze.0.bias", "gaze.1.bias"}
    assert "appearance_weight" not in dict(model.named_parameters())


@pytest.mark.parametrize("level", [0, 1])
def test_distances_lie_beside_the_maps_of_their_level(tiny: Config, level: int) -> None:
    model, batch = network(tiny), inputs()
    seen: list[Tensor] = []
    model.enter[level].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(*batch)
    torch.testing.assert_close(seen[0], torch.cat([batch[level], batch[2 + level]], dim=1))


def ensemble(tiny: Config, members: int = 3) -> PattenEnsemble:
    torch.manual_seed(0)
    return PattenEnsemble(
        members, (FINE, COARSE), DISTANCES, REGIONS, FACTORS, tiny.classifier
    ).eval()


def test_members_differ_and_learn_apart_from_cases_of_their_own(tiny: Config) -> None:
    """Each member's gradient is what it would be without the others, from its own rows."""
    together, batch = ensemble(tiny), inputs(12)
    with torch.no_grad():
        everyone = together(*batch)
    assert everyone.shape == (3, 12)
    assert len({round(float(x), 6) for x in everyone[:, 0]}) == 3
    outcome = torch.tensor([[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]])
    apart = Apart(together, None)
    expected = torch.stack([everyone[k, 4 * k : 4 * k + 4] for k in range(3)])
    torch.testing.assert_close(apart(*batch), expected)  # the amplitudes have no weight yet
    LogitObjective(apart, 0.0)(*batch, outcome, torch.ones(3, 4)).backward()
    for k, member in enumerate(together.members):
        shared = [p.grad.clone() for p in member.parameters()]
        member.zero_grad()
        own = [part[4 * k : 4 * k + 4] for part in batch]
        LogitObjective(member, 0.0)(*own, outcome[k], torch.ones(4)).backward()
        for (name, p), of_mean in zip(member.named_parameters(), shared, strict=True):
            torch.testing.assert_close(of_mean * 3, p.grad, msg=f"{k} {name}")
