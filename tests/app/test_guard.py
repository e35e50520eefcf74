"""Who is let in: own host, own key, own origin; and what the pages may do."""

from __future__ import annotations

import http.client
from typing import Any

import pytest

Served = Any


def test_the_printed_address_leads_to_a_page(served: Served) -> None:
    assert served.address == f"http://127.0.0.1:{served.port}/{served.session.key}/"
    first = served.ask("GET", "/")
    assert first.status == 307
    assert first.headers["location"] == "predict"
    assert "set-cookie" not in first.headers  # it would go to other ports of the host too
    assert served.ask("GET", "/predict").status == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "key", "sentence"),
    [
        ("GET", "/predict", {"Host": "evil.example"}, None, "under its own address only"),
        ("GET", "/predict", {"Host": "127.0.0.1:1"}, None, "under its own address only"),
        ("GET", "/predict", {"Host": "127.0.0.1.evil.example"}, None, "own address only"),
        ("POST", "/api/cohort/check", {"Origin": "http://evil.example"}, None, "another site"),
        ("POST", "/api/cohort/check", {"Origin": "null"}, None, "another site"),
        ("POST", "/api/cohort/check", {"Origin": None}, None, "another site"),
        ("GET", "/predict", {}, "wrong", "the whole address"),
        ("GET", "/api/runs", {}, "%2e%2e", "the whole address"),
        ("POST", "/api/cohort/check", {}, "wrong", "the whole address"),
    ],
)
def test_what_comes_from_elsewhere_is_refused(
    served: Served,
    method: str,
    path: str,
    headers: dict[str, str | None],
    key: str | None,
    sentence: str,
) -> None:
    refused = served.ask(method, path, headers=headers, key=key)
    assert refused.status == 403
    assert sentence in refused.sentence


@pytest.mark.parametrize("path", ["/", "/predict", "//", "/static/app.css"])
def test_nothing_is_told_without_the_key(served: Served, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("GET", path)
    assert connection.getresponse().status == 403
    connection.close()


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


def test_a_fault_of_ours_is_a_sentence_with_the_same_headers(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("neonet3d.app.api.list_runs", broken)
    found = served.ask("GET", "/api/runs")
    assert found.status == 500
    assert "neonet3d itself failed (ZeroDivisionError)" in found.sentence
    assert found.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_report_runs_as_if_from_another_site(served: Served) -> None:
    page = served.ask("GET", "/runs/study/viewer.html")
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
