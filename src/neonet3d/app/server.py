"""``neonet3d serve``: the app on this machine's loopback, for its own user only."""

from __future__ import annotations

import errno
import socket

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from neonet3d.app import api, pages
from neonet3d.app.guard import Guard
from neonet3d.app.session import Session
from neonet3d.errors import InputError, RunError

LOOPBACK = "127.0.0.1"
MOST_CONNECTIONS = 256
SHUTDOWN_SECONDS = 3  # that requests may still take when the app is to end


def make_app(session: Session, port: int) -> ASGIApp:
    """All routes of a session, behind the guard."""
    answers = {InputError: _refused, RunError: _refused, ClientDisconnect: _gone, 500: _broken}
    routes = [*pages.routes(session), *api.routes(session)]
    app = Starlette(routes=routes, exception_handlers=answers)
    return Guard(app, port=port, key=session.key)


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
        taken = error.errno == errno.EADDRINUSE
        why = "another program, perhaps 'neonet3d serve', has it" if taken else error.strerror
        raise InputError(
            f"The app cannot listen on port {port}: {why}. Choose another one with --port, or 0 "
            "for any."
        ) from error
    return bound


def make_server(session: Session, port: int) -> uvicorn.Server:
    """A server that is started with ``run(sockets=[bind(port)])``."""
    return uvicorn.Server(
        uvicorn.Config(
            make_app(session, port),
            log_level="warning",
            access_log=False,  # it would hold the key, and names of files
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            lifespan="off",
            ws="none",
        )
    )


def address(session: Session, port: int) -> str:
    """What a browser opens first."""
    return f"http://{LOOPBACK}:{port}/{session.key}/"


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


async def _gone(request: Request, error: Exception) -> Response:
    """To nobody: the page was closed in the middle of an upload."""
    return Response(status_code=400)


async def _broken(request: Request, error: Exception) -> Response:
    """The server writes the whole story to the terminal."""
    sentence = (
        f"Something of neonet3d itself failed ({type(error).__name__}). The terminal where "
        "'neonet3d serve' runs says what; please report it."
    )
    return JSONResponse({"error": sentence}, status_code=500)
