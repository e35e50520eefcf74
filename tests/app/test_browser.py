"""The app in a real browser: predict, edit and draw, follow a run, open a report.

With NEONET3D_APP_RUN it serves that study instead of a small one, and with NEONET3D_SCREENSHOTS it
leaves its pictures there (``make screenshots``): so come those of the docs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort

pytestmark = pytest.mark.filterwarnings("default")  # of the browser's driver, in its own threads
Served = Any
LONG = 90_000
SCREENSHOTS = os.environ.get("NEONET3D_SCREENSHOTS")


class Tab:
    """A page of the browser that writes down what it must not do."""

    def __init__(self, browser: Any, home: str) -> None:
        self.page = browser.new_page(viewport={"width": 1200, "height": 1000})
        self.home, self.said, self.asked = home, [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def leave_picture(self, name: str) -> None:
        self.page.wait_for_timeout(400)
        if SCREENSHOTS is not None:
            folder = Path(SCREENSHOTS)
            folder.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=folder / f"app-{name}.png", full_page=True)

    def check(self) -> None:
        """Nothing on the console, and no request to anywhere else."""
        assert self.said == []
        own = (self.home, "data:", "blob:")
        assert [url for url in self.asked if not url.startswith(own)] == []


@pytest.fixture(scope="module")
def shown(request: pytest.FixtureRequest) -> Iterator[Served]:
    """The app on a small study, or on the one that is asked for."""
    given = os.environ.get("NEONET3D_APP_RUN")
    if given is None:
        yield request.getfixturevalue("served")
        return
    from tests.app.conftest import serving

    with serving(Path(given)) as started:
        yield started


@pytest.fixture
def tab(browser: Any, shown: Served) -> Iterator[Tab]:
    opened = Tab(browser, shown.address)
    opened.page.goto(shown.address)
    yield opened
    opened.check()
    opened.page.close()


def test_predict(tab: Tab, shown: Served) -> None:
    page, case = tab.page, shown.session.cohort.cases[0]
    page.set_input_files("#file", case.image_path)
    page.wait_for_selector("#found, #problem:not([hidden])", timeout=LONG)
    page.wait_for_selector("body[data-shown]", timeout=LONG)
    sentence = page.locator("#sentence").inner_text()
    assert page.locator("#whose").inner_text() == case.image_path.name
    assert "Probability of pni" in sentence or "found no tumour" in sentence
    before = page.locator("#scan").screenshot()
    if "Probability" in sentence:
        page.select_option("#map", "occlusion")
        page.wait_for_selector("body[data-shown=occlusion]", timeout=LONG)
        assert "Occlusion" in page.locator("#caption").inner_text()
        tab.leave_picture("predict")
    page.click("#turn")
    page.wait_for_timeout(400)
    assert page.locator("#scan").screenshot() != before
    page.reload()  # the job's number is in the address
    page.wait_for_selector("body[data-shown]", timeout=LONG)
    assert page.locator("#sentence").inner_text() == sentence


def test_an_upload_that_is_refused_says_why(tab: Tab, tmp_path: Path) -> None:
    bad = tmp_path / "truncated.nii.gz"
    bad.write_bytes(b"\x1f\x8b\x08\x00 this is no gzip stream")
    tab.page.set_input_files("#file", bad)
    tab.page.wait_for_selector("#problem:not([hidden])", timeout=LONG)
    assert "damaged" in tab.page.locator("#problem").inner_text()
    assert not tab.page.locator("#found").is_visible()


def test_a_second_scan_takes_the_place_of_the_first(
    tab: Tab, shown: Served, tmp_path: Path
) -> None:
    page, cases = tab.page, shown.session.cohort.cases
    first, second = (
        shutil.copy(case.image_path, tmp_path / f"scan-{number}.nii.gz")
        for number, case in enumerate(cases[:2])
    )
    page.set_input_files("#file", first)
    page.wait_for_selector("#job:not([hidden])", timeout=LONG)
    page.set_input_files("#file", second)
    page.wait_for_selector("#whose:has-text('scan-1')", timeout=LONG)
    page.wait_for_selector("body[data-shown]", timeout=LONG)
    page.wait_for_load_state("networkidle")
    assert page.locator("#whose").inner_text() == "scan-1.nii.gz"


def test_a_job_is_cancelled(tab: Tab, shown: Served) -> None:
    page, case = tab.page, shown.session.cohort.cases[0]
    # While the worker is at this one, the page's waits behind it.
    long = json.dumps({"case": 1, "edits": [], "outcome": 1, "seed": 0})
    jobs = [shown.ask("POST", "/api/generate", long).json()["id"] for _ in range(3)]
    page.set_input_files("#file", case.image_path)
    page.click("#cancel", timeout=LONG)
    page.wait_for_selector("#doing:has-text('Cancelled')", timeout=LONG)
    for job in jobs:
        shown.follow(job)


def test_edit_a_tumour_and_generate(tab: Tab) -> None:
    page = tab.page
    page.goto(tab.home + "generate")
    page.wait_for_selector("#volume:has-text('Tumour')", timeout=LONG)

    def volume_ml() -> float:
        page.wait_for_load_state("networkidle")
        assert not page.locator("#problem").is_visible()
        return float(page.locator("#volume").inner_text().split()[1])

    first, drawn = volume_ml(), page.locator("#mask").screenshot()
    with page.expect_response("**/api/mask"):
        page.click("#grow")
    assert volume_ml() > first
    with page.expect_response("**/api/mask"):
        page.click("#undo")
    assert volume_ml() == first
    box = page.locator("#mask").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - box["width"] / 16, middle[1], steps=3)
    with page.expect_response("**/api/mask") as moved:
        page.mouse.up()
    assert moved.value.ok, moved.value.json()
    assert volume_ml() == first
    assert page.locator("#mask").screenshot() != drawn
    page.select_option("#outcome", "1")
    page.click("#draw")
    page.wait_for_selector("body[data-shown]", timeout=LONG)
    tab.leave_picture("generate")
    assert page.locator("#synthetic").screenshot() != page.locator("#real").screenshot()
    with page.expect_download() as saved:
        page.click("#download")
    assert saved.value.suggested_filename == "synthetic-pair.zip"
    first_draw = page.evaluate("document.body.dataset.shown")
    page.select_option("#outcome", "0")
    page.click("#draw")
    page.wait_for_selector(f"body:not([data-shown='{first_draw}'])", timeout=LONG)


def test_an_edit_that_does_not_fit_is_taken_back(tab: Tab) -> None:
    page = tab.page
    page.goto(tab.home + "generate")
    page.wait_for_selector("#volume:has-text('Tumour')", timeout=LONG)
    before = page.locator("#volume").inner_text()
    for _ in range(60):  # to the patient's right, until the liver ends
        with page.expect_response("**/api/mask") as answered:
            page.press("#mask", "ArrowLeft")
        if not answered.value.ok:
            break
    page.wait_for_selector("#problem:not([hidden])", timeout=LONG)
    assert "does not fit there" in page.locator("#problem").inner_text()
    assert page.locator("#volume").inner_text() == before
    # The refusal's status is on the console of every browser; nothing else is.
    assert all("400" in line for line in tab.said)
    tab.said.clear()


def test_follow_a_run_and_open_its_report(tab: Tab, shown: Served) -> None:
    page, other = tab.page, shown.session.run.parent / "started"
    other.mkdir()
    try:
        manifest = {"command": "neonet3d demo", "starts": ["2099-01-01T00:00:00+00:00"]}
        (other / "manifest.json").write_text(json.dumps(manifest))
        (other / "log.jsonl").write_text('{"stage": "crop", "seconds": 1.5}\n')
        with (other / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            page.goto(tab.home + "runs")
            section = page.locator("#runs section").first
            page.wait_for_selector("#runs section[data-state=running]", timeout=LONG)
            assert "1 stages" in section.locator("summary").inner_text()
            with (other / "log.jsonl").open("a") as log:
                log.write('{"stage": "train segmenter", "seconds": 20.25}\n')
            page.wait_for_selector("#runs section >> text=2 stages", timeout=LONG)
            tab.leave_picture("runs")
        page.wait_for_selector("#runs section[data-state=stopped]", timeout=LONG)
    finally:
        shutil.rmtree(other)
    page.click("text=report")
    page.click("a[href='viewer.html']")
    page.wait_for_selector("body[data-shown='0']", timeout=LONG)


def test_the_cohort_with_its_check(tab: Tab) -> None:
    page = tab.page
    page.goto(tab.home + "cohort")
    page.click("#check")
    page.wait_for_selector("body[data-checked]", timeout=LONG)
    page.wait_for_load_state("networkidle")
    loaded = "[...document.images].filter(one => one.complete && one.naturalWidth).length"
    assert page.evaluate(loaded) >= 1


def test_a_hostile_name_is_only_text(
    browser: Any, run_folder: Path, scans: Cohort, tmp_path: Path
) -> None:
    from tests.app.conftest import serving

    copied = shutil.copytree(run_folder, tmp_path / "<img src=x onerror=document.title='owned'>")
    with serving(copied) as started:
        opened = Tab(browser, started.address)
        opened.page.goto(started.address)
        opened.page.goto(opened.home + "runs")
        opened.page.wait_for_selector("#runs section h2:has-text('<img src=x')", timeout=LONG)
        assert opened.page.title() == "Runs · neonet3d"
        opened.check()
        opened.page.close()


def test_two_clicks_from_the_report_on_disk_to_a_volume_in_3d(
    browser: Any, run_folder: Path
) -> None:
    """The first is on the address that the demo prints."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((run_folder / "report.html").as_uri())
    page.click("a[href='viewer.html']")
    page.wait_for_selector("body[data-shown='0']", timeout=LONG)
    picture = page.locator("#synthetic").screenshot()
    assert len(np.unique(np.frombuffer(picture, np.uint8))) > 50
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    page.close()
