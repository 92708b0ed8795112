"""Forks of a program, while another of its threads runs code of ours.

A first load imports modules, of which the program knows nothing. Were it to fork in that moment, the child would have
them half made, with locks held by a thread that it does not have, and wait for ever at its own first load. So the fork
waits, for as long as an import takes.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import get_ident

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from typing import Any

_PATIENCE = 5.0  # seconds: an import that takes so long waits for something else, it may be for the thread that forks
_PAUSE = 0.0005
inside: set[int] = set()
"""The threads that run code of ours."""


def enter() -> None:
    """This thread runs code of ours from here on."""
    inside.add(get_ident())


def leave() -> None:
    """The end of what `enter` began."""
    inside.discard(get_ident())


def _settle() -> None:
    """Before a fork: have the imports done that other threads make for us."""
    others = inside - {get_ident()}
    until = time.monotonic() + _PATIENCE
    while others and _importing(others) and time.monotonic() < until:
        time.sleep(_PAUSE)


def _importing(threads: set[int]) -> bool:
    """Whether one of these threads imports a module; False in a Python that does not tell."""
    locks: dict[str, Any] = getattr(sys.modules["_frozen_importlib"], "_module_locks", {})
    found = [reference() for reference in list(locks.values())]
    return any(getattr(lock, "owner", None) in threads for lock in found if lock is not None)


def _forked() -> None:
    inside.intersection_update({get_ident()})


os.register_at_fork(before=_settle, after_in_child=_forked)
