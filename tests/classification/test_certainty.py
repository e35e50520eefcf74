"""Certainty: calibration, sets and familiarity against cases whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neonet3d.classification.certainty import COVERAGE, UNFAMILIAR, Certainty
from neonet3d.classification.training_set import one_of_each
from neonet3d.metrics.recalibration import TEMPERATURES

N = 3000


def cases(n: int, seed: int, *, too_sure: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits under balanced classes of an outcome of prevalence 0.2, too sure by a factor."""
    rng = np.random.default_rng(seed)
    outcomes = (rng.random(n) < 0.2).astype(np.int64)
    seen = rng.normal(np.where(outcomes == 1, 1.0, -1.0), 1.0)
    logits = 2 * seen  # of two normals one deviation off zero
    return too_sure * logits, outcomes, rng.normal(size=(n, 4)) * [1, 2, 3, 0.1]


def fitted(too_sure: float = 1.0, n: int = N) -> Certainty:
    logits, outcomes, traits = cases(n, 0, too_sure=too_sure)
    found = Certainty(n, 4)
    found.fit(logits, outcomes, traits, np.arange(n) % 5)
    return found


@pytest.mark.parametrize("too_sure", [1.0, 3.0])
def test_probabilities_are_right_at_the_prevalence(too_sure: float) -> None:
    certainty = fitted(too_sure)
    logits, outcomes, _ = cases(20_000, 1, too_sure=too_sure)
    probability = certainty.probability(logits)
    assert probability.mean() == pytest.approx(outcomes.mean(), abs=0.02)
    truth = 1 / (1 + np.exp(-(logits / too_sure + np.log(0.25))))
    assert np.abs(probability - truth).mean() < 0.03


def test_the_order_of_cases_stays_even_where_logits_are_worth_nothing() -> None:
    rng = np.random.default_rng(0)
    outcomes, logits = np.arange(40) % 2, rng.normal(size=40)
    certainty = Certainty(40, 2)
    certainty.fit(-np.abs(logits) * outcomes, outcomes, rng.normal(size=(40, 2)), np.arange(40) % 4)
    assert (np.diff(certainty.probability(np.sort(logits))) >= 0).all()
    assert float(certainty.slope) == 1 / TEMPERATURES[1]  # as flat as it may be


def test_sets_cover_both_classes() -> None:
    logits, outcomes, traits = cases(20_000, 1)
    found = fitted().predict(np.stack([logits] * 5), traits)
    for outcome in (0, 1):
        covered = found.may_be[outcomes == outcome, outcome].mean()
        assert covered == pytest.approx(COVERAGE, abs=0.03)


@pytest.mark.parametrize(("scatter", "most"), [(0.5, 0.93), (3.0, 1.0)])
def test_sets_cover_where_members_differ(scatter: float, most: float) -> None:
    """Members that differ much make sets that hold the truth more often than asked for."""
    rng = np.random.default_rng(0)
    covered = np.zeros((2, 2))
    for seed in range(40):
        logits, outcomes, traits = cases(300, 2 * seed + 10)
        certainty = Certainty(300, 4)
        of_one = logits + rng.normal(0, scatter, 300)
        certainty.fit(of_one, outcomes, traits, np.arange(300) % 5)
        new, truth, of_new = cases(500, 2 * seed + 11)
        found = certainty.predict(new + rng.normal(0, scatter, (5, 500)), of_new)
        for outcome in (0, 1):
            of_class = found.may_be[truth == outcome, outcome]
            covered[outcome] += [of_class.sum(), len(of_class)]
    shares = covered[:, 0] / covered[:, 1]
    assert (shares > COVERAGE - 0.01).all()
    assert (shares < most).all()


def test_familiar_cases_are_rarely_called_unfamiliar_and_others_are() -> None:
    logits, _, traits = cases(20_000, 1)
    certainty = fitted(n=200)
    found = certainty.predict(np.stack([logits] * 5), traits)
    assert found.unfamiliar.mean() < 2.5 * UNFAMILIAR
    assert found.familiarity.mean() == pytest.approx(0.5, abs=0.05)
    far = certainty.predict(np.zeros((5, 1)), np.array([[0.0, 0, 0, 1.0]]))
    assert bool(far.unfamiliar[0])
    assert far.familiarity[0] == pytest.approx(1 / 201)


def test_the_interval_is_the_delete_a_group_jackknife() -> None:
    """For a mean over groups of equal size it is the interval of the group means' mean."""
    rng = np.random.default_rng(0)
    groups = rng.normal(size=5)
    members = np.array([np.delete(groups, k).mean() for k in range(5)])[:, None]
    certainty = Certainty(2, 1)  # unfitted: the logit is that of the probability
    certainty.outcomes[1] = 1
    found = certainty.predict(members, np.zeros((1, 1)))
    half = 2.7764451 * groups.std(ddof=1) / np.sqrt(5)
    logit = [float(np.log(p / (1 - p))) for p in (found.low[0], found.high[0])]
    assert logit == pytest.approx([groups.mean() - half, groups.mean() + half])


def test_it_is_kept_in_buffers() -> None:
    certainty = fitted(n=60)
    other = Certainty(60, 4)
    other.load_state_dict(certainty.state_dict())
    logits, _, traits = cases(10, 3)
    said = np.stack([logits, -logits, logits, logits, logits])
    both = [c.predict(said, traits) for c in (certainty, other)]
    for name in ("probability", "low", "high", "may_be", "familiarity", "unfamiliar"):
        np.testing.assert_array_equal(getattr(both[0], name), getattr(both[1], name))
    assert all(isinstance(value, torch.Tensor) for value in certainty.state_dict().values())


def test_a_patient_with_many_scans_counts_once() -> None:
    rows = np.array([0, 2, 3, 5, 6])
    patients = ["a", "a", "b", "a", "c", "b", "c"]
    np.testing.assert_array_equal(one_of_each(rows, patients), [0, 2, 6])
