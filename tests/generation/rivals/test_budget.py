from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from neonet3d.errors import InputError, RunError
from neonet3d.generation.rivals import budget as budget_module
from neonet3d.generation.rivals.budget import Budget, Part, train_parts


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(budget_module, "time", made)
    return made


def part(clock: Clock, name: str, share: float, seconds: float, value: float = 1.0) -> Part:
    def step() -> dict[str, torch.Tensor]:
        clock.now += seconds
        return {name: torch.tensor(value)}

    return Part(name, share, step)


def test_parts_share_the_seconds_and_no_step_is_begun_that_would_end_late(clock: Clock) -> None:
    parts = [part(clock, "first", 0.4, 1.0), part(clock, "second", 0.6, 2.5)]
    record = train_parts(parts, Budget(10), seed=0, rival="toy")
    assert record.steps == {"first": 3, "second": 2}  # 3 s of 4, then 5 s of 7
    assert record.seconds == 8


def test_what_makes_a_part_counts_as_its_time(clock: Clock) -> None:
    def parts() -> Iterator[Part]:
        clock.now += 1
        yield part(clock, "first", 0.5, 1.0)
        clock.now += 3
        yield part(clock, "second", 0.5, 0.5)

    record = train_parts(parts(), Budget(10), seed=0, rival="toy")
    assert record.steps == {"first": 3, "second": 5}  # 1 + 3 s, then 3 + 2.5 s
    assert record.seconds == 9.5


def test_a_budget_that_ends_before_the_first_step_is_an_error(clock: Clock) -> None:
    parts = [part(clock, "first", 0.5, 20.0), part(clock, "second", 0.5, 1.0)]
    with pytest.raises(RunError, match="over before the first step of the second"):
        train_parts(parts, Budget(10), seed=0, rival="toy")


def test_a_loss_that_is_not_finite_is_an_error(clock: Clock) -> None:
    with pytest.raises(RunError, match="the loss of the first became nan at step 0"):
        train_parts([part(clock, "first", 1.0, 1.0, math.nan)], Budget(10), seed=0, rival="toy")


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_seconds_must_be_a_positive_number(seconds: float) -> None:
    with pytest.raises(InputError, match="cannot train for"):
        Budget(seconds)


def test_losses_are_means_over_the_last_tenth(clock: Clock) -> None:
    values = iter(range(100))

    def step() -> dict[str, torch.Tensor]:
        clock.now += 0.125
        return {"loss": torch.tensor(float(next(values)))}

    record = train_parts([Part("only", 1.0, step)], Budget(5), seed=0, rival="toy")
    taken = record.steps["only"]
    assert 39 <= taken <= 40
    assert record.losses == {"loss": sum(range(taken - taken // 10, taken)) / (taken // 10)}


def test_the_randomness_of_a_step_is_a_function_of_seed_part_and_step(clock: Clock) -> None:
    def draws(seed: int, before: int) -> list[float]:
        found: list[float] = []

        def step() -> dict[str, torch.Tensor]:
            clock.now += 1
            found.append(float(torch.randn(())))
            torch.randn(before)
            return {"loss": torch.zeros(())}

        parts = [Part("first", 0.5, step), Part("second", 0.5, step)]
        train_parts(parts, Budget(8), seed=seed, rival="toy")
        return found

    assert draws(0, 3) == draws(0, 7)
    assert len(set(draws(0, 3)) | set(draws(1, 3))) == len(draws(0, 3)) + len(draws(1, 3))
