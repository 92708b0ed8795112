"""A manager of system scope against users who are out to break it: its time, its memory, and the names of others."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from helpers import capabilities
from helpers.raw import Raw
from helpers.service import serving
from helpers.tenants import ANNA, BERT, CARA, TEAM, Tenant

from trims.client import control
from trims.disk.store import create_store
from trims.errors import ManagerUnreachable, NotPermitted
from trims.linux import fdpass, process
from trims.manager.doors import Doors
from trims.manager.quotas import ALL_WAITING, WAITING
from trims.manager.run import _check_store
from trims.wire.framing import encode
from trims.wire.messages import (
    Attach,
    Attached,
    Pin,
    Refused,
    Release,
    Remove,
    Result,
    Share,
    Show,
    Status,
    WaitFor,
    Warm,
)

pytestmark = capabilities.needs_root


@pytest.fixture
def serve(runtime, home, managers):
    yield from serving(runtime, home, managers)


@pytest.fixture
def service(serve):
    return serve(budget_host="4MiB", budget_pin_cap="100%")


@pytest.fixture
def anna(service):
    return service.user(ANNA)


@pytest.fixture
def bert(service):
    return service.user(BERT)


@pytest.fixture
def cara(service):
    return service.user(CARA)


# ---- the manager's time and memory


def test_requests_said_twice_are_bounded_as_others_are(service, cara):
    """The second of two with one number is refused: it must not take the first one off the count."""
    service.put("m", CARA)
    assert cara.run(_say_twice, 2 * WAITING) == WAITING


def _say_twice(client, count):
    """How many of so many requests wait."""
    with Raw(client.path) as raw:
        for n in range(10, 10 + count):
            wait = WaitFor(id=n, condition="attached", ref="m", timeout=60.0)
            raw.send(wait, wait)
        raw.send(Status(id=9999))
        answered = 0
        while raw.receive().id != 9999:
            answered += 1
        return 2 * count - answered


def test_what_goes_on_waiting_without_its_client_is_bounded(service, anna, bert, cara):
    for seed, (ref, uid, nbytes) in enumerate((("a", ANNA, 3 << 20), ("b", BERT, 1 << 14), ("c", CARA, 3 << 20))):
        service.put(ref, uid, nbytes=nbytes, seed=seed)
    anna.ask(Pin, ref="a", expires=1000.0)  # c waits for it
    assert cara.run(_leave_wishes, ALL_WAITING + 2 * WAITING) == 2 * WAITING
    assert isinstance(cara.ask(Status), Result)
    assert isinstance(bert.ask(Attach, ref="b"), Attached)


def _leave_wishes(client, count):
    """How many of so many wishes for ever were refused; each connection that had some has ended."""
    refused = 0
    for _ in range(count // WAITING):
        with Raw(client.path) as raw:
            raw.send(*(Warm(id=n, ref="c", timeout=1e308) for n in range(10, 10 + WAITING)), Status(id=9999))
            while raw.receive().id != 9999:
                refused += 1
    return refused


@pytest.mark.skipif(not fdpass.refuses(), reason="the kernel takes descriptors for whoever does not want them")
def test_a_descriptor_that_lingers_keeps_nobody_waiting(service, cara):
    """The last close of a TCP socket waits for its peer, as long as its owner said, in whoever drops it."""
    with Raw(service.socket) as root:
        cara.run(_send_lingering, 10)
        began = time.monotonic()
        assert isinstance(root.ask(Status), Result)
        assert time.monotonic() - began < 5


def _send_lingering(client, seconds):
    listener, sock = socket.socket(), socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    sock.connect(listener.getsockname())
    client.kept = listener, listener.accept()  # who never reads
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sock.send(b"x" * 65536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    try:
        fdpass.send(client.raw.sock, encode(Status(id=client.raw.next_id())), [sock.fileno()])
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
    sock.close()


def test_a_full_queue_of_connections_is_waited_for(tmp_path):
    """A storm of connections fills it for a moment; that is no manager that cannot be reached."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
        listener.bind(path)
        listener.listen(1)
        for _ in range(2):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        late, early = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        with pytest.raises(TimeoutError):
            process.connect(early, path, 0.01)
        waits = threading.Thread(target=process.connect, args=(late, path, 20.0))
        waits.start()
        listener.accept()[0].close()
        waits.join(20.0)
        assert late.getpeername() == path


def test_what_nobody_can_be_given_stops_others_for_a_turn_only(serve):
    service = serve(budget_host="4MiB", quota_turn="500ms")
    for seed, (ref, uid, nbytes) in enumerate((("a", ANNA, 1 << 16), ("b", BERT, 1 << 20), ("c", CARA, 4064 << 10))):
        service.put(ref, uid, nbytes=nbytes, seed=seed)
    anna, bert, cara = (service.user(uid) for uid in (ANNA, BERT, CARA))
    assert isinstance(anna.ask(Attach, ref="a"), Attached)
    assert cara.run(_leave_wishes, WAITING) == 0
    assert isinstance(bert.ask(Attach, ref="b", timeout=20.0), Attached)


# ---- who is trusted


def test_a_store_that_others_own_or_enter_is_not_served(runtime):
    store = create_store(str(runtime.store), system=True)
    _check_store(store, True)
    os.chmod(store.root, 0o750)
    with pytest.raises(NotPermitted, match="can enter it"):
        _check_store(store, True)
    os.chmod(store.root, 0o700)
    os.chown(store.root, CARA, CARA)
    with pytest.raises(NotPermitted, match="others own it"):
        _check_store(store, True)


def test_a_service_of_the_user_of_everybody_unmapped_has_no_such_operators():
    """It is its own user, and so would everybody be whom it has no number for."""
    with Tenant("/nowhere", process.unmapped_ids()[0]) as nobody, pytest.raises(NotPermitted):
        nobody.run(_admit_itself)


def _admit_itself(_client):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Doors(system=True).admit(ours)


def test_a_stranger_who_came_between_look_and_connection_is_refused(home):
    """Where sockets are looked for under TMPDIR, a directory can be put after it was looked at."""
    home.chmod(0o755)
    (home / "s").mkdir()
    os.chown(home / "s", BERT, BERT)
    path = str(home / "s" / "trims.sock")
    with Tenant(path, BERT) as bert, Tenant(path, CARA) as cara:
        bert.run(_listen)
        with pytest.raises(ManagerUnreachable, match=f"belongs to user {BERT}"):
            cara.run(_find, [path, "/nowhere"])


def _listen(client):
    client.kept = socket.socket(socket.AF_UNIX)
    client.kept.bind(client.path)
    os.chmod(client.path, 0o666)
    client.kept.listen()


def _find(_client, paths):
    control.refuse_strangers = lambda path, named: None
    control.Control(paths)


# ---- names


def test_a_model_with_many_names_is_attached_by_each(service, anna, bert):
    """However many there are that the asker may not read, or that were removed."""
    service.put("anna", ANNA, TEAM)
    many = [f"bert:{n}" for n in range(70)]
    for ref in many:
        service.put(ref, BERT, TEAM)
        assert bert.ask(Share, ref=ref, mode=0o600).items[0]["mode"] == 0o600
        bert.ask(Show, ref=ref)
    digest = anna.ask(Attach, ref="anna").digest
    for ref in many:
        bert.ask(Show, ref=ref)
    assert isinstance(anna.ask(Attach, ref=f"id:{digest[:12]}"), Attached)
    for ref in many[1:]:
        assert isinstance(bert.ask(Remove, ref=ref), Result)
    assert isinstance(bert.ask(Attach, ref=many[0]), Attached)
    assert isinstance(bert.ask(Attach, ref=f"id:{digest}"), Attached)


def test_a_refusal_names_a_model_as_its_asker_did(service, anna, bert):
    """Two refs of one digest; who waits for room learns nothing of the other."""
    service.put("other", CARA, nbytes=3 << 20, seed=2)
    digest = service.put("plans", ANNA, TEAM, nbytes=3 << 20)
    assert service.put("mine", BERT, TEAM, nbytes=3 << 20) == digest
    anna.ask(Share, ref="plans", mode=0o600)
    with Raw(service.socket) as root:
        root.attach("other")
        assert [anna.run(_begin, "plans"), bert.run(_begin, "mine")] == [1, 2]
        root.ask(Pin, ref="other")  # now there is no hope
        assert bert.run(_end).what == "no room for mine:latest on host"
        assert anna.run(_end).what == "no room for plans:latest on host"
        root.ask(WaitFor, condition="ready")


def test_a_load_that_fails_names_no_file_of_the_store(service, anna):
    digest = service.put("m", ANNA)
    service.put("n", ANNA, seed=2)
    containers = list(Path(service.store.paths.containers).rglob("*.h5"))
    assert len(containers) == 2
    for path in containers:
        if digest in str(path):
            path.write_bytes(path.read_bytes()[:-8192] + bytes(8192))
        else:
            path.unlink()
    damaged, gone = anna.ask(Attach, ref="m"), anna.ask(Attach, ref="n")
    assert (damaged.code, damaged.what, damaged.details["parts"]) == ("damaged", "tensor w is damaged", ["w"])
    for refusal in (damaged, gone):
        assert isinstance(refusal, Refused)
        assert service.store.root not in str(encode(refusal))
        assert digest not in str(encode(refusal))


def test_what_is_closed_to_one_who_waits_is_not_granted(service, anna, bert):
    service.put("other", CARA, nbytes=3 << 20, seed=2)
    digest = service.put("m", ANNA, TEAM, mode=0o640, nbytes=3 << 20)
    with Raw(service.socket) as root:
        lease = root.attach("other").lease
        assert bert.run(_begin, "m") == 1
        assert anna.ask(Share, ref="m", mode=0o600).items[0]["mode"] == 0o600
        root.send(Release(lease=lease))
        assert bert.run(_end).code == "no-such-model"
        root.ask(WaitFor, condition="idle", ref=f"id:{digest}", timeout=20.0)


def _begin(client, ref):
    """Ask for a model without waiting; how many requests the manager has now."""
    client.raw.send(Attach(id=77, ref=ref, timeout=600.0))
    return client.raw.ask(Status).items[0]["queue"]


def _end(client):
    return client.raw.answer(77)
