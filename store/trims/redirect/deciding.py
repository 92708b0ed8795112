"""What hooks call: is this file a model of the store, and if so, the shared model in place of the file.

A hook is a module `hooks_X` with `patch(module)`, called right after the framework's module was executed: it puts its
own function over the framework's, which calls `load` with two ways to do the same, `ours` and `native`:

    def patch(module):                     # imports nothing but this module: the framework is still being imported
        original = module.load_it
        @functools.wraps(original)
        def load_it(path, option=None):
            native = lambda: original(path, option)
            if option is not None:         # what we cannot do exactly is the framework's
                return native()
            return deciding.load(path, "the framework", lambda decision: ours(decision, path), native)
        module.load_it = load_it

`ours` is given a Decision, opens the model by `decision.model()` and returns what the native load would have; it raises
Unsuited to say why it cannot. Whatever else it raises is our failure: the native load is done. Exceptions of the
program's own code that run inside (a subclass, a callback, a signal handler) pass through as they are, and so does
Refused. While `ours` runs, hooks in the same thread are off: what it calls of the frameworks is the real thing.
"""

from __future__ import annotations

import os
import sys
import time

from trims.errors import TrimsError
from trims.redirect import forking
from trims.redirect.environment import sees_store, wishes
from trims.redirect.failures import describe, forget, is_users

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from trims.client import Model
    from trims.client.recognising import ManagerSources
    from trims.disk.sources import Known, Sources

    T = TypeVar("T")


class Unsuited(Exception):
    """A hook's reason, in words, for a load that it leaves to the framework: `raise Unsuited("it is on a GPU")`."""


class Refused(TrimsError):
    """A load that could not be redirected, where that was to fail: `--fallback fail`, or a model of `--require`."""

    code = "not-redirected"
    exit_code = 125


class Decision:
    """One load that is to be redirected. source: as the program gave it. known: what it is.

    nbytes: what was shared, for the report; the size of the file unless the hook says better.
    """

    __slots__ = ("framework", "how", "known", "nbytes", "source")

    def __init__(self, source: Any, framework: str, known: Known) -> None:
        self.source, self.framework, self.known = source, framework, known
        self.nbytes = known.size
        self.how = ""

    def model(self) -> Model:
        """The shared model: see `opened`."""
        model = opened(self.known, self.framework)
        self.how = model.how
        return model


def load(
    source: Any,
    framework: str,
    ours: Callable[[Decision], T],
    native: Callable[[], T],
    measured: Callable[[Known], T] | None = None,
) -> T:
    """Do one load, shared where that is possible, natively otherwise.

    source: path (str or PathLike) or the bytes of a file; None is native at once.
    measured: `native` where that does its work later: told what the file is, it calls the function `native` of this
        module when it knows how long that took.
    """
    if source is None or is_ours():
        return native()
    begun = time.perf_counter()
    known = recognise(source, framework)
    if known is None:
        return native()
    decision = Decision(source, framework, known)
    if not wishes().measures:
        failure: Exception | None = None
        why = ""
        with _Ours():
            try:
                result = ours(decision)
            except Refused:
                raise
            except Unsuited as unsuited:
                why = str(unsuited)
            except Exception as error:
                if is_users(error):
                    raise
                failure, why = error, describe(error)
        if not why:
            redirected(known, framework, decision.nbytes, time.perf_counter() - begun, decision.how, source)
            return result
        fell_back(source, framework, why, failure, known)
        forget(failure)
        failure = None
    if measured is not None:
        return measured(known)
    begun = time.perf_counter()
    result = native()
    guard(lambda: _native(source, framework, time.perf_counter() - begun, known))
    return result


def recognise(source: Any, framework: str = "") -> Known | None:
    """What the store knows of a file, by path, or of a file's bytes; None is for a native load, and one line says so.

    Raises Refused where native loads are to fail.
    """
    known = guard(lambda: _find(source))
    if known is None and wishes().imports and not wishes().measures:
        known = guard(lambda: _imported(source, framework))
    if known is None and not wishes().measures:
        fell_back(source, framework, "it is not in the store, or has changed since its import")
    return known


def opened(known: Known, framework: str = "") -> Model:
    """The stored model of a known file; the one that this process has open already, if it has. Raises TrimsError.

    With a manager, or without one by the store's files: also when the manager has no room for it.
    """
    from trims.redirect import opening

    return opening.opened(known)


def redirected(known: Known, framework: str, nbytes: int, seconds: float, how: str, source: Any = None) -> None:
    """A load was redirected: count it, for the report and for `--require`. Never raises."""

    def note() -> None:
        from trims.redirect import report, ticks

        ticks.tick(known.model)
        report.redirected(known, framework, nbytes, seconds, how, name_of(source), sources().native(known))

    guard(note)


def fell_back(
    source: Any, framework: str, why: str, error: BaseException | None = None, known: Known | None = None
) -> None:
    """A load is native, for the reason `why`: one line, once a file. Raises Refused where that is to fail."""
    path = name_of(source)
    what = f"{path} cannot be redirected"
    asked = wishes()
    required = known is not None and known.model in asked.require
    if asked.fails or required:
        hint = f"{known.ref} is required" if required and known is not None else "--fallback native lets it load itself"
        guard(lambda: _refused(path, framework, why, known))
        raise Refused(what, why, hint) from error
    guard(lambda: _fell_back(path, framework, why, known))


def native(source: Any, framework: str, seconds: float, known: Known | None) -> None:
    """A framework's own load took so long: remember it, when the file is known. Never raises."""
    guard(lambda: _native(source, framework, seconds, known))


def guard(action: Callable[[], T]) -> T | None:
    """What `action`, some code of ours, gives; None when it fails, which nobody but a report hears of."""
    failure: Exception
    with _Ours():
        try:
            return action()
        except Refused:
            raise
        except Exception as error:
            if is_users(error):
                raise
            if os.environ.get("TRIMS_DEBUG"):
                import traceback

                traceback.print_exception(error)
            failure = error
    forget(failure)
    return None


def is_ours() -> bool:
    """Whether this thread runs code of ours, whose loads are not the program's."""
    return getattr(_depth, "depth", 0) > 0


def name_of(source: Any) -> str:
    """A source for messages: its path, made absolute, or how many bytes it is."""
    if isinstance(source, (str, bytes, os.PathLike)) and not isinstance(source, bytes):
        try:
            return os.path.abspath(os.fsdecode(source))
        except (OSError, ValueError, TypeError):
            return repr(source)
    return f"a model of {len(source)} bytes" if hasattr(source, "__len__") else repr(type(source))


def sources() -> Sources | ManagerSources:
    """The files that the configured store knows; where it cannot be read, a manager is asked."""
    global _sources
    if _sources is None:
        _sources = _by_files() if sees_store() or wishes().place == "disk" else _by_manager()
    return _sources


_sources: Sources | ManagerSources | None = None


class _Ours:
    """The block is code of ours: hooks are off in this thread, and what trims imports is lent to it."""

    __slots__ = ()

    def __enter__(self) -> None:
        depth = getattr(_depth, "depth", 0)
        if not depth:
            forking.enter()
        _depth.depth = depth + 1

    def __exit__(self, *_: object) -> None:
        _depth.depth -= 1
        if not _depth.depth:
            forking.leave()


def _depth_of_thread() -> Any:
    import _thread

    finder = sys.modules.get("_trims_finder")
    return _thread._local() if finder is None else finder.lending


_depth: Any = _depth_of_thread()


def _by_files() -> Sources:
    from trims.disk.sources import Sources
    from trims.paths import StorePaths

    return Sources(StorePaths(wishes().store))


def _by_manager() -> ManagerSources:
    from trims.client.recognising import ManagerSources

    return ManagerSources(wishes().socket)


def _find(source: Any) -> Known | None:
    if isinstance(source, (str, os.PathLike)):
        return sources().find(source)
    return sources().find_bytes(source)


def _imported(source: Any, framework: str) -> Known | None:
    """What a file is after it was imported, which was asked for; None when it cannot be."""
    from trims.redirect import importing

    if not isinstance(source, (str, os.PathLike)):
        return None
    importing.bring(os.path.abspath(os.fsdecode(source)), wishes())
    return _find(source)


def _native(source: Any, framework: str, seconds: float, known: Known | None) -> None:
    from trims.redirect import report

    if known is not None:
        sources().note_native(known, framework, seconds)
    report.native(known, framework, seconds, name_of(source))


def _refused(path: str, framework: str, why: str, known: Known | None) -> None:
    from trims.redirect import report

    report.fell_back(path, framework, why, known, "refused")


def _fell_back(path: str, framework: str, why: str, known: Known | None) -> None:
    from trims.redirect import report

    report.fell_back(path, framework, why, known)
    report.say(f"trims: {path} is loaded natively: {why}", path, wishes().quiet)
