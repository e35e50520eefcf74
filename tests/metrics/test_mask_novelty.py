from __future__ import annotations

import numpy as np
import pytest

from neonet3d.errors import InputError
from neonet3d.metrics.mask_novelty import mask_novelty, mean_dice
from neonet3d.metrics.overlap import dice


def maps(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (n, 4, 5, 6)).astype(np.uint8)


def test_all_pairs_are_as_one_by_one() -> None:
    first, second = maps(3, 0), maps(2, 1)
    first[first == 3] = 0
    second[0][second[0] == 3] = 0  # a class that neither of a pair holds
    found = mean_dice(first, second, 4)
    labels = {"a": 1, "b": 2, "c": 3}
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            expected = np.nanmean(list(dice(a, b, labels).values()))
            assert found[i, j] == pytest.approx(expected, rel=1e-6)


def test_empty_maps_are_alike() -> None:
    assert mean_dice(np.zeros((1, 2, 2, 2), np.uint8), np.zeros((1, 2, 2, 2), np.uint8), 3) == 1


def test_a_copy_is_found_and_the_own_patient_does_not_count() -> None:
    training = maps(4, 2)
    training[1] = training[0]  # the second scan of the first patient
    found = mask_novelty(np.stack([training[2], maps(1, 9)[0]]), training, ["a", "a", "b", "c"], 4)
    assert found.drawn[0] == pytest.approx(1)
    assert found.drawn[1] < 0.5
    assert (found.training < 0.5).all()


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(4, 5, 6\).*\(4, 5\b"):
        mask_novelty(maps(1, 0), maps(2, 1)[..., :5], ["a", "b"], 4)
    with pytest.raises(InputError, match="one patient"):
        mask_novelty(maps(1, 0), maps(2, 1), ["a", "a"], 4)
