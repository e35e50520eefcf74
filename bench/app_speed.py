"""How long the app takes to answer, as its pages ask it: docs/results/app.md.

python bench/app_speed.py RUN docs/results/app.md [--json FILE]

Serves a finished study (such as runs/demo) on a free port and asks it over HTTP, as a page does:
a volume for an edited mask until its files are there, an edit, a scan until it is read.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

from segmentation import commit

from neonet3d.app.server import bind, make_server
from neonet3d.app.session import Session
from neonet3d.engine.device import device_summary

REPEATS = 10
POLL_SECONDS = 0.02
LIMIT_SECONDS = 5.0  # for a drawn volume


class Client:
    """Asks as a page of the app does."""

    def __init__(self, session: Session, port: int) -> None:
        self.port, self.key, host = port, session.key, f"127.0.0.1:{port}"
        self.headers = {
            "Host": host,
            "Origin": f"http://{host}",
        }

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request(method, f"/{self.key}{path}", body, self.headers)
        answer = connection.getresponse()
        payload = answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"{path}: {payload.decode()}")
        return payload

    def job(self, path: str, body: Any, files: tuple[str, ...]) -> None:
        """Start a job, wait for it, fetch its files."""
        number = json.loads(self.ask("POST", path, body))["id"]
        while True:
            told = json.loads(self.ask("GET", f"/api/jobs/{number}"))
            if told["state"] == "done":
                break
            if told["state"] not in ("waiting", "running"):
                raise SystemExit(f"{path}: {told['sentence']}")
            time.sleep(POLL_SECONDS)
        for name in files:
            self.ask("GET", f"/api/jobs/{number}/files/{name}")


def seconds(call: Callable[[int], None]) -> list[float]:
    """Of each repeat; one before them is not counted."""
    call(0)
    taken = []
    for repeat in range(1, REPEATS + 1):
        started = time.perf_counter()
        call(repeat)
        taken.append(time.perf_counter() - started)
    return taken


def measure(session: Session, client: Client) -> dict[str, list[float]]:
    grow = [{"kind": "grow", "by_mm": min(session.card.grid.spacing_mm)}]
    cases = session.crops.cases

    def edit(repeat: int) -> None:
        body = {"case": 1 + repeat % len(cases), "edits": []}
        client.ask("POST", "/api/mask", json.dumps(body))

    def draw(repeat: int) -> None:
        body = {"case": 1, "edits": grow, "outcome": repeat % 2, "seed": repeat}
        files = ("synthetic.nii.gz", "mask.nii.gz", "real.nii.gz", "real-mask.nii.gz")
        client.job("/api/generate", json.dumps(body), files)

    def read(repeat: int) -> None:
        assert session.cohort is not None
        scan = session.cohort.cases[repeat % len(session.cohort)].image_path
        client.job("/api/predict?name=scan.nii.gz", scan.read_bytes(), ("scan.nii.gz",))

    return {
        "an edited mask": seconds(edit),
        "a drawn volume, its mask and the patient's": seconds(draw),
        "a scan, read and explained": seconds(read),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with bind(0) as listening, Session.open(options.run) as session:
        port = listening.getsockname()[1]
        server = make_server(session, port)
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(POLL_SECONDS)
        found = measure(session, Client(session, port))
        shape = " x ".join(map(str, session.card.grid.shape))
        server.should_exit = True
        thread.join()
    manifest = json.loads((options.run / "manifest.json").read_text())
    lines = [
        "# How long the app takes",
        "",
        f"Written by `bench/app_speed.py`, commit {commit()}, {datetime.now(UTC):%Y-%m-%d}; "
        f"{device_summary()}. Models of a study of {len(session.crops)} patients "
        f"(configuration {manifest['config_hash']}), patches of {shape} voxels. From the request "
        f"to the last byte of the files that the page shows, {REPEATS} times.",
        "",
        "| what a page waits for | median (s) | slowest (s) |",
        "|---|---|---|",
        *(
            f"| {name} | {statistics.median(of):.2f} | {max(of):.2f} |"
            for name, of in found.items()
        ),
    ]
    options.page.write_text("\n".join(lines) + "\n")
    drawn = max(found["a drawn volume, its mask and the patient's"])
    if options.json is not None:
        options.json.write_text(json.dumps({"seconds": found}, indent=2) + "\n")
    if drawn > LIMIT_SECONDS:
        raise SystemExit(f"A drawn volume took {drawn:.1f} s, and {LIMIT_SECONDS:g} are allowed.")


if __name__ == "__main__":
    main()
