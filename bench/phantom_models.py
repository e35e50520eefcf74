"""The small networks that the phantom's audit trains. They are measures, not products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neonet3d.engine.device import fabric
from neonet3d.generation.wavelet import haar

BATCH = 16
WARMUP = 20


class PooledCnn(nn.Module):
    """Two convolutions at half the resolution; mean and deviation inside regions; linear."""

    def __init__(self, channels_in: int, n_regions: int, channels: int = 24) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv3d(channels_in, channels, 3, padding=1),
            nn.GroupNorm(4, channels),
            nn.SiLU(),
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.SiLU(),
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * channels * n_regions, 1))

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        """Logits (b,) of inputs (b, c, x, y, z) and regions (b, r, x, y, z) of weights 0-1."""
        h = self.convolutions(x).float().flatten(2)
        weights = regions.flatten(2)
        weights = weights / weights.sum(2, keepdim=True).clamp_min(1e-6)
        mean = torch.einsum("bcv,brv->brc", h, weights)
        square = torch.einsum("bcv,brv->brc", h.square(), weights)
        deviation = (square - mean.square()).clamp_min(0).add(1e-5).sqrt()
        return self.head(torch.cat([mean, deviation], dim=1).flatten(1))[:, 0].float()


class SmallUNet(nn.Module):
    """Three levels, 24-48-48 channels, additive skips."""

    def __init__(self, n_classes: int, c: int = 24) -> None:
        super().__init__()
        self.stem = _block(1, c)
        self.down = _block(c, 2 * c, stride=2)
        self.deeper = _block(2 * c, 2 * c, stride=2)
        self.up = nn.ConvTranspose3d(2 * c, 2 * c, 2, stride=2)
        self.merge = _block(2 * c, 2 * c)
        self.up_again = nn.ConvTranspose3d(2 * c, c, 2, stride=2)
        self.out = nn.Sequential(_block(c, c), nn.Conv3d(c, n_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stem(x)
        coarse = self.down(fine)
        coarse = self.merge(coarse + self.up(self.deeper(coarse)))
        return self.out(fine + self.up_again(coarse)).float()


def _block(channels_in: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels_in, channels, 3, padding=1, stride=stride),
        nn.GroupNorm(8, channels),
        nn.SiLU(),
    )


def fit(
    model: nn.Module,
    loss_of: Callable[[Tensor, torch.Generator], Tensor],
    n_cases: int,
    *,
    steps: int,
    seed: int,
    learning_rate: float = 2e-3,
) -> None:
    """AdamW with warm-up and a cosine; ``loss_of`` takes the rows of a batch."""
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.05)
    rng = torch.Generator().manual_seed(seed)
    model.train()
    for step in range(steps):
        phase = 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.param_groups[0]["lr"] = learning_rate * min(1, (step + 1) / WARMUP) * phase
        rows = torch.randperm(n_cases, generator=rng)[:BATCH]
        optimiser.zero_grad()
        with fabric().autocast():
            loss = loss_of(rows, rng)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.eval()


def random_flip(tensors: Sequence[Tensor], rng: torch.Generator) -> list[Tensor]:
    """The same flip of the last three axes for all; before any wavelet transform."""
    axes = [axis for axis in (-3, -2, -1) if torch.rand((), generator=rng) < 0.5]
    return [tensor.flip(axes) for tensor in tensors]


def classify(
    images: Tensor,
    memberships: Tensor,
    regions: Tensor,
    outcomes: Tensor,
    test: tuple[Tensor, Tensor, Tensor],
    *,
    steps: int,
    seed: int,
) -> np.ndarray:
    """Train a ``PooledCnn`` and score the test cases.

    Args:
        images: (n, 1, x, y, z); memberships: (n, k, x, y, z) of the classes;
        regions: (n, r, x, y, z) to pool in; outcomes: (n,) float.
        test: images, memberships and regions of the test cases.
    """
    torch.manual_seed(seed)
    model = PooledCnn(8 + memberships.shape[1], regions.shape[1])
    positive_weight = (1 - outcomes).sum() / outcomes.sum()

    def loss_of(rows: Tensor, rng: torch.Generator) -> Tensor:
        image, membership, region = random_flip(
            [images[rows], memberships[rows], regions[rows]], rng
        )
        image = image * (1 + 0.05 * torch.randn(len(rows), 1, 1, 1, 1, generator=rng))
        return F.binary_cross_entropy_with_logits(
            model(*halved(image, membership, region)), outcomes[rows], pos_weight=positive_weight
        )

    fit(model, loss_of, len(images), steps=steps, seed=seed)
    with torch.no_grad(), fabric().autocast():
        parts = zip(*(tensor.split(BATCH) for tensor in test), strict=True)
        return torch.cat([model(*halved(*part)) for part in parts]).float().numpy()


def halved(image: Tensor, membership: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and regions at half the resolution."""
    return torch.cat([haar(image), F.avg_pool3d(membership, 2)], dim=1), F.avg_pool3d(region, 2)


def segment(
    images: Tensor, label_maps: Tensor, test: Tensor, *, n_classes: int, steps: int, seed: int
) -> Tensor:
    """Train a ``SmallUNet`` with Dice and cross-entropy; label maps of the test images."""
    torch.manual_seed(seed)
    model = SmallUNet(n_classes)

    def loss_of(rows: Tensor, rng: torch.Generator) -> Tensor:
        rows = rows[:4]
        image, maps = random_flip([images[rows], label_maps[rows]], rng)
        target = F.one_hot(maps.long(), n_classes).movedim(-1, 1).float()
        logits = model(image)
        probability = logits.softmax(1)
        overlap = (probability * target).sum((0, 2, 3, 4))
        size = (probability + target).sum((0, 2, 3, 4))
        return F.cross_entropy(logits, maps.long()) + 1 - (2 * overlap / size.clamp_min(1)).mean()

    fit(model, loss_of, len(images), steps=steps, seed=seed)
    with torch.no_grad(), fabric().autocast():
        return torch.cat([model(part).argmax(1) for part in test.split(4)])
