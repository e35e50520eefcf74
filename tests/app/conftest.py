"""The app on a small study, served on the loopback; a client that asks it."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the [app] extra is not installed")
pytest.importorskip("uvicorn", reason="the [app] extra is not installed")

from neonet3d.app.server import address, bind, make_server
from neonet3d.app.session import Session


@dataclass(frozen=True)
class Answer:
    """What the app said."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sentence(self) -> str:
        return str(self.json()["error"])


@dataclass(frozen=True)
class Served:
    """A running app."""

    session: Session
    port: int

    @property
    def address(self) -> str:
        return address(self.session, self.port)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str | None] | None = None,
        *,
        key: str | None = None,
    ) -> Answer:
        """As a page of the app would; a header that is None is left out.

        Args:
            path: behind the session's key.
        """
        given: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port}",
            "Origin": f"http://127.0.0.1:{self.port}",
        }
        given |= headers or {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = {name: value for name, value in given.items() if value is not None}
            connection.request(method, f"/{key or self.session.key}{path}", body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()},
                          answer.read())  # fmt: skip
        finally:
            connection.close()

    def follow(self, job: str) -> dict[str, Any]:
        """The job when it has ended."""
        for _ in range(1200):
            told: dict[str, Any] = self.ask("GET", f"/api/jobs/{job}").json()
            if told["state"] not in ("waiting", "running"):
                return told
            time.sleep(0.05)
        raise AssertionError(f"the job goes on and on: {told}")


@contextmanager
def serving(run: Path) -> Iterator[Served]:
    with bind(0) as listening, Session.open(run) as session:
        port = listening.getsockname()[1]
        server = make_server(session, port)
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield Served(session, port)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def run_folder(tiny_study: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small study, in a folder of its own."""
    return shutil.copytree(tiny_study[0], tmp_path_factory.mktemp("runs") / "study")


@pytest.fixture(scope="session")
def served(run_folder: Path) -> Iterator[Served]:
    with serving(run_folder) as started:
        yield started
