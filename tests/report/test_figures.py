from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from neonet3d.report.figures import dice, roc
from neonet3d.report.palette import DARK, LIGHT, Theme
from neonet3d.study.results import StudyResults

Draw = Callable[[StudyResults, Theme], bytes]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(imread(io.BytesIO(png), format="png"))


@pytest.mark.parametrize("draw", [roc, dice])
def test_a_chart_is_a_png_on_the_page_s_paper(draw: Draw, results: StudyResults) -> None:
    for theme in (LIGHT, DARK):
        image = pixels(draw(results, theme))
        height, width = image.shape[:2]
        assert width == 810
        assert 400 < height < 1300
        paper = [int(theme.paper[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        np.testing.assert_allclose(image[0, 0, :3], paper, atol=1e-6)
        assert image[..., :3].std() > 0.02


@pytest.mark.parametrize("draw", [roc, dice])
def test_the_same_results_give_the_same_bytes(draw: Draw, results: StudyResults) -> None:
    assert draw(results, LIGHT) == draw(results, LIGHT)


def test_the_curve_follows_the_scores(results: StudyResults) -> None:
    first, second = results.arms
    turned = first.model_copy(update={"probabilities": tuple(1 - p for p in first.probabilities)})
    other = results.model_copy(update={"arms": (turned, second)})
    assert roc(results, LIGHT) != roc(other, LIGHT)


def test_the_ceiling_is_noted_where_a_phantom_knows_it(results: StudyResults) -> None:
    real = results.model_copy(update={"ceiling_auc": None})
    assert pixels(roc(real, LIGHT)).shape[0] < pixels(roc(results, LIGHT)).shape[0]


def test_dice_follows_the_scores(results: StudyResults) -> None:
    better = results.adherence | {"tumour": replace(results.adherence["tumour"], value=0.99)}
    other = results.model_copy(update={"adherence": better})
    assert dice(results, LIGHT) != dice(other, LIGHT)


def test_a_class_without_an_interval_is_still_drawn(results: StudyResults) -> None:
    bare = replace(results.adherence["tumour"], low=float("nan"), high=float("nan"))
    without = results.model_copy(update={"adherence": {"tumour": bare}})
    nothing = results.model_copy(update={"adherence": {}})
    assert dice(without, LIGHT) != dice(nothing, LIGHT)


def test_names_are_no_formulas(results: StudyResults) -> None:
    arm = results.arms[0].model_copy(update={"title": r"cost $\frac{ in US$"})
    assert roc(results.model_copy(update={"arms": (arm,)}), LIGHT)
