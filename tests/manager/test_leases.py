"""Leases end with their processes; clients that stand still, do not read or come in crowds hurt nobody."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from helpers.raw import Raw, contents, descriptors, shared_bytes, until

from trims.shmindex.reader import Index
from trims.wire.framing import encode
from trims.wire.messages import Attach, Attached, Evict, Hello, Status, WaitFor, Warm

PROMPT = 0.1
"""Seconds after which a killed client's lease is gone. Machines that test are shared: SLACK more is allowed."""
SLACK = 2.0

HOLDER = """
import sys; sys.path[:0] = sys.argv[2].split(":")
from helpers.raw import Raw
client = Raw(sys.argv[1])
answer = client.attach(sys.argv[3])
print(answer.lease, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(manager):
    """Start processes that attach a model and hold on: `holder("m")`."""
    made: list[subprocess.Popen[str]] = []

    def start(ref: str) -> subprocess.Popen[str]:
        paths = ":".join(path for path in sys.path if path)
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(manager.runtime.socket), paths, ref],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        made.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        return process

    yield start
    for process in made:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_killed_clients_lease_is_gone_at_once(put, manager, holder):
    put("m")
    with Raw(manager.runtime.socket) as client, Index(f"{manager.runtime.directory}/index") as index:
        for _ in range(5):
            process = holder("m")
            assert [lease.pid for lease in index.snapshot().leases] == [process.pid]
            id = client.next_id()
            client.send(WaitFor(id=id, condition="idle", ref="m"))
            killed = time.monotonic()
            process.kill()
            client.answer(id)
            took = time.monotonic() - killed
            assert index.snapshot().leases == []
            assert took < PROMPT + SLACK


def test_a_lease_lives_as_long_as_any_copy_of_its_socket(put, manager):
    put("m")
    with Raw(manager.runtime.socket) as watcher, Index(f"{manager.runtime.directory}/index") as index:
        client = Raw(manager.runtime.socket)
        client.attach("m")
        copy = os.dup(client.sock.fileno())
        client.close()
        watcher.ask(Status)
        assert len(index.snapshot().leases) == 1
        os.close(copy)
        watcher.ask(WaitFor, condition="idle", ref="m")
        assert index.snapshot().leases == []


def test_many_clients_make_one_load(put, manager):
    put("m", 8 << 20)
    clients = [Raw(manager.runtime.socket) for _ in range(20)]
    for client in clients:
        client.send(Attach(id=1, ref="m"))
    answers = [client.answer(1) for client in clients]
    assert all(isinstance(answer, Attached) for answer in answers)
    assert len({os.fstat(client.fds[0]).st_ino for client in clients}) == 1
    (status,) = clients[0].ask(Status).items
    assert status["counters"]["loads"] == 1
    for client in clients:
        client.close()


def test_two_hundred_connections(put, manager):
    put("m")
    with Raw(manager.runtime.socket) as watcher, Index(f"{manager.runtime.directory}/index") as index:
        watcher.attach("m")
        before = descriptors(manager.pid)
        clients = [Raw(manager.runtime.socket) for _ in range(200)]
        for client in clients:
            client.attach("m")
        assert len(index.snapshot().leases) == 201
        for client in clients:
            client.close()
        until(lambda: len(index.snapshot().leases) == 1, watcher)
        assert descriptors(manager.pid) == before


def test_a_stopped_client_hurts_nobody_and_keeps_what_it_has(put, manager, holder):
    put("m")
    with Raw(manager.runtime.socket) as client, Index(f"{manager.runtime.directory}/index") as index:
        process = holder("m")
        os.kill(process.pid, signal.SIGSTOP)
        lease = client.attach("m")
        client.release(lease.lease)
        assert client.ask(Evict, ref="m").code == "in-use"
        assert [lease.pid for lease in index.snapshot().leases] == [process.pid]
        os.kill(process.pid, signal.SIGCONT)


def test_a_client_that_does_not_take_its_descriptor_is_let_go(put, manager):
    put("m")
    with Raw(manager.runtime.socket) as watcher, Index(f"{manager.runtime.directory}/index") as index:
        watcher.release(watcher.attach("m").lease)
        lazy = Raw(manager.runtime.socket)
        lazy.send(*(Attach(id=n, ref="m") for n in range(1, 51)))
        until(lambda: index.snapshot().leases, watcher)
        assert descriptors(manager.pid) < 40  # they wait for their turn; none of them is copied
        until(lambda: not index.snapshot().leases, watcher, 10)
        assert lazy.closed_by_peer()
        assert len(lazy.fds) <= 1
        lazy.close()


def test_a_client_that_asks_ahead_gets_its_descriptors_one_by_one(put, manager):
    put("m")
    with Raw(manager.runtime.socket) as client:
        start = time.monotonic()
        client.send(*(Attach(id=n, ref="m") for n in range(1, 301)))
        for n in range(1, 301):
            assert isinstance(client.answer(n), Attached)
        assert len(client.fds) == 300
        assert time.monotonic() - start < 10


def test_a_client_that_does_not_read_its_answers_is_let_go(put, manager):
    put("m")
    with Raw(manager.runtime.socket) as watcher:
        lazy = Raw(manager.runtime.socket)
        request = encode(Status(id=1)) * 100

        def flood() -> None:
            try:
                while True:
                    lazy.sock.sendall(request)
            except OSError:
                pass

        thread = threading.Thread(target=flood)
        thread.start()
        until(lambda: watcher.ask(Status).items[0]["connections"] == 1, watcher)
        thread.join()
        lazy.close()
        assert watcher.attach("m")


def test_half_a_message_waits_without_harm(put, manager):
    put("m")
    with Raw(manager.runtime.socket, hello=False) as slow, Raw(manager.runtime.socket) as other:
        data = encode(Hello(version=1))
        for byte in data[:-1]:
            slow.sock.sendall(bytes([byte]))
        assert other.attach("m")
        slow.sock.sendall(data[-1:])
        assert slow.receive().pid == manager.pid


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit, of util-linux")
def test_a_connection_more_than_the_cap_is_refused(put, runtime):
    limited = ["prlimit", "--nofile=80:80", sys.executable, "-m", "trims_cli"]  # half of it for connections
    subprocess.run([*limited, "start"], env=runtime.env, check=True, stdout=subprocess.DEVNULL)
    clients = []
    try:
        clients += [Raw(runtime.socket) for _ in range(40)]
        with Raw(runtime.socket, hello=False) as one_more:
            answer = one_more.receive()
        assert (answer.id, answer.what) == (0, "too many connections")
        clients.pop().close()
        clients[0].ask(Status)  # answered after the close was seen
        clients.append(Raw(runtime.socket))
        assert clients[-1].ask(Status).items[0]["connections"] == 40
    finally:
        for client in clients:
            client.close()
        subprocess.run([*limited, "stop", "--now"], env=runtime.env, check=True, stdout=subprocess.DEVNULL)


def test_attach_and_evict_cycles_leak_nothing(put, manager):
    put("m", 1 << 20)
    with Raw(manager.runtime.socket) as client:

        def cycle() -> None:
            answer = client.attach("m")
            client.release(answer.lease)
            os.close(client.fds.pop())
            assert client.ask(Evict, ref="m").items[0]["outcome"] == "evicted"

        cycle()
        before = descriptors(manager.pid), shared_bytes(manager.pid)
        for _ in range(200):
            cycle()
        assert (descriptors(manager.pid), shared_bytes(manager.pid)) == before
        assert before[1] == 0


def test_what_is_evicted_is_really_free(put, manager):
    digest = put("m", 8 << 20)
    with Raw(manager.runtime.socket) as client:
        client.ask(Warm, ref="m")
        assert shared_bytes(manager.pid) >= 8 << 20
        (item,) = client.ask(Evict, ref="m").items
        assert (item["digest"], item["outcome"]) == (digest, "evicted")
        client.ask(WaitFor, condition="gone", ref="m")
        assert shared_bytes(manager.pid) == 0


def test_a_doomed_region_lives_until_its_last_lease(put, manager):
    put("m", 1 << 20)
    with Raw(manager.runtime.socket) as client, Raw(manager.runtime.socket) as other:
        answer = client.attach("m")
        assert other.ask(Evict, ref="m", force=True).items[0]["outcome"] == "doomed"
        with mmap.mmap(client.fds[0], answer.map_nbytes, prot=mmap.PROT_READ) as map:
            before = bytes(map)
            other.send(Attach(id=100, ref="m"))  # waits for the old one to go: then it is a new load
            client.release(answer.lease)
            assert other.answer(100).lease > answer.lease
            assert os.fstat(other.fds[0]).st_ino != os.fstat(client.fds[0]).st_ino
            assert bytes(map) == before


def test_damage_is_named_and_never_handed_out(put, manager):
    from trims.disk.sidecar import read_sidecar
    from trims.paths import StorePaths

    digest = put("m", 1 << 20)
    paths = StorePaths(str(manager.runtime.store))
    sidecar = read_sidecar(paths.sidecar(digest))
    container = paths.container(digest)
    os.chmod(container, 0o600)
    with open(container, "r+b") as file:
        file.seek(sidecar.span_offset + 4096)
        file.write(b"\xff\x00\xff")
    with Raw(manager.runtime.socket) as client:
        answer = client.ask(Attach, ref="m")
        assert (answer.code, answer.what) == ("damaged", "tensor w is damaged")
        assert client.fds == []
        assert shared_bytes(manager.pid) == 0
        assert client.ask(Status).items[0]["counters"]["load_failures"] == 1


def test_the_right_bytes(put, manager):
    from helpers import sources

    put("m", 1 << 16)
    seed = ord("m") * 1000 + 1
    with Raw(manager.runtime.socket) as client:
        answer = client.attach("m")
        data, table = contents(client.fds[0], answer)
        offset = table.data["offsets"][table.index["w"]]
        expected = sources.numbers(seed, (1 << 16) // 64, 16).tobytes()
        assert data[offset : offset + len(expected)] == expected
