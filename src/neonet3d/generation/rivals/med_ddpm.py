"""Med-DDPM (Dorjsembe et al. 2024, arXiv 2305.18453): diffusion of voxels beside the mask.

From the paper: a U-Net at full resolution predicts the noise in an image, of which the one-hot mask
is further channels; L1 loss on the noise; 250 times, cosine schedule; the image that a prediction
implies is clipped to [-1, 1]; weights averaged with a decay of .995; one residual block a level,
attention at an eighth of the resolution, Adam, batches of 2.

Ours:

- Sizes: 16, 32, 64, 128 channels on four levels (64, 64, 128, 192, 256 on five there), for patches
  on a CPU.
- Learning rate 2e-4 (1e-5 there, for 100,000 steps; minutes on a CPU are a few hundred).
- The average begins with the first step and is quicker at first, as NeoGen's.
- Sampling: 50 ancestral steps, evenly spaced in the 250 times; all of them take five times as long.
- The outcome: an embedding (0, 1, not said) beside that of the time. The paper's has none.
- The mask is 0 and 1 (there -1 and 1), which the first convolution's bias makes up for.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from neonet3d.engine.device import fabric
from neonet3d.generation.blocks import (
    FilmBlock,
    SelfAttention,
    sinusoidal_embedding,
    zero_initialised,
)
from neonet3d.generation.rivals.batches import N_LABELS, Batch, TrainingSet
from neonet3d.generation.rivals.budget import Part
from neonet3d.generation.rivals.cosine_schedule import (
    kept_variance,
    noised,
    step_back,
    visited_times,
)
from neonet3d.generation.rivals.layers import descend, upsampled
from neonet3d.generation.rivals.rival import Rival, draw_noise
from neonet3d.segmentation.convolution import guard_short_grids
from neonet3d.types import ImageBatch, OneHotBatch

CHANNELS = (16, 32, 64, 128)
EMBEDDING = 64
N_TIMES, N_STEPS = 250, 50
EMA_DECAY = 0.995
LEARNING_RATE, BATCH = 2e-4, 2


class NoiseUNet(nn.Module):
    """The noise in x_t, given time, masks and label. Sizes are multiples of 8."""

    def __init__(self, n_masks: int) -> None:
        super().__init__()
        size = EMBEDDING
        self.time = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size))
        self.label = nn.Embedding(N_LABELS + 1, size)
        self.stem = nn.Conv3d(1 + n_masks, CHANNELS[0], 3, padding=1)
        steps = list(pairwise(CHANNELS))
        self.down = nn.ModuleList(FilmBlock(c, c, size, 0.0) for c in CHANNELS)
        self.halve = nn.ModuleList(nn.Conv3d(a, b, 3, stride=2, padding=1) for a, b in steps)
        self.attention = SelfAttention(CHANNELS[-1])
        self.middle = FilmBlock(CHANNELS[-1], CHANNELS[-1], size, 0.0)
        self.widen = nn.ModuleList(nn.Conv3d(b, a, 3, padding=1) for a, b in steps)
        self.up = nn.ModuleList(FilmBlock(2 * a, a, size, 0.0) for a, _ in steps)
        self.head = nn.Sequential(
            nn.GroupNorm(8, CHANNELS[0]),
            nn.SiLU(),
            zero_initialised(nn.Conv3d(CHANNELS[0], 1, 3, padding=1)),
        )

    def forward(
        self,
        x: ImageBatch,
        time: Float[Tensor, " b"],
        masks: OneHotBatch,
        labels: Int[Tensor, " b"],
    ) -> ImageBatch:
        """``time`` is a share of all times, in [0, 1); ``labels`` 0, 1 or -1."""
        label = self.label(torch.where(labels < 0, N_LABELS, labels))
        told = F.silu(self.time(sinusoidal_embedding(time, EMBEDDING)) + label)
        h, states = self.stem(torch.cat([x, masks], dim=1)), []
        for block, halve in zip(self.down[:-1], self.halve, strict=True):
            h = block(h, told)
            states.append(h)
            h = halve(h)
        h = self.middle(self.attention(self.down[-1](h, told)), told)
        for number in reversed(range(len(states))):
            h = self.widen[number](upsampled(h))
            h = self.up[number](torch.cat([h, states[number]], dim=1), told)
        noise: Tensor = self.head(h)
        return noise.float()


class MedDDPM(Rival):
    """Med-DDPM; see the module."""

    name = "med-ddpm"
    unet: NoiseUNet

    def _parts(self, data: TrainingSet) -> Iterator[Part]:
        self.unet = NoiseUNet(self.n_masks)
        guard_short_grids(self.unet)
        trained = copy.deepcopy(self.unet).train()
        self.unet.requires_grad_(False).eval()
        for network in (trained, self.unet):
            fabric().to_device(network)
        optimiser = torch.optim.Adam(trained.parameters(), LEARNING_RATE)
        kept = fabric().to_device(kept_variance(N_TIMES).float())
        taken = 0

        def step() -> dict[str, Tensor]:
            nonlocal taken
            loss = noise_loss(trained, data.draw(BATCH), kept)
            descend(optimiser, loss)
            decay = min(EMA_DECAY, (1 + taken) / (10 + taken))
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.unet.parameters()),
                    [p.detach() for p in trained.parameters()],
                    1 - decay,
                )
            taken += 1
            return {"noise": loss}

        yield Part("unet", 1.0, step)

    def _draw(
        self, masks: OneHotBatch, labels: Int[Tensor, " b"], generator: torch.Generator
    ) -> ImageBatch:
        kept = kept_variance(N_TIMES)
        x = draw_noise((len(labels), 1, *self.shape), generator)
        times = visited_times(N_TIMES, N_STEPS).tolist()
        with fabric().autocast():
            for number, time in enumerate(times):
                last = number + 1 == len(times)
                share = torch.full((len(x),), time / N_TIMES, device=x.device)
                x = step_back(
                    x,
                    self.unet(x, share, masks, labels),
                    float(kept[time]),
                    1.0 if last else float(kept[times[number + 1]]),
                    draw_noise(tuple(x.shape), generator),
                )
        return x


def noise_loss(unet: NoiseUNet, batch: Batch, kept: Float[Tensor, " t"]) -> Float[Tensor, ""]:
    """Mean absolute error of the predicted noise at random times; sqrt(2 / pi) for none."""
    noise = torch.randn_like(batch.images)
    time = torch.randint(len(kept), (len(noise),), device=noise.device)
    with fabric().autocast():
        x = noised(batch.images, noise, kept[time])
        predicted = unet(x, time / len(kept), batch.masks, batch.labels)
    return F.l1_loss(predicted, noise)
