"""``neonet3d serve``: the app on this machine's loopback, for its own user only."""

from __future__ import annotations

import socket

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from neonet3d.app import api, pages
from neonet3d.app.guard import Guard
from neonet3d.app.session import Session
from neonet3d.errors import InputError, RunError

LOOPBACK = "127.0.0.1"
MOST_CONNECTIONS = 64


def make_app(session: Session, port: int) -> Starlette:
    """All routes of a session, behind the guard."""
    return Starlette(
        routes=[*pages.routes(session), *api.routes(session)],
        middleware=[Middleware(Guard, port=port, key=session.key)],
        exception_handlers={InputError: _refused, RunError: _refused},
    )


def bind(port: int) -> socket.socket:
    """A socket on the loopback; port 0 takes a free one.

    Raises:
        InputError: the port is taken.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
        bound.listen()  # who opens the address too early waits, and is not refused
    except OSError as error:
        bound.close()
        raise InputError(
            f"Port {port} is taken, perhaps by another 'neonet3d serve'. Choose another one with "
            "--port, or 0 for any."
        ) from error
    return bound


def make_server(session: Session, port: int) -> uvicorn.Server:
    """A server that is started with ``run(sockets=[bind(port)])``."""
    return uvicorn.Server(
        uvicorn.Config(
            make_app(session, port),
            log_level="warning",
            access_log=False,  # it would hold the key, and names of files
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            lifespan="off",
            ws="none",
        )
    )


def address(session: Session, port: int) -> str:
    """What a browser opens first."""
    return f"http://{LOOPBACK}:{port}/?key={session.key}"


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)
