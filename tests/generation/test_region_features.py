from __future__ import annotations

import numpy as np
import pytest
import torch

from neonet3d.generation.region_features import band_statistics, region_features


def test_constant_classes_have_a_mean_and_no_deviation() -> None:
    maps = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    maps[:, 4:] = 1
    images = torch.where(maps == 1, 0.5, -1.0)
    found = band_statistics(images, maps, 2)[0]
    # The orthogonal transform of a constant c is c * sqrt(8) in the first band and 0 elsewhere.
    np.testing.assert_allclose(found[0, 0], -(8**0.5), rtol=1e-6)
    np.testing.assert_allclose(found[1, 0], 0.5 * 8**0.5, rtol=1e-6)
    np.testing.assert_allclose(found[:, 1:], 0, atol=1e-6)


def test_noise_has_its_deviation_in_every_band_of_its_class_only() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.zeros(2, 32, 32, 32, dtype=torch.uint8)
    maps[:, 16:] = 1
    images = torch.where(maps == 1, 0.3 * torch.randn(maps.shape, generator=generator), -1.0)
    found = band_statistics(images, maps, 2)
    np.testing.assert_allclose(found[:, 1, 8:], 0.3, rtol=0.05)
    np.testing.assert_allclose(found[:, 0, 8:], 0, atol=1e-6)


def test_a_vein_one_voxel_wide_is_seen_and_a_speck_is_not() -> None:
    maps = torch.zeros(1, 24, 24, 24, dtype=torch.uint8)
    maps[0, 5, 7] = 1  # 24 voxels fill 3 blocks
    maps[0, :, 10, 10:13] = 2  # 72 voxels fill 9
    found = band_statistics(torch.rand(maps.shape), maps, 3)[0]
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()


def test_without_label_maps_the_patch_is_one_class() -> None:
    images = torch.rand(3, 8, 8, 8)
    maps = torch.zeros(3, 8, 8, 8, dtype=torch.uint8)
    np.testing.assert_array_equal(
        band_statistics(images, None, 1), band_statistics(images, maps, 1)
    )


def test_gaps_get_the_mean_of_both_sides_and_rare_classes_go() -> None:
    real, synthetic = np.zeros((10, 3, 16)), np.ones((5, 3, 16))
    real[0, 1] = np.nan  # in 9 of 10: kept
    synthetic[:2, 2] = np.nan  # in 3 of 5: left out, though 13 of 15 have it
    found = region_features(real, synthetic)
    assert found.classes == (0, 1)
    assert (found.real.shape, found.synthetic.shape) == ((10, 32), (5, 32))
    np.testing.assert_allclose(found.real[0, 16:], 5 / 14)
    np.testing.assert_allclose(found.real[1:], 0)
    np.testing.assert_allclose(found.synthetic, 1)


def test_errors_are_sentences() -> None:
    with pytest.raises(ValueError, match="no label maps for 3 classes"):
        band_statistics(torch.rand(1, 8, 8, 8), None, 3)
    with pytest.raises(ValueError, match="one label map for each image"):
        band_statistics(torch.rand(1, 8, 8, 8), torch.zeros(2, 8, 8, 8, dtype=torch.uint8), 1)
    with pytest.raises(ValueError, match="Give both the same classes"):
        region_features(np.zeros((2, 3, 16)), np.zeros((2, 4, 16)))
    with pytest.raises(ValueError, match="No class is in 80% of the cases"):
        region_features(np.full((2, 3, 16), np.nan), np.zeros((2, 3, 16)))
