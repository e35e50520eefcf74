import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from neonet3d.errors import InputError
from neonet3d.metrics.binormal import (
    auc_standard_error,
    difference_standard_error,
    expected_interval,
)
from neonet3d.metrics.discrimination import delong


def draw(
    n_positive: int, n_negative: int, aucs: tuple[float, float], correlation: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and normal scores of two models with these AUCs and this correlation in a class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [n_positive, n_negative])
    noise = rng.multivariate_normal(
        [0, 0], [[1, correlation], [correlation, 1]], size=labels.size, method="cholesky"
    ).T
    a, b = noise + np.sqrt(2) * norm.ppf(aucs)[:, None] * labels
    return labels, a, b


@pytest.mark.parametrize(("p", "q"), [(44, 84), (5, 300), (1, 1)])
def test_a_guess_scatters_as_mann_whitneys_u(p: int, q: int) -> None:
    """Under no difference the variance of U / (p q) is (p + q + 1) / (12 p q), exactly."""
    assert auc_standard_error(0.5, p, q) == pytest.approx(
        np.sqrt((p + q + 1) / (12 * p * q)), rel=1e-9
    )


def test_of_one_pair_it_is_a_coin() -> None:
    assert auc_standard_error(0.8, 1, 1) == pytest.approx(np.sqrt(0.8 * 0.2), rel=1e-9)


def test_it_is_bambers_formula_with_scipys_normal_quadrants() -> None:
    auc, p, q = 0.83, 30, 70
    h = norm.ppf(auc)
    both = multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]]).cdf([h, h])
    variance = (auc * (1 - auc) + (p + q - 2) * (both - auc**2)) / (p * q)
    assert auc_standard_error(auc, p, q) == pytest.approx(np.sqrt(variance), rel=1e-6)


def test_it_lies_beside_hanley_and_mcneils_exponential_formula() -> None:
    """Radiology 143 (1982) 29: .893 with 51 and 58 cases has the standard error .032."""
    assert auc_standard_error(0.893, 51, 58) == pytest.approx(0.032, abs=0.003)


def test_the_difference_by_scipys_quadrants() -> None:
    a, b, r, p, q = 0.85, 0.7, 0.6, 25, 60

    def excess(x: float, y: float, rho: float) -> float:
        both = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([norm.ppf(x), norm.ppf(y)])
        return float(both - x * y)

    covariance = (excess(a, b, r) + (p + q - 2) * excess(a, b, r / 2)) / (p * q)
    variance = auc_standard_error(a, p, q) ** 2 + auc_standard_error(b, p, q) ** 2
    assert difference_standard_error(a, b, r, p, q) == pytest.approx(
        np.sqrt(variance - 2 * covariance), rel=1e-6
    )


@settings(deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.integers(2, 200), st.integers(2, 200))
def test_symmetries_of_the_standard_error(a: float, b: float, p: int, q: int) -> None:
    error = auc_standard_error(a, p, q)
    assert auc_standard_error(1 - a, p, q) == pytest.approx(error, rel=1e-8)
    assert auc_standard_error(a, q, p) == pytest.approx(error, rel=1e-8)
    apart = difference_standard_error(a, b, 0.0, p, q)
    assert apart == pytest.approx(np.hypot(error, auc_standard_error(b, p, q)), rel=1e-8)
    together = difference_standard_error(a, b, 0.6, p, q)
    assert together == pytest.approx(difference_standard_error(b, a, 0.6, p, q), rel=1e-8)
    assert together < apart
    assert difference_standard_error(a, a, 1.0, p, q) == pytest.approx(0, abs=1e-5)


def test_the_scatter_of_simulated_aucs_and_of_their_difference() -> None:
    aucs = (0.85, 0.75)
    values = []
    for seed in range(1500):
        labels, a, b = draw(30, 60, aucs, 0.6, seed)
        above = [s[labels == 1][:, None] > s[labels == 0] for s in (a, b)]
        values.append([table.mean() for table in above])
    found = np.array(values)
    # The standard deviation of 1500 draws is known to 2 %.
    assert found[:, 0].std() == pytest.approx(auc_standard_error(0.85, 30, 60), rel=0.06)
    gain = found[:, 0] - found[:, 1]
    expected = difference_standard_error(*aucs, 0.6, 30, 60)
    assert gain.std() == pytest.approx(expected, rel=0.06)


def test_delongs_intervals_have_the_expected_ends_on_average() -> None:
    ends = []
    for seed in range(400):
        labels, a, _ = draw(44, 84, (0.8, 0.8), 0.0, seed)
        found = delong(labels, a)
        ends.append([found.low, found.high])
    expected = expected_interval(0.8, 44, 84)
    assert np.mean(ends, axis=0) == pytest.approx([expected.low, expected.high], abs=0.008)
    assert (expected.value, expected.n, expected.n_positive) == (0.8, 128, 44)


def test_errors_are_sentences() -> None:
    with pytest.raises(InputError, match="AUC 1 does not lie strictly between"):
        auc_standard_error(1.0, 10, 10)
    with pytest.raises(InputError, match="correlation is -1"):
        difference_standard_error(0.8, 0.7, -1.0, 10, 10)
    with pytest.raises(InputError, match="Plan some of each"):
        auc_standard_error(0.8, 0, 10)
