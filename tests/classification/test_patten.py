from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from neonet3d.classification.objective import LogitObjective
from neonet3d.classification.patten import (
    PattenEnsemble,
    PattenNet,
    frozen_tokens,
    region_statistics,
)
from neonet3d.config import Config

FINE, COARSE, REGIONS, FACTORS = 6, 5, 3, 2


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(n: int = 2, size: tuple[int, int, int] = (8, 6, 4), seed: int = 0) -> list[Tensor]:
    half = tuple(s // 2 for s in size)
    return [
        normal(n, FINE, *size, seed=seed),
        normal(n, COARSE, *half, seed=seed + 1),
        uniform(n, REGIONS, *size, seed=seed + 2),
        uniform(n, REGIONS, *half, seed=seed + 3),
        normal(n, FACTORS, seed=seed + 4),
    ]


def network(tiny: Config) -> PattenNet:
    torch.manual_seed(0)
    return PattenNet(FINE, COARSE, REGIONS, FACTORS, tiny.classifier).eval()


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


def test_the_frozen_reading_starts_at_nothing(tiny: Config) -> None:
    """Before training no token moves the logit; the deep reading alone speaks."""
    model, batch = network(tiny), inputs()
    tokens = frozen_tokens(*batch[:4])
    assert tokens.shape == (2, 2 * REGIONS * (FINE + COARSE))
    with torch.no_grad():
        reading = model.frozen_reading(tokens)
        torch.testing.assert_close(reading, model.frozen_reading(torch.zeros_like(tokens)))
        before = model(*batch)
        model.token_mean.fill_(7.0)
        assert torch.equal(model(*batch), before)
        model.frozen_reading[1].weight.fill_(1.0)
        assert not torch.equal(model(*batch), before)


def test_amplitudes_are_read_linearly_and_clamped(tiny: Config) -> None:
    model, batch = network(tiny), inputs()
    before = model(*batch).detach()
    assert model.appearance_reading is not None
    model.appearance_reading.weight.data.copy_(torch.tensor([[1.0, -2.0]]))
    batch[-1] = torch.tensor([[0.5, 0.25], [100.0, 0.0]])
    moved = (model(*batch) - before).detach()
    torch.testing.assert_close(moved, torch.tensor([0.0, 4.0]), rtol=0, atol=1e-5)

    torch.manual_seed(0)
    without = PattenNet(FINE, COARSE, REGIONS, 0, tiny.classifier).eval()
    assert without.appearance_reading is None
    assert without(*batch[:4], torch.zeros(2, 0)).shape == (2,)


def test_tokens_are_standardised_and_clamped(tiny: Config) -> None:
    model, batch = network(tiny), inputs()
    tokens = frozen_tokens(*batch[:4])
    model.token_mean.copy_(tokens.mean(0))
    model.token_std.copy_(tokens.std(0))
    model.token_std[0] = 1e-6  # this token would be far outside
    seen: list[Tensor] = []
    model.frozen_reading.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(*batch)
    expected = (tokens - tokens.mean(0)) / tokens.std(0)
    torch.testing.assert_close(seen[0][:, 1:], expected[:, 1:])
    assert seen[0][:, 0].abs().tolist() == [5, 5]


def test_every_parameter_learns(tiny: Config) -> None:
    model, batch = network(tiny), inputs(4)
    model(*batch).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A shift of the logits in front of a softmax changes nothing.
    assert set(still) <= {"gaze.0.bias", "gaze.1.bias"}


def test_masks_as_channels_reach_the_deep_reading(tiny: Config) -> None:
    settings = tiny.classifier.model_copy(update={"masks_as_channels": True})
    torch.manual_seed(0)
    model, batch = PattenNet(FINE, COARSE, REGIONS, FACTORS, settings).eval(), inputs()
    assert bool(torch.isfinite(model(*batch)).all())
    seen: list[Tensor] = []
    model.levels[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(*batch)
    torch.testing.assert_close(seen[0], torch.cat([batch[0], batch[2]], dim=1))


def ensemble(tiny: Config, members: int = 3) -> PattenEnsemble:
    torch.manual_seed(0)
    settings = tiny.classifier.model_copy(update={"members": members})
    return PattenEnsemble(FINE, COARSE, REGIONS, FACTORS, settings).eval()


def test_members_differ_and_learn_apart(tiny: Config) -> None:
    """Each member's gradient is what it would be without the others."""
    together, batch = ensemble(tiny), inputs(4)
    logits = together(*batch)
    assert logits.shape == (3, 4)
    assert len({round(float(x), 6) for x in logits[:, 0].detach()}) == 3
    objective = LogitObjective(together)
    outcome = torch.tensor([0, 1, 0, 1])
    objective(*batch, outcome).backward()
    for index, member in enumerate(together.members):
        shared = [p.grad.clone() for p in member.parameters()]
        member.zero_grad()
        LogitObjective(member)(*batch, outcome).backward()
        for (name, p), of_mean in zip(member.named_parameters(), shared, strict=True):
            torch.testing.assert_close(of_mean * 3, p.grad, msg=f"{index} {name}")


def test_tokens_of_training_standardise_every_member(tiny: Config) -> None:
    model, tokens = ensemble(tiny, 2), frozen_tokens(*inputs(5)[:4])
    model.standardise_tokens(tokens)
    for member in model.members:
        torch.testing.assert_close(member.token_mean, tokens.mean(0))
        torch.testing.assert_close(member.token_std, tokens.std(0).clamp_min(1e-4))


def test_probability_adds_the_log_odds_of_the_prior(tiny: Config) -> None:
    model = ensemble(tiny)
    logit = torch.tensor([-2.0, 0.0, 3.0])
    torch.testing.assert_close(model.probability(logit), torch.sigmoid(logit))
    model.prior_logit.fill_(np.log(0.2 / 0.8))
    torch.testing.assert_close(torch.logit(model.probability(logit)), logit + np.log(0.25))
    assert float(model.probability(torch.zeros(1))) == pytest.approx(0.2)
