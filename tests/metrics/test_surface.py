import numpy as np
import pytest

from neonet3d.errors import InputError
from neonet3d.metrics.surface import surface_scores

LABEL = {"tumour": 1}


def ball(
    radius_mm: float, spacing_mm: tuple[float, float, float], shift_mm: float = 0
) -> np.ndarray:
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip((61, 61, 31), spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return ((x - shift_mm) ** 2 + y**2 + z**2 < radius_mm**2).astype(np.uint8)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (0.5, 1.0, 1.5)])
def test_concentric_balls_are_apart_by_their_radii(spacing: tuple[float, float, float]) -> None:
    inner, outer = ball(9, spacing), ball(12, spacing)
    for pair in ((inner, outer), (outer, inner)):
        score = surface_scores(*pair, LABEL, spacing_mm=spacing, tolerance_mm=1)["tumour"]
        assert score.hd95_mm == pytest.approx(3, abs=0.6 * max(spacing))
        assert score.surface_dice == 0
    wide = surface_scores(inner, outer, LABEL, spacing_mm=spacing, tolerance_mm=5)["tumour"]
    assert wide.surface_dice == 1


def share_within(tolerance_mm: float, radius_mm: float, shift_mm: float) -> float:
    """Share of a sphere within the tolerance of its shifted copy: |sqrt(r^2 + 2 r d c + d^2) - r|
    is less than t for an interval of c, the cosine to the shift, which is uniform on a sphere."""
    outer = np.array([radius_mm - tolerance_mm, radius_mm + tolerance_mm])
    cosines = (outer**2 - radius_mm**2 - shift_mm**2) / (2 * radius_mm * shift_mm)
    low, high = np.clip(cosines, -1, 1)
    return float(high - low) / 2


def test_a_shift_is_measured_in_mm() -> None:
    spacing = (1.0, 1.0, 2.0)
    shifted = ball(18, spacing, shift_mm=8)
    score = surface_scores(shifted, ball(18, spacing), LABEL, spacing_mm=spacing, tolerance_mm=4)
    # 95 % of a sphere lie below cos = .9; there the surfaces are 7.3 mm apart.
    assert score["tumour"].hd95_mm == pytest.approx(7.3, abs=0.5)
    # On a grid the nearest voxel's surface counts: never less than the truth, and never more than
    # the truth at half a voxel's diagonal more.
    assert share_within(4, 18, 8) == pytest.approx(0.5)
    diagonal = np.linalg.norm(spacing)
    assert 0.5 <= score["tumour"].surface_dice <= share_within(4 + diagonal / 2, 18, 8)


def test_the_same_mask() -> None:
    mask = ball(8, (1, 1, 1))
    score = surface_scores(mask, mask, LABEL, spacing_mm=(1, 1, 1), tolerance_mm=0)["tumour"]
    assert (score.hd95_mm, score.surface_dice) == (0, 1)


def test_empty_masks() -> None:
    mask, empty = ball(8, (1, 1, 2)), np.zeros((61, 61, 31), np.uint8)
    measure = {"spacing_mm": (1.0, 1.0, 2.0), "tolerance_mm": 1.0}
    neither = surface_scores(empty, empty, LABEL, **measure)["tumour"]
    assert np.isnan(neither.hd95_mm)
    assert np.isnan(neither.surface_dice)
    for pair in ((mask, empty), (empty, mask)):
        missed = surface_scores(*pair, LABEL, **measure)["tumour"]
        assert missed.hd95_mm == np.inf
        assert missed.surface_dice == 0


def test_a_mask_at_the_border_of_the_grid() -> None:
    full = np.ones((6, 6, 6), np.uint8)
    less = full.copy()
    less[0] = 0
    score = surface_scores(less, full, LABEL, spacing_mm=(2, 1, 1), tolerance_mm=0.5)["tumour"]
    assert score.hd95_mm == pytest.approx(2)
    assert 0 < score.surface_dice < 1


def test_errors_are_sentences() -> None:
    a = np.zeros((3, 3, 3), np.uint8)
    with pytest.raises(InputError, match="Bring both to one grid"):
        surface_scores(a, a[:2], LABEL, spacing_mm=(1, 1, 1), tolerance_mm=1)
    with pytest.raises(InputError, match="Give 0 or more"):
        surface_scores(a, a, LABEL, spacing_mm=(1, 1, 1), tolerance_mm=-1)
