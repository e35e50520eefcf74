import numpy as np
import pytest

from neonet3d.errors import InputError
from neonet3d.metrics.centreline import cl_dice
from neonet3d.metrics.overlap import dice

SPACING = (1.0, 1.0, 2.0)


def bar(width: int = 1, *, x: int = 6, gap: tuple[int, int] = (0, 0)) -> np.ndarray:
    """A bar along y, 20 voxels long, without its voxels from gap[0] to gap[1]."""
    mask = np.zeros((16, 24, 12), bool)
    mask[x - width // 2 : x + (width + 1) // 2, 2:22, 6 - width // 2 : 6 + (width + 1) // 2] = True
    mask[:, gap[0] : gap[1]] = False
    return mask


def test_the_same_vessel() -> None:
    for width in (1, 3, 4):
        assert cl_dice(bar(width), bar(width), SPACING) == 1


def test_a_gap_costs_its_length() -> None:
    # The line of 20 voxels lacks 5: precision 15 / 15, sensitivity 15 / 20.
    broken = bar(gap=(10, 15))
    assert cl_dice(broken, bar(), SPACING) == pytest.approx(2 * 0.75 / 1.75)
    assert cl_dice(bar(), broken, SPACING) == pytest.approx(2 * 0.75 / 1.75)


def test_half_the_vessel() -> None:
    assert cl_dice(bar(gap=(12, 22)), bar(), SPACING) == pytest.approx(2 * 0.5 / 1.5)


def test_too_thick_costs_nothing_and_beside_costs_all() -> None:
    thick, thin = bar(5), bar(1)
    assert dice(thick, thin, {"vein": 1})["vein"] < 0.1
    assert cl_dice(thick, thin, SPACING) == pytest.approx(1)
    assert cl_dice(bar(1, x=8), thin, SPACING) == 0
    # Moved by less than its radius, each centreline still lies in the other.
    assert cl_dice(bar(5, x=7), bar(5), SPACING) > 0.9


def test_empty_masks() -> None:
    empty = np.zeros_like(bar())
    assert np.isnan(cl_dice(empty, empty, SPACING))
    assert cl_dice(bar(), empty, SPACING) == 0
    assert cl_dice(empty, bar(), SPACING) == 0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="Bring both to one grid"):
        cl_dice(bar(), bar()[:5], SPACING)
