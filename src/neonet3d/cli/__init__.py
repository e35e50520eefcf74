"""The command line: parse, call, print. Everything it does is a function of the library."""

from __future__ import annotations

import os
import sys

from typer.exceptions import TyperException

from neonet3d.errors import InputError, RunError


def main() -> None:
    """Entry point of ``neonet3d``; exit status 0 done, 1 failed, 2 bad usage or bad input."""
    from neonet3d.cli.app import app

    try:
        app(standalone_mode=False)
    except TyperException as error:
        _fail(f"{error.format_message().rstrip('.')}. '--help' lists what there is.", 2)
    except InputError as error:
        _fail(str(error), 2)
    except RunError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("Stopped. What is done is kept; the same command goes on from there.", 130)
    except OSError as error:
        if error.errno is None:
            raise
        _fail(f"{error.strerror}: {error.filename}. What is done is kept.", 1)


def _fail(sentence: str, status: int) -> None:
    print(f"neonet3d: {sentence}", file=sys.stderr, flush=True)
    # After Ctrl-C, worker threads of numerical libraries may hang a normal exit.
    os._exit(status)
