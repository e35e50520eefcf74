"""Ridge regression on more rows than memory holds: the closed forms of the generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class RidgeRegression:
    """Least squares with a penalty, from the sums of what it was shown; sums are float64.

    Args:
        penalty: on the squared weights, as a share of the number of rows.
    """

    def __init__(self, n_features: int, n_targets: int, penalty: float) -> None:
        self.penalty = penalty
        self.rows = 0
        self._gram = torch.zeros(n_features, n_features, dtype=torch.float64)
        self._moment = torch.zeros(n_features, n_targets, dtype=torch.float64)

    def add(self, features: Float[Tensor, "*b f"], targets: Float[Tensor, "*b c"]) -> None:
        """Show it more rows."""
        features = features.reshape(-1, features.shape[-1]).float()
        targets = targets.reshape(-1, targets.shape[-1]).float()
        self._gram += (features.T @ features).cpu().double()
        self._moment += (features.T @ targets).cpu().double()
        self.rows += len(features)

    def solve(self) -> Float[Tensor, "f c"]:
        """The weights: targets = features @ weights."""
        penalty = self.penalty * self.rows * torch.eye(len(self._gram), dtype=torch.float64)
        return torch.linalg.solve(self._gram + penalty, self._moment).float()


def neighbourhood(x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b x y z 27*c"]:
    """Every voxel's 3x3x3 neighbours as features, channel by channel; borders are repeated."""
    padded = F.pad(x, (1,) * 6, mode="replicate")
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)
    return around.movedim(1, -4).flatten(-4)
