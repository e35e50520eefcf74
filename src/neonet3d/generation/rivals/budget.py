"""Training for so many seconds: the clock, and the one loop that every rival's parts run in."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from neonet3d.engine.loop import step_seed
from neonet3d.errors import InputError, RunError


class RivalFailedError(RunError):
    """A rival that diverged, or that its seconds were too short for."""


class Budget:
    """Wall-clock seconds from its making on; parts take their shares one after the other.

    Raises:
        InputError: seconds that are not a positive number.
    """

    def __init__(self, seconds: float) -> None:
        if not 0 < seconds < math.inf:
            raise InputError(f"A rival cannot train for {seconds} seconds. Give it more than 0.")
        self.seconds = seconds
        self._granted, self._started = 0.0, time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the making."""
        return time.perf_counter() - self._started

    def steps(self, share: float) -> Iterator[int]:
        """0, 1, 2, ... until this share of the seconds, beside those before it, is spent.

        A step that would end late, were it as long as the others of its part, is not begun.
        """
        self._granted += share
        until, began, step = self._granted * self.seconds, self.elapsed, 0
        while (now := self.elapsed) + (now - began) / max(step, 1) < until:
            yield step
            step += 1


@dataclass(frozen=True)
class Part:
    """What trains at one time.

    Attributes:
        name: for the record, such as ``autoencoder``.
        share: of the budget, in (0, 1].
        step: takes one training step and gives its losses by name.
    """

    name: str
    share: float
    step: Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class RivalRecord:
    """What a training did.

    Attributes:
        steps: of each part.
        losses: the mean of each loss over the last tenth of its part's steps.
        seconds: of everything, by the wall clock.
    """

    steps: dict[str, int]
    losses: dict[str, float]
    seconds: float


def train_parts(parts: Iterable[Part], budget: Budget, *, seed: int, rival: str) -> RivalRecord:
    """Train each part for its share; what makes the next part counts as the next part's time.

    The randomness of step k of a part is a function of (seed, part, k) alone, so weights after k
    steps do not depend on the speed of the machine; how many steps there are does.

    Raises:
        RivalFailedError: a loss is not finite, or a part's time is over before its first step.
    """
    steps: dict[str, int] = {}
    losses: dict[str, float] = {}
    for number, part in enumerate(parts):
        found: list[dict[str, float]] = []
        for step in budget.steps(part.share):
            torch.manual_seed(step_seed(step_seed(seed, number), step))
            found.append({name: float(loss.detach()) for name, loss in part.step().items()})
            for name, value in found[-1].items():
                if not math.isfinite(value):
                    raise RivalFailedError(
                        f"{rival}: the loss of the {name} became {value} at step {step} of the "
                        f"{part.name}. Try another seed, or check the cohort for extreme values."
                    )
        if not found:
            raise RivalFailedError(
                f"{rival}: the {budget.seconds:g} seconds were over before the first step of the "
                f"{part.name}. Give it more."
            )
        steps[part.name] = len(found)
        last = found[-max(1, len(found) // 10) :]
        losses |= {name: sum(values[name] for values in last) / len(last) for name in last[0]}
    return RivalRecord(steps, losses, budget.elapsed)
