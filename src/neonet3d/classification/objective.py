"""What a network with one logit is trained on."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

LABEL_SMOOTHING = 0.05


class LogitObjective(nn.Module):
    """Binary cross-entropy of one logit, or of each of several.

    The batch ends with the outcome and how much each case counts.

    Args:
        log_odds: of the outcome among what is drawn, beside what the network says (``Draws``).
    """

    def __init__(self, network: nn.Module, log_odds: float) -> None:
        super().__init__()
        self.network = network
        self.log_odds = log_odds

    def forward(self, *batch: Tensor) -> Tensor:
        *inputs, outcome, importance = batch
        target = outcome.float() * (1 - LABEL_SMOOTHING) + 0.5 * LABEL_SMOOTHING
        logits = self.network(*inputs) + self.log_odds
        weight = importance.float().expand_as(logits)
        return F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), weight)
