import numpy as np
import pytest

from neonet3d.metrics.manifold import _on_manifold, precision_recall


def test_balls_by_hand() -> None:
    # Members at 0, 1 and 5: the nearest neighbours are 1, 1 and 4 away.
    points = np.array([0.0, 1.0, 5.0, 2.0, 2.1, 9.0, 9.1, -1.0])
    distances = np.abs(points[:, None] - points[None, :])
    within = _on_manifold(distances, np.arange(3, 8), np.arange(3), 1)
    # 2 and 2.1 and 9 lie in the ball of 5 (1 to 9); 9.1 in none; -1 in that of 0.
    np.testing.assert_array_equal(within, [True, True, True, False, True])


def test_alike_reaches_what_real_cases_reach() -> None:
    rng = np.random.default_rng(0)
    found = precision_recall(rng.normal(size=(120, 4)), rng.normal(size=(120, 4)), 0)
    assert found.precision.value == pytest.approx(found.precision_of_real.value, abs=0.08)
    assert found.recall.value == pytest.approx(found.recall_of_real.value, abs=0.08)
    assert found.precision.low < found.precision.value < found.precision.high
    assert found.precision.n == 60


def test_a_collapsed_generator_has_precision_without_recall() -> None:
    rng = np.random.default_rng(1)
    real = rng.normal(size=(80, 4))
    collapsed = precision_recall(real, 0.05 * rng.normal(size=(80, 4)), 0)
    assert collapsed.precision.low > 0.95
    assert collapsed.recall.high < 0.2 < collapsed.recall_of_real.low


def test_a_wild_generator_has_recall_without_precision() -> None:
    rng = np.random.default_rng(2)
    wild = precision_recall(rng.normal(size=(80, 4)), 8 * rng.normal(size=(80, 4)), 0)
    assert wild.precision.high < 0.2 < wild.precision_of_real.low
    assert wild.recall.value > 0.8


def test_far_apart_is_nothing_at_all_and_sizes_may_differ() -> None:
    rng = np.random.default_rng(3)
    far = precision_recall(rng.normal(size=(30, 2)), rng.normal(size=(17, 2)) + 99, 0)
    assert (far.precision.value, far.recall.value, far.recall.n) == (0, 0, 8)


def test_errors_are_sentences() -> None:
    good = np.zeros((8, 2))
    with pytest.raises(
        ValueError, match=r"8 real and 7 synthetic cases, but .* at least 8 of each"
    ):
        precision_recall(good, good[:7], 0)
    with pytest.raises(ValueError, match="real features is not finite"):
        precision_recall(np.full((8, 2), np.inf), good, 0)
