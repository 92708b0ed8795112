"""A manager that is killed: its clients go on, its successor knows what was left, and nothing is lost."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys

from helpers import leaks
from helpers.raw import Raw, until

from trims.shmindex.reader import read
from trims.wire.messages import Pin, Status, Stop, WaitFor, Warm

HOLDER = """
import mmap, sys; sys.path[:0] = sys.argv[2].split(":")
from helpers.raw import Raw
client = Raw(sys.argv[1])
answer = client.attach("m")
map = mmap.mmap(client.fds[0], answer.map_nbytes, prot=mmap.PROT_READ)
print(hash(bytes(map)), flush=True)
for line in sys.stdin:
    print(hash(bytes(map)), flush=True)
"""


def index(manager):
    return read(f"{manager.runtime.directory}/index")


def contents(path: str) -> bytes:
    """What a file holds, b"" when there is none yet."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def holder(manager) -> subprocess.Popen[str]:
    paths = ":".join(path for path in sys.path if path)
    arguments = [sys.executable, "-c", HOLDER, str(manager.runtime.socket), paths]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_killed_manager_is_recognised(put, manager):
    put("m")
    with Raw(manager.runtime.socket) as client:
        client.attach("m")
        assert index(manager).alive
        manager.kill()
        snapshot = index(manager)
        assert not snapshot.alive
        assert [r.ref for r in snapshot.residencies] == ["m:latest"]


def test_clients_of_a_killed_manager_go_on_and_its_successor_counts_what_they_hold(put, managers):
    first = managers()
    put("m", 1 << 20)
    process = holder(first)
    before = process.stdout.readline()
    nbytes = index(first).residencies[0].nbytes
    first.kill()
    second = managers()
    try:
        assert second.started["found"]["previous_pid"] == first.pid
        (orphan,) = second.started["found"]["orphans"]
        assert (orphan["ref"], orphan["nbytes"], orphan["pids"]) == ("m:latest", nbytes, [process.pid])
        with Raw(second.runtime.socket) as client:
            assert client.ask(Status).items[0]["budgets"]["host"]["reserved"] == nbytes
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == before
            end(process)
            until(lambda: client.ask(Status).items[0]["budgets"]["host"]["reserved"] == 0, client)
    finally:
        end(process)


def test_what_is_held_is_remembered_through_several_deaths(put, managers):
    first = managers()
    put("m")
    process = holder(first)
    process.stdout.readline()
    first.kill()
    second = managers()
    with Raw(second.runtime.socket) as client:
        client.ask(Pin, ref="m", owner="me")
        until(lambda: b'"orphans":[{' in contents(f"{second.runtime.directory}/journal"), client)
    second.kill()
    third = managers()
    assert [o["pids"] for o in third.started["found"]["orphans"]] == [[process.pid]]
    end(process)


def test_pins_and_the_warm_set_are_taken_up_after_a_kill(put, managers):
    first = managers()
    for name in ("pinned", "warm", "gone"):
        put(name)
    journal = f"{first.runtime.directory}/journal"

    def journalled(count: int) -> bool:
        if not os.path.exists(journal):
            return False
        with open(journal) as file:
            return len(json.load(file).get("kept", ())) == count

    with Raw(first.runtime.socket) as client:
        client.attach("gone")
        client.ask(Pin, ref="pinned", owner="me", reason="because")
        client.ask(Warm, ref="warm")
        until(lambda: journalled(2), client)
    first.kill()
    second = managers()
    assert (second.started["found"]["pinned"], second.started["found"]["warm"]) == (1, 1)
    with Raw(second.runtime.socket) as client:
        for name in ("pinned", "warm"):
            client.ask(WaitFor, condition="warm", ref=name, timeout=20)
        assert {r.ref: r.pins for r in index(second).residencies} == {"pinned:latest": 1, "warm:latest": 0}
        assert client.ask(Status).items[0]["counters"]["attaches"] == 1  # of the earlier life


def test_a_stop_keeps_pins_only(put, managers):
    first = managers()
    put("pinned")
    put("warm")
    with Raw(first.runtime.socket) as client:
        client.ask(Pin, ref="pinned", owner="me")
        client.ask(Warm, ref="warm")
    first.stop()
    assert not os.path.exists(f"{first.runtime.directory}/index")
    assert not os.path.exists(first.runtime.socket)
    second = managers()
    with Raw(second.runtime.socket) as client:
        client.ask(WaitFor, condition="warm", ref="pinned", timeout=20)
        assert [r.ref for r in index(second).residencies] == ["pinned:latest"]


def test_a_stop_now_leaves_clients_what_they_have(put, managers):
    first = managers()
    put("m")
    with Raw(first.runtime.socket) as client:
        answer = client.attach("m")
        with mmap.mmap(client.fds[0], answer.map_nbytes, prot=mmap.PROT_READ) as map:
            before = bytes(map)
            client.ask(Stop, drain=False)
            assert client.closed_by_peer()
            first.stop()
            second = managers()
            assert [o["pids"] for o in second.started["found"]["orphans"]] == [[os.getpid()]]
            assert bytes(map) == before


def test_what_left_the_store_is_not_taken_up(put, managers):
    import shutil

    first = managers()
    put("m")
    with Raw(first.runtime.socket) as client:
        client.ask(Pin, ref="m", owner="me")
    first.stop()
    shutil.rmtree(f"{first.runtime.store}/containers")
    second = managers()
    with Raw(second.runtime.socket) as client:
        until(lambda: b"not taken up" in contents(f"{second.runtime.directory}/log"), client)
        assert index(second).residencies == []


def test_a_damaged_journal_is_no_obstacle(put, managers):
    first = managers()
    first.stop()
    for junk in (b"", b"{", b'{"format":"trims.journal/9"}', b'{"format":"trims.journal/1","kept":[{"digest":1}]}'):
        with open(f"{first.runtime.directory}/journal", "wb") as file:
            file.write(junk)
        manager = managers()
        assert manager.started["found"] == {}
        manager.stop()


def test_sigterm_ends_it_and_leaves_nothing(put, managers):
    first = managers()
    put("m")
    with Raw(first.runtime.socket) as client:
        client.ask(Warm, ref="m")
        os.kill(first.pid, signal.SIGTERM)
        assert client.closed_by_peer()
    first.stop()
    assert sorted(os.listdir(first.runtime.directory)) == ["journal", "lock", "log", "start"]


def test_a_manager_whose_directory_is_deleted_ends_and_leaves_its_successors_alone(put, managers):
    first = managers()
    directory, socket = first.runtime.directory, first.runtime.socket
    put("m")
    holds = Raw(socket)
    holds.attach("m")
    for name in os.listdir(directory):
        os.unlink(f"{directory}/{name}")
    second = managers()
    with Raw(socket) as client:
        client.ask(Pin, ref="m", owner="me")
        until(lambda: b'"me"' in contents(f"{directory}/journal"), client)
        before = contents(f"{directory}/journal")
        assert holds.ask(Status).items[0]["pid"] == first.pid
        holds.close()  # its last client: it looks around
        assert not leaks.wait_ended({first.pid}, 10)
        assert contents(f"{directory}/journal") == before and index(second).alive
    with Raw(socket) as client:
        assert client.ask(Status).items[0]["pid"] == second.pid
