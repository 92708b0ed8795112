"""The one place where failures become lines and exit codes.

An expected failure is one line on stderr, and with JSON asked for, an error object as the last line. Ctrl-C and a
closed pipe end the process silently by that very signal, after everything has been cleaned up on the way out, so that a
shell's loop stops too. Anything else is a fault of ours: one line, and a report saved for whoever mends it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the signal module proper wraps every number in an enum: 4 ms
import os
import sys

from trims.errors import TrimsError, one_line

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


class Ended(BaseException):
    """SIGINT, SIGTERM or SIGHUP came: leave, cleaning up on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(
    action: Callable[[], int | None], *, machine: bool = False, debug: bool = False, exit_zero: bool = False
) -> int:
    """Perform `action` and give the exit code. Does not return when the process is to end by a signal."""
    try:
        for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
            if _signal.getsignal(number) != _signal.SIG_IGN:  # as nohup has it
                _signal.signal(number, _end)
        code = action() or 0
        flush()
    except TrimsError as error:
        code = report(error, machine)
    except Ended as end:
        die(end.number)
    except BrokenPipeError:
        die(_signal.SIGPIPE)
    except Exception as error:
        code = unexpected(error, machine, debug)
    return 0 if exit_zero else code


def flush() -> None:
    """Hand on what is printed. Raises BrokenPipeError when nobody reads it, TrimsError when it cannot be kept."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _abandon_output()
        raise TrimsError("writing the output failed", os.strerror(error.errno or 0)) from None


def report(error: TrimsError, machine: bool) -> int:
    """The line, and for programs the object, of an expected failure; gives its exit code."""
    try:
        flush()
    except BrokenPipeError:
        die(_signal.SIGPIPE)
    except TrimsError:
        pass  # one failure is enough to report
    say(f"trims: {error}")
    if machine:
        from trims_cli.output import to_json

        say(to_json({"error": error.to_dict()}))
    return error.exit_code


def say(line: str) -> None:
    """One line on stderr; when that is closed there is nobody to tell."""
    try:
        sys.stderr.write(one_line(line) + "\n")
        sys.stderr.flush()
    except OSError:
        pass


def die(number: int) -> NoReturn:
    """End by the signal `number`, as the shell expects of a program that was interrupted."""
    _abandon_output()
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the signal is blocked: say the same by the code


def unexpected(error: Exception, machine: bool, debug: bool) -> int:
    """A fault of trims itself."""
    import traceback

    lines = traceback.format_exception(error)
    if debug:
        sys.stderr.write("".join(lines))
    failure = TrimsError(f"unexpected failure: {type(error).__name__}", str(error)[:300], _save("".join(lines)))
    return report(failure, machine)


def _save(text: str) -> str:
    """Keep the traceback where it can be sent from; gives the hint that names it. No values of variables are in it."""
    import tempfile

    from trims.config import state_directory
    from trims.version import __version__

    directory = os.path.join(state_directory(os.environ), "reports")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fd, path = tempfile.mkstemp(".txt", "report-", directory)
        with open(fd, "w", errors="backslashreplace") as file:
            file.write(f"trims {__version__}, Python {sys.version}\n{text}")
    except OSError:
        return "run it again with --debug"
    return f"report saved in {path}; --debug shows it"


def _end(number: int, _frame: object) -> None:
    raise Ended(number)


def _abandon_output() -> None:
    """Point standard output at nothing, so that Python's own last flush cannot fail loudly."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    except OSError:
        pass
