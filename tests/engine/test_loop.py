from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from neonet3d.config import LoopConfig
from neonet3d.engine import loop
from neonet3d.engine.loop import (
    FINAL_LEARNING_RATE,
    learning_rate,
    remove_training_state,
    seeded,
    step_seed,
    train_loop,
)
from neonet3d.errors import RunError


class KilledError(Exception):
    """Stands for a power cut."""


class Objective(nn.Module):
    """Every kind of state that a loop must keep: buffers, dropout, noise, a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 8).requires_grad_(False)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.dropout(self.norm(self.frozen(x).float() + 0.1 * torch.randn(len(x), 8)))
        return (self.head(h)[:, 0].float() - y).square().mean()


def draw(generator: torch.Generator) -> Sequence[Tensor]:
    x = torch.randn(4, 4, generator=generator)
    return [x, x.sum(1)]


def weights(objective: nn.Module) -> bytes:
    return safetensors.torch.save(dict(objective.state_dict()))


def train(folder: Path, config: LoopConfig, *, seed: int = 3, draw_batch=draw) -> nn.Module:  # type: ignore[no-untyped-def]
    objective = seeded(1, Objective)
    train_loop(objective, draw_batch, config, folder=folder, seed=seed, description="test")
    return objective


@pytest.mark.parametrize("killed_at", [1, 5, 11])
def test_a_killed_loop_ends_in_the_same_bytes(
    killed_at: int, tmp_path: Path, loop_config: LoopConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(train(tmp_path / "whole", loop_config))
    assert not (tmp_path / "whole" / ".state.safetensors").exists()

    steps = 0

    def dies(generator: torch.Generator) -> Sequence[Tensor]:
        nonlocal steps
        if steps == killed_at:
            raise KilledError
        steps += 1
        return draw(generator)

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", loop_config, draw_batch=dies)
    torch.manual_seed(99)  # whatever came between
    resumed = train(tmp_path / "killed", loop_config)
    assert weights(resumed) == whole
    logs = [(tmp_path / name / "log.jsonl").read_bytes() for name in ("whole", "killed")]
    assert logs[0] == logs[1]
    assert not any(path.name.endswith(".tmp") for path in (tmp_path / "killed").iterdir())


def test_killed_between_the_last_step_and_the_artefact(
    tmp_path: Path, loop_config: LoopConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    whole = weights(train(tmp_path, loop_config))
    objective = seeded(1, Objective)
    loss = train_loop(objective, draw, loop_config, folder=tmp_path, seed=3, description="test")
    assert math.isfinite(loss)  # remembered, so that model.json is the same bytes too
    assert weights(objective) == whole
    remove_training_state(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
    remove_training_state(tmp_path)


def test_equal_seeds_give_equal_bytes(tmp_path: Path, loop_config: LoopConfig) -> None:
    first = weights(train(tmp_path / "a", loop_config))
    torch.manual_seed(123)
    assert weights(train(tmp_path / "b", loop_config)) == first
    assert weights(train(tmp_path / "c", loop_config, seed=4)) != first


def test_frozen_parameters_stay_and_the_model_rests(
    tmp_path: Path, loop_config: LoopConfig
) -> None:
    before, after = seeded(1, Objective), train(tmp_path, loop_config)
    for name, value in before.frozen.named_parameters():
        assert torch.equal(after.get_parameter(f"frozen.{name}"), value)
    assert not torch.equal(after.get_parameter("head.weight"), before.head.weight)
    assert not after.training


class Fit(nn.Module):
    """|w - 1|^2 for one number."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(float(self.w.detach()))
        return (self.w - 1).square().sum()


def test_it_leaves_the_average_of_the_weights(tmp_path: Path) -> None:
    base = LoopConfig(steps=30, batch_size=1, learning_rate=0.05, weight_decay=0, ema_decay=0.8)
    batch = [torch.zeros(1)]
    last, averaged, once_more = Fit(), Fit(), Fit()
    for model, decay, name in ((last, 0.0, "a"), (averaged, 0.8, "b")):
        config = base.model_copy(update={"ema_decay": decay})
        train_loop(model, lambda g: batch, config, folder=tmp_path / name, seed=0, description="t")
    # Without an average the weights after step k are those seen at step k + 1, and the last.
    after = [*last.seen[1:], float(last.w.detach())]
    assert averaged.seen == last.seen
    average = 0.0
    for step, value in enumerate(after):
        decay = min(0.8, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    assert float(averaged.w.detach()) == pytest.approx(average, rel=1e-5)

    # The loss that comes back is the mean over the last tenth of the steps.
    loss = train_loop(
        once_more, lambda g: batch, base, folder=tmp_path / "c", seed=0, description="t"
    )
    assert loss == pytest.approx(sum((w - 1) ** 2 for w in last.seen[-3:]) / 3, rel=1e-4)


class Breaks(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.value = value
        self.step = 0

    def forward(self, x: Tensor) -> Tensor:
        self.step += 1
        return self.w.sum() * (self.value if self.step == 4 else 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step(
    value: float, tmp_path: Path, loop_config: LoopConfig
) -> None:
    sentence = "fold-1: flow: the loss became (nan|inf) at step 3"
    with pytest.raises(RunError, match=sentence):
        train_loop(
            Breaks(value),
            lambda g: [torch.zeros(1)],
            loop_config,
            folder=tmp_path,
            seed=0,
            description="fold-1: flow",
        )


def test_losses_are_logged(tmp_path: Path, loop_config: LoopConfig) -> None:
    train(tmp_path, loop_config.model_copy(update={"steps": 120}))
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(2, 121, 2))
    assert records[0].keys() == {"stage", "step", "loss"}


def test_the_schedule_is_the_closed_form() -> None:
    config = LoopConfig(steps=200, batch_size=1, learning_rate=0.3, weight_decay=0, ema_decay=0)
    rates = [learning_rate(step, config) for step in range(200)]
    assert rates[:10] == pytest.approx([0.3 * k / 10 for k in range(1, 11)])
    assert rates[10] == pytest.approx(0.3)
    middle = FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) / 2
    assert rates[105] == pytest.approx(0.3 * middle)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert learning_rate(200, config) == pytest.approx(0.3 * FINAL_LEARNING_RATE)
    assert learning_rate(0, config.model_copy(update={"steps": 1})) == pytest.approx(0.3)


def test_seeds_of_steps_do_not_meet() -> None:
    seeds = {step_seed(seed, step) for seed in range(5) for step in range(2000)}
    assert len(seeds) == 10_000
    assert 0 <= step_seed(2**62, 10**6) < 2**63


def test_seeded_is_a_function_of_the_seed() -> None:
    first, again, other = (seeded(seed, lambda: nn.Linear(3, 3)).weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
