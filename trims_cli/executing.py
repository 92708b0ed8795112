"""exec: put redirection into the environment and become the program, in place. The codes are those of env(1).

Everything that can be known to fail is found out before: whatever goes wrong on this side of the exec ends with 125 and
one line. The program then has our process number, our descriptors, our terminal, and signals as they were.
"""

from __future__ import annotations

import errno
import os
import sys

from trims import places
from trims.errors import TrimsError, UsageError
from trims.redirect import environment as names
from trims_cli import boundary, printing_env

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from typing import NoReturn

    from trims_cli.settings import Settings

CANNOT, NOT_RUNNABLE, NOT_FOUND = 125, 126, 127
FALLBACKS = ("native", "fail")


class NotStarted(TrimsError):
    """The program was not started, and what is told is why."""

    code = "not-started"
    exit_code = CANNOT

    @classmethod
    def because(cls, error: TrimsError) -> NotStarted:
        """The same line, with the exit code that is ours alone."""
        return cls(error.what, error.why, error.hint, **error.details)


class NotRun(TrimsError):
    """The program is not there, or cannot be run."""

    code = "not-run"

    def __init__(self, what: str, why: str, exit_code: int) -> None:
        super().__init__(what, why)
        self.exit_code = exit_code


def execute(
    settings: Settings,
    command: tuple[str, ...] = (),
    require: tuple[str, ...] = (),
    warm: tuple[str, ...] = (),
    to: str = places.AUTO,
    fallback: str | None = None,
    report: str | None = None,
    import_missing: bool = False,
    native: bool = False,
    print_env: str | None = None,
) -> int:
    """Become `command` with its model loads redirected; does not return unless only the environment is printed."""
    try:
        if bool(command) == (print_env is not None):
            raise UsageError(
                "exec what?", "", "name a program, as in `trims exec -- python app.py`, or say --print-env"
            )
        if os.environ.get(names.DISABLE) == "1":
            return 0 if print_env else become(command, dict(os.environ))
        settings.override({"exec.fallback": fallback})
        env = _environment(settings, to, report, import_missing, native)
        _check(settings, command, env, bool(require))
        if require:
            _require(settings, require, env, print_env is None)
        if warm:
            _warm(settings, warm, to)
        if print_env is not None:
            return printing_env.print_env(print_env, env)
        env.setdefault(names.MAIN, str(os.getpid()))
        return become(command, env)
    except NotRun:
        raise
    except TrimsError as error:
        raise NotStarted.because(error) from None


def _environment(settings: Settings, to: str, report: str | None, import_missing: bool, native: bool) -> dict[str, str]:
    """Our environment with redirection in it, and nothing left of one that we are in ourselves."""
    config = settings.config
    env = {name: value for name, value in os.environ.items() if name not in names.OWN}
    env[names.EXEC] = "native" if native else "redirect"
    env[names.HOME] = os.pathsep.join(_home())
    env[names.ABI] = sys.modules["_frozen_importlib_external"].EXTENSION_SUFFIXES[0]
    env[names.PYTHON] = sys.executable
    env[names.FALLBACK] = config["exec.fallback"]
    env["TRIMS_STORE"] = config.store
    if config.origin("manager.socket") != "default":
        env["TRIMS_SOCKET"] = config.sockets[0]
    if env.get("TRIMS_CONFIG"):
        env["TRIMS_CONFIG"] = os.path.abspath(env["TRIMS_CONFIG"])
    if to != places.AUTO:
        env[names.PLACE] = _place(to)
    if settings.timeout is not None:
        env[names.TIMEOUT] = repr(settings.seconds(0.0))
    if report is not None:
        env[names.REPORT] = _reportable(report)
    for name, given in ((names.IMPORT, import_missing), (names.QUIET, settings.quiet)):
        if given:
            env[name] = "1"
    boot = os.path.join(_package(), "redirect", "boot")
    if os.pathsep in boot:
        raise TrimsError("nothing can be redirected", f"trims is installed in {boot}, and PYTHONPATH takes no colon")
    others = [entry for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry != boot]
    env["PYTHONPATH"] = os.pathsep.join([boot, *(others if others != [""] else [])])
    return env


def _package() -> str:
    import trims

    return os.path.dirname(os.path.abspath(str(trims.__file__)))


def _home() -> list[str]:
    """Where trims and what it needs can be imported from, its own place first; no standard library."""
    library = os.path.dirname(os.__file__)
    theirs = (library, f"{library}/lib-dynload")
    others = [os.path.abspath(entry) for entry in sys.path[1:] if entry and entry not in theirs]
    ours = dict.fromkeys([os.path.dirname(_package()), *others])
    return [entry for entry in ours if os.pathsep not in entry and not entry.endswith(".zip")]


def _place(to: str) -> str:
    place = places.parse_place(to)
    if places.is_gpu(place):
        raise UsageError(
            f"models cannot be loaded to {to}", "an unmodified program gets them in host memory only", "leave --to out"
        )
    if place not in (places.HOST, places.DISK):
        raise UsageError(f"models cannot be loaded to {to}", "", "places are auto, host and disk")
    return place


def _reportable(path: str) -> str:
    """The report's absolute path, when it can be written."""
    path = os.path.abspath(path)
    try:
        os.close(os.open(path, names.APPENDING, 0o644))
    except OSError as error:
        raise UsageError(f"cannot write the report {path}", os.strerror(error.errno or 0)) from None
    return path


def _check(settings: Settings, command: tuple[str, ...], env: dict[str, str], required: bool) -> None:
    """Say what is in the way of redirection; raise it where that is to fail."""
    from trims_cli import exec_store, interpreters

    obstacle = interpreters.obstacle(command, env) or exec_store.nothing_known(settings)
    if not obstacle:
        return
    if required or env[names.FALLBACK] == "fail":
        raise TrimsError("nothing can be redirected", obstacle)
    if not settings.quiet:
        boundary.say(f"trims: models are loaded natively: {obstacle}")


def _require(settings: Settings, models: tuple[str, ...], env: dict[str, str], is_main: bool) -> None:
    """Name the models that have to be redirected, and make the memory where that is ticked off."""
    from trims_cli import exec_store

    env[names.REQUIRE] = " ".join(dict.fromkeys(exec_store.resolved(settings, models)))
    if is_main:
        import fcntl

        fd = os.memfd_create(names.TICKS)
        # Far from the numbers that a program expects its own files to get; open in it, not in its children.
        env[names.MAIN] = f"{os.getpid()}:{fcntl.fcntl(fd, fcntl.F_DUPFD, 64)}"


def _warm(settings: Settings, models: tuple[str, ...], to: str) -> None:
    from trims_cli import resident

    place = places.HOST if to == places.AUTO else to
    fields = {
        "place": place,
        "flavour": "auto",
        "timeout": settings.seconds(resident.WAIT),
        "wait": True,
        "evict": True,
    }
    errors = resident.ask(settings, "warm", models, fields)[1]
    if errors:
        raise errors[0]


def become(command: tuple[str, ...], env: dict[str, str]) -> NoReturn:
    """Replace this process by the program, found as the shell finds it. Raises NotRun."""
    import _signal  # type: ignore[import-not-found]  # the signal module proper wraps every number in an enum: 4 ms

    boundary.flush()
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)  # Python ignores these, and what is ignored is inherited
    found: OSError | None = None
    for path in candidates(command[0], env):
        try:
            _exec(path, command, env)
        except (FileNotFoundError, NotADirectoryError) as error:
            found = found or (error if os.path.exists(path) else None)  # a script whose interpreter is missing
        except OSError as error:
            found = error
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
    if found is None:
        raise NotRun(f"cannot run {command[0]}", "there is no such program", NOT_FOUND)
    missing = found.errno == errno.ENOENT
    why = "its interpreter is missing" if missing else os.strerror(found.errno or 0)
    raise NotRun(f"cannot run {command[0]}", why, NOT_FOUND if missing else NOT_RUNNABLE)


def _exec(path: str, command: tuple[str, ...], env: dict[str, str]) -> None:
    try:
        os.execve(path, command, env)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        os.execve("/bin/sh", ["/bin/sh", path, *command[1:]], env)  # a script without its first line, as execvp does


def candidates(name: str, env: dict[str, str]) -> list[str]:
    """The paths at which the program called `name` may be, in order."""
    if "/" in name:
        return [name]
    where = env.get("PATH", os.defpath).split(os.pathsep)
    return [os.path.join(directory, name) for directory in where] if name else []
