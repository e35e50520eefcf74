import numpy as np
import pytest

from neonet3d.metrics.cases import case_of_slice, check_widths


def test_cases_are_numbered_from_zero() -> None:
    groups = np.array(["b", "a", "b", "c"])
    np.testing.assert_array_equal(case_of_slice(np.zeros((4, 2)), groups, "real"), [1, 0, 1, 2])
    np.testing.assert_array_equal(case_of_slice(np.zeros((3, 2)), None, "real"), [0, 1, 2])


def test_errors_name_the_side_and_the_row() -> None:
    features = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"synthetic features have the shape \(3,\)"):
        case_of_slice(features[:, 0], None, "synthetic")
    with pytest.raises(ValueError, match="3 rows but groups has the shape"):
        case_of_slice(features, np.zeros(2), "real")
    with pytest.raises(ValueError, match=r"come from 1 case\(s\)"):
        case_of_slice(features, np.zeros(3), "real")
    features[1, 0] = np.nan
    with pytest.raises(ValueError, match="Row 1 of the real features"):
        case_of_slice(features, None, "real")
    with pytest.raises(ValueError, match="2 features but synthetic ones 4"):
        check_widths(np.zeros((3, 2)), np.zeros((3, 4)))
