import numpy as np
import pytest
from scipy.stats import norm

from neonet3d.errors import InputError
from neonet3d.metrics.discrimination import delong_paired
from neonet3d.metrics.power import class_counts, paired_power, patients_needed, plan_study


def simulated_power(
    aucs: tuple[float, float], correlation: float, n_positive: int, n_negative: int, n: int
) -> float:
    """Share of paired DeLong tests on normal scores that come out below 0.05."""
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 0], [n_positive, n_negative])
    shift = np.sqrt(2) * norm.ppf(aucs)[:, None] * labels
    found = 0
    for _ in range(n):
        a = rng.normal(size=labels.size)
        b = correlation * a + np.sqrt(1 - correlation**2) * rng.normal(size=labels.size)
        found += delong_paired(labels, *(np.stack([a, b]) + shift)).p_value < 0.05
    return found / n


@pytest.mark.parametrize(
    ("aucs", "correlation", "counts"),
    [((0.8, 0.7), 0.5, (44, 84)), ((0.8, 0.7), 0.8, (44, 84)), ((0.9, 0.8), 0.3, (60, 60))],
)
def test_the_power_is_that_of_simulated_studies(
    aucs: tuple[float, float], correlation: float, counts: tuple[int, int]
) -> None:
    expected = paired_power(*aucs, correlation, *counts)
    # Three standard errors of 1200 studies, and 1 % for the normal law of the estimate.
    margin = 3 * np.sqrt(expected * (1 - expected) / 1200) + 0.01
    assert simulated_power(aucs, correlation, *counts, 1200) == pytest.approx(expected, abs=margin)


def test_without_a_difference_the_power_is_the_level() -> None:
    assert paired_power(0.8, 0.8, 0.5, 44, 84) == pytest.approx(0.05)
    assert paired_power(0.8, 0.8 - 1e-9, 0.5, 44, 84) == pytest.approx(0.05, abs=1e-6)


def test_the_patients_needed_have_the_power_and_one_less_has_not() -> None:
    n = patients_needed(0.8, 0.7, 0.5, 0.34)
    assert n is not None
    assert paired_power(0.8, 0.7, 0.5, *class_counts(n, 0.34)) >= 0.8
    assert paired_power(0.8, 0.7, 0.5, *class_counts(n - 1, 0.34)) < 0.8
    more = [patients_needed(0.8, 0.7, r, 0.34) for r in (0.8, 0.5, 0.0)]
    assert more == sorted(more, key=lambda count: count or 0)


def test_a_difference_that_no_cohort_shows_needs_no_number() -> None:
    assert patients_needed(0.8, 0.8 - 1e-5, 0.0, 0.01) is None


def test_the_least_cohort_has_two_of_each() -> None:
    assert patients_needed(0.999, 0.5, 0.0, 0.5) is not None
    assert class_counts(128, 0.34) == (44, 84)


def test_a_plan_holds_what_its_parts_say() -> None:
    plan = plan_study(128, 0.34, 0.8, difference=0.1, correlation=0.5)
    assert (plan.auc.n, plan.auc.n_positive) == (128, 44)
    assert plan.comparison is not None
    assert plan.comparison.power == paired_power(0.8, 0.8 - 0.1, 0.5, 44, 84)
    assert plan.comparison.n_needed == patients_needed(0.8, 0.8 - 0.1, 0.5, 0.34)
    assert plan.smallest_difference is not None
    least = paired_power(0.8, 0.8 - plan.smallest_difference, 0.5, 44, 84)
    assert least == pytest.approx(0.8, abs=1e-6)
    assert plan_study(128, 0.34, 0.8).comparison is None


def test_a_study_that_cannot_tell_a_model_from_guessing_says_so() -> None:
    assert plan_study(40, 0.3, 0.6).smallest_difference is None


def test_errors_are_sentences() -> None:
    with pytest.raises(InputError, match=r"give 0\.34 for 34 %"):
        plan_study(128, 34, 0.8)
    with pytest.raises(InputError, match="1 positive and 2 negative"):
        plan_study(3, 0.34, 0.8)
    with pytest.raises(InputError, match=r"AUC to plan for is 0\.5"):
        plan_study(128, 0.34, 0.5)
    with pytest.raises(InputError, match=r"has an AUC of 0\.4"):
        plan_study(128, 0.34, 0.8, difference=0.4)
    with pytest.raises(InputError, match="correlation is 1:"):
        plan_study(128, 0.34, 0.8, correlation=1)
    with pytest.raises(InputError, match="too many to plan for"):
        plan_study(10**9, 0.34, 0.8)
    with pytest.raises(InputError, match="The two AUCs are equal"):
        patients_needed(0.8, 0.8, 0.5, 0.34)
