"""The command line. Nothing heavy is imported before a command runs, so that --help is quick."""

import atexit
import os
import sys

__all__ = ["main"]


def main() -> None:
    """The program `geo-mf`. It ends the process, with all of its output written."""
    from geo_mf.cli.app import app

    try:
        app()
    except SystemExit as ended:
        if isinstance(ended.code, int):
            _leave(ended.code)
        raise


def _leave(code: int) -> None:
    """End the process as Python does, but do not take the interpreter apart; return if output cannot be written.

    A thread of Arrow that lets go of memory of Python while the interpreter is taken apart is ended by it, in the midst
    of C++, which aborts the process (exit code 134), also after a success.
    """
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return  # Python tries again, and says so
    os._exit(code)
