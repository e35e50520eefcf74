"""neonet3d serve: the app."""

from __future__ import annotations

import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import uvicorn


def serve(
    run: Annotated[
        Path, typer.Argument(help="Finished study whose models are used.")
    ] = Path("runs/demo"),
    port: Annotated[
        int, typer.Option(help="Where it listens, on this machine only; 0 for any free one.",
                          min=0, max=65535)
    ] = 8420,
) -> None:  # fmt: skip
    """Look at the cohort, predict new scans, draw volumes and follow runs in the browser.

    Only this machine and only who has the printed address can use it. What is uploaded lies in a
    private folder that goes when the app ends.
    """
    from neonet3d.errors import InputError

    try:
        from neonet3d.app.server import address, bind, make_server
    except ModuleNotFoundError as error:
        raise InputError(
            f"The app needs {error.name}. Install it with: pip install 'neonet3d[app]'."
        ) from error
    from neonet3d.app.session import Session

    with bind(port) as listening, Session.open(run) as session:
        port = listening.getsockname()[1]
        server = make_server(session, port)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # a closed terminal, and no nohup
            signal.signal(signal.SIGHUP, partial(_end, server))
        typer.echo(f"Open {address(session, port)}\nCtrl-C ends it. Research use only.")
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def _end(server: uvicorn.Server, *_: object) -> None:
    server.should_exit = True
