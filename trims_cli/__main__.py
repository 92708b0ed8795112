"""The way in. Exact forms of the most used commands are answered at once; all others go through typer."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the signal module proper wraps every number in an enum: 4 ms
import os
import sys

from trims.version import __version__


def main() -> int:
    """Run the command of sys.argv and give its exit code."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # end silently until there is something to clean up
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _stand_in()
    words = sys.argv[1:]
    if words == ["--version"]:
        sys.stdout.write(f"trims {__version__}\n")
        return 0
    from trims_cli import boundary, hot
    from trims_cli.settings import split_verb

    verb, rest = split_verb(words)
    exact = hot.parse(verb, rest) if verb is not None else None
    if exact is not None:
        settings, action = exact
        return boundary.run(action, machine=settings.machine, debug=settings.debug, exit_zero=settings.exit_zero)
    from trims_cli.app import run

    return run(words)


def _stand_in() -> None:
    """Put /dev/null where a standard stream is closed: nobody wants what goes there; no file of ours is to land there.

    A program that `exec` becomes finds the stream closed as ever.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


if __name__ == "__main__":
    sys.exit(main())
