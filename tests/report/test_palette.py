from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from neonet3d.report.palette import DARK, LIGHT, Theme, class_colours

LIVER = ("background", "liver", "portal_vein", "hepatic_vein", "tumour")
# Linear RGB as a deuteranope and a protanope sees it: Viénot, Brettel & Mollon,
# Color Res. Appl. 24 (1999) 243.
DICHROMATS = (
    np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
)


def linear(colour: str) -> np.ndarray:
    """sRGB to linear light (IEC 61966-2-1)."""
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """WCAG 2.2's contrast ratio."""
    dark, light = sorted(linear(c) @ (0.2126, 0.7152, 0.0722) for c in (a, b))
    return float((light + 0.05) / (dark + 0.05))


def lab(light: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear RGB."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(to_xyz @ light.clip(0, 1) / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_contrast_agrees_with_wcag() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_and_curves_stand_out(theme: Theme) -> None:
    for text in (theme.ink, theme.muted, theme.link):
        assert contrast(text, theme.paper) >= 4.5
        assert contrast(text, theme.shade) >= 4.5
    for curve in theme.series:
        assert contrast(curve, theme.paper) >= 3


@pytest.mark.parametrize("sees", [np.eye(3), *DICHROMATS])
def test_classes_differ_for_the_colour_blind(sees: np.ndarray) -> None:
    for a, b in combinations(class_colours(LIVER).values(), 2):
        assert np.linalg.norm(lab(sees @ linear(a)) - lab(sees @ linear(b))) > 20


def test_every_class_but_the_background_has_a_colour() -> None:
    assert list(class_colours(LIVER)) == list(LIVER[1:])
    colours = class_colours(("background", "kidney", "tumour", "cyst"))
    assert len(set(colours.values())) == 3
    assert colours["tumour"] == class_colours(LIVER)["tumour"]
