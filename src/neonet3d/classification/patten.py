"""PattenNet: dual attention and anatomy-guided pooling on what a frozen encoder says.

The papers name the parts (frozen LDM encoder, 3D Dual Attention Blocks) and no sizes. Two readings
are added, each trained by itself, so that a deep one that knows its training cases by heart does
not leave the linear one without a gradient. That, the pooling by regions, and reading residuals
instead of the encoder's maps are ours, and are where the signal was in our measurements.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.classification.dual_attention import DualAttentionBlock
from neonet3d.config import ClassifierConfig

Levels = tuple[Tensor, ...]  # (b, c, x, y, z) each, the finest first
AMPLITUDE_LIMIT = 4.0  # deviations; one that is further off says no more


class PattenNet(nn.Module):
    """Logit of the outcome from frozen features (``features.py``) at one resolution or more.

    The deep reading: each level through a Dual Attention Block, beside what comes down from the
    finer level, pooled by the regions of the anatomy and by learned attention. The appearance
    reading: linear in the amplitudes of the appearance factors (``generation/appearance.py``),
    fitted in closed form.

    Buffers: ``appearance_weight`` (k,), ``appearance_bias``.
    """

    appearance_weight: Tensor
    appearance_bias: Tensor

    def __init__(
        self,
        channels: tuple[int, ...],
        n_distances: int,
        n_regions: int,
        n_amplitudes: int,
        config: ClassifierConfig,
    ) -> None:
        """Of levels with these channels; without levels it has no deep reading."""
        super().__init__()
        widths = [config.channels * 2**i for i in range(len(channels))]
        self.enter = nn.ModuleList(
            nn.Conv3d(seen + n_distances, width, 1)
            for seen, width in zip(channels, widths, strict=True)
        )
        self.down = nn.ModuleList(
            nn.Conv3d(width, 2 * width, 2, stride=2) for width in widths[: len(widths) - 1]
        )
        self.blocks = nn.ModuleList(DualAttentionBlock(w, config.attention) for w in widths)
        self.gaze = nn.ModuleList(nn.Conv3d(width, 1, 1) for width in widths)
        pooled, hidden = (2 * n_regions + 1) * sum(widths), 2 * config.channels
        self.head = (
            nn.Sequential(
                nn.LayerNorm(pooled),
                nn.Dropout(config.dropout),
                nn.Linear(pooled, hidden),
                nn.SiLU(),
                nn.Dropout(config.dropout),
                nn.Linear(hidden, 1),
            )
            if widths
            else None
        )
        self.register_buffer("appearance_weight", torch.zeros(n_amplitudes))
        self.register_buffer("appearance_bias", torch.zeros(()))

    def forward(self, *inputs: Tensor) -> Float[Tensor, " b"]:
        """Logit under balanced classes: both readings, added.

        Args:
            inputs: of ``FrozenFeatures.batch``: levels, distances and regions on their grids,
                amplitudes.
        """
        levels, regions, amplitudes = self.unpacked(inputs)
        return self.deep(self.refine(levels), regions, len(amplitudes)) + self.appearance(
            amplitudes
        )

    def unpacked(self, inputs: tuple[Tensor, ...]) -> tuple[Levels, Levels, Tensor]:
        """Levels with the distances beside them, regions, and amplitudes of the flat inputs."""
        n = len(inputs) // 3
        levels = zip(inputs[:n], inputs[n : 2 * n], strict=True)
        return tuple(torch.cat(both, dim=1) for both in levels), inputs[2 * n : 3 * n], inputs[-1]

    def appearance(self, amplitudes: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
        """0 where it reads none."""
        if len(self.appearance_weight) == 0:
            return amplitudes.new_zeros(len(amplitudes))
        bounded = amplitudes.clamp(-AMPLITUDE_LIMIT, AMPLITUDE_LIMIT)
        return bounded @ self.appearance_weight + self.appearance_bias

    def refine(self, levels: Levels) -> Levels:
        """The maps of each level after its Dual Attention Block, float32."""
        refined: list[Tensor] = []
        for i, (enter, block) in enumerate(zip(self.enter, self.blocks, strict=True)):
            h = enter(levels[i])
            if refined:
                h = h + self.down[i - 1](refined[-1])
            refined.append(block(h).float())
        return tuple(refined)

    def gaze_weights(self, refined: Levels) -> Levels:
        """How much of its learned pooling each voxel of each level has; sums to 1 in each."""
        return tuple(
            gaze(level).float().flatten(1).softmax(1).view(len(level), 1, *level.shape[2:])
            for level, gaze in zip(refined, self.gaze, strict=True)
        )

    def deep(self, refined: Levels, regions: Levels, n: int) -> Float[Tensor, " b"]:
        """Of the refined maps of n cases; 0 without levels."""
        if self.head is None:
            return self.appearance_bias.new_zeros(n)
        pooled = []
        for level, where, weight in zip(refined, regions, self.gaze_weights(refined), strict=True):
            pooled.append(region_statistics(level, where))
            pooled.append(torch.einsum("bcxyz,bqxyz->bc", level, weight))
        logit: Tensor = self.head(torch.cat(pooled, dim=1))
        return logit[:, 0].float()


class PattenEnsemble(nn.Module):
    """PattenNets that each left out another part of the training cases; their logits are averaged.

    Buffers: ``prior_logit``, the log odds of the prevalence among real training cases.
    """

    prior_logit: Tensor

    def __init__(
        self,
        n_members: int,
        channels: tuple[int, ...],
        n_distances: int,
        n_regions: int,
        n_amplitudes: int,
        config: ClassifierConfig,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            PattenNet(channels, n_distances, n_regions, n_amplitudes, config)
            for _ in range(n_members)
        )
        self.register_buffer("prior_logit", torch.zeros(()))

    def forward(self, *inputs: Tensor) -> Float[Tensor, "k b"]:
        """Logit of each member for the same cases, from the arguments of ``PattenNet.forward``."""
        return torch.stack([member(*inputs) for member in self.members])

    def deep_apart(self, *inputs: Tensor) -> Float[Tensor, "k b"]:
        """Deep logit of each member for cases of its own: the first b rows are the first's."""
        parts = [part.chunk(len(self.members)) for part in inputs]
        logits = []
        for member, own in zip(self.members, zip(*parts, strict=True), strict=True):
            assert isinstance(member, PattenNet)
            levels, regions, amplitudes = member.unpacked(own)
            logits.append(member.deep(member.refine(levels), regions, len(amplitudes)))
        return torch.stack(logits)


def region_statistics(
    maps: Float[Tensor, "b c x y z"], regions: Float[Tensor, "b r x y z"]
) -> Float[Tensor, "b 2*r*c"]:
    """Mean and standard deviation of every channel in every region; about 0 where it is empty."""
    maps, regions = maps.float().flatten(2), regions.flatten(2)
    weight = regions / regions.sum(2, keepdim=True).clamp_min(1e-6)
    mean = torch.einsum("bcn,brn->brc", maps, weight)
    square = torch.einsum("bcn,brn->brc", maps.square(), weight)
    deviation = (square - mean.square()).clamp_min(1e-8).sqrt()
    return torch.cat([mean, deviation], dim=2).flatten(1)
