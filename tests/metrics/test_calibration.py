import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import binomtest, kstest
from sklearn.calibration import calibration_curve

from neonet3d.errors import InputError
from neonet3d.metrics.calibration import (
    calibration_slope,
    expected_calibration_error,
    reliability_table,
)
from neonet3d.metrics.probability import Binning

STRATEGIES: list[tuple[Binning, str]] = [("equal-mass", "quantile"), ("equal-width", "uniform")]


def draw(n: int, seed: int, slope: float = 1.0, shift: float = 0.0) -> tuple[np.ndarray, ...]:
    """Labels that follow sigmoid(slope x - shift), and the probability sigmoid(x)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(-0.5, 1.2, size=n)
    return (rng.random(n) < expit(slope * x - shift)).astype(int), expit(x)


@pytest.mark.parametrize(("binning", "strategy"), STRATEGIES)
def test_the_table_is_that_of_scikit_learn(binning: Binning, strategy: str) -> None:
    labels, probabilities = draw(300, 0)
    observed, predicted = calibration_curve(labels, probabilities, n_bins=10, strategy=strategy)
    table = reliability_table(labels, probabilities, 10, binning)
    assert [row.observed.value for row in table] == pytest.approx(list(observed), abs=1e-12)
    assert [row.mean_probability for row in table] == pytest.approx(list(predicted), abs=1e-12)
    assert sum(row.observed.n for row in table) == 300
    for row in table:
        assert row.observed.n_positive is not None
        ends = binomtest(row.observed.n_positive, row.observed.n).proportion_ci(method="wilson")
        assert (row.observed.low, row.observed.high) == pytest.approx(tuple(ends), abs=1e-9)
        assert row.low <= row.mean_probability <= row.high


@pytest.mark.parametrize(("binning", "strategy"), STRATEGIES)
def test_the_error_is_the_weighted_gap_of_scikit_learns_curve(
    binning: Binning, strategy: str
) -> None:
    labels, probabilities = draw(300, 1)
    observed, predicted = calibration_curve(labels, probabilities, n_bins=5, strategy=strategy)
    counts = [row.observed.n for row in reliability_table(labels, probabilities, 5, binning)]
    expected = np.average(np.abs(observed - predicted), weights=counts)
    found = expected_calibration_error(labels, probabilities, 0, 5, binning)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert (found.n, found.n_bins) == (300, 5)


def test_a_calibrated_model_shows_an_error_of_the_size_of_its_floor() -> None:
    found = [expected_calibration_error(*draw(128, seed), seed) for seed in range(150)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(np.mean([f.floor for f in found]), rel=0.05)
    assert 0.08 < values.mean() < 0.12  # never 0: the bias that the docstring speaks of
    assert 0.01 < np.mean([f.value > f.floor_high for f in found]) < 0.10
    assert kstest([f.p_value for f in found], "uniform").pvalue > 0.01


def test_an_overconfident_model_is_found_out() -> None:
    labels, probabilities = draw(400, 0, slope=0.3)
    found = expected_calibration_error(labels, probabilities, 0)
    assert found.value > found.floor_high
    assert found.p_value == pytest.approx(1 / 1001)


def test_slope_and_intercept_are_the_maximum_of_the_likelihood() -> None:
    labels, probabilities = draw(250, 4, slope=0.7, shift=0.4)
    x = logit(probabilities)

    def loss(line: np.ndarray) -> float:
        return float(np.logaddexp(0, -(2 * labels - 1) * (line[0] + line[1] * x)).sum())

    best = minimize(loss, [0.0, 1.0], method="BFGS", options={"gtol": 1e-9})
    shift = minimize(lambda a: loss(np.array([a[0], 1.0])), [0.0], method="BFGS")
    found = calibration_slope(labels, x)
    assert found.slope.value == pytest.approx(best.x[1], abs=1e-6)
    assert found.intercept.value == pytest.approx(shift.x[0], abs=1e-5)
    # Fisher's information by hand.
    p = expit(best.x[0] + best.x[1] * x)
    design = np.stack([np.ones_like(x), x], axis=1)
    error = np.sqrt(np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))[1, 1])
    assert found.slope.high - found.slope.value == pytest.approx(1.959964 * error, rel=1e-5)


def test_the_intervals_cover_slope_and_intercept() -> None:
    covered = np.zeros(2)
    for seed in range(300):
        labels, probabilities = draw(200, seed, slope=0.6)
        slope = calibration_slope(labels, logit(probabilities)).slope
        labels, probabilities = draw(200, seed, shift=0.5)
        intercept = calibration_slope(labels, logit(probabilities)).intercept
        covered += [slope.low <= 0.6 <= slope.high, intercept.low <= -0.5 <= intercept.high]
    assert (covered / 300 > 0.92).all()
    assert (covered / 300 < 0.98).all()


def test_separated_cases_have_no_slope() -> None:
    labels = np.repeat([0, 1], 5)
    with pytest.raises(InputError, match="A threshold separates the 5 positive"):
        calibration_slope(labels, np.arange(10.0))
    with pytest.raises(InputError, match=r"All 10 logits are 2, so there is no slope"):
        calibration_slope(labels, np.full(10, 2.0))
