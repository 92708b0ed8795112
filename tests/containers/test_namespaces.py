"""Clients in containers: every namespace their own, nothing shared but the directory with the socket."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import cli, containers, sources
from helpers.capabilities import cannot_contain, needs_root
from helpers.containers import Container
from helpers.tenants import ANNA, BERT

import trims
from trims.client import connections
from trims.client.control import Control
from trims.disk.ingest import import_model
from trims.disk.store import create_store
from trims.linux import cgroup
from trims.permission import Asker, Importer

pytestmark = pytest.mark.skipif(bool(cannot_contain()), reason=f"no containers here: {cannot_contain()}")

CLIENT = """
import hashlib, json, os, sys, trims
with trims.open("m") as model:
    product = model["w"] * model["b"][0] + model["w"]
    print(json.dumps({"pid": os.getpid(), "uid": os.getuid(), "how": model.how, "place": model.place,
                      "digest": model.digest, "product": hashlib.sha256(product.tobytes()).hexdigest(),
                      "root": sorted(os.listdir("/")), "run": sorted(os.listdir("/run/trims"))}), flush=True)
    sys.stdin.readline()
"""
ASKER = """
import json, os, sys, trims
model, seen = trims.open("m"), {"uid": os.getuid()}
for ref in ("m", "other"):
    try:
        seen[ref] = list(trims.open(ref)["w"].shape)
    except trims.TrimsError as error:
        seen[ref] = error.code
print(json.dumps(seen), flush=True)
sys.stdin.readline()
"""
WORKERS = """
import os, sys, trims
for _ in range(2):
    if os.fork() == 0:
        model = trims.open("m")
        print(os.getpid(), flush=True)
        break
sys.stdin.readline()
"""
GIVER = """
import json, numpy, trims
from trims.client.giving import Giver
numpy.save("/w.npy", numpy.arange(1000, dtype=numpy.float32))
with Giver(["/run/trims/trims.sock"]) as giver:
    item = giver.give(["/w.npy"], ref="made", files=["w.npy"])
print(json.dumps({"digest": item["digest"], "sum": float(trims.open("made")["w"].sum())}), flush=True)
"""
MANAGER = """
import sys
from trims.config import load
from trims.manager.run import run
sys.exit(run(load(), detached=False, ready=lambda told: print(told["pid"], flush=True)))
"""


def product(model: trims.Model) -> str:
    found = np.asarray(model["w"]) * model["b"][0] + model["w"]
    return hashlib.sha256(found.tobytes()).hexdigest()


def until_idle(manager: Any) -> None:
    """Wait until nobody holds the model any more; ten seconds at most."""
    manager.request("wait", condition="idle", ref="m", timeout=10.0)


def test_a_client_that_shares_nothing_but_the_socket(manager: Any, put: Any) -> None:
    put("m")
    with trims.open("m", place="disk") as model:
        expected = product(model)
    with Container(CLIENT, manager.runtime.directory) as container:
        said = container.hear_json()
        assert (said["pid"], said["uid"], said["place"], said["product"]) == (1, 0, "host", expected)
        assert said["how"] == "loaded" and "store" not in str(said["root"]) and "proc" not in str(said["root"])
        for name in containers.NAMESPACES:
            assert os.readlink(f"/proc/{container.pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), name
        (row,) = cli.items("ps")
        assert (row["pid"], row["uid"], row["model"]) == (container.pid, os.getuid(), "m:latest")
        assert row["container"] == cgroup.NAMESPACE
        assert cli.ok("ps").splitlines()[0].split()[-3:] == ["CONTAINER", "AGE", "TTL"]
        assert f"pid {container.pid} ({cgroup.NAMESPACE}) holds it" in cli.fails(21, "evict", "m")
        container.kill()  # SIGKILL, as `docker kill` does
        until_idle(manager)
        assert cli.items("ps")[0]["pid"] is None and "CONTAINER" not in cli.ok("ps")
        assert [item["outcome"] for item in manager.request("evict", ref="m")] == ["evicted"]
        assert manager.request("status")[0]["budgets"]["host"]["used"] == 0


def test_all_processes_of_a_container_end_with_its_first(manager: Any, put: Any) -> None:
    put("m")
    with Container(WORKERS, manager.runtime.directory) as container:
        assert sorted(container.hear() for _ in range(2)) == ["2", "3"]
        rows = cli.items("ps", "--filter", f"container={cgroup.NAMESPACE}")
        assert len({row["pid"] for row in rows} - {container.pid, 2, 3}) == 2
        (row,) = cli.items("ps", "--group-by", "container")
        assert (row["group"], row["leases"], row["processes"]) == (cgroup.NAMESPACE, 2, 2)
        container.kill()
        until_idle(manager)
        assert cli.items("ps")[0]["pid"] is None


def test_the_name_is_that_of_the_control_group(manager: Any, put: Any, group: Path) -> None:
    put("m")
    with Container(CLIENT, manager.runtime.directory, cgroup=group) as container:
        container.hear_json()
        (row,) = cli.items("ps")
        assert (row["pid"], row["container"]) == (container.pid, f"docker:{group.name[:12]}")


def test_a_container_imports_a_file_that_only_it_can_see(manager: Any) -> None:
    with Container(GIVER, manager.runtime.directory) as container:
        assert container.hear_json() == {"digest": cli.items("ls")[0]["id"], "sum": 499500.0}
        assert container.wait() == 0


def test_a_manager_in_a_container_of_its_own(runtime: Any, put: Any) -> None:
    """As a pod that does not see the node's processes: it counts clients that it cannot name."""
    put("m")
    shared = {str(runtime.store): "/store"}
    settings = {"TRIMS_STORE": "/store", "TRIMS_HOST_BUDGET": "64MiB", "HOME": "/"}
    with Container(MANAGER, runtime.directory, shared=shared, serves=True, **settings) as container:
        assert container.hear() == "1", container.errors()
        with trims.open("m", place="host") as model:
            (row,) = cli.items("ps")
            assert (row["pid"], row["container"], row["model"]) == (0, None, "m:latest")
            assert product(model)
        connections.close_idle()
        with Control([str(runtime.socket)]) as control:
            until_idle(control)
        assert cli.items("ps")[0]["pid"] is None
        cli.ok("stop", "-q")
        assert container.wait() == 0, container.errors()


@needs_root
def test_a_container_s_root_is_who_it_is_outside(runtime: Any, home: Path, managers: Any) -> None:
    """Rootless, as engines map users: a manager of system scope serves the user of outside, by that user's refs."""
    for directory in (home, runtime.directory):
        directory.chmod(0o755)
    store = create_store(str(runtime.store), system=True)
    for ref, uid in (("m", ANNA), ("other", BERT)):
        importer = Importer(Asker(uid, uid, frozenset([uid])))
        import_model(store, sources.source({"w": sources.numbers(uid, 64)}), ref, importer=importer)
    managers(manager_scope="system")
    with Container(ASKER, runtime.directory, uid=ANNA) as container:
        assert container.hear_json() == {"uid": 0, "m": [64], "other": "no-such-model"}
        (row,) = cli.items("ps")
        assert (row["pid"], row["uid"], row["container"]) == (container.pid, ANNA, cgroup.NAMESPACE)


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group named as Docker names them, in whichever hierarchy we may make one."""
    name = "docker/" + hashlib.sha256(os.urandom(8)).hexdigest()
    for base in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")):
        if not (base / "cgroup.procs").exists():
            continue
        try:
            (base / name).mkdir(parents=True)
        except OSError:
            continue
        yield base / name
        (base / name).rmdir()
        try:
            (base / name).parent.rmdir()
        except OSError:
            pass  # Docker's own containers are in it
        return
    pytest.skip("no control group can be made here")
