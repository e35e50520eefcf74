import numpy as np
import pytest

from neonet3d.metrics.memorisation import nearest_neighbour_ratio


def test_hand_drawn_line() -> None:
    training, held_out = np.array([[0.0], [10.0]]), np.array([[4.0], [20.0]])
    synthetic = np.array([[1.0], [9.0], [5.5], [2.0]])  # the last one is a tie
    result = nearest_neighbour_ratio(synthetic, training, held_out)
    np.testing.assert_array_equal(result.nearest_training, [0, 1, 1, 0])
    np.testing.assert_allclose(result.training_distance, [1, 1, 4.5, 2])
    np.testing.assert_allclose(result.held_out_distance, [3, 5, 1.5, 2])
    assert result.share_nearer_training.value == 0.5
    assert result.share_nearer_training.n == 4
    assert result.expected_share == 0.5


@pytest.mark.parametrize(("n_training", "n_held_out"), [(40, 40), (80, 20)])
def test_no_copying_gives_the_expected_share(n_training: int, n_held_out: int) -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(40):
        result = nearest_neighbour_ratio(
            rng.normal(size=(50, 8)),
            rng.normal(size=(n_training, 8)),
            rng.normal(size=(n_held_out, 8)),
        )
        shares.append(result.share_nearer_training.value)
        assert result.expected_share == n_training / (n_training + n_held_out)
    error = np.std(shares) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - result.expected_share) < 3 * error


def test_copies_are_found() -> None:
    rng = np.random.default_rng(1)
    training, held_out = rng.normal(size=(2, 40, 8))
    source = rng.integers(40, size=60)
    copies = training[source] + 0.05 * rng.normal(size=(60, 8))
    result = nearest_neighbour_ratio(copies, training, held_out)
    assert result.share_nearer_training.low > 0.9 > result.expected_share
    np.testing.assert_array_equal(result.nearest_training, source)


def test_errors_are_sentences() -> None:
    good = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"held_out has the shape \(0, 2\)"):
        nearest_neighbour_ratio(good, good, np.zeros((0, 2)))
    with pytest.raises(ValueError, match=r"synthetic has the shape \(3, 4\), training \(3, 2\)"):
        nearest_neighbour_ratio(np.zeros((3, 4)), good, good)
    with pytest.raises(ValueError, match="training holds a feature that is not finite"):
        nearest_neighbour_ratio(good, np.full((3, 2), np.nan), good)
