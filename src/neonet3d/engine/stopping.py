"""Early stopping: the best averaged weights on inner validation patients, and when to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class EarlyStopping:
    """Handed to ``train_loop``, which evaluates it, and saves and restores its state.

    Attributes:
        score: of the objective as it stands, with averaged weights; higher is better.
        every: steps between two evaluations.
        patience: evaluations without a new best before training stops.
        best, best_step, since_best: what happened so far.
        weights: the averaged weights at the best step; empty before the first evaluation.
    """

    score: Callable[[], float]
    every: int
    patience: int
    best: float = -torch.inf
    best_step: int = 0
    since_best: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def record(self, value: float, step: int, average: dict[str, Tensor]) -> None:
        """Keep these weights if they are the best."""
        if value > self.best:
            self.best, self.best_step, self.since_best = value, step, 0
            self.weights = {name: tensor.clone() for name, tensor in average.items()}
        else:
            self.since_best += 1

    @property
    def exhausted(self) -> bool:
        return self.since_best >= self.patience

    def state(self) -> dict[str, Tensor]:
        """For the training state; ``restore`` reads it back."""
        history = torch.tensor([self.best, self.best_step, self.since_best], dtype=torch.float64)
        return {"stopping": history} | {
            f"best/{name}": tensor for name, tensor in self.weights.items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.best, best_step, since_best = tensors["stopping"].tolist()
        self.best_step, self.since_best = int(best_step), int(since_best)
        self.weights = {
            name.removeprefix("best/"): tensor
            for name, tensor in tensors.items()
            if name.startswith("best/")
        }
