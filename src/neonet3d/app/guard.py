"""Who may ask the app anything, and what its pages may do.

The app listens on the loopback only. That is not enough: any page that is open in the same browser
can send requests there, a name can be made to point there (DNS rebinding), and other users of the
machine reach the same port. So a request must name the app as its host, come with the session's
key, and, where it changes something, come from a page of the app.
"""

from __future__ import annotations

import hmac
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

READING = ("GET", "HEAD")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "font-src data:; connect-src 'self' data:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Of the app's own pages: nothing from elsewhere, nothing inline."""

REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "font-src data:; sandbox allow-scripts allow-popups; frame-ancestors 'none'"
)
"""Of reports, which carry all they need: they run as if from another site, without the key."""

HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware that refuses what does not come from the app's own pages."""

    def __init__(self, app: ASGIApp, *, port: int, key: str) -> None:
        """
        Args:
            port: on which the app listens.
            key: of the session.
        """
        self._app = app
        self._hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
        self._cookie = f"neonet3d-{port}"  # a browser sends cookies to every port of a host
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope) or self._admission(scope)
        await (answer or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self._hosts:
            return _refused("This app answers under its own address only. Open the one that "
                            "'neonet3d serve' printed.")  # fmt: skip
        if scope["method"] not in READING and origin != f"http://{host}":
            return _refused("This came from another site, or from no page. Use the app's pages.")
        if not self._has_key(scope, headers):
            return _refused("This needs the key of the session. Open the address that "
                            "'neonet3d serve' printed, with all that follows '?'.")  # fmt: skip
        return None

    def _has_key(self, scope: Scope, headers: Headers) -> bool:
        kept = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        given = (one.encode() for one in (kept, _asked(scope)))
        return any(hmac.compare_digest(one, self._key.encode()) for one in given)

    def _admission(self, scope: Scope) -> Response | None:
        """Takes the key out of the address, which is kept and shown by browsers."""
        if not _asked(scope) or scope["method"] not in READING:
            return None
        # One slash: two would begin the name of another host.
        response = RedirectResponse("/" + scope["path"].lstrip("/"), status_code=303)
        response.set_cookie(self._cookie, self._key, httponly=True, samesite="strict", path="/")
        return response


def _asked(scope: Scope) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get("key", [""])[0]


def _refused(sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status_code=403)
