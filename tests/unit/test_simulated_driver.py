"""What simulated GPUs do beside the contract of all drivers (tests/contract): strictness, and failures on demand."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.driver_peer import Peer

from trims.devices import simulated
from trims.devices.simulated import SimulatedDriver
from trims.devices.simulated_gpus import CONTEXT, choose
from trims.errors import DeviceLost, NoRoom
from trims.linux import flock

SIZE = 2 << 20


@pytest.fixture
def directory(home: Path) -> str:
    return simulated.make(str(home / "gpus"), nbytes=16 * SIZE)


@pytest.fixture
def peers(directory: str) -> Iterator[Callable[[], Peer]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Peer({"TRIMS_SIMULATED_GPUS": directory}))


@pytest.fixture
def peer(peers: Callable[[], Peer]) -> Peer:
    return peers()


def mapped(peer: Peer, write: bool = True, handle: int | None = None) -> int:
    """The address of memory of GPU 0, which is open."""
    address = peer.reserve(SIZE)
    peer.map(address, SIZE, peer.create(0, SIZE) if handle is None else handle)
    peer.allow(address, SIZE, 0, write)
    peer.open(0)
    return int(address)


def test_a_copy_from_page_locked_memory_is_late(peer):
    to, stream, near = mapped(peer), peer.stream(0), peer.pin(0, 4096)
    peer.poke(near, b"first")
    peer.copy_in(0, to, near, 5, stream)
    assert peer.peek(to, 5) == bytes(5)
    peer.poke(near, b"later")  # too early: it is the copy's still
    peer.wait(0, stream)
    assert peer.peek(to, 5) == b"later"


def test_a_copy_from_other_memory_is_made_at_once_after_those_before_it(peer):
    to, stream, near = mapped(peer), peer.stream(0), peer.pin(0, 4096)
    peer.poke(near, b"first")
    peer.copy_in(0, to, near, 5, stream)
    peer.copy_in(0, to + 2, peer.host(b"plain", False), 5, stream)
    assert peer.peek(to, 7) == b"fiplain"


@pytest.mark.parametrize("how", ["synchronize", "end_stream", "unpin", "unmap"])
def test_nothing_that_a_copy_needs_goes_before_it_is_made(peer, how):
    to, stream, near = mapped(peer), peer.stream(0), peer.pin(0, 4096)
    into = peer.host(bytes(4096), True)
    peer.register(0, into, 4096)
    peer.copy_in(0, to, near, 5, stream)
    peer.copy_out(0, into, to, 5, stream)
    peer.poke(near, b"bytes")
    peer.do(how, *{"synchronize": (0,), "end_stream": (0, stream), "unpin": (0, near), "unmap": (to, SIZE)}[how])
    assert peer.peek(into, 5) == b"bytes"


def test_who_writes_where_they_may_only_read_ends_alone(peer, peers):
    handle = peer.create(0, SIZE)
    ours = mapped(peer, handle=handle)
    peer.poke(ours, b"kept")
    other = peers()
    theirs = mapped(other, write=False, handle=other.import_(peer.give(peer.export(handle), other)))
    assert other.peek(theirs, 4) == b"kept"
    other.begin("poke", theirs, b"lost")
    assert other.ended() == -signal.SIGSEGV
    assert peer.peek(ours, 4) == b"kept"


def test_memory_that_nobody_holds_is_removed(peer, peers, directory):
    other = peers()
    mapped(other)
    uuid = peer.gpus()[0].uuid
    assert len(os.listdir(Path(directory) / uuid)) == 2  # with the context
    other.kill()
    assert peer.usage(uuid).used == 0
    assert os.listdir(Path(directory) / uuid) == []


def test_many_processes_never_get_more_than_there_is(peers):
    makers = [peers() for _ in range(3)]
    for maker in makers:
        maker.begin(
            "run",
            "from trims.errors import NoRoom\n"
            "answer = 0\n"
            "try:\n"
            f"    while answer < 50 and driver.create(0, {SIZE}): answer += 1\n"
            "except NoRoom: pass\n",
        )
    assert sum(maker.answer() for maker in makers) == 16


def test_who_looks_at_the_memory_is_not_disturbed(peer, directory):
    with flock.held(str(Path(directory) / "lock"), exclusive=True, timeout=0):
        peer.begin("create", 0, SIZE)
        assert not peer.answers(0.2)
    assert peer.answer()


def test_the_context_of_a_gpu_that_is_full_does_not_fit(peer):
    peer.create(0, 16 * SIZE)
    with pytest.raises(NoRoom):
        peer.open(0)
    peer.open(1)


def test_failures_count_the_calls_of_a_process(peer, peers, directory):
    simulated.fail(directory, create=[2], import_=[], copy_in=[1])
    peer.create(0, SIZE)
    with pytest.raises(NoRoom, match="chosen"):
        peer.create(0, SIZE)
    handle = peer.create(0, SIZE)
    to = mapped(peer, handle=handle)
    stream, near = peer.stream(0), peer.pin(0, 4096)
    with pytest.raises(DeviceLost, match="copy_in"):
        peer.copy_in(0, to, near, 5, stream)
    peer.copy_in(0, to, near, 5, stream)
    peers().create(0, SIZE)  # its own first
    simulated.fail(directory)
    peer.create(0, SIZE)


def test_a_refused_import(peer, directory):
    fd = peer.export(peer.create(0, SIZE))
    simulated.fail(directory, **{"import": [1]})
    with pytest.raises(DeviceLost, match="import"):
        peer.import_(fd)
    peer.import_(fd)


def test_a_lost_gpu_refuses_everything_and_still_gives_up(peer, directory):
    lost = peer.gpus()[0].uuid
    handle = peer.create(0, SIZE)
    address = mapped(peer, handle=handle)
    stream, near = peer.stream(0), peer.pin(0, 4096)
    simulated.fail(directory, lost=[lost])
    for call in (
        lambda: peer.create(0, SIZE), lambda: peer.export(handle), lambda: peer.usage(lost), lambda: peer.open(0),
        lambda: peer.wait(0, stream), lambda: peer.copy_in(0, address, near, 1, stream), lambda: peer.notes(lost),
        lambda: peer.unpin(0, near), lambda: peer.end_stream(0, stream), lambda: peer.unmap(address, SIZE),
        lambda: peer.release(handle), lambda: peer.close(0),
    ):  # fmt: skip
        with pytest.raises(DeviceLost, match="is lost"):
            call()
    peer.release(peer.create(1, SIZE))
    simulated.fail(directory)
    assert peer.usage(lost).used == 0


def test_a_process_dies_at_a_chosen_call(peer, directory):
    simulated.fail(directory, die="reserve")
    peer.create(0, SIZE)
    peer.begin("reserve", SIZE)
    assert peer.ended() == -signal.SIGKILL


def test_a_call_is_held_until_it_may_go_on(peer, home, directory):
    fifo = home / "held"
    os.mkfifo(fifo)
    simulated.fail(directory, hold={"create": str(fifo)})
    peer.begin("create", 0, SIZE)
    with open(fifo, "w"):  # opens when the call is there
        with Peer({"TRIMS_SIMULATED_GPUS": directory}) as other:
            assert other.usage(other.gpus()[0].uuid).used == 0
    assert isinstance(peer.answer(), int)


@pytest.mark.parametrize("lack", ["shares", "reads_registered", "peers"])
def test_a_gpu_may_lack_something(home, lack):
    directory = simulated.make(str(home / "lacking"), **{lack: False})
    with Peer({"TRIMS_SIMULATED_GPUS": directory}) as peer:
        to = mapped(peer)
        host = peer.host(bytes(4096), False)
        asked = {
            "shares": lambda: peer.export(peer.create(0, SIZE)),
            "reads_registered": lambda: peer.register(0, host, 4096),
            "peers": lambda: peer.allow(to, SIZE, 1, False),
        }
        for name, ask in asked.items():
            if name == lack:
                with pytest.raises(DeviceLost):
                    ask()
            else:
                ask()
        assert peer.reaches(0, 1) == (lack != "peers")


def test_a_mapping_is_not_of_a_forked_child(peer):
    address = mapped(peer)
    with pytest.raises(AssertionError, match="EOFError"):  # the child has died of it
        peer.forked("peek", address, 1)
    assert peer.peek(address, 1) == b"\0"


def test_a_process_cannot_import_memory_of_a_gpu_that_it_does_not_see(peer, directory):
    fd = peer.export(peer.create(0, SIZE))
    with Peer({"TRIMS_SIMULATED_GPUS": directory, "CUDA_VISIBLE_DEVICES": "1"}) as other:
        theirs = peer.give(fd, other)
        with pytest.raises(DeviceLost, match="sees"):
            other.import_(theirs)


@pytest.mark.parametrize(
    ("visible", "chosen"),
    [
        (None, [0, 1, 2]), ("", []), ("1", [1]), ("2,0", [2, 0]), ("0,9,1", [0]), ("-1", []), ("0,0,1", [0]),
        ("SIM-b", [1]), ("SIM-ca, 0", [2, 0]), ("SIM-", []), ("sim-b", []), ("b", []), ("1,,2", [1]),
    ],
)  # fmt: skip
def test_visible_devices_are_read_as_the_driver_does(visible, chosen):
    assert choose(["SIM-aa", "SIM-bb", "SIM-ca"], visible) == chosen


def test_the_test_process_may_use_it_too(directory):
    driver = SimulatedDriver(directory)
    handle = driver.create(0, SIZE)
    fd = driver.export(handle)
    driver.release(handle)
    assert driver.usage(driver.gpus()[0].uuid) == (16 * SIZE, SIZE)
    os.close(fd)
    assert driver.usage(driver.gpus()[0].uuid) == (16 * SIZE, 0)


# ---- legacy IPC


def opened(peer: Peer, other: Peer) -> tuple[int, int]:
    """New memory of GPU 0 that `peer` owns and `other` has opened: its addresses there."""
    peer.open(0)
    other.open(0)
    address = peer.allocate(0, 100)
    return int(address), int(other.ipc_open(0, peer.ipc_handle(0, address)))


@pytest.mark.parametrize("end", ["free", "kill", "close"])
def test_memory_that_ended_with_its_owner_cannot_be_copied(peer, peers, end):
    owner = peers()
    address, here = opened(owner, peer)
    stream, into = peer.stream(0), peer.host(bytes(10), True)
    peer.copy_out(0, into, here, 10, stream)
    if end == "kill":
        owner.kill()
    elif end == "close":
        owner.close(0)
    else:
        owner.free_allocation(0, address)
    for copy in (lambda: peer.copy_out(0, into, here, 10, stream), lambda: peer.copy_in(0, here, into, 10, stream)):
        with pytest.raises(DeviceLost, match="ended"):
            copy()
    peer.ipc_close(0, here)


def test_owned_memory_is_whole_units_and_its_own_calls_alone_undo_it(peer, peers):
    other = peers()
    address, there = opened(peer, other)
    assert peer.usage(peer.gpus()[0].uuid).used == SIZE + 2 * CONTEXT
    for call in (
        lambda: peer.unmap(address, SIZE),
        lambda: peer.free(address, SIZE),
        lambda: peer.allow(address, SIZE, 0, False),
        lambda: other.free_allocation(0, there),
        lambda: other.ipc_open(1, peer.ipc_handle(0, address)),
    ):
        with pytest.raises(DeviceLost):
            call()
    peer.free_allocation(0, address)


def test_an_allocation_fails_on_demand(peer, directory):
    peer.open(0)
    simulated.fail(directory, allocate=[1])
    with pytest.raises(NoRoom):
        peer.allocate(0, SIZE)
    peer.free_allocation(0, peer.allocate(0, SIZE))
