from __future__ import annotations

import numpy as np
import pytest
from monai.data.utils import dense_patch_slices

from neonet3d.cohort.geometry import Grid, Window
from neonet3d.cohort.volume import Volume
from neonet3d.segmentation.tiling import OVERLAP, Foreground, lay_windows, sub_window
from neonet3d.types import Shape, Triple

PATCH = (16, 12, 8)
COARSE_MM = 4.0


def scan(shape: Shape, spacing_mm: Triple = (1.0, 1.0, 1.0)) -> Volume:
    return Volume(np.zeros(shape, np.float32), np.diag([*spacing_mm, 1.0]))


def foreground(
    volume: Volume, *boxes: tuple[slice, slice, slice], half_empty_mm: float = 0.0
) -> Foreground:
    """Coarse voxels in boxes of the scan's millimetres."""
    extent = np.array(volume.shape) * np.array(volume.spacing_mm)
    x, y, z = np.ceil(extent / COARSE_MM).astype(int).tolist()
    window = Window.centred(volume, Grid((x, y, z), (COARSE_MM,) * 3))
    mask = np.zeros((x, y, z), bool)
    for box in boxes:
        mask[box] = True
    return Foreground(mask, mask, window, margin_mm=3.0, half_empty_mm=half_empty_mm)


@pytest.mark.parametrize("shape", [(16, 12, 8), (17, 30, 50), (64, 24, 9), (100, 13, 8)])
def test_over_a_whole_scan_windows_lie_where_monais_do(shape: Shape) -> None:
    layout = lay_windows(scan(shape), Grid(PATCH, (1.0, 1.0, 1.0)), None)
    interval = [int(n * (1 - OVERLAP)) for n in PATCH]
    theirs = dense_patch_slices(shape, PATCH, interval)
    assert set(layout.starts) == {tuple(int(p.start) for p in place) for place in theirs}
    assert layout.region == tuple(slice(0, n) for n in shape)
    assert list(layout.starts) == sorted(layout.starts)


def test_a_scan_of_the_networks_spacing_is_padded_by_whole_voxels() -> None:
    layout = lay_windows(scan((9, 40, 8)), Grid(PATCH, (1.0, 1.0, 1.0)), None)
    assert layout.window.grid.shape == (16, 40, 8)
    assert layout.window.first_mm == (-3, 0, 0)
    assert layout.region == (slice(3, 12), slice(0, 40), slice(0, 8))


def test_the_networks_grid_covers_a_scan_of_another_spacing() -> None:
    volume = scan((31, 29, 17), (0.8, 1.3, 2.5))
    layout = lay_windows(volume, Grid(PATCH, (1.5, 1.5, 3.0)), None)
    extent = np.array(volume.shape) * np.array(volume.spacing_mm)
    inner = [part.stop - part.start for part in layout.region]
    assert (np.array(inner) * (1.5, 1.5, 3.0) >= extent - 1e-6).all()


@pytest.mark.parametrize("seed", range(20))
def test_windows_cover_what_is_likely(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, z = rng.integers(5, 60, 3).tolist()
    volume = scan((x, y, z), (1.0, 1.5, 2.0))
    grid = Grid(PATCH, (1.2, 1.5, 2.5))
    coarse = np.ceil(np.array(volume.shape) * volume.spacing_mm / COARSE_MM).astype(int)
    low = rng.integers(0, coarse)
    high = np.minimum(coarse, low + rng.integers(1, 8, 3))
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    found = foreground(volume, (box[0], box[1], box[2]))
    layout = lay_windows(volume, grid, found)
    assert layout.starts
    assert len(layout.starts) <= len(lay_windows(volume, grid, None).starts)
    covered = np.zeros(layout.window.grid.shape, bool)
    for start in layout.starts:
        assert all(0 <= a <= n - p for a, n, p in zip(start, covered.shape, PATCH, strict=True))
        covered[tuple(slice(a, a + n) for a, n in zip(start, PATCH, strict=True))] = True
    for axis in range(3):
        centres = layout.window.first_mm[axis] + np.arange(covered.shape[axis]) * np.array(
            grid.spacing_mm[axis]
        )
        origin = found.window.first_mm[axis] - COARSE_MM / 2
        inside = (centres > origin + low[axis] * COARSE_MM) & (
            centres < origin + high[axis] * COARSE_MM
        )
        part = layout.region[axis]
        padding = lay_windows(volume, grid, None).region[axis]
        inside[: padding.start] = inside[padding.stop :] = False
        assert inside[part].sum() == inside.sum()
        reached = covered.any(axis=tuple(other for other in range(3) if other != axis))
        assert reached[inside].all()


def test_a_box_of_one_window_takes_one_wherever_it_lies() -> None:
    volume = scan((64, 48, 40))
    for place in (slice(0, 2), slice(6, 8), slice(8, 10)):
        layout = lay_windows(
            volume, Grid((16, 16, 16), (1.0, 1.0, 1.0)), foreground(volume, (place,) * 3)
        )
        assert len(layout.starts) == 1


def test_the_margin_costs_no_window() -> None:
    volume = scan((64, 12, 8))
    found = foreground(volume, (slice(4, 8), slice(None), slice(None)))  # 16 mm: one window
    layout = lay_windows(volume, Grid(PATCH, (1.0, 1.0, 1.0)), found)
    assert layout.starts == ((16, 0, 0),)
    assert layout.region[0] == slice(16, 32)
    smaller = foreground(volume, (slice(5, 7), slice(None), slice(None)))  # 8 mm and 3 mm on a side
    assert lay_windows(volume, Grid(PATCH, (1.0, 1.0, 1.0)), smaller).region[0] == slice(17, 31)


def test_windows_between_two_findings_are_not_run() -> None:
    volume = scan((96, 96, 8))
    corners = (
        (slice(0, 2), slice(0, 2), slice(None)),
        (slice(22, 24), slice(22, 24), slice(None)),
    )
    layout = lay_windows(volume, Grid((16, 16, 8), (1.0, 1.0, 1.0)), foreground(volume, *corners))
    assert layout.starts == ((0, 0, 0), (80, 80, 0))


def test_windows_lie_as_close_as_what_is_wanted_allows() -> None:
    """Two windows are needed; they see the middle twice instead of what lies beside."""
    volume = scan((64, 12, 8))
    found = foreground(volume, (slice(4, 9), slice(None), slice(None)))  # 16 to 36 mm
    layout = lay_windows(volume, Grid(PATCH, (1.0, 1.0, 1.0)), found)
    assert layout.starts == ((13, 0, 0), (23, 0, 0))
    assert layout.region[0] == slice(13, 39)


def test_a_sub_window_lies_in_its_window() -> None:
    window = Window((1.0, -2.0, 0.0), Grid((8, 8, 8), (2.0, 1.0, 0.5)))
    part = sub_window(window, (slice(-1, 3), slice(2, 4), slice(0, 8)))
    assert part == Window((-1.0, 0.0, 0.0), Grid((4, 2, 8), (2.0, 1.0, 0.5)))


def test_what_is_on_average_empty_needs_no_window_of_its_own() -> None:
    """A window is 12 mm long along y."""
    volume, grid = scan((16, 40, 8)), Grid(PATCH, (1.0, 1.0, 1.0))
    box = (slice(0, 4), slice(1, 5), slice(0, 2))  # 16 mm along y
    assert len(lay_windows(volume, grid, foreground(volume, box)).starts) == 2
    lone = lay_windows(volume, grid, foreground(volume, box, half_empty_mm=2.0))
    assert lone.starts == ((0, 6, 0),)  # the middle 12 mm of 4 ... 20
