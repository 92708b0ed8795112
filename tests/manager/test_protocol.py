"""What a client may say, and what becomes of one that says something else; others never notice."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest
from helpers.raw import Raw, contents, until

from trims.shmindex.reader import read
from trims.wire.framing import encode
from trims.wire.header import HEADER, MAGIC
from trims.wire.messages import (
    Attach,
    Attached,
    Evict,
    Forget,
    Hello,
    Pin,
    Refused,
    Release,
    Result,
    Status,
    Unpin,
    WaitFor,
    Warm,
    Welcome,
)


@pytest.fixture
def socket_path(manager):
    return manager.runtime.socket


def test_hello_is_answered_with_who_it_is(manager, socket_path):
    with Raw(socket_path) as client:
        w = client.welcome
        assert isinstance(w, Welcome)
        assert (w.pid, w.store, w.version) == (manager.pid, str(manager.runtime.store), 1)
        assert w.identity == read(f"{manager.runtime.directory}/index").identity


def test_attach_hands_out_what_was_imported(put, manager, socket_path):
    digest = put("m", 100_000)
    with Raw(socket_path) as client:
        answer = client.attach("m")
        assert (answer.digest, answer.variant, answer.place) == (digest, "raw", "host")
        _data, table = contents(client.fds[0], answer)
        assert [row[0] for row in table.rows()] == ["w", "b"]
        assert table.manifest.digest == digest
        row = read(f"{manager.runtime.directory}/index").residencies[0]
        assert (row.ref, row.state, row.leases, row.nbytes, row.digest) == (
            "m:latest", "resident", 1, answer.map_nbytes, digest,
        )  # fmt: skip
        (lease,) = read(f"{manager.runtime.directory}/index").leases
        assert (lease.pid, lease.uid, lease.job, lease.lease) == (os.getpid(), os.getuid(), "test", answer.lease)
        client.release(answer.lease)
        client.ask(Status)
        assert read(f"{manager.runtime.directory}/index").leases == []


def test_names(put, socket_path):
    digest = put("m")
    with Raw(socket_path) as client:
        for name in ("m", "m:latest", f"id:{digest[:8]}", f"id:{digest}", "m"):
            assert client.attach(name).digest == digest


def test_a_name_moves_and_goes(put, manager, socket_path):
    from trims.disk.catalog import Catalog
    from trims.paths import StorePaths

    with Raw(socket_path) as client:
        first, second = put("m", 1000), put("other", 2000)
        assert client.attach("m").digest == first
        catalog = Catalog(StorePaths(str(manager.runtime.store)))
        entry = catalog.get("other:latest")
        catalog.put(entry._replace(ref="m:latest"))
        assert client.attach("m").digest == second
        assert client.attach(f"id:{first}").digest == first
        catalog.remove("m:latest")
        assert client.ask(Attach, ref="m").code == "no-such-model"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Attach(id=1, ref="nothing"), "no-such-model"),
        (Attach(id=1, ref="../x"), "usage"),
        (Attach(id=1, ref="-rf"), "usage"),
        (Attach(id=1, ref="a b\n"), "usage"),
        (Attach(id=1, ref="id:abcdef"), "no-such-model"),
        (Attach(id=1, ref="id:" + "0" * 64), "no-such-model"),
        (Attach(id=1, ref="id:../../../etc"), "usage"),
        (Attach(id=1, ref="m", variant="../../containers/x"), "usage"),
        (Attach(id=1, ref="m", variant="ort-none"), "no-such-variant"),
        (Attach(id=1, ref="m", place="gpu:GPU-1"), "device-lost"),
        (Warm(id=1, ref="m", flavour="tea"), "usage"),
        (Pin(id=1, ref="nothing"), "no-such-model"),
        (Unpin(id=1, ref="nothing"), "no-such-model"),
        (Evict(id=1, ref="nothing"), "no-such-model"),
        (Evict(id=1, place="nowhere"), "device-lost"),
        (WaitFor(id=1, condition="warm"), "usage"),
        (WaitFor(id=1, condition="warm", ref="m", timeout=0), "timed-out"),
        (WaitFor(id=1, condition="free", nbytes=1 << 62, timeout=0), "no-room"),
        (Forget(id=1, digest="../x"), "usage"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_requests_that_cannot_be_met(put, socket_path, message, code):
    put("m")
    with Raw(socket_path) as client:
        client.send(message)
        answer = client.answer(1)
        assert isinstance(answer, Refused), answer
        assert answer.code == code
        assert "\n" not in answer.what + answer.why + answer.hint
        assert client.attach("m")  # and the connection serves on


def test_prefer_takes_raw_where_the_variant_is_not(put, socket_path):
    put("m")
    with Raw(socket_path) as client:
        assert client.attach("m", variant="auto", prefer="ort-9").variant == "raw"
        assert client.attach("m", variant="auto", prefer="../../etc").variant == "raw"
        assert client.attach("m", variant="auto").variant == "raw"


def test_flavours_of_what_is_no_onnx_are_raw(put, socket_path):
    put("m")
    with Raw(socket_path) as client:
        for flavour in ("auto", "raw", "torch"):
            (item,) = client.ask(Warm, ref="m", flavour=flavour).items
            assert item["variant"] == "raw"


def test_ready_status_and_an_empty_unpin(put, manager, socket_path):
    with Raw(socket_path) as client:
        assert client.ask(WaitFor, condition="ready").items[0]["held"] is True
        (item,) = client.ask(Status).items
        assert item["pid"] == manager.pid
        assert item["budgets"]["host"]["budget"] == 64 << 20
        assert item["policy"] == "lru"
        assert client.ask(Unpin).items == []


BROKEN = {
    "junk": b"GET / HTTP/1.1\r\n\r\n",
    "another version": MAGIC + b"\2\0\0\0" + b"\0" * 8,
    "a huge frame": HEADER.pack(MAGIC, 1, b"\0\0\0", 1 << 31),
    "no message": HEADER.pack(MAGIC, 1, b"\0\0\0", 2) + b"{}",
    "a manager's message": encode(Result(id=1)),
    "an id of 0": encode(Status(id=0)),
    "a negative id": encode(Status(id=-1)),
    "hello twice": encode(Hello(version=1)),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_breaking_the_protocol_ends_that_connection_only(put, socket_path, data):
    put("m")
    with Raw(socket_path) as good, Raw(socket_path) as bad:
        lease = good.attach("m")
        bad.attach("m")
        bad.sock.sendall(data)
        refused = bad.receive()
        assert (refused.id, refused.code) == (0, "protocol")
        assert bad.closed_by_peer()
        good.release(lease.lease)
        assert good.attach("m").digest == lease.digest


@pytest.mark.parametrize("first", [Status(id=1), Attach(id=1, ref="m")], ids=["status", "attach"])
def test_hello_comes_first(socket_path, first):
    with Raw(socket_path, hello=False) as client:
        client.send(first)
        assert (answer := client.receive()).id == 0
        assert "hello" in answer.what
        assert client.closed_by_peer()


def test_another_version_is_refused_by_name(socket_path):
    with Raw(socket_path, hello=False) as client:
        client.send(Hello(version=7))
        assert "version 7" in client.receive().what
        assert client.closed_by_peer()


def test_a_lease_is_given_back_by_its_holder_only(put, manager, socket_path):
    put("m")
    with Raw(socket_path) as one, Raw(socket_path) as other:
        lease = one.attach("m").lease
        other.send(Release(lease=lease), Release(lease=10**30), Release(lease=-1))
        other.ask(Status)
        assert [x.lease for x in read(f"{manager.runtime.directory}/index").leases] == [lease]


def test_descriptors_from_clients_are_refused_or_dropped(put, manager, socket_path):
    """Linux 6.16 can refuse them, and then the sender fails; before that they are dropped on arrival."""
    import array

    put("m")
    with Raw(socket_path) as client:
        before = len(os.listdir(f"/proc/{manager.pid}/fd"))
        read_end, write_end = os.pipe()
        for _ in range(20):
            try:
                client.sock.sendmsg(
                    [encode(Status(id=client.next_id()))],
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write_end]))],
                )
            except PermissionError:
                continue
            client.receive()
        os.close(write_end)
        assert os.read(read_end, 1) == b""  # nobody else holds it
        os.close(read_end)
        assert len(os.listdir(f"/proc/{manager.pid}/fd")) <= before


def test_requests_of_one_client_stay_in_order(put, socket_path):
    """A look-up in the store parks the requests behind it."""
    put("a")
    put("b")
    with Raw(socket_path) as client:
        client.send(Evict(id=1, ref="a"), Status(id=2), Evict(id=3, ref="b"), Unpin(id=4, ref="a"), Status(id=5))
        assert [client.receive().id for _ in range(5)] == [1, 2, 3, 4, 5]


def test_many_requests_behind_a_look_up(put, socket_path):
    put("m")
    with Raw(socket_path) as client:
        count = 2000

        def feed() -> None:
            client.send(Attach(id=1_000_000, ref="m"), *(Status(id=n) for n in range(1, count + 1)))

        thread = threading.Thread(target=feed)
        thread.start()
        assert isinstance(client.answer(1_000_000), Attached)
        for n in range(1, count + 1):
            assert client.answer(n).id == n
        thread.join()


def test_an_id_may_be_used_again_but_not_twice_at_once(put, socket_path):
    put("m")
    with Raw(socket_path) as client:
        client.send(WaitFor(id=5, condition="gone", ref="m"))
        assert isinstance(client.answer(5), Result)
        client.send(*[WaitFor(id=5, condition="warm", ref="m", timeout=20)] * 2)
        assert client.answer(5).code == "protocol"


def test_progress_comes_while_loading(put, socket_path):
    put("big", 40 << 20)
    with Raw(socket_path) as client:
        client.send(Attach(id=1, ref="big"))
        seen = []
        while not isinstance(message := client.receive(), Attached):
            seen.append(message)
        assert seen
        assert all(0 < p.done <= p.total == message.map_nbytes for p in seen)


def test_a_client_that_leaves_takes_its_look_up_along(put, socket_path):
    put("m")
    for _ in range(20):
        client = Raw(socket_path)
        client.send(Attach(id=1, ref="m"))
        client.close()
    with Raw(socket_path) as client:
        until(lambda: client.ask(Status).items[0]["connections"] == 1, client)
        assert time.monotonic()
