from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from neonet3d.cohort.patches import Patches, load_patches
from neonet3d.errors import InputError
from neonet3d.generation import counterfactual
from neonet3d.generation.condition import NULL_LABEL, Condition
from neonet3d.generation.counterfactual import draw_counterfactuals
from neonet3d.generation.flow import exponential
from neonet3d.generation.gaussian import GaussianVelocity
from neonet3d.generation.generator import LatentGenerator


def patches_of(trained: Any, patients: Any) -> Patches:
    card = trained.generator.card
    return load_patches(patients.subset(patients.cases[2:5]), *card.reading)


@torch.no_grad()
def test_the_flow_runs_backwards() -> None:
    """Gaussian part in closed form either way; a smooth rest returns with small steps."""
    generator = torch.Generator().manual_seed(0)
    gaussian = GaussianVelocity(2, (4, 4, 2))
    gaussian.variance.copy_(0.1 + torch.rand(gaussian.variance.shape, generator=generator))
    x = torch.randn(3, 2, 4, 4, 2, generator=generator)

    def nothing(state: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(state)

    def excess(state: Tensor, t: Tensor) -> Tensor:
        return 0.3 * torch.tanh(state)

    noise = exponential(nothing, gaussian, x, 1, start=0, end=1)
    torch.testing.assert_close(exponential(nothing, gaussian, noise, 1), x)
    errors = []
    for steps in (8, 32):
        there = exponential(excess, gaussian, x, steps, start=0, end=1)
        errors.append(float((exponential(excess, gaussian, there, steps) - x).abs().max()))
    assert errors[1] < errors[0] / 4
    assert errors[1] < 0.02


def test_only_the_label_differs(
    trained: Any, patients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One noise for all three, which was found without a label; outcomes are not looked at."""
    patches, generator = patches_of(trained, patients), trained.generator
    asked: list[tuple[str, Condition, Tensor]] = []

    def noise_of(self: Any, residual: Tensor, *_: Any, **__: Any) -> Tensor:
        asked.append(("noise", _[1], residual))
        return own_noise(self, residual, *_, **__)

    def decoded(self: Any, noise: Tensor, *_: Any, **__: Any) -> Tensor:
        asked.append(("image", _[1], noise))
        return own_decoded(self, noise, *_, **__)

    own_noise, own_decoded = LatentGenerator.noise_of, LatentGenerator.decoded
    monkeypatch.setattr(LatentGenerator, "noise_of", noise_of)
    monkeypatch.setattr(LatentGenerator, "decoded", decoded)
    found = draw_counterfactuals(generator, patches, steps=2)
    assert [name for name, _, _ in asked] == ["noise", "image", "image", "image"]
    labels = [condition.label.unique().tolist() for _, condition, _ in asked]
    assert labels == [[NULL_LABEL], [1], [0], [NULL_LABEL]]
    assert all(torch.equal(noise, asked[1][2]) for _, _, noise in asked[2:])
    assert found.positive.shape == patches.images.shape
    assert float(found.difference.abs().max()) > 0

    other = replace(patches, outcomes=1 - patches.outcomes)
    again = draw_counterfactuals(generator, other, steps=2)
    assert torch.equal(again.positive, found.positive)


def test_the_refiner_has_no_part_in_it(
    trained: Any, patients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes for grain is here the patient's own."""
    patches, generator = patches_of(trained, patients), trained.generator
    before = draw_counterfactuals(generator, patches, steps=1)
    monkeypatch.setattr(generator.refiner, "forward", lambda drawn, maps: torch.zeros_like(drawn))
    after = draw_counterfactuals(generator, patches, steps=1)
    assert torch.equal(after.positive, before.positive)
    drawn = generator.sample(patches.required_label_maps(), patches.outcomes, steps=1, seed=0)
    assert float(drawn.std()) < float(before.positive.std())  # a draw goes through it


def test_batches_change_nothing(
    trained: Any, patients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches = patches_of(trained, patients)
    whole = draw_counterfactuals(trained.generator, patches, steps=1)
    monkeypatch.setattr(counterfactual, "SAMPLE_BATCH", 2)
    parts = draw_counterfactuals(trained.generator, patches, steps=1)
    torch.testing.assert_close(parts.positive, whole.positive, atol=0.02, rtol=0)


def test_a_generator_without_outcomes_is_refused(trained: Any, patients: Any) -> None:
    patches, generator = patches_of(trained, patients), trained.generator
    card = generator.card
    generator.card = card.model_copy(update={"outcome": None})
    try:
        with pytest.raises(InputError, match="trained without outcomes"):
            draw_counterfactuals(generator, patches, steps=1)
    finally:
        generator.card = card
