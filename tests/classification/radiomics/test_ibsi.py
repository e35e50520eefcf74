"""The IBSI's digital phantom and its published reference values (Zwanenburg et al. 2020).

Phantom: https://github.com/theibsi/data_sets, CC BY 4.0. Values: reference manual (arXiv
1612.07003v11), sections 3.1, 3.3 and 3.6; tolerances are those of the manual, or half of the last
digit where it gives none.
"""

from __future__ import annotations

from math import floor, log10

import numpy as np
import pytest

from neonet3d.classification.radiomics.glcm import (
    co_occurrence,
    co_occurrence_features,
    discretise,
)
from neonet3d.classification.radiomics.intensity import intensity_features
from neonet3d.classification.radiomics.shape import shape_features

SPACING_MM = (2.0, 2.0, 2.0)
SLICES = """
1 4 4 1 1   1 4 6 1 1   4 1 6 4 1   4 4 6 4 1
1 4 4 1 1   1 1 6 1 1   0 1 3 1 1   4 4 6 1 1
1 4 4 0 0   1 1 1 1 1   1 1 0 1 1   1 1 6 1 1
1 4 4 0 0   1 1 1 1 1   1 1 1 1 1   1 1 6 1 1
"""  # a line is a slice of four rows; 0 is outside the region
LEVELS = np.array(SLICES.split(), dtype=np.int64).reshape(4, 4, 5).transpose(2, 1, 0)

SHAPE = {  # value and tolerance
    "volume": (556, 4),
    "approximate_volume": (592, 4),
    "surface_area": (388, 3),
    "surface_to_volume": (0.698, 0.004),
    "compactness_1": (0.0411, 0.0003),
    "compactness_2": (0.599, 0.004),
    "spherical_disproportion": (1.19, 0.01),
    "sphericity": (0.843, 0.005),
    "asphericity": (0.186, 0.001),
    "largest_diameter": (13.1, 0.1),
    "major_axis": (11.4, 0.1),
    "minor_axis": (9.31, 0.06),
    "least_axis": (8.54, 0.05),
    "elongation": (0.816, 0.005),
    "flatness": (0.749, 0.005),
    "box_volume_density": (0.869, 0.005),
    "hull_volume_density": (0.961, 0.006),
    "hull_area_density": (1.03, 0.01),
}
INTENSITY = {
    "mean": 2.15,
    "variance": 3.05,
    "skewness": 1.08,
    "kurtosis": -0.355,
    "median": 1,
    "minimum": 1,
    "percentile_10": 1,
    "percentile_90": 4,
    "maximum": 6,
    "interquartile_range": 3,
    "range": 5,
    "mean_absolute_deviation": 1.55,
    "robust_mean_absolute_deviation": 1.11,
    "median_absolute_deviation": 1.15,
    "coefficient_of_variation": 0.812,
    "quartile_coefficient": 0.6,
    "energy": 567,
    "root_mean_square": 2.77,
}
CO_OCCURRENCE = {
    "joint_maximum": 0.509,
    "joint_average": 2.15,
    "joint_variance": 3.13,
    "joint_entropy": 2.57,
    "difference_average": 1.38,
    "difference_variance": 3.21,
    "difference_entropy": 1.64,
    "sum_average": 4.3,
    "sum_variance": 7.41,
    "sum_entropy": 2.11,
    "angular_second_moment": 0.291,
    "contrast": 5.12,
    "dissimilarity": 1.38,
    "inverse_difference": 0.688,
    "normalised_inverse_difference": 0.856,
    "inverse_difference_moment": 0.631,
    "normalised_inverse_difference_moment": 0.902,
    "inverse_variance": 0.0574,
    "correlation": 0.183,
    "autocorrelation": 5.19,
    "cluster_tendency": 7.41,
    "cluster_shade": 17.4,
    "cluster_prominence": 147,
    "information_correlation_1": -0.0288,
    "information_correlation_2": 0.269,
}


def half_a_digit(value: float) -> float:
    """The manual prints three significant digits."""
    return 0.5 * 10.0 ** (floor(log10(abs(value))) - 2) if value else 0.0


def test_the_phantom_is_the_published_one() -> None:
    assert LEVELS.shape == (5, 4, 4)
    assert (LEVELS > 0).sum() == 74
    assert sorted(set(LEVELS[LEVELS > 0].tolist())) == [1, 3, 4, 6]


def test_every_shape_feature_has_a_reference_value() -> None:
    found = shape_features(LEVELS > 0, SPACING_MM)
    assert set(found) == set(SHAPE)
    for name, (value, tolerance) in SHAPE.items():
        assert found[name] == pytest.approx(value, abs=tolerance), name


def test_every_intensity_feature_has_a_reference_value() -> None:
    found = intensity_features(LEVELS[LEVELS > 0].astype(float))
    assert set(found) == set(INTENSITY)
    for name, value in INTENSITY.items():
        assert found[name] == pytest.approx(value, abs=half_a_digit(value)), name


def test_every_co_occurrence_feature_has_a_reference_value() -> None:
    found = co_occurrence_features(co_occurrence(LEVELS, 6))
    assert set(found) == set(CO_OCCURRENCE)
    for name, value in CO_OCCURRENCE.items():
        assert found[name] == pytest.approx(value, abs=half_a_digit(value)), name


def test_levels_span_the_region() -> None:
    image = np.linspace(0, 1, 64).reshape(4, 4, 4)
    region = image > 0.4
    levels = discretise(image, region, 8)
    assert set(levels[region].tolist()) == set(range(1, 9))
    assert (levels[~region] == 0).all()
    assert (np.diff(levels[region]) >= 0).all()
    flat = discretise(np.ones((3, 3, 3)), np.ones((3, 3, 3), bool), 8)
    assert (flat == 1).all()


def test_what_has_one_voxel_or_one_level_has_no_texture() -> None:
    lone = np.zeros((5, 5, 5), bool)
    lone[2, 2, 2] = True
    pairs = co_occurrence(lone.astype(np.int64), 4)
    assert pairs.sum() == 0
    assert all(np.isnan(x) for x in co_occurrence_features(pairs).values())
    texture = co_occurrence_features(co_occurrence(np.ones((3, 3, 3), np.int64), 4))
    assert (texture["contrast"], texture["correlation"], texture["joint_entropy"]) == (0, 1, 0)
    assert all(np.isfinite(x) for x in shape_features(lone, SPACING_MM).values())
    assert all(np.isfinite(x) for x in intensity_features(np.ones(1)).values())
    with pytest.raises(ValueError, match="empty region"):
        shape_features(np.zeros((3, 3, 3), bool), SPACING_MM)
    with pytest.raises(ValueError, match="empty region"):
        intensity_features(np.zeros(0))
