"""PattenNet: dual attention and anatomy-guided pooling on the maps of a frozen encoder.

The papers name the parts (frozen LDM encoder, 3D Dual Attention Blocks) and no sizes; the pooling
by regions is ours and is where the signal was in our measurements.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.classification.dual_attention import DualAttentionBlock
from neonet3d.config import ClassifierConfig
from neonet3d.generation.blocks import zero_initialised

Levels = tuple[Tensor, Tensor]  # at half and at quarter resolution


class PattenNet(nn.Module):
    """Logit of the outcome from frozen maps at half and quarter resolution.

    Three readings are added: a linear one of the frozen maps' statistics per region, a deeper one
    of the maps after Dual Attention Blocks, pooled by the same regions and by learned attention,
    and a linear one of the appearance factors' amplitudes (``generation/appearance.py``): how the
    patient differs from what the anatomy says.

    Buffers ``token_mean`` and ``token_std`` standardise the statistics; measured on training cases.
    """

    token_mean: Tensor
    token_std: Tensor

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        n_regions: int,
        n_amplitudes: int,
        config: ClassifierConfig,
    ) -> None:
        super().__init__()
        c = config.channels
        n_tokens = 2 * n_regions * (fine_channels + coarse_channels)
        self.register_buffer("token_mean", torch.zeros(n_tokens))
        self.register_buffer("token_std", torch.ones(n_tokens))
        self.frozen_reading = nn.Sequential(
            nn.Dropout(config.dropout), zero_initialised(nn.Linear(n_tokens, 1))
        )
        self.appearance_reading = (
            zero_initialised(nn.Linear(n_amplitudes, 1, bias=False)) if n_amplitudes else None
        )
        self.masks_as_channels = config.masks_as_channels
        extra = n_regions if config.masks_as_channels else 0
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(channels + extra, c, 1), DualAttentionBlock(c, config.attention)
            )
            for channels in (fine_channels, coarse_channels)
        )
        self.gaze = nn.ModuleList(nn.Conv3d(c, 1, 1) for _ in self.levels)
        pooled = 2 * (2 * n_regions + 1) * c
        self.deep_reading = nn.Sequential(
            nn.LayerNorm(pooled),
            nn.Dropout(config.dropout),
            nn.Linear(pooled, 2 * c),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * c, 1),
        )

    def forward(
        self,
        fine: Float[Tensor, "b f x y z"],
        coarse: Float[Tensor, "b g x/2 y/2 z/2"],
        fine_regions: Float[Tensor, "b r x y z"],
        coarse_regions: Float[Tensor, "b r x/2 y/2 z/2"],
        amplitudes: Float[Tensor, "b k"],
    ) -> Float[Tensor, " b"]:
        """Logit under balanced classes."""
        tokens = frozen_tokens(fine, coarse, fine_regions, coarse_regions)
        refined = self.refine((fine, coarse), (fine_regions, coarse_regions))
        return self.read(tokens, refined, (fine_regions, coarse_regions), amplitudes)

    def refine(self, maps: Levels, regions: Levels) -> Levels:
        """The maps of both levels after their Dual Attention Blocks, float32."""
        fine, coarse = (
            level(torch.cat([seen, where], dim=1) if self.masks_as_channels else seen).float()
            for seen, where, level in zip(maps, regions, self.levels, strict=True)
        )
        return fine, coarse

    def gaze_weights(self, refined: Levels) -> Levels:
        """How much of its learned pooling each voxel of either level has; sums to 1 in each."""
        fine, coarse = (
            gaze(level).float().flatten(1).softmax(1).view(len(level), 1, *level.shape[2:])
            for level, gaze in zip(refined, self.gaze, strict=True)
        )
        return fine, coarse

    def read(
        self,
        tokens: Float[Tensor, "b t"],
        refined: Levels,
        regions: Levels,
        amplitudes: Float[Tensor, "b k"],
    ) -> Float[Tensor, " b"]:
        """All readings, added."""
        tokens = ((tokens - self.token_mean) / self.token_std).clamp(-5, 5)
        pooled = []
        for level, where, weight in zip(refined, regions, self.gaze_weights(refined), strict=True):
            pooled.append(region_statistics(level, where))
            pooled.append(torch.einsum("bcxyz,bqxyz->bc", level, weight))
        logit: Tensor = self.frozen_reading(tokens) + self.deep_reading(torch.cat(pooled, dim=1))
        if self.appearance_reading is not None:
            logit = logit + self.appearance_reading(amplitudes.clamp(-4, 4))
        return logit[:, 0].float()


class PattenEnsemble(nn.Module):
    """PattenNets that differ by their first weights; their logits are averaged."""

    prior_logit: Tensor

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        n_regions: int,
        n_amplitudes: int,
        config: ClassifierConfig,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            PattenNet(fine_channels, coarse_channels, n_regions, n_amplitudes, config)
            for _ in range(config.members)
        )
        self.register_buffer("prior_logit", torch.zeros(()))

    def standardise_tokens(self, tokens: Float[Tensor, "n t"]) -> None:
        """Measure the statistics' mean and deviation on the training cases."""
        for member in self.members:
            assert isinstance(member, PattenNet)
            member.token_mean.copy_(tokens.mean(0))
            member.token_std.copy_(tokens.std(0).clamp_min(1e-4))

    def forward(self, *maps: Tensor) -> Float[Tensor, "k b"]:
        """Logit of each member, from the arguments of ``PattenNet.forward``."""
        return torch.stack([member(*maps) for member in self.members])

    def probability(self, logit: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Training draws classes 1:1; the log odds of the training prevalence are added back."""
        return torch.sigmoid(logit + self.prior_logit)


def region_statistics(
    maps: Float[Tensor, "b c x y z"], regions: Float[Tensor, "b r x y z"]
) -> Float[Tensor, "b 2*r*c"]:
    """Mean and standard deviation of every channel in every region; 0 where a region is empty."""
    maps, regions = maps.float().flatten(2), regions.flatten(2)
    weight = regions / regions.sum(2, keepdim=True).clamp_min(1e-6)
    mean = torch.einsum("bcn,brn->brc", maps, weight)
    square = torch.einsum("bcn,brn->brc", maps.square(), weight)
    deviation = (square - mean.square()).clamp_min(1e-8).sqrt()
    return torch.cat([mean, deviation], dim=2).flatten(1)


def frozen_tokens(
    fine: Float[Tensor, "b f x y z"],
    coarse: Float[Tensor, "b g x/2 y/2 z/2"],
    fine_regions: Float[Tensor, "b r x y z"],
    coarse_regions: Float[Tensor, "b r x/2 y/2 z/2"],
) -> Float[Tensor, "b t"]:
    """Statistics of the encoder's own maps per region, both levels."""
    return torch.cat(
        [region_statistics(fine, fine_regions), region_statistics(coarse, coarse_regions)], dim=1
    )
