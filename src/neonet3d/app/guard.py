"""Who may ask the app anything, and what its pages may do.

The app listens on the loopback only. That is not enough: any page that is open in the same browser
can send requests there, a name can be made to point there (DNS rebinding), and other users of the
machine reach the same port. So everything stands in a folder whose name is the session's key, a
request must name the app as its host, and what changes something must come from a page of the app.

The key is no cookie: browsers send those to every port of a host, so to other users' servers too.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
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
"""Of reports, which carry all they need: they run as if from another site."""

HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Around the whole app: refuses what does not come from its own pages."""

    def __init__(self, app: ASGIApp, *, port: int, key: str) -> None:
        """
        Args:
            port: on which the app listens.
            key: of the session; the first part of every path.
        """
        self._app = app
        self._hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
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

        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, send_guarded)
            return
        await self._app({**scope, "root_path": f"/{self._key}"}, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self._hosts:
            return _refused(
                "This app answers under its own address only. Open the one that 'neonet3d serve' "
                "printed."
            )
        first, _, _ = scope["path"].removeprefix("/").partition("/")
        if not hmac.compare_digest(first.encode(), self._key.encode()):
            return _refused(
                "This needs the whole address that 'neonet3d serve' printed. Open that one."
            )
        if scope["method"] not in READING and origin != f"http://{host}":
            return _refused("This came from another site, or from no page. Use the app's pages.")
        return None


def _refused(sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status_code=403)
