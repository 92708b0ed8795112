"""The client against a real manager: leases end with their users, however these end; the manager may die any time."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import raw, sources

import trims
from trims.client import connections
from trims.client.direct import DirectModeWarning
from trims.disk.ingest import import_model
from trims.disk.store import open_store
from trims.errors import ManagerNotRunning, NoRoom, NoSuchModel, TrimsError
from trims.paths import RuntimePaths
from trims.shmindex import reader
from trims.wire.messages import Attach

PROMPT = 0.1  # seconds in which a lease is gone after its last process
WEIGHTS = {"w": sources.numbers(1, 256, 1024), "b": sources.numbers(2, 8)}


@pytest.fixture
def served(manager: Any) -> Iterator[Any]:
    """The manager, with the model `m` in its store."""
    import_model(open_store(str(manager.runtime.store)), sources.source(WEIGHTS), "m")
    yield manager
    gc.collect()
    connections.close_idle()


def leases(manager: Any) -> list[int]:
    """Pids that hold leases, as the index says."""
    snapshot = reader.read(RuntimePaths(str(manager.runtime.socket)).index)
    assert snapshot is not None
    return sorted(lease.pid for lease in snapshot.leases)


def until_leases(manager: Any, pids: list[int]) -> float:
    """Seconds until exactly these processes hold leases; fails when they do not. Between looks the manager is asked."""
    start = time.monotonic()
    with manager.control() as control:
        while leases(manager) != pids:
            assert time.monotonic() - start < 10, (leases(manager), pids)
            control.request("status")
    return time.monotonic() - start


def python(code: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    """A client process: `say` prints a line at once, `hear` waits for one."""
    preamble = (
        "import gc, os, sys, warnings; import numpy as np, trims\n"
        "warnings.simplefilter('error')\n"
        "def say(word): os.write(1, f'{word}\\n'.encode())\n"  # one call: several processes say it at once
        "def hear(): return sys.stdin.readline()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", preamble + code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **more,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], text: str = "go") -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> None:
    with process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


# ---- attaching


def test_a_model_is_loaded_once_and_mapped(served: Any) -> None:
    with trims.open("m", "host") as model:
        assert model.place == "host" and model.variant == "raw"
        assert all(np.array_equal(model[name], array) for name, array in WEIGHTS.items())
        assert model.manifest.digest == model.digest
        assert leases(served) == [os.getpid()]
        with trims.open("m") as again:
            assert again.digest == model.digest and leases(served) == [os.getpid()] * 2
            status = served.request("status")[0]
            assert status["budgets"]["host"]["leased"] > 0
        assert until_leases(served, [os.getpid()]) < 5
    until_leases(served, [])


def test_a_model_says_what_opening_it_took(served: Any) -> None:
    with trims.open("m") as first, trims.open("m") as second:
        assert (first.how, second.how) == ("loaded", "hit")
    with trims.open("m", place="disk") as mapped:
        assert mapped.how == "direct"
    del first, second, mapped
    gc.collect()
    served.request("evict", ref="m", wait=True)
    with raw.Raw(served.runtime.socket) as client:  # both asked for within one turn of the manager
        client.send(Attach(id=8, ref="m"), Attach(id=9, ref="m"))
        assert [client.answer(id).how for id in (8, 9)] == ["loaded", "joined"]


def test_the_memory_is_the_managers_and_nobody_can_write_to_it(served: Any) -> None:
    with trims.open("m", "host") as model:
        inodes = set()
        with open("/proc/self/maps") as file:
            for text in file:
                fields = text.split(None, 5)
                if "/memfd:" in text:
                    assert fields[1].startswith("r--")
                    inodes.add(fields[4])
        assert len(inodes) == 1
        with pytest.raises(ValueError, match="read-only"):
            model["w"][0, 0] = 1


def test_a_view_keeps_the_lease_and_its_end_gives_it_back(served: Any) -> None:
    with trims.open("m", "host") as model:
        row = model["w"][3]
    gc.collect()
    assert leases(served) == [os.getpid()]
    assert np.array_equal(row, WEIGHTS["w"][3])
    del row
    assert until_leases(served, []) < 5


def test_errors_come_through(served: Any) -> None:
    with pytest.raises(NoSuchModel):
        trims.open("nothing", "host")
    import_model(
        open_store(str(served.runtime.store)), sources.source({"w": np.zeros((20 << 20,), np.float32)}), "huge"
    )
    with pytest.raises(NoRoom) as caught:
        trims.open("huge", timeout=0.1)
    assert caught.value.details["need"] > caught.value.details["budget"]


def test_many_threads_share_one_connection(served: Any) -> None:
    wrong: list[str] = []
    barrier = threading.Barrier(8)

    def work(n: int) -> None:
        barrier.wait()
        for _ in range(25):
            with trims.open("m", "host") as model:
                if not np.array_equal(model["w"][n], WEIGHTS["w"][n]):
                    wrong.append("bytes")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    until_leases(served, [])
    assert served.request("status")[0]["connections"] <= 2  # ours, and the one that asks


# ---- processes that come and go


def test_a_killed_client_loses_its_lease_at_once(served: Any) -> None:
    client = python("m = trims.open('m', 'host'); v = m['w']; say('ready'); hear()")
    with client:
        assert line(client) == "ready"
        assert leases(served) == [client.pid]
        os.kill(client.pid, signal.SIGKILL)
        client.wait()
        assert until_leases(served, []) < PROMPT * 5  # the target is 0.1 s on a machine of its own


def test_a_preloading_server(served: Any) -> None:
    """The parent opens, children use, the parent closes and ends: the lease lasts until the last child has ended."""
    code = (
        "model = trims.open('m', 'host'); total = float(model['w'].sum())\n"
        "r, w = os.pipe()\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        sys.stdin.close(); os.close(w); os.read(r, 1)  # until the parent has closed and gone\n"
        "        assert float(model['w'].sum()) == total\n"
        "        with trims.open('m', 'host') as own: assert float(own['w'].sum()) == total\n"
        "        say(os.getpid()); os.kill(os.getpid(), 19)\n"
        "        model.close(); os._exit(0)\n"
        "model.close(); del model; gc.collect()\n"
        "say('closed'); os._exit(0)\n"
    )
    parent = python(code)
    with parent:
        assert line(parent) == "closed"
        assert parent.wait(20) == 0
        children = sorted(int(line(parent)) for _ in range(2))
        until_leases(served, [parent.pid])  # the one that both still hold; their own are given back
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)
        assert leases(served) == [parent.pid]
        os.kill(children[1], signal.SIGCONT)
        os.waitpid(children[1], 0)
        assert until_leases(served, []) < PROMPT * 5


def test_a_parent_keeps_its_lease_when_its_child_closes(served: Any) -> None:
    model = trims.open("m", "host")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            model.close()
            with trims.open("m", "host") as own:
                code = 0 if np.array_equal(own["w"], WEIGHTS["w"]) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert leases(served) == [os.getpid()] and np.array_equal(model["w"], WEIGHTS["w"])
    model.close()
    del model
    until_leases(served, [])


def _use(ref: str) -> float:
    with trims.open(ref, "host") as model:
        return float(model["w"].sum())


def test_spawned_processes_connect_by_themselves(served: Any) -> None:
    with trims.open("m", "host") as model:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert pool.map(_use, ["m"] * 4) == [float(model["w"].sum())] * 4
            pool.close()
            pool.join()
        until_leases(served, [os.getpid()])


# ---- a manager that dies


def test_a_dead_manager_stops_no_client(managers: Callable[..., Any]) -> None:
    manager = managers()
    import_model(open_store(str(manager.runtime.store)), sources.source(WEIGHTS), "m")
    model = trims.open("m", "host")
    view = model["b"]
    manager.kill()
    assert np.array_equal(model["w"], WEIGHTS["w"]) and np.array_equal(view, WEIGHTS["b"])
    with pytest.raises((ManagerNotRunning, TrimsError)):
        trims.open("m", "host")
    with pytest.warns(DirectModeWarning, match="without a manager"), trims.open("m") as direct:
        assert direct.place == "disk" and np.array_equal(direct["w"], WEIGHTS["w"])
    again = managers()
    with trims.open("m", "host") as new:
        assert np.array_equal(new["w"], WEIGHTS["w"])
        assert leases(again) == [os.getpid()]
        model.close()
        del view
        assert leases(again) == [os.getpid()]  # the old lease died with the old manager, the new one has not moved
    del model
    gc.collect()
    connections.close_idle()


def test_a_stopped_manager_costs_the_hello_once(served: Any) -> None:
    """A manager that hangs is not asked by every open of a program."""
    os.kill(served.pid, signal.SIGSTOP)
    try:
        with pytest.warns(DirectModeWarning, match="does not answer"):
            trims.open("m").close()
        start = time.monotonic()
        with pytest.warns(DirectModeWarning, match="does not answer"):
            for _ in range(5):
                trims.open("m").close()
        assert time.monotonic() - start < connections.HELLO_TIMEOUT
    finally:
        os.kill(served.pid, signal.SIGCONT)


# ---- frameworks, through the manager


def test_sessions_through_the_manager(served: Any, models: Any, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    from helpers.models import cnn_input

    from trims.disk.importers import open_source
    from trims.integrations.ort_key import variant_key

    with open_source(models.onnx) as source:
        import_model(open_store(str(served.runtime.store)), source, "cnn")
    x = cnn_input()
    expected = ort.InferenceSession(str(models.onnx)).run(None, {"x": x})[0].tobytes()
    for _ in range(2):
        with trims.open("cnn", "host") as model:
            session = model.onnxruntime()
        assert model.variant in ("raw", variant_key())
        assert session.run(None, {"x": x})[0].tobytes() == expected
        gc.collect()
        assert leases(served) == [os.getpid()]
        del session
        gc.collect()
        until_leases(served, [])
    with trims.open("cnn") as model:
        assert model.variant == variant_key()


def test_a_killed_manager_leaves_a_live_session_alone(managers: Callable[..., Any], models: Any) -> None:
    ort = pytest.importorskip("onnxruntime")
    from helpers.models import cnn_input

    from trims.disk.importers import open_source

    manager = managers()
    with open_source(models.onnx) as source:
        import_model(open_store(str(manager.runtime.store)), source, "cnn")
    x = cnn_input()
    expected = ort.InferenceSession(str(models.onnx)).run(None, {"x": x})[0].tobytes()
    with trims.open("cnn", "host") as model:
        session = model.onnxruntime()
    manager.kill()
    for _ in range(20):
        assert session.run(None, {"x": x})[0].tobytes() == expected
    del session, model
    gc.collect()
    connections.close_idle()


def test_torch_writes_reach_neither_the_manager_nor_a_neighbour(served: Any) -> None:
    pytest.importorskip("torch")
    code = (
        "model = trims.open('m', 'host'); state = model.torch()\n"
        "state['w'].fill_(7); assert float(state['w'][5, 5]) == 7; say('written'); hear()\n"
    )
    with trims.open("m", "host") as model:
        before = model.torch()["w"]
        other = python(code)
        assert line(other) == "written"
        assert np.array_equal(before.numpy(), WEIGHTS["w"])
        with trims.open("m", "host") as again:
            assert np.array_equal(again.torch()["w"].numpy(), WEIGHTS["w"])
        finish(other)
        del before
    gc.collect()
    until_leases(served, [])


def test_an_onnx_model_opened_before_onnxruntime_is_imported_is_resident_once(manager: Any, models: Any) -> None:
    """The usual order of a program; opening it raw first would hold the weights twice."""
    pytest.importorskip("onnxruntime")
    from trims.disk.importers import open_source
    from trims.integrations import ort_variant

    store = open_store(str(manager.runtime.store))
    with open_source(str(models.onnx)) as source:
        digest = import_model(store, source, "cnn").entry.digest
    ort_variant.build(store, digest)
    code = """
        import json, sys, trims
        with trims.open("cnn", "host") as model:
            assert "onnxruntime" not in sys.modules
            first = model.variant
            session = model.onnxruntime()
            assert first == model.variant and first.startswith("ort-"), first
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=manager.runtime.env, timeout=60)
    assert done.returncode == 0
    snapshot = reader.read(RuntimePaths(str(manager.runtime.socket)).index)
    assert snapshot is not None
    assert [r.variant.startswith("ort-") for r in snapshot.residencies] == [True]
