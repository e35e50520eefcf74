import numpy as np
import pytest
from scipy.stats import norm

from neonet3d.metrics.memorisation import (
    COPY_RATIO,
    find_duplicates,
    infer_membership,
    nearest_neighbour_ratio,
    nearest_ratio,
)


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


def test_a_case_is_not_compared_with_the_patient_whose_mask_it_has() -> None:
    training, held_out = np.array([[0.0], [10.0]]), np.array([[4.0], [20.0]])
    synthetic = np.array([[1.0], [9.0]])
    own = np.array([[True, False], [False, False]])
    result = nearest_neighbour_ratio(synthetic, training, held_out, not_training=own)
    np.testing.assert_allclose(result.training_distance, [9, 1])
    assert result.share_nearer_training.value == 0.5
    assert result.expected_share == pytest.approx((1 / 3 + 1 / 2) / 2)
    with pytest.raises(ValueError, match="every held-out case is left out"):
        nearest_neighbour_ratio(
            synthetic, training, held_out, not_held_out=np.array([[True, True], [False, False]])
        )
    with pytest.raises(ValueError, match=r"leave out have the shape \(1, 2\)"):
        nearest_neighbour_ratio(synthetic, training, held_out, not_training=own[:1])


def test_neighbours_speak_of_copying_when_their_interval_does() -> None:
    rng = np.random.default_rng(2)
    training, held_out = rng.normal(size=(2, 40, 8))
    copies = training + 0.05 * rng.normal(size=(40, 8))
    assert nearest_neighbour_ratio(copies, training, held_out).copies
    assert not nearest_neighbour_ratio(rng.normal(size=(40, 8)), training, held_out).copies


def test_duplicates_are_found_and_smooth_cases_are_not() -> None:
    rng = np.random.default_rng(3)
    training, synthetic = rng.normal(size=(60, 100)), rng.normal(size=(20, 100))
    synthetic[0] = training[7] + 0.01 * rng.normal(size=100)
    synthetic[3] = synthetic[4] + 0.01 * rng.normal(size=100)
    synthetic[5] = training.mean(axis=0)  # near to all of them, and a copy of none
    found = find_duplicates(synthetic, training)
    np.testing.assert_array_equal(np.flatnonzero(found.training_ratio < 0.3), [0])
    np.testing.assert_array_equal(np.flatnonzero(found.synthetic_ratio < 0.3), [3, 4])
    assert (found.of_training.value, found.of_synthetic.value) == (1 / 20, 2 / 20)
    assert (found.of_training.n, found.of_training.n_positive) == (20, 1)
    assert found.of_training.low > 0


def test_copies_stand_out_from_their_neighbours() -> None:
    def ratio(image: np.ndarray, training: np.ndarray) -> float:
        return float(nearest_ratio(np.linalg.norm(training - image, axis=1)[None])[0])

    training, new, noise = np.random.default_rng(0).normal(size=(3, 20, 512))
    assert ratio(training[3], training) == 0
    assert ratio(training[3] + 0.1 * noise[0], training) < 0.15
    assert ratio(new[0], training) > 0.9
    assert ratio(training.mean(0), training) > 0.9 > COPY_RATIO  # near to all, a copy of none
    assert ratio(new[0], training[:1]) == 1
    assert nearest_ratio(np.array([[3.0, 1.0, 2.0, np.inf]])) == pytest.approx(1 / 2)


def test_ratio_by_hand() -> None:
    found = find_duplicates(
        np.array([[0.0], [1.0], [5.0]]), np.array([[1.0], [-2.0], [3.0]]), threshold=0.6
    )
    # From 0: distances 1, 2, 3. Among themselves: 0 has 1 and 5, 1 has 1 and 4, 5 has 4 and 5.
    np.testing.assert_allclose(found.training_ratio, [1 / 2, 0, 2 / (13 / 3)])
    np.testing.assert_allclose(found.synthetic_ratio, [1 / 3, 1 / 2.5, 4 / 4.5])
    with pytest.raises(ValueError, match="1 training and 3 synthetic cases"):
        find_duplicates(np.zeros((3, 1)), np.zeros((1, 1)))


def test_membership_is_the_auc_of_lower_losses() -> None:
    found = infer_membership(np.array([0.1, 0.2, 0.4]), np.array([0.3, 0.5]), 0)
    assert found.auc.value == pytest.approx(5 / 6)
    assert found.training_loss.value == pytest.approx(0.7 / 3)
    assert found.held_out_loss.value == pytest.approx(0.4)
    assert (found.auc.n, found.auc.n_positive, found.held_out_loss.n) == (5, 3, 2)


@pytest.mark.parametrize(
    ("shift", "n", "copies"),
    [
        (0.0, 100, False),
        (0.25, 400, False),  # surely above one half, but of no use: AUC 0.57
        (0.8, 100, True),
        (0.8, 3, False),  # might be, but three cases do not say
    ],
)
def test_membership_is_called_copying_when_it_is_large_and_sure(
    shift: float, n: int, copies: bool
) -> None:
    rng = np.random.default_rng(0)
    # Quantiles and not draws, so that the AUC is what the shift makes it.
    levels = norm.ppf((np.arange(n) + 0.5) / n)
    found = infer_membership(rng.permutation(levels), levels + shift, 0)
    assert found.copies is copies


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="The score of case 1 is nan"):
        infer_membership(np.array([0.1, np.nan]), np.array([0.3, 0.5]), 0)
