import numpy as np
import pytest
from scipy.linalg import sqrtm

from neonet3d.metrics.frechet import frechet_distance


def by_eigenvalues(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook form: eigenvalues of S1^1/2 S2 S1^1/2."""
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(s1)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ s2 @ root).clip(0)).sum()
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(shift @ shift + np.trace(s1) + np.trace(s2) - 2 * shared)


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(shift @ shift + np.trace(s1 + s2 - 2 * np.real(sqrtm(s1 @ s2))))


@pytest.mark.parametrize(("n_a", "n_b"), [(200, 150), (200, 9), (12, 9)])
def test_equals_the_eigenvalue_form(n_a: int, n_b: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (
        rng.normal(size=(n_a, 20)),
        rng.normal(0.3, 1.5, size=(n_b, 20)) @ rng.normal(size=(20, 20)),
    )
    assert frechet_distance(a, b) == pytest.approx(by_eigenvalues(a, b), rel=1e-6)


def test_equals_sqrtm() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(300, 16)), rng.normal(0.2, 1.3, size=(250, 16))
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), abs=1e-3)


def test_approaches_the_closed_form_of_two_gaussians() -> None:
    # Commuting covariances: |mu1 - mu2|^2 + sum (sd1 - sd2)^2.
    rng = np.random.default_rng(2)
    mean, sd1, sd2 = (
        np.array([1.0, -0.5, 0.0, 2.0]),
        np.array([1, 2, 0.5, 1]),
        np.array([2, 2, 1, 3]),
    )
    expected = mean @ mean + ((sd1 - sd2) ** 2).sum()
    a = rng.normal(size=(200_000, 4)) * sd1
    b = rng.normal(size=(200_000, 4)) * sd2 + mean
    assert frechet_distance(a, b) == pytest.approx(expected, rel=0.01)


def test_exact_for_a_shift_and_for_a_scale() -> None:
    a = np.random.default_rng(3).normal(size=(50, 7))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, a + 2) == pytest.approx(7 * 4, abs=1e-9)
    centred = a - a.mean(axis=0)
    expected = np.trace(np.cov(a, rowvar=False))  # (3 - 2)^2 tr S
    assert frechet_distance(2 * centred, 3 * centred) == pytest.approx(expected, abs=1e-9)


def test_symmetric_and_blind_to_rotation() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(30, 6)), rng.normal(1, 2, size=(40, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b), rel=1e-10)


def test_bias_falls_with_n() -> None:
    # Why a FID without its n means nothing: both samples are of one Gaussian.
    rng = np.random.default_rng(5)
    few, many = (frechet_distance(*rng.normal(size=(2, n, 64))) for n in (30, 600))
    assert few > 5 * many > 0
