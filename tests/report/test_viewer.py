"""The page of volumes: what is in the file, and what a real browser makes of it."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.report.cases import read_pairs
from neonet3d.report.pictures import WINDOW, reference_level
from neonet3d.report.viewer import NIIVUE, STEPS, write_viewer
from neonet3d.study.results import StudyResults


@pytest.fixture(scope="module")
def viewer(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = shutil.copytree(finished_run, tmp_path_factory.mktemp("viewer") / "run")
    return write_viewer(run)


def embedded(page: str, name: str) -> Any:
    found = re.search(f'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found.group(1))


def unpacked(text: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_the_volumes_are_those_of_the_run(viewer: Path) -> None:
    run, page = viewer.parent, viewer.read_text("utf-8")
    crops = Cohort.open(run / "crops")
    pairs, found = read_pairs(run, crops, StudyResults.read(run)), embedded(page, "volumes")
    assert len(found) == len(pairs) > 0
    for pair, of in zip(pairs, found, strict=True):
        mask = unpacked(of["mask"])
        assert np.array_equal(np.asarray(mask.dataobj), pair.real.mask.data)
        for name, one in (("real", pair.real), ("synthetic", pair.synthetic)):
            shown = unpacked(of[name])
            assert shown.header.get_zooms() == pytest.approx(one.image.spacing_mm)
            # Each is divided by its own liver's median: scans and draws have other units.
            expected = one.image.data / (WINDOW * reference_level(one, crops.schema))
            difference = shown.get_fdata() / STEPS - expected.clip(0, 1)
            assert np.abs(difference).max() <= 0.5 / STEPS + 1e-6
    labels = embedded(page, "labels")
    assert labels["labels"] == list(crops.schema.names)
    assert labels["A"][0] == 0


def test_nothing_identifies_a_patient_and_nothing_is_fetched(viewer: Path) -> None:
    page = viewer.read_text("utf-8")
    niivue = files("neonet3d.report").joinpath(NIIVUE).read_text("utf-8")
    assert niivue in page
    own = page.replace(niivue, "")
    assert not re.search(r"https?://", own)
    assert "default-src 'none'" in own
    assert "connect-src" not in own
    for case in StudyResults.read(viewer.parent).cases:
        assert case not in own
    for of in embedded(page, "volumes"):
        header = unpacked(of["real"]).header
        assert header["descrip"].tobytes().strip(b"\0") == b""


def test_a_class_cannot_end_its_script(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    evil = "</script><b>"
    monkeypatch.setattr("neonet3d.report.viewer.label_colours", lambda classes: {"labels": [evil]})
    page = write_viewer(run).read_text("utf-8")
    assert evil not in page
    assert embedded(page, "labels")["labels"] == [evil]


@pytest.mark.filterwarnings("default")
def test_a_browser_draws_both_volumes_and_turns_them_together(browser: Any, viewer: Path) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(viewer.as_uri())
    page.wait_for_selector("body[data-shown='0']", timeout=60_000)
    assert page.locator("#problem").is_hidden()

    def picture(name: str) -> bytes:
        page.wait_for_timeout(500)
        return bytes(page.locator(f"#{name}").screenshot())

    before = {name: picture(name) for name in ("real", "synthetic")}
    assert before["real"] != before["synthetic"]
    box = page.locator("#real").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 140, steps=4)
    page.mouse.up()
    turned = {name: picture(name) for name in ("real", "synthetic")}
    assert all(turned[name] != before[name] for name in turned)
    page.click("#slices")
    assert page.locator("#slices").get_attribute("aria-pressed") == "true"
    assert picture("real") != turned["real"]
    page.select_option("#case", "1")
    page.wait_for_selector("body[data-shown='1']", timeout=60_000)
    assert said == []
    assert asked == [viewer.as_uri()]
    page.close()
