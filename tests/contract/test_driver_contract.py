"""What every driver promises, run on each: simulated GPUs, cuda-bindings on a stub of libcuda, and a real GPU.

The driver is in processes of its own (`helpers.driver_peer`). Memory of a GPU is looked at by copies alone. On a GPU
machine `pytest -m gpu` runs this very suite on the driver that is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import capabilities, stubcuda
from helpers.driver_peer import Peer

from trims.devices import simulated
from trims.errors import DeviceLost, NoRoom

MIB = 1 << 20
SIZE = 32 * MIB  # a multiple of every granularity; large beside what other processes do on a GPU meanwhile
NEAR = SIZE // 4
SOON = 20.0  # seconds in which memory that was given up, or whose process has ended, must be seen to come back


@pytest.fixture(params=["simulated", "stub", pytest.param("gpu", marks=[pytest.mark.gpu, capabilities.needs_gpu])])
def environment(request: pytest.FixtureRequest, home: Path) -> dict[str, str]:
    """Of the processes: what makes their driver the one under test."""
    if request.param == "simulated":
        directory = home / "gpus"
        return {"TRIMS_SIMULATED_GPUS": simulated.make(str(directory))}
    if request.param == "stub":
        return stubcuda.environment(request.getfixturevalue("stub_cuda"), home / "gpus")
    return {}


@pytest.fixture
def peers(environment: dict[str, str]) -> Iterator[Callable[..., Peer]]:
    """Starts processes; all are ended afterwards."""
    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(Peer({**environment, **more}))


@pytest.fixture
def peer(peers: Callable[..., Peer]) -> Peer:
    return peers()


@dataclass
class Space:
    """Memory of GPU 0, mapped in a process that has it open; `near` is page-locked host memory."""

    peer: Peer
    handle: int
    address: int
    stream: int
    near: int

    def write(self, at: int, data: bytes) -> None:
        """Write through the GPU, and wait for it."""
        self.peer.poke(self.near, data)
        self.peer.copy_in(0, self.address + at, self.near, len(data), self.stream)
        self.peer.wait(0, self.stream)

    def read(self, at: int, nbytes: int) -> bytes:
        self.peer.poke(self.near, bytes(nbytes))
        self.peer.copy_out(0, self.near, self.address + at, nbytes, self.stream)
        self.peer.wait(0, self.stream)
        return bytes(self.peer.peek(self.near, nbytes))

    def end(self) -> None:
        self.peer.unpin(0, self.near)
        self.peer.end_stream(0, self.stream)
        self.peer.unmap(self.address, SIZE)
        self.peer.free(self.address, SIZE)
        self.peer.release(self.handle)
        self.peer.close(0)


def space(peer: Peer, handle: int | None = None, write: bool = True) -> Space:
    """Map memory, new by default, and give GPU 0 access."""
    if handle is None:
        handle = peer.create(0, SIZE)
    address = peer.reserve(SIZE)
    peer.map(address, SIZE, handle)
    peer.allow(address, SIZE, 0, write)
    peer.open(0)
    return Space(peer, handle, address, peer.stream(0), peer.pin(0, MIB))


def used(peer: Peer, ordinal: int = 0) -> int:
    return int(peer.usage(peer.gpus()[ordinal].uuid).used)


def comes_back(peer: Peer, to: int, near: int = NEAR) -> bool:
    """Whether soon no more is used than `to` bytes, and a few that others may have taken."""
    deadline = time.monotonic() + SOON
    while used(peer) > to + near:
        if time.monotonic() > deadline:
            return False
    return True


def test_gpus_are_described_and_named_by_uuid(peer):
    gpus = peer.gpus()
    assert [gpu.ordinal for gpu in gpus] == list(range(len(gpus)))
    assert len({gpu.uuid for gpu in gpus}) == len(gpus) > 0
    for gpu in gpus:
        kind, *parts = gpu.uuid.split("-")
        assert kind in ("SIM", "GPU", "MIG")
        assert [len(part) for part in parts] == [8, 4, 4, 4, 12]
        assert gpu.name and gpu.granularity >= 65536 and SIZE % gpu.granularity == 0
        assert peer.usage(gpu.uuid).total >= gpu.nbytes * 0.9
        assert isinstance(peer.notes(gpu.uuid), tuple)


def test_ordinals_follow_what_is_visible(peer, peers):
    uuids = [gpu.uuid for gpu in peer.gpus()]
    assert [g.uuid for g in peers(CUDA_VISIBLE_DEVICES=",".join(reversed(uuids))).gpus()] == list(reversed(uuids))
    assert [g.uuid for g in peers(CUDA_VISIBLE_DEVICES=uuids[-1][:12]).gpus()] == [uuids[-1]]
    assert [g.uuid for g in peers(CUDA_VISIBLE_DEVICES="0,-1,1").gpus()] == uuids[:1]
    assert peers(CUDA_VISIBLE_DEVICES="").gpus() == ()


def test_a_process_that_sees_no_gpu_is_refused_one(peers):
    with pytest.raises(DeviceLost):
        peers(CUDA_VISIBLE_DEVICES="").create(0, SIZE)


def test_memory_counts_from_create_to_release(peer):
    before = used(peer)
    handle = peer.create(0, SIZE)
    assert used(peer) - before == pytest.approx(SIZE, abs=NEAR)
    peer.release(handle)
    assert comes_back(peer, before)


def test_descriptors_and_mappings_keep_memory_without_a_handle(peer):
    before = used(peer)
    handle = peer.create(0, SIZE)
    fd = peer.export(handle)
    peer.release(handle)
    assert used(peer) - before == pytest.approx(SIZE, abs=NEAR)
    handle = peer.import_(fd)
    peer.close_fd(fd)
    address = peer.reserve(SIZE)
    peer.map(address, SIZE, handle)
    peer.release(handle)
    assert used(peer) - before == pytest.approx(SIZE, abs=NEAR)
    peer.unmap(address, SIZE)
    peer.free(address, SIZE)
    assert comes_back(peer, before)


def test_a_descriptor_is_not_inherited_and_stays_the_callers(peer):
    handle = peer.create(0, SIZE)
    fd = peer.export(handle)
    assert not peer.inheritable(fd)
    assert peer.export(handle) != fd
    peer.release(peer.import_(fd))
    peer.release(peer.import_(fd))
    peer.close_fd(fd)


def test_more_memory_than_there_is_gives_no_room_and_takes_nothing(peer):
    before, gpu = used(peer), peer.gpus()[0]
    with pytest.raises(NoRoom):
        peer.create(0, (gpu.nbytes // SIZE + 1) * SIZE)
    assert abs(used(peer) - before) <= NEAR
    peer.release(peer.create(0, SIZE))


def test_what_is_copied_in_is_copied_out(peer):
    memory = space(peer)
    data = os.urandom(MIB)
    memory.write(512, data)
    memory.write(SIZE - 100, data[:100])
    assert memory.read(512, MIB) == data
    assert memory.read(SIZE - 100, 100) == data[:100]
    memory.end()


def test_copies_of_a_stream_are_made_in_order(peer):
    memory = space(peer)
    data = os.urandom(MIB)
    peer.poke(memory.near, data)
    for shift in range(0, 4096, 64):
        peer.copy_in(0, memory.address, memory.near + shift, 64, memory.stream)
    peer.copy_out(0, memory.near, memory.address, 64, memory.stream)
    peer.synchronize(0)
    assert peer.peek(memory.near, 64) == data[4096 - 64 : 4096]
    memory.end()


def test_memory_that_is_not_page_locked_can_be_copied(peer):
    memory = space(peer)
    data = os.urandom(MIB)
    peer.copy_in(0, memory.address, peer.host(data, False), MIB, memory.stream)
    peer.wait(0, memory.stream)
    assert memory.read(0, MIB) == data
    into = peer.host(bytes(MIB), True)
    peer.copy_out(0, into, memory.address, MIB, memory.stream)
    peer.wait(0, memory.stream)
    assert peer.peek(into, MIB) == data
    memory.end()


@pytest.mark.parametrize("writable", [True, False])
def test_memory_that_is_there_can_be_page_locked(peer, writable):
    memory = space(peer)
    data = os.urandom(MIB)
    address = peer.host(data, writable)
    if not writable and not peer.gpus()[0].reads_registered:
        with pytest.raises(DeviceLost):
            peer.register(0, address, MIB)
        return
    peer.register(0, address, MIB)
    with pytest.raises(DeviceLost):
        peer.register(0, address, MIB)
    peer.copy_in(0, memory.address, address, MIB, memory.stream)
    peer.wait(0, memory.stream)
    peer.unregister(0, address)
    with pytest.raises(DeviceLost):
        peer.unregister(0, address)
    assert memory.read(0, MIB) == data
    memory.end()


def test_access_is_what_was_allowed(peer):
    handle = peer.create(0, SIZE)
    address = peer.reserve(SIZE)
    peer.map(address, SIZE, handle)
    assert peer.access(address, 0) == ""
    peer.allow(address, SIZE, 0, True)
    assert peer.access(address, 0) == "write"
    peer.allow(address, SIZE, 0, False)
    assert peer.access(address + SIZE // 2, 0) == "read"
    peer.unmap(address, SIZE)
    peer.map(address, SIZE, handle)
    assert peer.access(address, 0) == ""


def test_a_gpu_cannot_write_where_it_may_only_read(peer, peers):
    memory = space(peer)
    memory.write(0, b"kept")
    other = peers()
    theirs = space(other, other.import_(peer.give(peer.export(memory.handle), other)), write=False)
    assert theirs.read(0, 4) == b"kept"
    with pytest.raises(DeviceLost):
        theirs.write(0, b"lost")
    assert memory.read(0, 4) == b"kept"
    memory.end()


def test_who_imports_chooses_their_access(peer, peers):
    memory = space(peer, write=False)
    other = peers()
    theirs = space(other, other.import_(peer.give(peer.export(memory.handle), other)), write=True)
    theirs.write(100, b"changed")
    assert memory.read(100, 7) == b"changed"


def test_several_allocations_lie_side_by_side(peer):
    handles = [peer.create(0, SIZE) for _ in range(2)]
    address = peer.reserve(2 * SIZE)
    for n, handle in enumerate(handles):
        peer.map(address + n * SIZE, SIZE, handle)
    peer.allow(address, 2 * SIZE, 0, True)
    peer.open(0)
    stream, near = peer.stream(0), peer.pin(0, MIB)
    data = os.urandom(4096)
    peer.poke(near, data)
    peer.copy_in(0, address + SIZE - 2048, near, 4096, stream)  # over the seam
    peer.wait(0, stream)
    single = peer.reserve(SIZE)
    peer.map(single, SIZE, handles[1])  # twice in one process
    peer.allow(single, SIZE, 0, False)
    peer.copy_out(0, near + 8192, single, 2048, stream)
    peer.wait(0, stream)
    assert peer.peek(near + 8192, 2048) == data[2048:]
    peer.unmap(address, 2 * SIZE)
    peer.free(address, 2 * SIZE)
    with pytest.raises(DeviceLost):
        peer.access(address, 0)


def test_the_memory_outlives_the_process_that_made_it(peer, peers):
    maker = peers()
    memory = space(maker)
    data = os.urandom(MIB)
    memory.write(0, data)
    theirs = space(peer, peer.import_(maker.give(maker.export(memory.handle), peer)), write=False)
    maker.kill()
    assert theirs.read(0, MIB) == data


def test_the_memory_of_a_killed_process_comes_back(peer, peers):
    before = used(peer)
    other = peers()
    space(other)
    other.export(other.create(0, SIZE))
    assert used(peer) - before >= 2 * SIZE - NEAR
    other.kill()
    assert comes_back(peer, before)


def test_a_context_takes_memory_until_the_last_close(peer, peers):
    watch = peers()
    before = used(watch)
    assert peer.gpus()
    assert used(watch) == pytest.approx(before, abs=NEAR)  # looking opens none
    peer.open(0)
    opened = used(watch)
    assert opened > before
    peer.open(0)
    peer.close(0)
    peer.end_stream(0, peer.stream(0))
    assert used(watch) == pytest.approx(opened, abs=NEAR)
    peer.close(0)
    with pytest.raises(DeviceLost):
        peer.close(0)
    assert comes_back(watch, before, (opened - before) // 2)


@pytest.mark.parametrize(
    "call",
    ["synchronize", "pin", "register", "stream", "copy_in", "copy_out", "wait", "allocate", "free_allocation",
     "ipc_handle", "ipc_open", "ipc_close"],
)  # fmt: skip
def test_calls_that_need_a_context_say_so(peer, call):
    arguments = {
        "synchronize": (), "pin": (MIB,), "register": (4096, 4096), "stream": (), "wait": (1,), "allocate": (MIB,),
        "free_allocation": (4096,), "ipc_handle": (4096,), "ipc_open": (bytes(64),), "ipc_close": (4096,),
    }  # fmt: skip
    with pytest.raises(DeviceLost) as caught:
        peer.do(call, 0, *arguments.get(call, (4096, 4096, 10, 1)))
    assert "\n" not in str(caught.value)


def test_no_such_gpu(peer):
    for call in (lambda: peer.create(99, SIZE), lambda: peer.open(99), lambda: peer.usage("GPU-none")):
        with pytest.raises(DeviceLost):
            call()


def test_wrong_arguments_are_refused_and_leave_nothing(peer):
    handle = peer.create(0, SIZE)
    address = peer.reserve(SIZE)
    count = peer.descriptors()
    for call in (
        lambda: peer.create(0, 12345),
        lambda: peer.map(address + SIZE, SIZE, handle),
        lambda: peer.allow(address, SIZE, 0, True),
        lambda: peer.access(address, 0),
        lambda: peer.unmap(address, SIZE),
        lambda: peer.import_(peer.take(0)),
    ):
        with pytest.raises(DeviceLost):
            call()
    assert peer.descriptors() == count + 1  # the one it was sent
    peer.map(address, SIZE, handle)
    peer.unmap(address, SIZE)
    peer.free(address, SIZE)


def test_a_forked_child_is_told_that_it_has_no_gpu(peer):
    peer.open(0)
    for call in (("create", 0, SIZE), ("synchronize", 0), ("reserve", SIZE)):
        with pytest.raises(DeviceLost, match="forked child"):
            peer.forked(*call)
    peer.synchronize(0)


def test_another_gpu_is_reached_where_the_driver_says_so(peer):
    if len(peer.gpus()) < 2:
        pytest.skip("one GPU")
    if not peer.reaches(1, 0):
        pytest.skip("its GPUs do not reach one another")
    memory = space(peer)
    data = os.urandom(MIB)
    memory.write(0, data)
    peer.allow(memory.address, SIZE, 1, False)
    handle, address = peer.create(1, SIZE), peer.reserve(SIZE)
    peer.map(address, SIZE, handle)
    peer.allow(address, SIZE, 1, True)
    peer.open(1)
    stream, near = peer.stream(1), peer.pin(1, MIB)
    peer.copy_across(1, address, memory.address, MIB, stream)
    peer.copy_out(1, near, address, MIB, stream)
    peer.wait(1, stream)
    assert peer.peek(near, MIB) == data
    assert peer.access(memory.address, 0) == "write"
    assert peer.access(memory.address, 1) == "read"


# ---- legacy IPC


def allocated(peer: Peer) -> Space:
    """Memory of GPU 0 that the process owns, at `handle`, too."""
    peer.open(0)
    address = peer.allocate(0, SIZE)
    return Space(peer, address, address, peer.stream(0), peer.pin(0, MIB))


def opened(peer: Peer, handle: bytes) -> Space:
    """The same as another process has it."""
    peer.open(0)
    address = peer.ipc_open(0, handle)
    return Space(peer, address, address, peer.stream(0), peer.pin(0, MIB))


def test_owned_memory_counts_until_it_is_freed_or_its_context_ends(peer, peers):
    watch = peers()
    peer.open(0)
    before = used(watch)
    address = peer.allocate(0, SIZE)
    assert used(watch) - before == pytest.approx(SIZE, abs=NEAR)
    peer.free_allocation(0, address)
    assert comes_back(watch, before)
    with pytest.raises(DeviceLost):
        peer.free_allocation(0, address)
    peer.allocate(0, SIZE)
    peer.close(0)
    assert comes_back(watch, before)


def test_owned_memory_is_opened_by_others_for_reading_and_writing(peer, peers):
    memory, other = allocated(peer), peers()
    data = os.urandom(MIB)
    memory.write(512, data)
    handle = peer.ipc_handle(0, memory.address)
    assert (len(handle), peer.ipc_handle(0, memory.address)) == (64, handle)
    theirs = opened(other, handle)
    assert theirs.read(512, MIB) == data
    theirs.write(SIZE - 100, b"changed")
    assert memory.read(SIZE - 100, 7) == b"changed"
    other.ipc_close(0, theirs.address)
    assert memory.read(SIZE - 100, 7) == b"changed"


def test_opened_again_it_is_where_it_was_until_closed_as_often(peer, peers):
    memory, other = allocated(peer), peers()
    memory.write(0, b"here")
    handle = peer.ipc_handle(0, memory.address)
    theirs = opened(other, handle)
    assert other.ipc_open(0, handle) == theirs.address
    other.ipc_close(0, theirs.address)
    assert theirs.read(0, 4) == b"here"
    other.ipc_close(0, theirs.address)
    with pytest.raises(DeviceLost):
        other.ipc_close(0, theirs.address)


def test_who_allocated_it_cannot_open_it(peer):
    memory = allocated(peer)
    with pytest.raises(DeviceLost):
        peer.ipc_open(0, peer.ipc_handle(0, memory.address))


@pytest.mark.parametrize("end", ["free", "kill"])
def test_owned_memory_that_has_ended_cannot_be_opened(peer, peers, end):
    peer.open(0)
    owner = peers()
    memory = allocated(owner)
    handle = owner.ipc_handle(0, memory.address)
    if end == "kill":
        owner.kill()
    else:
        owner.free_allocation(0, memory.address)
    with pytest.raises(DeviceLost):
        peer.ipc_open(0, handle)


def test_what_a_killed_owner_had_comes_back(peer, peers):
    before, owner = used(peer), peers()
    memory = allocated(owner)
    owner.ipc_handle(0, memory.address)
    assert used(peer) - before >= SIZE - NEAR
    owner.kill()
    assert comes_back(peer, before)


def test_wrong_arguments_of_legacy_ipc_are_refused(peer, peers):
    memory, other = allocated(peer), peers()
    handle = peer.ipc_handle(0, memory.address)
    other.open(0)
    for call in (
        lambda: peer.allocate(0, 0),
        lambda: peer.ipc_handle(0, 4096),
        lambda: peer.ipc_close(0, memory.address),
        lambda: other.ipc_open(0, handle[:10]),
        lambda: other.ipc_open(0, bytes(64)),
    ):
        with pytest.raises(DeviceLost):
            call()
    with pytest.raises(NoRoom):
        peer.allocate(0, (peer.gpus()[0].nbytes // SIZE + 1) * SIZE)
    memory.write(0, b"as ever")
    assert memory.read(0, 7) == b"as ever"
