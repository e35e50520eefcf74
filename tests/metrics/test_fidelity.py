import numpy as np
import pytest

from neonet3d.metrics import fidelity
from neonet3d.metrics.fidelity import FidelityScore, fidelity_score


def score(shift: float, draw: int = 0) -> FidelityScore:
    rng = np.random.default_rng(draw)
    real = (rng.normal(size=(20, 1, 8)) + 0.5 * rng.normal(size=(20, 3, 8))).reshape(-1, 8)
    made = (rng.normal(size=(14, 1, 8)) + 0.5 * rng.normal(size=(14, 3, 8))).reshape(-1, 8)
    real_cases, made_cases = np.repeat(np.arange(20), 3), np.repeat(np.arange(14), 3)
    return fidelity_score(
        real,
        made + shift,
        real_groups=real_cases,
        synthetic_groups=made_cases,
        real_patients=real_cases,
        synthetic_patients=made_cases + 20,
        extractor="none",
        plane="axial",
        seed=0,
    )


def test_alike_is_near_its_floor_and_shifted_is_not() -> None:
    alike, shifted = score(0.0), score(2.0)  # seven cases on each side tell no small shift
    assert alike.kid_low < 0 < alike.kid_high
    assert alike.kid < alike.kid_floor < shifted.kid_low
    assert alike.fid == pytest.approx(alike.fid_floor, rel=0.5)
    assert alike.fid_low < alike.fid < alike.fid_high < shifted.fid_low
    assert alike.fid_floor_low < alike.fid_floor < alike.fid_floor_high
    assert shifted.fid > shifted.fid_floor + 3


def test_the_floor_of_kid_is_that_of_as_many_cases() -> None:
    """The quantile of KID between sets alike; that of halves is half as high again."""
    found = [score(0.0, draw) for draw in range(200)]
    distances, floors = ([getattr(one, name) for one in found] for name in ("kid", "kid_floor"))
    assert np.mean(floors) == pytest.approx(np.quantile(distances, 0.975), rel=0.25)


def test_says_what_it_was_measured_on() -> None:
    result = score(0.0)
    assert (result.n_real, result.n_synthetic, result.n_matched) == (20, 14, 7)
    assert (result.slices_per_case, result.extractor, result.plane) == (3, "none", "axial")
    assert result == score(0.0)


def test_offers_the_measures_by_name() -> None:
    assert all(hasattr(fidelity, name) for name in fidelity.__all__)
