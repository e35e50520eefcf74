"""The command line: parse, call, print. Everything it does is a function of the library."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from typer.exceptions import TyperException

from neonet3d.errors import InputError, RunError

INTERRUPTED = 130  # as shells do: 128 + SIGINT
SHARED = frozenset({("segment", "train"), ("generate", "train")})
"""Commands that processes of ``torchrun`` do together."""


def main() -> None:
    """Entry point of ``neonet3d``; exit status 0 done, 1 failed, 2 bad usage or bad input."""
    from neonet3d.cli.app import app

    # A scheduler that takes the machine back is answered as Ctrl-C is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # a closed terminal, and no nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        if "WORLD_SIZE" in os.environ:
            from neonet3d.engine.ranks import require_one_process, speak_once

            require_one_process(SHARED, sys.argv[1:])
            speak_once()
        # None from a command that went through; Typer turns Exit and Ctrl-C into their status.
        status: int | None = app(standalone_mode=False)
    except TyperException as error:
        message = error.format_message().rstrip(".")
        if not message:  # a group without a command: its help is printed already
            sys.exit(2)
        end = "" if message.endswith("?") else "."
        _fail(f"{message}{end} '--help' lists what there is.", 2)
    except InputError as error:
        _fail(str(error), 2)
    except RunError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except OSError as error:
        if error.errno is None:
            raise
        where = "" if error.filename is None else f": {error.filename}"
        _fail(f"{error.strerror}{where}.{_kept(sys.argv[1:])}", 1)
    if status == INTERRUPTED:
        _fail(f"Stopped.{_kept(sys.argv[1:])}", INTERRUPTED)
    sys.exit(status or 0)


def _kept(words: list[str]) -> str:
    """Of commands that go on from where they were stopped, that they do."""
    goes_on = words[:1] in (["demo"], ["study"]) or words[1:2] == ["train"]
    return " What is done is kept; the same command goes on from there." if goes_on else ""


def _fail(sentence: str, status: int) -> NoReturn:
    print(f"neonet3d: {sentence}", file=sys.stderr, flush=True)
    # After Ctrl-C, worker threads of numerical libraries may hang a normal exit.
    os._exit(status)
