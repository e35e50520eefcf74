"""3D alpha-WGAN-GP (Kwon, Han & Kim 2019, arXiv 1908.02498), told the mask.

From the paper: an encoder, a generator, a critic and a critic of codes; Wasserstein losses with
gradient penalties; a reconstruction loss, weight 10 like the penalties; one step of each an
iteration; Adam with 2e-4; batches of 4; halving convolutions of 4x4x4 in encoder and critic,
nearest-neighbour doubling and 3x3x3 convolutions in the generator, tanh at its end. With E, G, D, C
and codes z ~ N(0, 1):

    encoder, generator:  - D(G(E(x))) - D(G(z)) + 10 |x - G(E(x))|_1 - C(E(x))
    critic:              - 2 D(x) + D(G(E(x))) + D(G(z)) + 10 (penalties of both fakes)
    critic of codes:     - C(z) + C(E(x)) + 10 (its penalty)

Ours:

- The mask. The paper's model knows none. Here the classes' fractions stand beside the generator's
  features at each of its four scales, and the one-hot mask beside the critic's image. The penalty
  is of the image's gradient. The encoder sees the image alone.
- The outcome: a one-hot vector beside the code, constant channels beside the critic's image.
- Sizes: 8x down instead of 16x, 32 to 128 channels, codes of 128 numbers (1000 there).
- Norms: groups in place of batches, which a penalty for each case and batches of 4 do not bear.
- Adam's betas are 0 and 0.9, as WGAN-GP's authors say (arXiv 1704.00028). With .9 and .999 of the
  published code the brightness of all fakes swung to and fro for the first hundred steps.
- Fakes serve generator and critics alike. The published code leaves the last term of the
  encoder's loss out; without it nothing pulls codes towards N(0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from neonet3d.engine.device import fabric
from neonet3d.generation.rivals.batches import Batch, TrainingSet, fractions, label_vector
from neonet3d.generation.rivals.budget import Part
from neonet3d.generation.rivals.layers import (
    MaskedBlock,
    descend,
    frozen,
    gradient_penalty,
    group_norm,
    halvings,
    leaky_relu,
    upsampled,
)
from neonet3d.generation.rivals.rival import Rival, draw_noise
from neonet3d.segmentation.convolution import guard_short_grids
from neonet3d.types import ImageBatch, OneHotBatch, Shape

CODE = 128
CHANNELS = (128, 64, 32)  # of the generator at 1/8, 1/4, 1/2 of the grid
CRITIC_CHANNELS = (32, 64, 128)  # at 1/2, 1/4, 1/8; of the encoder too
CODE_CRITIC_UNITS = 256
PENALTY = RECONSTRUCTION = 10.0
LEARNING_RATE, BETAS, BATCH = 2e-4, (0.0, 0.9), 4


class Generator(nn.Module):
    """Image (b, 1, x, y, z) in [-1, 1] of a code, a label vector and masks."""

    def __init__(self, shape: Shape, n_masks: int, n_labels: int) -> None:
        super().__init__()
        self.base = tuple(n // 8 for n in shape)
        self.begin = nn.Linear(CODE + n_labels, CHANNELS[0] * math.prod(self.base))
        self.blocks = nn.ModuleList(
            MaskedBlock(before, n_masks, after, group_norm(after))
            for before, after in zip((CHANNELS[0], *CHANNELS[:-1]), CHANNELS, strict=True)
        )
        self.end = nn.Conv3d(CHANNELS[-1] + n_masks, 1, 3, padding=1)

    def forward(
        self, code: Float[Tensor, "b c"], label: Float[Tensor, "b l"], masks: OneHotBatch
    ) -> ImageBatch:
        h = self.begin(torch.cat([code, label], dim=1)).unflatten(1, (-1, *self.base))
        for number, block in enumerate(self.blocks):
            h = block(upsampled(h) if number else h, fractions(masks, 8 >> number))
        return torch.tanh(self.end(torch.cat([upsampled(h), masks], dim=1)).float())


class Downward(nn.Module):
    """Numbers (b, n) of volumes: the critic (one) and the encoder (a code) alike.

    Args:
        norm: of the encoder; the critic's is a layer norm.
    """

    def __init__(self, shape: Shape, channels_in: int, n: int, *, critic: bool) -> None:
        super().__init__()
        self.down = (
            halvings((channels_in, *CRITIC_CHANNELS), leaky_relu, lambda c: nn.GroupNorm(1, c))
            if critic
            else halvings((channels_in, *CRITIC_CHANNELS), leaky_relu, group_norm)
        )
        self.end = nn.Linear(CRITIC_CHANNELS[-1] * math.prod(n // 8 for n in shape), n)

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b n"]:
        numbers: Tensor = self.end(self.down(x).flatten(1))
        return numbers.float()


class AlphaWGAN(Rival):
    """3D alpha-WGAN-GP with a mask; see the module."""

    name = "alpha-wgan"
    encoder: Downward
    generator: Generator
    critic: Downward
    code_critic: nn.Module

    def _parts(self, data: TrainingSet) -> Iterator[Part]:
        seen = 1 + self.n_masks + self.n_labels
        self.encoder = Downward(self.shape, 1, CODE, critic=False)
        self.generator = Generator(self.shape, self.n_masks, self.n_labels)
        self.critic = Downward(self.shape, seen, 1, critic=True)
        self.code_critic = nn.Sequential(
            nn.Linear(CODE, CODE_CRITIC_UNITS),
            leaky_relu(),
            nn.Linear(CODE_CRITIC_UNITS, CODE_CRITIC_UNITS),
            leaky_relu(),
            nn.Linear(CODE_CRITIC_UNITS, 1),
        )
        drawing = [self.encoder, self.generator]
        for network in (*drawing, self.critic, self.code_critic):
            guard_short_grids(network)
            fabric().to_device(network).train()
        optimisers = [
            torch.optim.Adam(
                [p for one in networks for p in one.parameters()], LEARNING_RATE, betas=BETAS
            )
            for networks in (drawing, [self.critic], [self.code_critic])
        ]
        yield Part("gan", 1.0, lambda: self._step(data.draw(BATCH), *optimisers))
        for network in drawing:
            network.eval().requires_grad_(False)

    def _step(
        self,
        batch: Batch,
        drawing: torch.optim.Optimizer,
        judging: torch.optim.Optimizer,
        judging_codes: torch.optim.Optimizer,
    ) -> dict[str, Tensor]:
        label = label_vector(batch.labels, self.n_labels)
        random_code = torch.randn(len(label), CODE, device=label.device)
        with fabric().autocast(), frozen(self.critic, self.code_critic):
            code = self.encoder(batch.images)
            again, new = self.generator(
                torch.cat([code, random_code]), label.repeat(2, 1), batch.masks.repeat(2, *[1] * 4)
            ).chunk(2)
            reconstruction = F.l1_loss(again, batch.images)
            verdicts = [self._verdict(fake, batch) for fake in (again, new)]
            loss = RECONSTRUCTION * reconstruction - sum(verdict.mean() for verdict in verdicts)
            loss = loss - self.code_critic(code).float().mean()
        descend(drawing, loss)
        again, new, code = again.detach(), new.detach(), code.detach()
        with fabric().autocast():
            distance = -2 * self._verdict(batch.images, batch).mean()
            distance = distance + sum(self._verdict(fake, batch).mean() for fake in (again, new))
        penalty = sum(
            gradient_penalty(lambda x: self._verdict(x, batch), batch.images, fake)
            for fake in (again, new)
        )
        descend(judging, distance + PENALTY * penalty)
        code_distance = self.code_critic(code).mean() - self.code_critic(random_code).mean()
        code_penalty = gradient_penalty(self.code_critic, random_code, code)
        descend(judging_codes, code_distance + PENALTY * code_penalty)
        return {
            "reconstruction": reconstruction,
            "distance": distance,
            "penalty": torch.as_tensor(penalty),
            "code_distance": code_distance,
        }

    def _verdict(self, images: ImageBatch, batch: Batch) -> Float[Tensor, "b 1"]:
        label = label_vector(batch.labels, self.n_labels)[..., None, None, None]
        constant = label.expand(-1, -1, *images.shape[2:])
        verdict: Tensor = self.critic(torch.cat([images, batch.masks, constant], dim=1))
        return verdict

    def _draw(
        self, masks: OneHotBatch, labels: Int[Tensor, " b"], generator: torch.Generator
    ) -> ImageBatch:
        code = draw_noise((len(labels), CODE), generator)
        with fabric().autocast():
            drawn: Tensor = self.generator(code, label_vector(labels, self.n_labels), masks)
        return drawn
