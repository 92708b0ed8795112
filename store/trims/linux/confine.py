"""Less power for a process that reads what strangers wrote. None of it can be taken back."""

from __future__ import annotations

import ctypes
import os
import resource

from trims.linux import memfd, process

PR_SET_NO_NEW_PRIVS = 38  # <linux/prctl.h>


def confine(parent: int, signal: int) -> None:
    """Give up what reading files does not need, and end by `signal` with the process `parent`.

    No core dump, no ptrace by others, no privilege by exec; first to go when memory is short, last to be scheduled.
    Raises ProcessLookupError when the parent has ended already.
    """
    process.end_with_parent(signal)
    if os.getppid() != parent:
        raise ProcessLookupError("the parent has ended")
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass  # no /proc, or a kernel without it: then it is as likely to go as others
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    memfd.make_undumpable()  # not before that: it takes the files of /proc/self away from us
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)
