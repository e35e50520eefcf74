from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from neonet3d.config import LoopConfig
from neonet3d.engine import loop
from neonet3d.engine.loop import seeded, train_loop
from neonet3d.engine.stopping import EarlyStopping


class KilledError(Exception):
    """Stands for a power cut."""


class Objective(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.head(x)[:, 0] - x.sum(1)).square().mean()


CONFIG = LoopConfig(steps=12, batch_size=4, learning_rate=0.1, weight_decay=0, ema_decay=0.9)


def draw(generator: torch.Generator) -> Sequence[Tensor]:
    return [torch.randn(4, 3, generator=generator)]


def scores(values: Sequence[float]) -> Iterator[float]:
    yield from values


def train(folder: Path, values: Sequence[float], patience: int) -> tuple[nn.Module, EarlyStopping]:
    given = scores(values)
    stopping = EarlyStopping(score=lambda: next(given), every=2, patience=patience)
    objective = seeded(0, Objective)
    train_loop(
        objective, draw, CONFIG, folder=folder, seed=0, description="test", stopping=stopping
    )
    return objective, stopping


def test_the_best_weights_are_left(tmp_path: Path) -> None:
    """What is left at a best of step 4 are the averages of a loop that was scored then."""
    objective, stopping = train(tmp_path / "a", [0.1, 0.9, 0.3, 0.2, 0.1, 0.0], patience=9)
    assert (stopping.best, stopping.best_step) == (0.9, 4)
    rising, _ = train(tmp_path / "b", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], patience=9)
    assert torch.equal(objective.head.weight, stopping.weights["head.weight"])  # type: ignore[union-attr, arg-type]
    assert not torch.equal(objective.head.weight, rising.head.weight)  # type: ignore[union-attr, arg-type]


def test_it_stops_when_patience_ends(tmp_path: Path) -> None:
    train(tmp_path, [0.5, 0.4, 0.3, 0.9, 0.9, 0.9], patience=2)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert max(steps) == 6
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["validation"] for r in logged if "validation" in r] == [0.5, 0.4, 0.3]


@pytest.mark.parametrize("killed_at", [3, 5])
def test_a_killed_loop_remembers_its_best(
    killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def objective_score(objective: nn.Module) -> float:
        return -abs(float(next(objective.parameters()).detach().sum()) - 1.0)

    def run(folder: Path, steps_before_death: int | None) -> nn.Module:
        objective, done = seeded(0, Objective), 0

        def dying(generator: torch.Generator) -> Sequence[Tensor]:
            nonlocal done
            if done == steps_before_death:
                raise KilledError
            done += 1
            return draw(generator)

        stopping = EarlyStopping(lambda: objective_score(objective), every=2, patience=2)
        train_loop(
            objective, dying, CONFIG, folder=folder, seed=0, description="test", stopping=stopping
        )
        return objective

    whole = safetensors.torch.save(run(tmp_path / "whole", None).state_dict())
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", killed_at)
    assert safetensors.torch.save(run(tmp_path / "killed", None).state_dict()) == whole
