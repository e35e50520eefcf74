"""What the scene's parts do to the picture."""

import dataclasses

import numpy as np
import pytest

from neonet3d.cohort.phantom.grid import Grid
from neonet3d.cohort.phantom.invasion import Cuff
from neonet3d.cohort.phantom.patient import draw_patient
from neonet3d.cohort.phantom.rendering import Scene, liver_signal, render

GRID = Grid.centred((5.0, 5.0, 8.0), (310.0, 240.0, 200.0))


@pytest.fixture(scope="module")
def quiet() -> Scene:
    """A patient under a perfect scanner: no noise, no bias, gain one."""
    scene = draw_patient(5).scene
    scanner = dataclasses.replace(
        scene.scanner, snr=1e9, bias_amplitude=0.0, bias_slope_per_mm=(0.0, 0.0, 0.0), gain=1.0
    )
    return dataclasses.replace(scene, scanner=scanner)


def test_liver_has_its_signal_and_is_brighter_than_veins_and_tumour(quiet):
    image, label = render(quiet, GRID)
    median = [np.median(image[label == k]) for k in range(5)]
    assert median[1] == pytest.approx(liver_signal(quiet), rel=0.03)
    assert median[1] > max(median[2], median[3], median[4])


def test_cuff_darkens_the_image_and_spares_the_mask(quiet):
    flat = dataclasses.replace(
        quiet, cuff=Cuff(quiet.cuff.along_mm, np.zeros_like(quiet.cuff.amplitude))
    )
    full = dataclasses.replace(
        quiet, cuff=Cuff(quiet.cuff.along_mm, np.full_like(quiet.cuff.amplitude, 0.9))
    )
    (clear, label), (dark, same) = render(flat, GRID), render(full, GRID)
    np.testing.assert_array_equal(label, same)
    # The scanner is all but noise-free: what darkens is the liver, by up to half, and nothing else.
    lost = (clear - dark) / liver_signal(quiet)
    assert lost.min() > -1e-4
    assert 0.2 < lost[label == 1].max() < 0.65
    assert np.percentile(lost[label == 0], 95) < 1e-4


def test_another_grid_shows_the_same_patient(quiet):
    """A region rendered on its own equals the same region of the whole."""
    whole, label = render(quiet, GRID)
    box = GRID.box(quiet.tumour.centre_mm - 30, quiet.tumour.centre_mm + 30)
    part, part_label = render(quiet, GRID.crop(box))
    np.testing.assert_allclose(part, whole[box], atol=2e-6)
    np.testing.assert_array_equal(part_label, label[box])


def test_a_grid_beside_the_liver_has_no_labels(quiet):
    grid = Grid.centred((5.0, 5.0, 5.0), (40.0, 40.0, 40.0), (-110.0, 60.0, -80.0))
    _, label = render(quiet, grid)
    assert not label.any()
