"""What a network with one logit is trained on."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

LABEL_SMOOTHING = 0.05


class LogitObjective(nn.Module):
    """Binary cross-entropy of one logit, or of each of several; the batch ends with the outcome."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *batch: Tensor) -> Tensor:
        *inputs, outcome = batch
        target = outcome.float() * (1 - LABEL_SMOOTHING) + 0.5 * LABEL_SMOOTHING
        logits = self.network(*inputs)
        return F.binary_cross_entropy_with_logits(logits, target.expand_as(logits))
