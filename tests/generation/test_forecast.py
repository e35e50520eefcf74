from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.config import Config, LoopConfig
from neonet3d.errors import InputError
from neonet3d.generation import forecast
from neonet3d.generation.forecast import MEASURED_STEPS, forecast_generator, forecast_stage

LOOP = LoopConfig(steps=50, batch_size=4, learning_rate=1e-3, weight_decay=0, ema_decay=0)
ON_CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="counts what the CPU keeps")


class Exponential(nn.Module):
    """Keeps exactly exp(weight), as large as the weight, for the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(100, 100))
        self.calls = 0

    def forward(self, label: Tensor) -> Tensor:
        self.calls += 1
        return self.weight.exp().sum()


@ON_CPU
def test_memory_is_batch_weights_their_companions_and_what_autograd_keeps() -> None:
    made = Exponential()
    found = forecast_stage("exp", lambda: made, lambda: [torch.zeros(4, dtype=torch.int64)], LOOP)
    weight, batch = 4 * 100 * 100, 4 * 8
    # Weight, average, gradient, two moments; exp(weight), which is kept.
    assert found.peak_bytes == 5 * weight + batch + weight
    assert made.calls == 1 + MEASURED_STEPS
    assert (found.name, found.steps) == ("exp", 50)
    assert found.seconds == pytest.approx(50 * found.seconds_per_step)


def test_the_warm_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0, 100, 200, 205, 300, 303, 400, 409])
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: float(next(ticks)))
    found = forecast_stage("exp", Exponential, lambda: [torch.zeros(4)], LOOP)
    assert found.seconds_per_step == 3


@pytest.fixture(scope="module")
def everyone(patients: Cohort) -> Fold:
    return Fold("fold-0", patients, patients.subset([]))


def test_each_trained_stage_is_measured_at_its_size(
    everyone: Fold, tiny_config: Callable[[int], Config]
) -> None:
    found = forecast_generator(everyone, tiny_config(0))
    names = [stage.name for stage in found.stages]
    trained = ["autoencoder", "flow U-Net", "ControlNet", "detail decoder"]
    assert names == [*trained, "mask autoencoder", "mask flow"]
    masks = tiny_config(0).masks
    of_masks = [masks.autoencoder.loop.steps, masks.flow.loop.steps]
    assert [stage.steps for stage in found.stages] == [3, 3, 3, 3, *of_masks]
    assert all(stage.seconds_per_step > 0 and stage.peak_bytes > 0 for stage in found.stages)
    assert (found.shape, found.cases) == ((24, 16, 16), 6)
    voxels, latent = 24 * 16 * 16, 4 * 6 * 4 * 4
    assert found.patch_bytes == 2 * 6 * voxels * 5
    shares = 4 * (len(everyone.training.schema) - 1) * 6 * 4 * 4
    assert found.latent_bytes == 16 * 6 * (2 * 4 * latent + voxels + shares)
    largest = max(stage.peak_bytes for stage in found.stages)
    assert found.peak_bytes == largest + found.patch_bytes + found.latent_bytes


def test_a_larger_batch_keeps_more(everyone: Fold, tiny_config: Callable[[int], Config]) -> None:
    small = tiny_config(0)
    loop = small.autoencoder.loop.model_copy(update={"batch_size": 8})
    large = small.model_copy(
        update={"autoencoder": small.autoencoder.model_copy(update={"loop": loop})}
    )
    one, four = (forecast_generator(everyone, config).stages[0] for config in (small, large))
    assert four.peak_bytes > 2 * one.peak_bytes


def test_cases_without_masks_are_refused(
    patients: Cohort, tiny_config: Callable[[int], Config], tmp_path: Path
) -> None:
    masks: dict[str, Any] = {c.name: c.mask_path for c in patients.cases[1:]}
    partly = patients.with_overlaid_masks(masks, patients.schema)
    with pytest.raises(InputError, match=r"1 training cases of .* have no mask"):
        forecast_generator(Fold("fold-0", partly, partly.subset([])), tiny_config(0))
