from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from torch import nn

from neonet3d.cohort.geometry import Grid, Window, crop_to_window, resample_image
from neonet3d.cohort.volume import Volume
from neonet3d.engine.device import fabric
from neonet3d.segmentation.tiling import OVERLAP, Foreground, Layout, lay_windows
from neonet3d.segmentation.windows import gaussian_weights, scan_slabs
from neonet3d.types import Shape, Triple

PATCH = (16, 12, 8)


def noise(shape: Shape, spacing_mm: Triple = (1.0, 1.0, 1.0)) -> Volume:
    data = np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)
    return Volume(data, np.diag([*spacing_mm, 1.0]))


class InFloat32(nn.Sequential):
    """Layers that autocast leaves alone, so that two ways can agree to the last digits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)  # type: ignore[no-any-return]


def network(kernel: int = 3) -> nn.Module:
    """Two random convolutions; with zero padding, what a window says depends on where it lies."""
    torch.manual_seed(0)
    return InFloat32(
        nn.Conv3d(1, 6, kernel, padding="same"),
        nn.Tanh(),
        nn.Conv3d(6, 3, kernel, padding="same"),
    ).eval()


def read_from(volume: Volume):  # type: ignore[no-untyped-def]
    def read(window: Window) -> np.ndarray:
        part, on_part = crop_to_window(volume, window)
        return resample_image(part.with_data(part.data + 1), on_part) - 1

    return read


def gathered(net: nn.Module, layout: Layout, volume: Volume) -> np.ndarray:
    """All slabs in one array; nan where there is none. They come in order, none twice."""
    out = np.full((3, *volume.shape), np.nan, np.float32)
    at = 0
    for slab in scan_slabs(net, layout, volume, read_from(volume)):
        assert slab.box[0].start >= at
        at = slab.box[0].stop
        out[:, *slab.box] = slab.probability.numpy()
    return out


def with_monai(net: nn.Module, layout: Layout, volume: Volume) -> np.ndarray:
    """Everything at once: the scan on the network's grid, MONAI's windows, and back."""
    values = resample_image(volume.with_data(volume.data + 1), layout.window) - 1
    with torch.inference_mode(), fabric().autocast():
        logits = sliding_window_inference(
            torch.from_numpy(values)[None, None], PATCH, 1, net, overlap=OVERLAP, mode="gaussian"
        )
    probability = logits[0].float().softmax(0).numpy()
    x, y, z = (-np.array(layout.window.first_mm)).tolist()
    back = Window((x, y, z), Grid(volume.shape, volume.spacing_mm))
    affine = layout.window.affine(volume)
    return np.stack([resample_image(Volume(one, affine), back) for one in probability])


@pytest.mark.parametrize("shape", [(16, 12, 8), (41, 23, 19), (70, 12, 9), (9, 30, 5), (7, 7, 7)])
def test_the_same_as_monai_over_a_whole_scan(shape: Shape) -> None:
    """Odd sizes, several windows, and scans smaller than one."""
    volume, net = noise(shape), network()
    layout = lay_windows(volume, Grid(PATCH, (1.0, 1.0, 1.0)), None)
    np.testing.assert_allclose(
        gathered(net, layout, volume), with_monai(net, layout, volume), atol=1e-4
    )


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [
        ((40, 31, 17), (0.7, 0.8, 3.0)),  # finer in the plane, thicker slices
        ((21, 19, 30), (2.1, 1.9, 0.9)),
        ((90, 10, 10), (1.0, 1.0, 1.0)),
    ],
)
def test_the_same_as_monai_at_another_spacing(shape: Shape, spacing_mm: Triple) -> None:
    volume, net = noise(shape, spacing_mm), network()
    layout = lay_windows(volume, Grid(PATCH, (1.3, 1.1, 2.0)), None)
    ours, theirs = gathered(net, layout, volume), with_monai(net, layout, volume)
    inside = np.ones(volume.shape, bool)
    if layout.window.grid.shape != tuple(part.stop for part in layout.region):
        # Theirs interpolates into the padding, ours stops where the scan's voxels do.
        inside[[0, -1]] = inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
    np.testing.assert_allclose(ours[:, inside], theirs[:, inside], atol=1e-4)


def boxed(volume: Volume, *boxes: tuple[slice, slice, slice]) -> Foreground:
    """Findings on a grid of 2 mm, without a margin."""
    window = Window.centred(volume, Grid(tuple(-(-n // 2) for n in volume.shape), (2.0,) * 3))  # type: ignore[arg-type]
    mask = np.zeros(window.grid.shape, bool)
    for box in boxes:
        mask[box] = True
    return Foreground(mask, mask, window, margin_mm=0.0, half_empty_mm=0.0)


@pytest.mark.parametrize(
    "box",
    [
        (slice(0, 12), slice(0, 9), slice(0, 3)),  # at the borders
        (slice(17, 30), slice(9, 20), slice(6, 10)),
        (slice(5, 25), slice(6, 7), slice(4, 5)),
        (slice(0, 30), slice(0, 20), slice(0, 10)),
    ],
)
def test_windows_leave_no_seams(box: tuple[slice, slice, slice]) -> None:
    """A network that looks at one voxel says the same wherever its window lies."""
    volume, net = noise((60, 40, 20)), network(kernel=1)
    layout = lay_windows(volume, Grid(PATCH, (1.0, 1.0, 1.0)), boxed(volume, box))
    out = gathered(net, layout, volume)
    with torch.inference_mode(), fabric().autocast():
        expected = net(torch.from_numpy(volume.data)[None, None])[0].float().softmax(0).numpy()
    np.testing.assert_allclose(out[:, *layout.region], expected[:, *layout.region], atol=1e-5)
    outside = np.ones(volume.shape, bool)
    outside[layout.region] = False
    assert np.isnan(out[:, outside]).all()
    assert not np.isnan(out[:, ~outside]).any()


def test_between_two_findings_lies_background() -> None:
    volume, net = noise((100, 40, 20)), network()
    corners = (
        (slice(0, 4), slice(0, 4), slice(0, 4)),
        (slice(46, 50), slice(16, 20), slice(0, 4)),
    )
    layout = lay_windows(volume, Grid(PATCH, (1.0, 1.0, 1.0)), boxed(volume, *corners))
    assert len(layout.starts) < 10
    out = gathered(net, layout, volume)
    middle = out[:, 40:60, :, :8]
    np.testing.assert_array_equal(middle[0], 1)
    np.testing.assert_array_equal(middle[1:], 0)
    assert (out[1, :8, :8, :8] > 0).all()


def test_slabs_are_thin_whatever_the_length_of_the_scan() -> None:
    volume, net = noise((400, 12, 8)), network()
    layout = lay_windows(volume, Grid(PATCH, (1.0, 1.0, 1.0)), None)
    slabs = list(scan_slabs(net, layout, volume, read_from(volume)))
    assert max(slab.probability.shape[1] for slab in slabs) <= PATCH[0]
    assert sum(slab.probability.shape[1] for slab in slabs) == 400


def test_outside_the_scan_there_is_no_signal() -> None:
    """What a network sees of the padding is -1."""
    seen = []

    class Sees(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            return x.repeat(1, 3, 1, 1, 1)

    volume = noise((9, 30, 8))
    layout = lay_windows(volume, Grid(PATCH, (1.0, 1.0, 1.0)), None)
    list(scan_slabs(Sees(), layout, volume, read_from(volume)))
    assert all((x[:, :, :3] == -1).all() and (x[:, :, 12:] == -1).all() for x in seen)
    np.testing.assert_allclose(seen[0][0, 0, 3:12], volume.data[:, :12], atol=1e-6)


def test_the_weights_are_monais() -> None:
    theirs = compute_importance_map(PATCH, mode="gaussian", sigma_scale=0.125)
    torch.testing.assert_close(gaussian_weights(PATCH), theirs, rtol=1e-4, atol=1e-6)
