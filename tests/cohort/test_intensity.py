from __future__ import annotations

import numpy as np
import pytest

from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.errors import InputError
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "tumour"))


def scan(seed: int, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Liver 100, tumour 40, fat 250, each times the gain."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[3:13, 3:13, 3:13] = 1
    mask[6:9, 6:9, 6:9] = 2
    image = np.choose(mask, [0.0, 100.0, 40.0]) + rng.normal(0, 2, mask.shape)
    image[0] = 250
    return (gain * np.abs(image)).astype(np.float32), mask


def named(n: int, gain: float = 1.0) -> list[tuple[str, np.ndarray, np.ndarray]]:
    return [(f"case_{i}", *scan(i, gain)) for i in range(n)]


def test_the_liver_is_the_unit() -> None:
    rule = IntensityNormaliser.fit(named(4), SCHEMA)
    assert rule.reference == "liver_median"
    assert rule.ceiling == pytest.approx(2.5, rel=0.02)
    image, mask = scan(9)
    in_livers = rule.invert(rule.apply(image, mask, name="x"))
    assert np.median(in_livers[mask == 1]) == pytest.approx(1, abs=1e-3)
    assert np.median(in_livers[mask == 2]) == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("gain", [0.01, 7.0, 1000.0])
def test_the_scanner_gain_cancels(gain: float) -> None:
    rule = IntensityNormaliser.fit(named(4), SCHEMA)
    plain, amplified = scan(5), scan(5, gain)
    np.testing.assert_allclose(
        rule.apply(*plain, name="x"), rule.apply(*amplified, name="x"), atol=1e-5
    )
    refit = IntensityNormaliser.fit(named(4, gain), SCHEMA)
    assert refit.ceiling == pytest.approx(rule.ceiling, rel=1e-5)


def test_the_result_lies_between_minus_one_and_one() -> None:
    rule = IntensityNormaliser.fit(named(3), SCHEMA)
    image, mask = scan(8)
    image[1], image[2] = 1e6, -50
    result = rule.apply(image, mask, name="x")
    assert result.dtype == np.float32
    assert result.max() == 1
    assert result.min() == -1


def test_without_masks_a_high_percentile_is_the_unit() -> None:
    image, _ = scan(1)
    rule = IntensityNormaliser.fit([("x", image, None)], SCHEMA)
    assert rule.reference == "percentile_99.5"
    assert rule.reference_of(image, None, name="x") == pytest.approx(250, rel=0.02)


def test_a_sparse_volume_is_not_normalised_by_its_background() -> None:
    """A vessel in an empty box: over 99.5 % of the voxels are 0."""
    image = np.zeros((28, 28, 28), np.float32)
    image[14, 14, :] = 255
    rule = IntensityNormaliser.fit([("x", image, None)], LabelSchema(("background",)))
    assert rule.reference_of(image, None, name="x") == 255


def test_a_very_sparse_volume_has_a_ceiling() -> None:
    """Over 99.9 % of the voxels are 0: a ceiling of 0 would make NaN of all of them."""
    image = np.zeros((28, 28, 28), np.float32)
    image[14, 14, ::2] = 255
    rule = IntensityNormaliser.fit([("x", image, None)], LabelSchema(("background",)))
    assert rule.ceiling == 1
    result = rule.apply(image, None, name="x")
    assert (result[image == 0] == -1).all()
    assert (result[image > 0] == 1).all()


def test_the_ceiling_of_other_scans_is_the_percentile_of_all_voxels() -> None:
    image, _ = scan(1)
    rule = IntensityNormaliser.fit([("x", image, None)], SCHEMA)
    reference = float(np.percentile(image[image > 0], 99.5))
    assert rule.ceiling == float(np.percentile(image, 99.9)) / reference


def test_a_scan_that_cannot_be_fitted_on_is_named() -> None:
    image, mask = scan(1)
    with pytest.raises(InputError, match="case_7: the reference intensity"):
        IntensityNormaliser.fit([*named(2), ("case_7", image, np.zeros_like(mask))], SCHEMA)


def test_a_scan_without_reference_is_refused() -> None:
    rule = IntensityNormaliser.fit(named(3), SCHEMA)
    image, mask = scan(4)
    with pytest.raises(InputError, match="case_4: the reference intensity"):
        rule.apply(image, np.where(mask == 1, 0, mask).astype(np.uint8), name="case_4")
    with pytest.raises(InputError, match="case_4"):
        rule.apply(image, None, name="case_4")


def test_it_comes_back_from_json() -> None:
    rule = IntensityNormaliser.fit(named(3), SCHEMA)
    assert IntensityNormaliser.model_validate_json(rule.model_dump_json()) == rule
