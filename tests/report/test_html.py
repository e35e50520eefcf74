from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from neonet3d.errors import InputError
from neonet3d.report import wording
from neonet3d.report.html import Picture, write_report
from neonet3d.study.results import StudyResults


class Page(HTMLParser):
    """Elements and text of a page; it complains about tags that do not close in order."""

    VOID = frozenset({"meta", "img", "source", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.words.append(" ")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html(finished_run: Path) -> str:
    path = write_report(finished_run)
    assert path == finished_run / "report.html"
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture
def own_run(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run to change, whose figures are not drawn: that takes seconds, and ``html`` has them."""
    blank = Picture("data:image/png;base64,", "data:image/png;base64,", 1, 1)
    monkeypatch.setattr(Picture, "draw", lambda _: blank)
    return shutil.copytree(finished_run, tmp_path / "run")


def rewrite(run: Path, results: StudyResults) -> Page:
    (run / "results.json").write_text(results.model_dump_json(), encoding="utf-8")
    return Page(write_report(run).read_text("utf-8"))


def test_the_page_needs_no_network_and_no_script(html: str, page: Page) -> None:
    assert "<script" not in html.lower()
    assert "@import" not in html
    assert "url(" not in html
    assert page.all("link") == []
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "srcset", "href", "data", "action", "poster"):
            assert re.match(r"data:image/png;base64,|#|viewer.html$|$", attributes.get(name, ""))
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = {link["href"].removeprefix("#") for link in page.all("a")}
    assert links - ids == {"viewer.html"}  # beside the page; the one place where a script runs


def test_every_arm_stands_with_its_interval_and_n(page: Page, results: StudyResults) -> None:
    for arm in results.arms:
        row = (
            f"{arm.title} {wording.interval_text(arm.auc)} {arm.auc.n} ({arm.auc.n_positive}) "
            f"{wording.mean_and_deviation(arm.fold_aucs)}"
        )
        assert " ".join(row.split()) in page.text
    assert results.ceiling_auc is not None
    assert f"true probabilities {wording.interval_text(results.ceiling_auc)} 6 (3)" in page.text
    compared = results.comparisons[0]
    assert (
        f"The second arm {wording.number(compared.difference)} "
        f"{wording.range_text(compared.low, compared.high)} {wording.p_value(compared.p_value)}"
    ) in page.text


def test_the_headline_is_pooled_and_hedged(page: Page, results: StudyResults) -> None:
    best = max(results.arms, key=lambda arm: arm.auc.value)
    assert (
        f"In 6 cases, of which 3 have pni = 1, 2 classifiers were cross-validated over 2 folds. "
        f"The highest pooled out-of-fold AUC is {wording.interval_text(best.auc)} (n = 6, "
        f"3 positive), that of “{best.title}”."
    ) in page.text
    assert best.auc.low <= 0.5
    assert "not shown to do better than chance" in page.text
    assert "computer-made phantoms" in page.text
    assert page.text.count("Research use only. Not a medical device.") == 2


def test_every_arm_is_judged_beyond_its_auc(page: Page, results: StudyResults) -> None:
    for arm in results.arms:
        judged = arm.judgement
        assert f"{arm.title} {wording.interval_text(judged.brier)}" in page.text
        error = judged.calibration_error
        assert f"{wording.number(error.value)} ({wording.number(error.floor)})" in page.text
        for point in judged.operating:
            assert point.sensitivity is not None
            told = f"{arm.title} {point.rule} {wording.interval_text(point.sensitivity)}"
            assert told in page.text
    assert "tumour volume lowest third (1 to 2 ml) 3 (2) – –" in page.text


def test_every_other_number_stands_too(page: Page, results: StudyResults) -> None:
    assert (
        "axial 0.0321 [0.0123, 0.0456] 0.00789 6, 6 12.3 [11.1, 13.6] 5.68 [4.44, 6.66] 3"
        in page.text
    )
    assert "A network (ImageNet)" in page.text
    tumour = wording.interval_text(results.segmentation["tumour"])
    assert f"tumour {tumour} 6 {tumour} 6" in page.text  # adherence, synthetic and real
    assert f"portal vein – 0 {wording.interval_text(results.segmentation['portal_vein'])} 6" in (
        page.text
    )
    assert "2 of 6 synthetic patches lie nearer to a training patch than to" in page.text
    assert f"a share of {wording.interval_text(results.copying_share)} (Wilson score" in page.text
    assert "fold-1 both classes 1 2 7 5 17 5" in page.text
    assert "found no tumour in 1 of 6 scans" in page.text
    assert "train segmenter 1 min 15 s" in page.text
    assert "all stages 1 min 18 s" in page.text


def test_how_it_was_run_shows_what_is_there(page: Page) -> None:
    for part in ("0123456789abcdef", "cpu, 1 threads", "2.13.0", "2 starts", "1.2 GiB"):
        assert part in page.text
    assert "Wall time of each kind" in page.text
    assert "Wall time 2" not in page.text  # the manifest names none
    assert "mode: both_classes" in page.text


def test_names_of_cases_are_nowhere(html: str, results: StudyResults) -> None:
    for name in results.cases:
        assert name not in html
    assert "smith" not in re.sub(r"base64,[^\"]*", "", html)


def test_figures_are_pngs_with_words_for_them(page: Page) -> None:
    images, dark = page.all("img"), page.all("source")
    assert len(images) == len(dark) == 7
    for by_day, by_night in zip(images, dark, strict=True):
        assert len(by_day["alt"]) > 40
        light = base64.b64decode(by_day["src"].partition(",")[2])
        assert light.startswith(b"\x89PNG\r\n\x1a\n")
        assert light != base64.b64decode(by_night["srcset"].partition(",")[2])
        assert by_night["media"] == "screen and (prefers-color-scheme: dark)"
        assert 500 < int(by_day["width"]) <= 1104
    assert "numbers 1, 2, 3, 4, 5, 6" in images[3]["alt"]


def test_tables_and_regions_are_named(page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert len(page.all("table")) == 10
    assert all(table["aria-labelledby"] in ids for table in page.all("table"))
    assert all("scope" in cell for cell in page.all("th"))
    regions = [a for _, a in page.elements if a.get("tabindex") == "0" and "role" in a]
    assert all(region.get("aria-label") or region["aria-labelledby"] in ids for region in regions)


def test_text_from_data_is_escaped(own_run: Path, results: StudyResults) -> None:
    evil = '<script>alert("1")</script>'
    arms = tuple(arm.model_copy(update={"title": f"{evil} {arm.key}"}) for arm in results.arms)
    (own_run / "config.yaml").write_text(f"seed: {evil}\n")
    changed = results.model_copy(update={"title": evil, "arms": arms, "outcome": "<b>pni"})
    page = rewrite(own_run, changed)
    assert page.all("script") == []
    assert page.text.count(evil) > 4
    assert "<b>pni = 1" in page.text


def test_real_data_has_no_ceiling_and_no_phantoms(own_run: Path, results: StudyResults) -> None:
    (own_run / "config.yaml").write_text("seed: 0\n")  # the whole has a section of that name
    page = rewrite(own_run, results.model_copy(update={"ceiling_auc": None}))
    assert "phantom" not in page.text
    assert "eiling" not in page.text


def test_copying_is_called_by_its_name(own_run: Path, results: StudyResults) -> None:
    page = rewrite(own_run, results.model_copy(update={"copying_expected": 0.01}))
    assert "may have copied training cases" in page.text


def test_membership_and_the_two_sample_test_stand_beside_copying(
    own_run: Path, results: StudyResults
) -> None:
    text = Page(write_report(own_run).read_text("utf-8")).text
    for found in (*results.membership, results.two_sample):
        assert wording.interval_text(found) in text
    assert "(generator 2, 2 training and 2 held-out cases). 0.5 gives nothing away." in text
    assert "(6 synthetic and 6 real ones" in text


def test_a_run_that_left_its_cohort_behind_says_so(own_run: Path) -> None:
    manifest = json.loads((own_run / "manifest.json").read_text())
    (own_run / "manifest.json").write_text(json.dumps(manifest | {"cohort": "/nowhere/at/all"}))
    page = Page(write_report(own_run).read_text("utf-8"))
    assert len(page.all("img")) == 6
    assert "The scans are not drawn" in page.text
    assert "/nowhere" not in page.text


@pytest.mark.parametrize("name", ["results.json", "manifest.json", "config.yaml"])
def test_an_unfinished_run_is_refused(own_run: Path, name: str) -> None:
    (own_run / name).unlink()
    with pytest.raises(InputError, match=f"holds no {name}"):
        write_report(own_run)


def test_results_of_another_version_are_refused(own_run: Path) -> None:
    results = json.loads((own_run / "results.json").read_text())
    (own_run / "results.json").write_text(json.dumps(results | {"surprise": 1}))
    with pytest.raises(InputError, match=r"not what this version .* \(surprise: "):
        write_report(own_run)


def test_nothing_is_left_beside_the_page(own_run: Path) -> None:
    before = {path.name for path in own_run.iterdir()} | {"report.html"}
    first = write_report(own_run).read_bytes()
    assert write_report(own_run).read_bytes() == first
    assert {path.name for path in own_run.iterdir()} == before
