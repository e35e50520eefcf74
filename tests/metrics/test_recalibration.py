import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from neonet3d.errors import InputError
from neonet3d.metrics.brier import decompose_brier
from neonet3d.metrics.discrimination import auc
from neonet3d.metrics.recalibration import (
    TEMPERATURES,
    fit_intercept,
    fit_logistic,
    fit_temperature,
)


def too_sure(n: int, seed: int, factor: float = 3.0, shift: float = 0.0) -> tuple[np.ndarray, ...]:
    """Labels that follow sigmoid(x), logits factor x + shift."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return (rng.random(n) < expit(x)).astype(int), factor * x + shift


def nll(labels: np.ndarray, logits: np.ndarray) -> float:
    return float(np.logaddexp(0, -(2 * labels - 1) * logits).mean())


def test_the_temperature_is_the_maximum_of_the_likelihood() -> None:
    labels, logits = too_sure(400, 0)
    best = minimize_scalar(
        lambda t: nll(labels, logits / t),
        bounds=(0.5, 10),
        method="bounded",
        options={"xatol": 1e-9},
    )
    found = fit_temperature(labels, logits)
    assert found.temperature == pytest.approx(best.x, abs=1e-5)
    assert found.temperature == pytest.approx(3, rel=0.25)
    assert not found.at_limit
    assert (found.intercept, found.n, found.n_positive) == (0, 400, int(labels.sum()))


def test_a_temperature_mends_new_cases_and_leaves_their_order() -> None:
    labels, logits = too_sure(200, 1)
    fitted = fit_temperature(labels, logits)
    labels, logits = too_sure(2000, 2)
    before, after = expit(logits), fitted.apply(logits)
    assert auc(labels, after) == auc(labels, logits)
    assert decompose_brier(labels, after).score < decompose_brier(labels, before).score - 0.02
    assert nll(labels, logits / fitted.temperature) < nll(labels, logits)


def test_a_line_mends_a_shifted_prevalence_and_a_temperature_does_not() -> None:
    labels, logits = too_sure(3000, 3, factor=2, shift=2)
    line, temperature = fit_logistic(labels, logits), fit_temperature(labels, logits)
    assert line.slope == pytest.approx(0.5, rel=0.15)
    assert line.intercept == pytest.approx(-1, rel=0.2)
    assert line.apply(logits).mean() == pytest.approx(labels.mean(), abs=1e-7)
    assert temperature.apply(logits).mean() > labels.mean() + 0.05
    shift = fit_intercept(labels, logits)
    assert expit(logits + shift).mean() == pytest.approx(labels.mean(), abs=1e-9)


@settings(deadline=None)
@given(st.floats(0.01, 100), st.integers(0, 1000))
def test_the_unit_of_the_logits_does_not_matter(unit: float, seed: int) -> None:
    labels, logits = too_sure(60, seed, factor=1.5)
    once, scaled = fit_logistic(labels, logits), fit_logistic(labels, logits * unit)
    assert scaled.slope * unit == pytest.approx(once.slope, rel=1e-5, abs=1e-7)
    assert scaled.intercept == pytest.approx(once.intercept, rel=1e-5, abs=1e-6)


def test_a_temperature_stops_at_its_limit_and_says_so() -> None:
    labels, logits = np.repeat([0, 1], 5), np.arange(10.0) - 4.5
    perfect, reversed_ = fit_temperature(labels, logits), fit_temperature(labels, -logits)
    assert (perfect.at_limit, reversed_.at_limit) == (True, True)
    assert perfect.temperature == pytest.approx(TEMPERATURES[0])
    assert reversed_.temperature == pytest.approx(TEMPERATURES[1])


def test_errors_are_sentences() -> None:
    with pytest.raises(InputError, match="0 positive and 3 negative"):
        fit_temperature(np.zeros(3, int), np.arange(3.0))
    with pytest.raises(InputError, match="so that no slope is steep enough"):
        fit_logistic(np.array([1, 0]), np.array([0.0, 1.0]))


def test_the_temperature_is_that_of_scikit_learn() -> None:
    labels, logits = too_sure(300, 5)
    x = logits[:, None] / 3
    model = LogisticRegression().fit(x, labels)
    model.coef_, model.intercept_ = np.array([[3.0]]), np.zeros(1)
    reference = CalibratedClassifierCV(FrozenEstimator(model), method="temperature")
    expected = reference.fit(x, labels).predict_proba(x)[:, 1]
    assert fit_temperature(labels, logits).apply(logits) == pytest.approx(expected, abs=1e-6)
