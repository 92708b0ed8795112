"""The unusual system calls, and the one place where tests make them fail.

Every durable step and every descriptor-passing call of trims goes through this package. `step(name)` marks a point at
which a crash test may stop the process or raise: nothing else in the project has test hooks.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms

if TYPE_CHECKING:
    from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def step(name: str) -> None:
    """A point in a durable operation. Does nothing unless a test installed a hook."""
    if _hook is not None:
        _hook(name)


def install_hook(hook: Callable[[str], None] | None) -> None:
    """Call `hook(name)` at every step from now on; None removes it. For tests."""
    global _hook
    _hook = hook
