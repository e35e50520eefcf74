"""Who is let in: own host, own origin, own key; and what the pages may do."""

from __future__ import annotations

from typing import Any

import pytest

Served = Any


def test_the_printed_address_lets_a_browser_in_and_hides_the_key(served: Served) -> None:
    first = served.ask("GET", f"/?key={served.session.key}", headers={"Cookie": None})
    assert first.status == 303
    assert first.headers["location"] == "/"
    cookie = first.headers["set-cookie"]
    assert f"neonet3d-{served.port}={served.session.key}" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert served.ask("GET", "/predict").status == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "sentence"),
    [
        ("GET", "/predict", {"Host": "evil.example"}, "under its own address only"),
        ("GET", "/predict", {"Host": "127.0.0.1:1"}, "under its own address only"),
        ("GET", "/predict", {"Host": "127.0.0.1.evil.example:8420"}, "its own address only"),
        ("POST", "/api/cohort/check", {"Origin": "http://evil.example"}, "another site"),
        ("POST", "/api/cohort/check", {"Origin": "null"}, "another site"),
        ("POST", "/api/cohort/check", {"Origin": None}, "another site"),
        ("GET", "/predict", {"Cookie": None}, "key of the session"),
        ("GET", "/api/runs", {"Cookie": "neonet3d-1=x"}, "key of the session"),
        ("GET", "/?key=wrong", {"Cookie": None}, "key of the session"),
        ("POST", "/api/cohort/check", {"Cookie": None}, "key of the session"),
    ],
)
def test_what_comes_from_elsewhere_is_refused(
    served: Served, method: str, path: str, headers: dict[str, str | None], sentence: str
) -> None:
    refused = served.ask(method, path, headers=headers)
    assert refused.status == 403
    assert sentence in refused.sentence


def test_the_key_cannot_be_used_to_lead_elsewhere(served: Served) -> None:
    found = served.ask("GET", f"//evil.example/?key={served.session.key}")
    assert found.headers["location"] == "/evil.example/"


@pytest.mark.parametrize("path", ["/predict", "/api/runs", "/static/app.css", "/nowhere"])
def test_every_answer_forbids_what_is_not_its_own(served: Served, path: str) -> None:
    headers = served.ask("GET", path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_a_report_runs_as_if_from_another_site(served: Served) -> None:
    page = served.ask("GET", "/runs/study/viewer.html")
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
