"""Waiting until a manager answers, by the kernel's word that its runtime directory has changed: no polling."""

from __future__ import annotations

import os
import time

from trims.client.control import Control
from trims.errors import ManagerNotRunning, ManagerUnreachable, TimedOut
from trims_cli.inotify import CREATED, Watch


def wait_for_manager(sockets: list[str], timeout: float) -> float:
    """Return the seconds that are left when a manager answers at one of `sockets`. Raises TimedOut."""
    deadline = time.monotonic() + timeout
    with Watch() as watch:
        while True:
            for socket in sockets:
                watch.add(_nearest(os.path.dirname(socket)), CREATED)
            try:
                Control(sockets).close()
                return max(0.0, deadline - time.monotonic())
            except (ManagerNotRunning, ManagerUnreachable) as error:
                left = deadline - time.monotonic()
                if left <= 0 or not watch.wait(left):
                    raise TimedOut(f"no manager was ready after {timeout:g} s", error.why or error.what) from None


def _nearest(directory: str) -> str:
    """The directory, or the nearest of its ancestors that exists: it is where the first missing one will appear."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory) or "/"
    return directory
