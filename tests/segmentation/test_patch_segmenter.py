from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from neonet3d.cohort.geometry import Grid
from neonet3d.config import AugmentationConfig, LoopConfig, NetworkName, load_config
from neonet3d.segmentation.patch_segmenter import LabelledPatches, PatchSegmenter, patch_plan

GRID = Grid((24, 16, 8), (2.0, 2.0, 4.0))
LOOP = LoopConfig(steps=40, batch_size=2, learning_rate=5e-3, weight_decay=1e-4, ema_decay=0.9)
SEGMENTER = load_config("cpu").segmenter


def balls(n: int, seed: int) -> LabelledPatches:
    """A bright ball in the dark, each somewhere else."""
    generator = torch.Generator().manual_seed(seed)
    axes = [torch.arange(n).float() * mm for n, mm in zip(GRID.shape, GRID.spacing_mm, strict=True)]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    centre = torch.tensor([23.0, 15.0, 14.0]) + 8 * (torch.rand(n, 3, generator=generator) - 0.5)
    maps = ((index - centre[:, :, None, None, None]).square().sum(1) < 81).to(torch.uint8)
    images = maps.float() - 0.5 + 0.1 * torch.randn(maps.shape, generator=generator)
    return LabelledPatches(images, maps)


def segmenter(network: NetworkName = "unet", seed: int = 0) -> PatchSegmenter:
    return PatchSegmenter(patch_plan(network, GRID, 4, SEGMENTER), GRID, 2, seed=seed)


def dice(found: torch.Tensor, maps: torch.Tensor) -> float:
    return float(2 * (found * maps).sum() / (found.sum() + maps.sum()))


@pytest.mark.parametrize("network", get_args(NetworkName))
def test_every_network_gives_label_maps_on_the_grid(network: NetworkName) -> None:
    """Also where the network wants more voxels than the patch has."""
    found = PatchSegmenter(patch_plan(network, GRID, 8, SEGMENTER), GRID, 2, seed=0).segment(
        balls(3, 0).images
    )
    assert found.shape == (3, *GRID.shape)
    assert found.dtype == torch.uint8
    assert int(found.max()) <= 1


@pytest.mark.parametrize("shares", [None, (0.5, 0.5)])
def test_it_learns(shares: tuple[float, float] | None, tmp_path: Path) -> None:
    augmentation = None
    if shares is not None:
        augmentation = AugmentationConfig(
            flip_axes=frozenset(), spatial=shares[0], intensity=shares[1]
        )
    made, new = segmenter(), balls(6, 9)
    before = dice(made.segment(new.images), new.label_maps)
    made.train(
        balls(12, 1), LOOP, tmp_path / "a", seed=0, description="balls", augmentation=augmentation
    )
    after = dice(made.segment(new.images), new.label_maps)
    assert after > 0.8 > before
    assert not (tmp_path / "a" / ".state.safetensors").exists()


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    loop = LOOP.model_copy(update={"steps": 2})
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        made = segmenter(seed=seed)
        made.train(balls(4, 1), loop, tmp_path / name, seed=seed, description="balls")
        states.append(torch.cat([p.flatten() for p in made.network.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_joined_sets_keep_their_order() -> None:
    first, second = balls(2, 0), balls(3, 1)
    joined = first.join(second)
    assert len(joined) == 5
    assert torch.equal(joined.images[2:], second.images)
    assert torch.equal(joined.label_maps[:2], first.label_maps)
