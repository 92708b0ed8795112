"""Ending a manager: by asking it, and by force when it does not answer."""

from __future__ import annotations

import os

from trims.errors import ManagerNotRunning, ManagerUnreachable
from trims_cli import glance, status
from trims_cli.output import Item
from trims_cli.settings import Settings

DRAIN = 60.0  # seconds, the default of --timeout


def stop(settings: Settings, now: bool) -> Item:
    """Stop the manager that runs, if one does. Raises InUse when clients stay beyond the timeout."""
    from trims.client.control import Control

    found = status.gather(settings, ask=False)
    snapshot = glance.look(settings)
    leases = found["leases"] or 0
    try:
        with Control(settings.config.sockets) as control:
            pid = control.welcome["pid"]
            control.request("stop", wait=settings.seconds(DRAIN), drain=not now, timeout=settings.seconds(DRAIN))
            if not control.wait_closed(30.0):
                raise ManagerUnreachable("the manager does not end", "it said that it would", "see `trims logs`")
        await_end(pid, snapshot.started if snapshot is not None and snapshot.pid == pid else 0)
        return {"pid": pid, "outcome": "stopped", "leases": leases if now else 0}
    except ManagerNotRunning:
        return {"pid": None, "outcome": "not-running", "leases": 0}
    except ManagerUnreachable:
        pid = kill(settings) if now else None
        if pid is None:
            raise
        return {"pid": pid, "outcome": "killed", "leases": leases}


def await_end(pid: int, started: int = 0) -> None:
    """Come back when the process has ended: its lock and memory are then free.

    started: when it did, in ticks since boot; a process of another time has the number in our namespace only, and the
    one that was meant, in a container, is not to be waited for.
    """
    import select

    from trims.linux import process

    try:
        if started and process.start_time(pid) not in (0, started):
            return
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, PermissionError):
        return
    try:
        select.select([fd], [], [], 30.0)
    finally:
        os.close(fd)


def kill(settings: Settings) -> int | None:
    """End a manager that does not answer, by force; its number, or None when it cannot be known for certain."""
    import signal

    from trims.linux import process

    snapshot = glance.look(settings)
    if snapshot is None:
        return None
    try:
        fd = os.pidfd_open(snapshot.pid)
    except OSError:
        return None
    try:
        if process.start_time(snapshot.pid) != snapshot.started:
            return None
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        return None
    finally:
        os.close(fd)
    await_end(snapshot.pid)
    return snapshot.pid
