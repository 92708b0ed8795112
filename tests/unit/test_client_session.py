"""The client's connection against a scripted peer: answers, descriptors, threads, forks, and what can go wrong."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.peers import Peer, listening

from trims.client import connections
from trims.client.session import Session, SessionLost
from trims.errors import ManagerNotRunning, ManagerUnreachable, NoRoom, UsageError
from trims.linux import fdpass
from trims.wire.messages import Attach, Progress, Refused, Release, Welcome


@pytest.fixture
def path(home: Path) -> Iterator[Path]:
    yield home / "m.sock"
    connections.close_idle()
    gc.collect()


def attach(path: Path, ref: str = "m:latest", timeout: float = 10.0) -> tuple[int, object]:
    """(lease number, lease) of an attach whose descriptor is not needed."""
    answer, fds, lease = connections.attach(str(path), ref, "host", "raw", "", timeout)
    fdpass.close_all(fds)
    return answer.lease, lease


def until_closed(peer: Peer) -> None:
    """Nothing but leases given back is heard until the client closes."""
    while (message := peer.hear()) is not None:
        assert isinstance(message, Release)


def test_an_attach_returns_a_descriptor_that_children_do_not_inherit(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        request = peer.attach(lease=3)
        assert (request.ref, request.place, request.variant, request.prefer) == ("m:latest", "host", "auto", "k")
        until_closed(peer)

    with listening(path, script):
        answer, (fd,), lease = connections.attach(str(path), "m:latest", "host", "auto", "k", 5.0)
        assert answer.lease == lease.number == 3
        assert not os.get_inheritable(fd)
        os.close(fd)
        del lease
        connections.close_idle()


def test_a_lease_is_given_back_by_a_message(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.attach(lease=9)
        assert peer.hear() == Release(lease=9)
        until_closed(peer)

    with listening(path, script):
        _, lease = attach(path)
        lease.release()
        connections.close_idle()
        del lease


def test_one_connection_serves_all_threads_while_some_wait(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        requests: dict[str, Attach] = {}
        for _ in range(4):
            request = peer.hear()
            assert isinstance(request, Attach)
            requests[request.ref] = request
        for ref in sorted(requests, reverse=True):  # in another order than they were asked in
            peer.say(Progress(id=requests[ref].id, done=1, total=2))
            peer.grant(requests[ref], lease=int(ref))
        until_closed(peer)

    with listening(path, script):
        found: dict[str, int] = {}

        def ask(ref: str) -> None:
            found[ref] = attach(path, ref)[0]

        connections.session(str(path))
        threads = [threading.Thread(target=ask, args=(str(n),)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {"1": 1, "2": 2, "3": 3, "4": 4}
        connections.close_idle()


def test_what_the_manager_refused_with_is_raised(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        request = peer.hear()
        assert isinstance(request, Attach)
        peer.say(Refused(id=request.id, code="no-room", what="no room", why="full", details={"need": 5}))
        until_closed(peer)

    with listening(path, script):
        with pytest.raises(NoRoom, match="no room: full") as caught:
            attach(path)
        assert caught.value.details == {"need": 5}
        connections.close_idle()


def test_no_socket_is_no_manager_and_a_dead_one_is_told_apart(path: Path) -> None:
    with pytest.raises(ManagerNotRunning) as caught:
        connections.session(str(path))
    assert "stale" not in caught.value.details
    with listening(path):
        pass
    with pytest.raises(ManagerNotRunning) as caught:
        connections.session(str(path))
    assert caught.value.details == {"stale": True}


def test_a_caller_works_between_the_hello_and_its_answer(path: Path) -> None:
    asked, worked = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        hello = peer.hear()
        assert hello is not None
        peer.heard.append(hello)
        asked.set()
        assert worked.wait(20)
        peer.welcome()
        until_closed(peer)

    def work() -> None:
        assert asked.wait(20)
        worked.set()

    with listening(path, script):
        connections.session(str(path), work)
        connections.close_idle()


def test_a_connection_ends_when_what_its_caller_does_meanwhile_fails(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.hear()
        until_closed(peer)

    with listening(path, script), pytest.raises(ZeroDivisionError):
        connections.session(str(path), lambda: 1 // 0)


def test_a_silent_manager_costs_a_quarter_of_a_second(path: Path) -> None:
    with listening(path, lambda peer: [peer.hear(), until_closed(peer)]):
        start = time.monotonic()
        with pytest.raises(ManagerUnreachable, match="does not answer"):
            connections.session(str(path))
        assert 0.2 < time.monotonic() - start < 5
        gc.collect()


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (lambda peer: peer.welcome(version=99), "protocol is 99, ours is 1"),
        (
            lambda peer: peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n"),
            "cannot be understood: the peer speaks no trims",
        ),
        (lambda peer: None, "closed the connection"),
        (lambda peer: peer.say(Refused(id=0, code="unreachable", what="too many connections")), "too many connections"),
        (lambda peer: [peer.hear(), peer.say(Progress(id=0, done=0, total=0))], "closed the connection"),
    ],
)
def test_a_strange_welcome_is_refused_with_the_reason(path: Path, say: object, message: str) -> None:
    with listening(path, say):  # type: ignore[arg-type]
        with pytest.raises(ManagerUnreachable, match=message):
            connections.session(str(path))
        gc.collect()


def test_a_restarted_manager_is_found_on_the_next_request(path: Path) -> None:
    def first(peer: Peer) -> None:
        peer.welcome()
        peer.attach(lease=1)

    def second(peer: Peer) -> None:
        peer.welcome()
        peer.attach(lease=2)
        until_closed(peer)

    with listening(path, first, second):
        number, old = attach(path)
        assert number == 1
        assert attach(path)[0] == 2
        old.release()  # on a dead connection: nothing happens
        connections.close_idle()


def test_a_manager_that_dies_while_asked_is_reported(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.hear()

    with listening(path, script):
        session = connections.session(str(path))
        with pytest.raises(SessionLost, match="the manager has gone"):
            session.attach("m", "host", "raw", "", 5.0)
        assert not session.usable
        del session
        gc.collect()


def test_an_answer_that_comes_too_late_gives_its_lease_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trims.client.session.GRACE", 0.05)
    late = threading.Event()

    def script(peer: Peer) -> None:
        peer.welcome()
        first, second = peer.hear(), peer.hear()
        assert isinstance(first, Attach) and isinstance(second, Attach)
        assert late.wait(10)
        peer.grant(first, lease=1)
        peer.grant(second, lease=2)
        assert peer.hear() == Release(lease=1)
        until_closed(peer)

    with listening(path, script):
        session = connections.session(str(path))
        found: list[object] = []

        def patient() -> None:
            answer, fds, _ = session.attach("slow", "host", "raw", "", 20.0)
            fdpass.close_all(fds)
            found.append(answer.lease)

        def hasty() -> None:
            with pytest.raises(ManagerUnreachable, match="does not answer"):
                session.attach("hasty", "host", "raw", "", 0.0)
            late.set()

        second = threading.Thread(target=patient)
        impatient = threading.Thread(target=hasty)
        impatient.start()
        second.start()
        impatient.join()
        second.join()
        assert found == [2]
        assert not session.usable  # what else arrives there would be nobody's
        connections.close_idle()


def test_releases_from_many_threads_all_arrive(path: Path) -> None:
    """As finalizers send them: from anywhere, while others ask."""
    heard: list[int] = []

    def script(peer: Peer) -> None:
        peer.welcome()
        for number in range(1, 161):
            peer.attach(lease=number)
        while len(heard) < 160:
            message = peer.hear()
            assert isinstance(message, Release)
            heard.append(message.lease)
        until_closed(peer)

    with listening(path, script):
        leases = [attach(path)[1] for _ in range(160)]
        threads = [
            threading.Thread(target=lambda some: [lease.release() for lease in some], args=(leases[n::8],))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        connections.session(str(path))  # a lease stays out: the connection is still the same
        connections.close_idle()
    assert sorted(heard) == list(range(1, 161))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork_both_sides_speak_on_new_connections_and_release_nothing(path: Path) -> None:
    ready, child_done = os.pipe()
    forked = threading.Event()

    def shared(peer: Peer) -> None:
        peer.welcome()
        peer.attach(lease=1)
        forked.wait(10)
        assert peer.hear() is None  # no Release from either process: only the end, when both have closed

    def own(peer: Peer) -> None:
        peer.welcome()
        peer.attach(lease=2)
        assert peer.hear() == Release(lease=2)
        until_closed(peer)

    with listening(path, shared, own):
        _, lease = attach(path)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(ready)
                lease.release()
                code = 0 if not connections._sessions else 2
                os.write(child_done, b"x")
            finally:
                os._exit(code)
        os.close(child_done)
        assert os.read(ready, 1) == b"x"
        os.close(ready)
        assert os.waitpid(pid, 0)[1] == 0
        lease.release()
        del lease
        gc.collect()
        forked.set()
        _, mine = attach(path)
        mine.release()
        connections.close_idle()


def test_a_socket_path_that_is_too_long_is_the_callers_mistake(home: Path) -> None:
    with pytest.raises(UsageError, match="107 bytes"):
        connections.session(str(home / ("x" * 120)))


def test_a_second_session_made_meanwhile_is_not_kept(path: Path) -> None:
    """Two threads may connect at once; the process keeps one connection."""
    first_connected = threading.Event()

    def slow(peer: Peer) -> None:
        hello = peer.hear()
        assert hello is not None
        first_connected.set()
        peer.say(Welcome(version=1, trims="0", pid=1, identity="i", store="/s", store_id="s" * 32))
        until_closed(peer)

    with listening(path, slow):
        made = connections.session(str(path))
        assert connections.session(str(path)) is made
        assert isinstance(made, Session)
        del made
        connections.close_idle()
        gc.collect()


def test_a_descriptor_that_the_program_closed_is_not_touched_again(path: Path) -> None:
    """Daemons close all they have; the number of our socket is then a connection of the program's."""

    def script(peer: Peer) -> None:
        peer.welcome()
        peer.attach()
        until_closed(peer)

    with listening(path, script, script):
        _, lease = attach(path)
        number = connections._sessions[str(path)]._sock.fileno()
        one, other = socket.socketpair()
        os.dup2(one.fileno(), number)
        theirs = socket.socket(fileno=number)
        _, second = attach(path)
        del lease, second
        gc.collect()
        connections.close_idle()
        theirs.sendall(b"ours")
        one.close()
        theirs.close()
        assert other.recv(100) == b"ours"
        other.close()
