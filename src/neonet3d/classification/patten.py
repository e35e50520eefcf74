"""PattenNet: dual attention and anatomy-guided pooling on the maps of a frozen encoder.

The papers name the parts (frozen LDM encoder, 3D Dual Attention Blocks) and no sizes; the pooling
by regions is ours and is where the signal was in our measurements.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.config import ClassifierConfig
from neonet3d.generation.blocks import zero_initialised


class DualAttentionBlock(nn.Module):
    """Residual 3D convolutions, then channel and spatial attention, each applied as x (1 + w).

    Channel attention: average- and max-pooled descriptors through a shared MLP. Spatial attention:
    channel mean and max through a 3x3x3 convolution (CBAM, Woo 2018, in 3D).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.GroupNorm(4, channels),
            nn.SiLU(),
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.GroupNorm(4, channels),
        )
        self.channel_mlp = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.SiLU(), nn.Linear(channels // 4, channels)
        )
        self.spatial = nn.Conv3d(2, 1, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c x y z"]:
        x = F.silu(x + self.convolutions(x))
        x = x * (1 + self.channel_attention(x)[..., None, None, None])
        return x * (1 + self.spatial_attention(x))

    def channel_attention(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c"]:
        return torch.sigmoid(
            self.channel_mlp(x.mean((2, 3, 4))) + self.channel_mlp(x.amax((2, 3, 4)))
        )

    def spatial_attention(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b 1 x y z"]:
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.spatial(summary))


class PattenNet(nn.Module):
    """Logit of the outcome from frozen maps at half and quarter resolution.

    Two readings are added: a linear one of the frozen maps' statistics per region, and a deeper one
    of the maps after Dual Attention Blocks, pooled by the same regions and by learned attention.
    """

    token_mean: Tensor
    token_std: Tensor
    prior_logit: Tensor

    def __init__(
        self, fine_channels: int, coarse_channels: int, n_regions: int, config: ClassifierConfig
    ) -> None:
        super().__init__()
        c = config.channels
        n_tokens = 2 * n_regions * (fine_channels + coarse_channels)
        self.register_buffer("token_mean", torch.zeros(n_tokens))
        self.register_buffer("token_std", torch.ones(n_tokens))
        self.register_buffer("prior_logit", torch.zeros(()))
        self.frozen_reading = nn.Sequential(
            nn.Dropout(config.dropout), zero_initialised(nn.Linear(n_tokens, 1))
        )
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv3d(channels, c, 1), DualAttentionBlock(c))
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
    ) -> Float[Tensor, " b"]:
        """Logit under balanced classes; ``probability`` puts the prevalence back."""
        tokens = frozen_tokens(fine, coarse, fine_regions, coarse_regions) - self.token_mean
        tokens = (tokens / self.token_std).clamp(-5, 5)
        pooled = []
        for maps, regions, level, gaze in zip(
            (fine, coarse), (fine_regions, coarse_regions), self.levels, self.gaze, strict=True
        ):
            refined = level(maps).float()
            weight = gaze(refined).float().flatten(1).softmax(1)
            pooled.append(region_statistics(refined, regions))
            pooled.append(torch.einsum("bcn,bn->bc", refined.flatten(2), weight))
        logit: Tensor = self.frozen_reading(tokens) + self.deep_reading(torch.cat(pooled, dim=1))
        return logit[:, 0].float()

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
