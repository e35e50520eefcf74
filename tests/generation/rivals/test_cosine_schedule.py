from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from neonet3d.generation.rivals.cosine_schedule import (
    kept_variance,
    noised,
    step_back,
    visited_times,
)


def test_golden_values_of_the_published_schedule() -> None:
    """Betas of 250 times as the authors' code computes them (``linspace(0, 251, 251) / 251``)."""
    kept = kept_variance(250)
    beta = 1 - kept / torch.cat([torch.ones(1, dtype=kept.dtype), kept[:-1]])
    golden = {
        0: 0.000194268797,
        9: 0.000894784214,
        124: 0.0124663146,
        200: 0.0383598962,
        248: 0.749990286,
    }
    for time, value in golden.items():
        assert float(beta[time]) == pytest.approx(value, rel=1e-6)


def test_the_middle_is_a_cosine() -> None:
    kept = kept_variance(250)

    def f(u: float) -> float:
        return math.cos(math.pi / 2 * (u / 250 + 0.008) / 1.008) ** 2

    assert float(kept[124]) == pytest.approx(f(125) / f(0), rel=1e-12)
    assert bool((kept[1:] < kept[:-1]).all())


def test_visited_times_are_evenly_spaced_from_the_last_to_the_first() -> None:
    assert visited_times(250, 250).tolist() == list(range(249, -1, -1))
    times = visited_times(250, 50)
    assert (int(times[0]), int(times[-1]), len(times)) == (249, 0, 50)
    assert set((times[:-1] - times[1:]).tolist()) == {5, 6}


def test_the_last_step_gives_the_image_of_a_right_prediction() -> None:
    torch.manual_seed(0)
    image, noise = torch.rand(2, 1, 3, 3, 3) * 2 - 1, torch.randn(2, 1, 3, 3, 3)
    x = noised(image, noise, torch.full((2,), 0.4))
    returned = step_back(x, noise, 0.4, 1.0, torch.randn_like(x))
    torch.testing.assert_close(returned, image)
    wild = step_back(x, -20 * noise, 0.4, 1.0, torch.randn_like(x))
    assert float(wild.abs().max()) <= 1


def test_steps_back_keep_the_distribution_of_a_known_image() -> None:
    """x_t of one image is normal; so is what a right prediction leads back to."""
    torch.manual_seed(0)
    kept, image = kept_variance(250), torch.full((1, 1, 40, 40, 40), 0.5)
    x = noised(image, torch.randn_like(image), kept[200:201])
    times = [200, 160, 120, 60]
    for time, after in pairwise(times):
        a = float(kept[time])
        predicted = (x - math.sqrt(a) * image) / math.sqrt(1 - a)
        x = step_back(x, predicted, a, float(kept[after]), torch.randn_like(x))
    assert float(x.mean()) == pytest.approx(0.5 * math.sqrt(float(kept[60])), abs=0.01)
    assert float(x.var()) == pytest.approx(1 - float(kept[60]), rel=0.03)
