"""One seed, one patient: same bytes, every class, a truthful affine."""

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from neonet3d.cohort.phantom.patient import draw_label, simulate_patient, simulate_roi

COARSE = (5.0, 5.0, 8.0)


def test_default_grid_types_and_classes():
    case = simulate_patient(0)
    assert case.image.shape == case.label_map.shape == (124, 96, 40)
    assert (case.image.dtype, case.label_map.dtype) == (np.float32, np.uint8)
    assert case.affine.dtype == np.float64
    assert np.isfinite(case.image).all()
    assert case.image.min() >= 0
    np.testing.assert_array_equal(np.unique(case.label_map), [0, 1, 2, 3, 4])
    assert np.bincount(case.label_map.ravel())[2:].min() > 50


def test_same_seed_same_bytes_other_seed_other_patient():
    a, b, c = (simulate_patient(seed, spacing_mm=COARSE) for seed in (7, 7, 8))
    assert a.image.tobytes() == b.image.tobytes()
    assert a.label_map.tobytes() == b.label_map.tobytes()
    assert a.parameters == b.parameters
    assert not np.array_equal(a.label_map, c.label_map)
    assert not np.array_equal(a.image, c.image)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tumour_lies_in_the_liver_where_the_parameters_say(seed):
    case = simulate_patient(seed, spacing_mm=(4.0, 4.0, 4.0))
    tumour = case.label_map == 4
    hull = binary_fill_holes(case.label_map > 0)
    padded = np.pad(tumour, 1)
    neighbours = sum(
        np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)
    )
    shell = (neighbours > 0) & ~tumour
    assert hull[shell].mean() > 0.5
    middle = case.affine @ [*np.argwhere(tumour).mean(axis=0), 1]
    stated = [case.parameters[f"tumour_{axis}_mm"] for axis in "xyz"]
    assert np.linalg.norm(middle[:3] - stated) < 0.4 * case.parameters["tumour_radius_mm"]


def test_affine_is_ras_with_the_liver_on_the_right():
    case = simulate_patient(4, spacing_mm=COARSE)
    assert np.all(np.diag(case.affine) > 0)
    middle = case.affine @ [*np.argwhere(case.label_map == 1).mean(axis=0), 1]
    assert middle[0] > 10


def test_label_and_probability_are_those_of_the_draw():
    case, label = simulate_patient(6, spacing_mm=(10.0, 10.0, 20.0)), draw_label(6)
    assert (case.pni, case.pni_probability) == (label.pni, label.probability)
    assert case.parameters["severity"] == label.severity
    assert all(isinstance(value, float) for value in case.parameters.values())


def test_negative_seeds_are_refused():
    with pytest.raises(ValueError, match="seed is -1"):
        simulate_patient(-1)


@pytest.mark.parametrize("seed", [4, 5])
def test_a_region_of_interest_is_the_same_patient(seed):
    """Twice the fineness and a window instead of the body: the tumour is where and what it was."""
    spacing = (2.0, 2.0, 4.0)
    roi = simulate_roi(seed, shape=(48, 48, 24), spacing_mm=spacing)
    scan = simulate_patient(seed, spacing_mm=(4.0, 4.0, 4.0))
    assert roi.image.shape == roi.label_map.shape == (48, 48, 24)
    assert roi.parameters == scan.parameters
    assert (roi.pni, roi.pni_probability) == (scan.pni, scan.pni_probability)
    volumes, centres, brightness = [], [], []
    for case in (roi, scan):
        tumour = np.argwhere(case.label_map == 4)
        volumes.append(len(tumour) * abs(np.linalg.det(case.affine[:3, :3])))
        centres.append(case.affine[:3, :3] @ tumour.mean(0) + case.affine[:3, 3])
        liver = np.median(case.image[case.label_map == 1])
        brightness.append(case.image[case.label_map == 4].mean() / liver)
    assert volumes[0] == pytest.approx(volumes[1], rel=0.06)
    np.testing.assert_allclose(centres[0], centres[1], atol=0.7)
    assert brightness[0] == pytest.approx(brightness[1], rel=0.06)
    # The tumour's centre lies near the window's, and not in the very middle.
    middle = roi.affine[:3, :3] @ ((np.array(roi.image.shape) - 1) / 2) + roi.affine[:3, 3]
    centre = [roi.parameters[f"tumour_{axis}_mm"] for axis in "xyz"]
    assert 0 < np.linalg.norm(middle - centre) < 4 * 2.5


def test_windows_differ_in_place_and_not_in_bytes():
    first, again = (
        simulate_roi(9, shape=(24, 24, 16), spacing_mm=(4.0, 4.0, 6.0)) for _ in range(2)
    )
    assert first.image.tobytes() == again.image.tobytes()
    np.testing.assert_array_equal(first.affine, again.affine)
