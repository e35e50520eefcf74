"""Tumour shapes: the asked size, no preferred axis, a mask that is blind to the margin."""

import dataclasses

import numpy as np
import pytest

from neonet3d.cohort.phantom.grid import Grid
from neonet3d.cohort.phantom.patient import draw_patient
from neonet3d.cohort.phantom.tumour import Tumour, gross_distance, mask_distance, tumour_fraction


@pytest.fixture(scope="module")
def tumour() -> Tumour:
    return draw_patient(3).scene.tumour


def around(tumour: Tumour) -> Grid:
    x, y, z = tumour.centre_mm.tolist()
    return Grid.centred((2.0, 2.0, 2.0), (90.0, 90.0, 90.0), (x, y, z))


def test_without_lobes_and_stretch_it_is_a_sphere(tumour):
    ball = dataclasses.replace(
        tumour, axes=np.ones(3), lobe_heights=np.zeros_like(tumour.lobe_heights)
    )
    grid = around(ball)
    x, y, z = (v - c for v, c in zip(grid.mesh_mm(), ball.centre_mm, strict=True))
    expected = np.sqrt(x**2 + y**2 + z**2) - ball.radius_mm
    np.testing.assert_allclose(gross_distance(ball, *grid.mesh_mm()), expected, atol=1e-2)


def test_lobes_keep_the_volume():
    """Averaged over tumours, lobes add no volume to first order."""
    ratio = []
    for seed in range(6):
        tumour = dataclasses.replace(draw_patient(seed).scene.tumour, axes=np.ones(3))
        volume = (gross_distance(tumour, *around(tumour).mesh_mm()) < 0).sum() * 8
        ratio.append(volume / (4 / 3 * np.pi * tumour.radius_mm**3))
    assert np.mean(ratio) == pytest.approx(1, abs=0.12)


def test_the_mask_fits_its_reach(tumour):
    grid = around(tumour)
    x, y, z = (v - c for v, c in zip(grid.mesh_mm(), tumour.centre_mm, strict=True))
    distance = np.sqrt(x**2 + y**2 + z**2)
    assert distance[mask_distance(tumour, grid) < 0].max() < tumour.reach_mm


def test_a_wider_margin_reaches_further_out_and_leaves_the_mask_alone(tumour):
    grid = around(tumour)
    distance = mask_distance(tumour, grid)
    shell = (distance > 1) & (distance < 8)
    shares = [tumour_fraction(tumour, grid, distance, m)[shell].mean() for m in (0.6, 3.0, 6.0)]
    assert shares[0] < shares[1] < shares[2]
    deep = distance < -6
    assert tumour_fraction(tumour, grid, distance, 0.6)[deep].min() > 0.95
