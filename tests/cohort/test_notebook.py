from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable

import matplotlib.image
import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.notebook import slices_html, table_html
from neonet3d.cohort.volume import Volume


def pictures(html: str) -> list[np.ndarray]:
    """Every picture of a page, (h, w, 3) from 0 to 255."""
    found = re.findall(r"base64,([^\"]+)", html)
    read = [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(one)), format="png") for one in found
    ]
    return [np.rint(one[..., :3] * 255).astype(np.uint8) for one in read]  # all opaque


def test_middle_slices_in_true_proportions_with_the_right_on_the_left() -> None:
    data = np.zeros((8, 6, 4), dtype=np.float32)
    data[7, 3, 2] = 100  # farthest to the patient's right, and in the middle otherwise
    html = slices_html(data, (1.0, 1.0, 2.0))
    assert re.findall(r'alt="(\w+) slice" width="(\d+)" height="(\d+)"', html) == [
        ("axial", "10", "7"),
        ("coronal", "10", "10"),
        ("sagittal", "7", "10"),
    ]
    axial = pictures(html)[0]
    assert axial.shape == (6, 8, 3)
    brightest = np.unravel_index(axial[..., 0].argmax(), axial.shape[:2])
    assert brightest == (2, 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_label_maps_are_coloured_by_class(dtype: type[np.generic]) -> None:
    labels = np.zeros((4, 4, 4), dtype=dtype)
    labels[:2, :, 2], labels[2:, :, 2] = 1, 4
    axial = pictures(slices_html(labels, (1.0, 1.0, 1.0)))[0]
    assert {tuple(pixel) for pixel in axial.reshape(-1, 3).tolist()} == {
        (0, 158, 115),
        (240, 228, 66),
    }


def test_volumes_and_cohorts_show_themselves(make_cohort: Callable[..., Cohort]) -> None:
    cohort = make_cohort([0, 1, 1])
    html = cohort._repr_html_()
    assert "<td>2 of 3</td>" in html
    assert all(case.name not in html for case in cohort)
    image, mask = cohort.cases[0].read_with_mask()
    assert len(pictures(image._repr_html_())) == len(pictures(mask._repr_html_())) == 3
    assert " x ".join(map(str, image.shape)) in image._repr_html_()
    assert isinstance(image, Volume)


def test_text_is_escaped() -> None:
    assert "<b>" not in table_html(("<b>",), [("<b>x",)])
