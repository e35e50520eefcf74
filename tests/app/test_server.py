"""What the routes answer: pages, pictures, masks, jobs, runs; and what they refuse."""

from __future__ import annotations

import base64
import fcntl
import http.client
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neonet3d.app.server import bind
from neonet3d.app.session import Session
from neonet3d.cohort.cohort import Cohort
from neonet3d.errors import InputError

Served = Any


@pytest.mark.parametrize("page", ["cohort", "predict", "generate", "runs"])
def test_every_page_is_whole(served: Served, page: str) -> None:
    text = served.ask("GET", f"/{page}").body.decode()
    assert text.startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")
    assert f'href="{page}" aria-current="page"' in text
    assert "Research use only" in text
    assert "style=" not in text  # the policy lets no style of its own in
    assert text.count("<script") == text.count("src=") - text.count("<img") + text.count(
        'type="application/json"'
    )


def test_every_case_is_listed(served: Served) -> None:
    page = served.ask("GET", "/cohort").body.decode()
    for case in served.session.cohort:
        assert case.name in page
        assert f'<span class="name">{case.name}</span>' in page


@pytest.mark.parametrize("name", ["common.js", "volumes.js", "predict.js", "niivue.js"])
def test_scripts_are_served(served: Served, name: str) -> None:
    found = served.ask("GET", f"/static/{name}")
    assert found.headers["content-type"].startswith("text/javascript")
    assert len(found.body) > 500


@pytest.mark.parametrize("path", ["/static/secret", "/static/..%2Fapi.py", "/cohort/0.png",
                                  "/cohort/99.png", "/runs/study/manifest.json",
                                  "/runs/..%2Fx/report.html", "/api/jobs/none"])  # fmt: skip
def test_what_is_not_there(served: Served, path: str) -> None:
    found = served.ask("GET", path)
    assert found.status in (400, 404)


def test_a_thumbnail(served: Served) -> None:
    found = served.ask("GET", "/cohort/1.png")
    assert found.body.startswith(b"\x89PNG")
    assert served.ask("GET", "/cohort/1.png").body == found.body


def test_the_check_of_the_cohort_is_a_job(served: Served) -> None:
    job = served.ask("POST", "/api/cohort/check", "").json()
    told = served.follow(job["id"])
    assert told["state"] == "done"
    findings = told["result"]["findings"]
    assert all(set(one) == {"case", "severity", "problem", "mend"} for one in findings)


def test_a_mask_and_its_edits(served: Served) -> None:
    body = {"case": 1, "edits": []}
    found = served.ask("POST", "/api/mask", json.dumps(body)).json()
    labels = np.frombuffer(base64.b64decode(found["labels"]), np.uint8)
    mask = served.session.crops.cases[0].read_mask()
    assert np.array_equal(labels.reshape(found["shape"], order="F"), mask.data)
    assert found["tumour_ml"] == pytest.approx(float((mask.data == 2).sum()) * 0.36, abs=1e-3)
    body["edits"] = [{"kind": "remove"}]
    assert served.ask("POST", "/api/mask", json.dumps(body)).json()["tumour_ml"] == 0
    body["edits"] = [{"kind": "shift", "by_mm": [199.0, 0.0, 0.0]}]
    refused = served.ask("POST", "/api/mask", json.dumps(body))
    assert refused.status == 400
    assert "does not fit there" in refused.sentence


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("", "Invalid JSON"),
        ('{"case": 0, "edits": []}', "greater than or equal to 1"),
        ('{"case": 1, "edits": [{"kind": "eval"}]}', "edits.0"),
        ('{"case": 1, "edits": [' + "x" * 70_000, "too long"),
    ],
)
def test_requests_that_make_no_sense(served: Served, body: str, sentence: str) -> None:
    for path in ("/api/mask", "/api/generate"):
        refused = served.ask("POST", path, body)
        assert refused.status == 400
        assert sentence in refused.sentence


def test_a_volume_is_drawn_and_downloaded(served: Served) -> None:
    body = {"case": 1, "edits": [], "outcome": 1, "seed": 3}
    job = served.ask("POST", "/api/generate", json.dumps(body)).json()["id"]
    told = served.follow(job)
    assert told["state"] == "done", told
    pair = served.ask("GET", f"/api/jobs/{job}/files/{told['result']['pair']}")
    assert pair.body.startswith(b"PK")
    assert pair.headers["content-type"] == "application/zip"
    for name in ("..%2F..%2Fetc%2Fpasswd", "provenance.json", "nothing.gz"):
        assert served.ask("GET", f"/api/jobs/{job}/files/{name}").status in (400, 404)


def upload(served: Served, payload: bytes, name: str = "scan.nii.gz") -> Any:
    return served.ask("POST", f"/api/predict?name={name}", payload)


def test_a_scan_is_read_in_the_worker_and_its_upload_goes(served: Served, scans: Cohort) -> None:
    payload = scans.cases[0].image_path.read_bytes()
    job = upload(served, payload).json()["id"]
    told = served.follow(job)
    assert told["state"] == "done", told
    assert [one["name"] for one in told["stages"]][:3] == [
        "reading the scan",
        "segmenting",
        "cropping",
    ]
    assert served.ask("GET", f"/api/jobs/{job}/files/scan.nii.gz").status == 200
    # Nothing is left of it but what the page shows: no upload, no second copy.
    left = {path.name for path in (served.session.folder / job).rglob("*")}
    assert left == {"scan.nii.gz", "mask.nii.gz", "roi.nii.gz"} | {
        f"{name}.nii.gz" for name in told["result"]["maps"]
    }


def test_an_upload_that_is_no_scan_fails_with_its_sentence(served: Served) -> None:
    payload = nib.Nifti1Image(np.ones((4, 4, 4, 2), np.float32), np.eye(4)).to_bytes()
    told = served.follow(upload(served, payload).json()["id"])
    assert told["state"] == "failed"
    assert "has 4 dimensions" in told["sentence"]
    assert str(served.session.folder) not in told["sentence"]


def test_uploads_that_are_refused_at_the_door(served: Served) -> None:
    before = set(served.session.folder.iterdir())
    assert "Rename it" in upload(served, b"x", "%3Cimg%3E.nii").sentence
    assert "Rename it" in upload(served, b"x", "..%2F..%2Fx.nii").sentence
    assert "is empty" in upload(served, b"").sentence
    assert set(served.session.folder.iterdir()) == before


def test_two_gigabytes_are_refused_before_they_are_sent(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    path = f"/{served.session.key}/api/predict?name=large.nii"
    connection.putrequest("POST", path, skip_host=True)
    for name, value in {
        "Host": f"127.0.0.1:{served.port}",
        "Origin": f"http://127.0.0.1:{served.port}",
        "Content-Length": str(2 << 30),
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 400
    assert "2048 MB" in json.loads(answer.read())["error"]
    connection.close()


def test_the_stylesheet_is_css(served: Served) -> None:
    css = served.ask("GET", "/static/app.css").body.decode()
    assert '"Segoe UI"' in css
    assert "section > *" in css
    assert "&" not in css


@pytest.mark.parametrize("manifest", ["{", "[]", '{"starts": []}', '{"name": "x"}'])
def test_a_folder_that_is_no_run_is_passed_over(
    served: Served, run_folder: Path, manifest: str
) -> None:
    other = run_folder.parent / "other"
    other.mkdir()
    try:
        (other / "manifest.json").write_text(manifest)
        assert [run["name"] for run in served.ask("GET", "/api/runs").json()] == ["study"]
        assert served.ask("GET", "/runs/study/report.html").status == 200
    finally:
        shutil.rmtree(other)


def test_runs_are_listed_with_how_far_they_are(served: Served, run_folder: Path) -> None:
    other = run_folder.parent / "other <b>"
    other.mkdir()
    try:
        manifest = {"command": "neonet3d study pni", "starts": ["2099-01-01T00:00:00+00:00"]}
        (other / "manifest.json").write_text(json.dumps(manifest))
        (other / "log.jsonl").write_text('{"stage": "crop", "seconds": 1.5}\n{"stage": "cut')
        with (other / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            first, second = served.ask("GET", "/api/runs").json()
        assert (first["name"], first["state"]) == ("other <b>", "running")
        assert first["stages"] == [["crop", 1.5]]  # a line that is being written is none yet
        assert (second["name"], second["state"]) == ("study", "finished")
        assert "report.html" in second["pages"]
        assert served.ask("GET", "/api/runs").json()[0]["state"] == "stopped"
    finally:
        shutil.rmtree(other)


def test_a_port_that_is_taken_is_said() -> None:
    with bind(0) as taken:
        with pytest.raises(InputError, match="another program, perhaps 'neonet3d serve', has it"):
            bind(taken.getsockname()[1])
        assert taken.getsockname()[0] == "127.0.0.1"
        assert taken.family == socket.AF_INET


def test_the_private_folder_goes_with_the_session(run_folder: Path) -> None:
    with Session.open(run_folder) as session:
        folder = session.folder
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "upload").write_text("a scan")
    assert not folder.exists()


def test_a_folder_that_a_killed_session_left_is_removed(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, foreign = tmp_path / "neonet3d-session-killed", tmp_path / "neonet3d-session-other"
    for folder in (left, foreign):
        folder.mkdir()
    (left / ".lock").touch()
    (left / "upload").write_text("a scan")
    with Session.open(run_folder) as first:
        assert not left.exists()
        assert foreign.exists()  # without a lock it may be anything
        with Session.open(run_folder):
            assert first.folder.exists()


def test_a_faulty_case_of_the_cohort_is_said(run_folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run_folder, tmp_path / "run")
    manifest = json.loads((copied / "manifest.json").read_text())
    cohort = shutil.copytree(manifest["cohort"], tmp_path / "cohort")
    (copied / "manifest.json").write_text(json.dumps(manifest | {"cohort": str(cohort)}))
    Cohort.open(cohort).cases[2].image_path.unlink()
    with Session.open(copied) as session:
        assert session.cohort is not None
        assert len(session.cohort) == 7
        assert session.shown_cohort.root == cohort
        (sentence,) = session.faults
        assert "case_2" in sentence


def test_a_run_without_its_scans_shows_its_patches(run_folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run_folder, tmp_path / "run")
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"cohort": "/nowhere"}))
    with Session.open(copied) as session:
        assert session.cohort is None
        assert len(session.shown_cohort) == 8
