"""Which container or job a process runs in, by the name of its control group. The kernel keeps it; no runtime is asked.

A name is `docker:`, `podman:`, `containerd:`, `cri-o:` and twelve digits of the container's id, `k8s:` with the pod's
uid and the container's id, `slurm:JOB.STEP`, `apptainer:`, `lxc:` and `machine:` with their own names; anything else
is the last part of the group's path, such as `nginx.service`. "" is a process of no group of its own.
"""

from __future__ import annotations

import functools
import os
import re

LONGEST = 64
"""Bytes of a name: `k8s:`, a uid of 36, a slash and 12 digits are 53."""
NAMESPACE = "pid-namespace"
"""The name of what has processes of its own and nothing else to tell it by: bubblewrap, unshare."""

_ID = re.compile(r"(?:(?P<runtime>[a-z-]+)-)?(?P<id>[0-9a-f]{64})(?:\.scope)?$")
_POD = re.compile(r"(?:^|-)pod(?P<uid>[0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})(?:\.slice)?$")
_NAMED = (
    (re.compile(r"(?:apptainer|singularity)-(?P<name>.+?)(?:\.scope)?$"), "apptainer"),
    (re.compile(r"lxc\.payload\.(?P<name>.+)$"), "lxc"),
    (re.compile(r"machine-(?P<name>.+)\.scope$"), "machine"),
    (re.compile(r"systemd-nspawn@(?P<name>.+)\.service$"), "machine"),
)
_RUNTIMES = {"libpod": "podman", "cri-containerd": "containerd", "nerdctl": "containerd", "crio": "cri-o"}
_HIERARCHIES = ("", "name=systemd")
_PLAIN = re.compile(r"(?:session-|user@|user-|init\.scope|vte-spawn-|app-|run-).*|.*\.slice")
"""Groups that systemd makes for everybody: they say nothing of a container."""


def container(pid: int) -> str:
    """The name of what `pid` runs in; "" when it is nothing, as it is for a process that cannot be seen (pid 0)."""
    name = name_of(_read(f"/proc/{pid}/cgroup"), _own()[0])
    return name or (NAMESPACE if _is_inside(pid) else "")


def _is_inside(pid: int) -> bool:
    """Whether a process is in a namespace of processes within ours. Most are not, which one call tells if it may."""
    try:
        if os.readlink(f"/proc/{pid}/ns/pid") == _own()[1]:
            return False
    except OSError:
        pass  # another user's, or gone
    return bool(re.search(r"^NSpid:\s+\d+\s+\d", _read(f"/proc/{pid}/status"), re.MULTILINE))


@functools.cache
def _own() -> tuple[str, str]:
    """Our groups and our namespace of processes, as they were when first asked for."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return _read("/proc/self/cgroup"), namespace


@functools.lru_cache(maxsize=256)
def name_of(membership: str, own: str = "") -> str:
    """The name that lines of cgroups(7) tell; `own`, those of the process that asks, count as nothing of their own."""
    paths = _paths(membership)
    for path in paths.values():
        found = _known(path)
        if found:
            return found[:LONGEST]
    ours = _paths(own)
    for controllers, path in paths.items():
        last = path.rpartition("/")[2]
        if last and path != ours.get(controllers) and not _PLAIN.fullmatch(last):
            return last[:LONGEST]
    return ""


def _paths(membership: str) -> dict[str, str]:
    """Controllers to path, the unified hierarchy and systemd's first: the others are often left at the root."""
    lines = [line.split(":", 2) for line in membership.splitlines()]
    found = {parts[1]: parts[2] for parts in lines if len(parts) == 3}
    return {name: found[name] for name in sorted(found, key=lambda name: (name not in _HIERARCHIES, name))}


def _known(path: str) -> str:
    """The innermost container or job on a path, or ""."""
    parts = path.split("/")
    for at in range(len(parts) - 1, 0, -1):
        part, above = parts[at], parts[at - 1]
        match = _ID.match(part)
        if match:
            pod = _POD.search(above)
            if pod:
                return f"k8s:{pod['uid'].replace('_', '-')}/{match['id'][:12]}"
            runtime = match["runtime"] or above or "container"
            return f"{_RUNTIMES.get(runtime, runtime)}:{match['id'][:12]}"
        if part.startswith("step_") and above.startswith("job_"):
            return f"slurm:{above[4:]}.{part[5:]}"
        if above == "lxc":
            return f"lxc:{part}"
        for pattern, runtime in _NAMED:
            named = pattern.match(part)
            if named:
                return f"{runtime}:{named['name']}"
    return ""


def _read(path: str) -> str:
    """All of a small file; "" when it cannot be read. (Half the time of `open`.)"""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 1 << 16).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
