"""Names of containers and jobs, from the groups that their runtimes make."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers.capabilities import cannot_contain

from trims.linux import cgroup

ID = "3f4e1a9b0c2d" + "0" * 52
POD = "8c7d2a3e-1111-4222-8333-944455566677"
UNDER = POD.replace("-", "_")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/docker/{ID}", "docker:3f4e1a9b0c2d"),
        (f"/system.slice/docker-{ID}.scope", "docker:3f4e1a9b0c2d"),
        (f"/machine.slice/libpod-{ID}.scope/container", "podman:3f4e1a9b0c2d"),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", "podman:3f4e1a9b0c2d"),
        (f"/libpod_parent/libpod-{ID}", "podman:3f4e1a9b0c2d"),
        (f"/default/{ID}", "default:3f4e1a9b0c2d"),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDER}.slice/cri-containerd-{ID}.scope",
            f"k8s:{POD}/3f4e1a9b0c2d",
        ),
        (f"/kubepods.slice/kubepods-pod{UNDER}.slice/crio-{ID}.scope", f"k8s:{POD}/3f4e1a9b0c2d"),
        (f"/kubepods/burstable/pod{POD}/{ID}", f"k8s:{POD}/3f4e1a9b0c2d"),
        (f"/docker/{'a' * 64}/kubelet/kubepods/pod{POD}/{ID}", f"k8s:{POD}/3f4e1a9b0c2d"),
        ("/user.slice/user-7.slice/user@7.service/app.slice/apptainer-812.scope", "apptainer:812"),
        ("/slurm/uid_1000/job_123/step_0/task_0", "slurm:123.0"),
        ("/system.slice/slurmstepd.scope/job_123/step_batch/user/task_0", "slurm:123.batch"),
        ("/lxc.payload.web", "lxc:web"),
        ("/lxc/web", "lxc:web"),
        ("/machine.slice/machine-build.scope", "machine:build"),
        ("/system.slice/nginx.service", "nginx.service"),
        ("/user.slice/user-7.slice/user@7.service/app.slice/notebook.service", "notebook.service"),
        ("/user.slice/user-7.slice/session-3.scope", ""),
        ("/user.slice/user-7.slice/user@7.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope", ""),
        ("/", ""),
        ("/mine", ""),
    ],
)
def test_name(path: str, name: str) -> None:
    assert cgroup.name_of(f"0::{path}\n", "0::/mine\n") == name
    # The hierarchies of the first version each have a line; a colon may be in a path.
    assert cgroup.name_of(f"9:name=systemd:{path}\n4:memory:/\n0::/\n", "9:name=systemd:/mine\n4:memory:/\n") == name


def test_name_of_odd_lines() -> None:
    assert cgroup.name_of("") == cgroup.name_of("no lines\nof:it\n") == ""
    assert cgroup.name_of("0::/a:b/c:d\n") == "c:d"
    assert len(cgroup.name_of(f"0::/{'x' * 300}\n")) == cgroup.LONGEST


def test_a_process_that_cannot_be_seen_is_in_nothing_and_so_are_we() -> None:
    assert cgroup.container(0) == cgroup.container(os.getpid()) == ""


@pytest.mark.skipif(bool(cannot_contain()), reason=cannot_contain())
def test_a_namespace_of_processes_is_told() -> None:
    # unshare(CLONE_NEWUSER | CLONE_NEWPID): the next child is the first process of the new namespace.
    code = "import ctypes, os; ctypes.CDLL(None).unshare(0x30000000); pid = os.fork()\n"
    code += "print(pid, flush=True) if pid else os.read(0, 1)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outer:
        assert outer.stdin is not None and outer.stdout is not None
        pid = int(outer.stdout.readline())
        assert cgroup.container(pid) == cgroup.NAMESPACE
        outer.stdin.close()
