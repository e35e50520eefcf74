"""Small patches that a few steps can learn, and trainings of so many steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from neonet3d.cohort.patches import Patches
from neonet3d.generation.rivals import Rival, build_rival, med_ddpm, monai_networks
from neonet3d.generation.rivals.budget import Budget

SHAPE, N_CLASSES = (24, 24, 24), 3


class Steps(Budget):
    """So many steps of each part, however long they take."""

    def __init__(self, n: int) -> None:
        super().__init__(1.0)
        self.n = n

    def steps(self, share: float) -> Iterator[int]:
        return iter(range(self.n))


@pytest.fixture(scope="session")
def patches() -> Patches:
    """Dark air, a grey ball, a bright one in it; brighter in cases with the outcome 1."""
    generator = torch.Generator().manual_seed(0)
    axes = [torch.linspace(-1, 1, n) for n in SHAPE]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    images, maps, outcomes = [], [], [0, 1, 0, 1, 0, 1]
    for outcome in outcomes:
        centre = (torch.rand(3, generator=generator) - 0.5).view(3, 1, 1, 1)
        distance = (index - centre).square().sum(0)
        label_map = (distance < 0.5).to(torch.uint8) + (distance < 0.1).to(torch.uint8)
        image = torch.tensor([-0.9, 0.0, 0.7])[label_map.long()] + 0.2 * outcome * (label_map == 1)
        image = image + 0.05 * torch.randn(SHAPE, generator=generator)
        images.append(image.clamp(-1, 1))
        maps.append(label_map)
    n = len(outcomes)
    return Patches(
        images=torch.stack(images),
        label_maps=torch.stack(maps),
        outcomes=torch.tensor(outcomes),
        synthetic=torch.zeros(n, dtype=torch.bool),
        spacing_mm=(2.0, 2.0, 2.0),
        log_scale=torch.zeros(n, 3),
    )


@pytest.fixture(scope="session")
def steps() -> Callable[[int], Budget]:
    return Steps


@pytest.fixture(autouse=True)
def few_sampling_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two diffusion models, so that a sample takes a tenth of the time."""
    monkeypatch.setattr(med_ddpm, "N_STEPS", 5)
    monkeypatch.setattr(monai_networks, "N_STEPS", 5)


@pytest.fixture(scope="session")
def build() -> Callable[..., Rival]:
    """By name."""

    def make(name: str, *, labelled: bool = True) -> Rival:
        return build_rival(name, SHAPE, N_CLASSES, labelled=labelled)

    return make


@pytest.fixture(scope="session")
def trained(
    patches: Patches, build: Callable[..., Rival], steps: Callable[[int], Budget]
) -> Callable[[str], Rival]:
    """A rival after four steps of each part with the seed 0; once for each."""
    made: dict[str, Rival] = {}

    def train(name: str) -> Rival:
        if name not in made:
            made[name] = build(name)
            made[name].train(patches, steps(4), seed=0)
        return made[name]

    return train
