from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neonet3d.classification.certainty import Prediction
from neonet3d.cohort.volume import Volume
from neonet3d.engine.artefact import ArtefactCard
from neonet3d.report.palette import LIGHT
from neonet3d.report.pictures import Labelled
from neonet3d.report.predictions import PredictedCase, _montage, write_predictions

CARD = ArtefactCard(
    kind="PattenNet",
    config={},
    classes=("background", "liver", "tumour"),
    outcome="pni<script>",
    normaliser=None,
    shape=(16, 16, 8),
    spacing_mm=(2.0, 2.0, 4.0),
    fold="fold-0",
    training_cases=("a", "b", "c"),
    training_scans=("d", "e", "f"),
    parents={},
    seed=0,
    package="0.1.0",
    device="cpu",
)
FOUND = Prediction(
    probability=np.array([0.62, 0.08, 0.5]),
    low=np.array([0.31, 0.02, 0.1]),
    high=np.array([0.85, 0.2, 0.9]),
    may_be=np.array([[True, True], [True, False], [False, False]]),
    familiarity=np.array([0.45, 0.9, 0.01]),
    unfamiliar=np.array([False, False, True]),
)


def case(number: int, *, right: float = 1.0, left: float = 0.0) -> PredictedCase:
    """Speaks for the outcome on the patient's right half, or left."""
    mask = np.ones((16, 16, 8), dtype=np.uint8)
    mask[6:10, 6:10, 3:6] = 2
    image = np.where(mask == 2, 0.5, 1.0).astype(np.float32)
    affine = np.diag([2.0, 2.0, 4.0, 1.0])
    speaks = np.zeros(image.shape, dtype=np.float32)
    speaks[8:], speaks[:8] = right, left
    return PredictedCase(
        number, Labelled(Volume(image, affine), Volume(mask, affine)), {"Speaks for it": speaks}
    )


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    cases = [case(4), case(7), case(9)]
    out = tmp_path_factory.mktemp("page") / "page.html"
    assert write_predictions(out, cases, FOUND, CARD, prevalence=0.34) == out
    return out.read_text("utf-8")


def text_of(html: str) -> str:
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_every_case_stands_with_how_sure_it_is(html: str) -> None:
    text = text_of(html)
    assert "Case 4 0.62 [0.31, 0.85] 0 or 1 yes Case 7 0.08 [0.02, 0.20] 0 yes" in text
    assert "Case 9 0.50 [0.10, 0.90] neither no" in text
    assert "holds both outcomes: this scan does not decide" in text
    assert "= 0 alone." in text
    assert text.count("No figure of it is to be trusted.") == 1
    assert "trained on 3 cases, of which a share of 0.34 have" in text
    assert text.count("Research use only. Not a medical device.") == 2


def test_it_needs_no_network_and_escapes(html: str) -> None:
    assert "<script" not in html
    assert "pni&lt;script&gt;" in html
    assert "default-src 'none'" in html
    for address in re.findall(r'(?:src|srcset|href)="([^"]*)"', html):
        assert re.match(r"data:image/png;base64,|#case-\d$", address)
    assert len(re.findall(r'alt="[^"]+"', html)) == html.count("<img")


def test_every_picture_has_a_night_version(html: str) -> None:
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", html)
    assert len(pictures) == 2 * 3
    sizes = {Image.open(io.BytesIO(base64.b64decode(one))).size for one in pictures}
    assert len(sizes) == 1


def colours(png: bytes) -> np.ndarray:
    """The map of the axial row."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    return pixels[height // 10 : height // 2 - 20, -width * 25 // 86 :]


@pytest.mark.parametrize(("right", "redder"), [(1.0, True), (-1.0, False)])
def test_what_speaks_for_it_is_orange_where_it_is(right: float, redder: bool) -> None:
    """RAS+: the larger index is the patient's right, which radiologists see on the left."""
    png = _montage(case(1, right=right), CARD.schema_, LIGHT)
    found = colours(png)
    red_less_blue = found[..., 0] - found[..., 2]
    half = red_less_blue.shape[1] // 2
    there, elsewhere = red_less_blue[:, 20 : half - 20], red_less_blue[:, half + 20 : -20]
    assert abs(elsewhere).mean() < 5
    assert (there.mean() > 20) if redder else (there.mean() < -20)


def test_the_largest_value_of_a_map_is_the_strongest() -> None:
    one = _montage(case(1, right=1.0, left=0.5), CARD.schema_, LIGHT)
    scaled = _montage(case(1, right=8.0, left=4.0), CARD.schema_, LIGHT)
    assert one == scaled
    nothing = _montage(case(1, right=0.0), CARD.schema_, LIGHT)
    assert abs(colours(nothing)[..., 0] - colours(nothing)[..., 2]).mean() < 5


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_predictions(tmp_path / "taken", [], FOUND, CARD, prevalence=0.3)
