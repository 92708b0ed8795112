"""What the real driver does with the answers of CUDA and of the management library, on a stub of both."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from helpers import stubcuda
from helpers.driver_peer import Peer

from trims.errors import DeviceLost, NoRoom

SIZE = 2 << 20


@pytest.fixture
def peers(stub_cuda, home) -> Iterator[Callable[..., Peer]]:
    with ExitStack() as stack:
        yield lambda **switches: stack.enter_context(Peer(stubcuda.environment(stub_cuda, home / "gpus", **switches)))


def test_a_gpu_is_described_as_the_driver_does(peers):
    gpu = peers().gpus()[1]
    assert gpu.uuid == "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f"
    assert (gpu.name, gpu.nbytes, gpu.granularity) == ("Stub", stubcuda.TOTAL, 2 << 20)
    assert gpu.shares and gpu.reads_registered


@pytest.mark.parametrize(("attribute", "lacks"), [("102", "shares"), ("103", "shares"), ("113", "reads_registered")])
def test_what_a_gpu_cannot_do_is_told(peers, attribute, lacks):
    gpu = peers(STUBCUDA_NO_ATTRIBUTE=attribute).gpus()[0]
    assert not getattr(gpu, lacks)
    assert gpu.shares != gpu.reads_registered


def test_a_mig_slice_has_its_own_uuid(peers):
    peer = peers(STUBCUDA_MIG="1")
    gpu = peer.gpus()[0]
    assert gpu.uuid == "MIG-00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert peer.usage(gpu.uuid).total == stubcuda.TOTAL
    (note,) = peer.notes(gpu.uuid)
    assert "MIG slice of GPU-whole" in note


def test_without_memory_there_is_no_room(peers):
    with pytest.raises(NoRoom, match="cuMemCreate: CUDA_ERROR_OUT_OF_MEMORY"):
        peers(STUBCUDA_FAIL="cuMemCreate=2").create(0, SIZE)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, ["CUDA_ERROR_INVALID_VALUE", "mistake"]),
        (46, ["CUDA_ERROR_DEVICE_UNAVAILABLE", "exclusive"]),
        (700, ["has failed", "CUDA_ERROR_ILLEGAL_ADDRESS", "Xid"]),
        (801, ["CUDA_ERROR_NOT_SUPPORTED", "cannot do that"]),
        (999, ["CUDA_ERROR_UNKNOWN", "nvidia-smi"]),
        (7777, ["cuMemCreate", "7777"]),  # of a driver newer than the bindings
    ],
)
def test_errors_name_the_call_the_error_and_what_to_do(peers, number, words):
    with pytest.raises(DeviceLost) as caught:
        peers(STUBCUDA_FAIL=f"cuMemCreate={number}").create(0, SIZE)
    for word in ["cuMemCreate", *words]:
        assert word in str(caught.value)


def test_a_failure_of_opening_leaves_no_context(peers):
    peer = peers(STUBCUDA_FAIL="cuDevicePrimaryCtxRetain=2")
    with pytest.raises(NoRoom):
        peer.open(0)
    with pytest.raises(DeviceLost, match="not open"):
        peer.close(0)


def test_what_was_current_stays_current(peers):
    peer = peers()
    answer = peer.run(
        "from cuda.bindings import driver as cu\n"
        "from trims.errors import TrimsError\n"
        "def now(): return int(cu.cuCtxGetCurrent()[1])\n"
        "cu.cuCtxPushCurrent(cu.cuDevicePrimaryCtxRetain(1)[1])\n"
        "before = now()\n"
        "driver.open(0)\n"
        "answer = [before != 0, now() == before]\n"
        "for _ in range(20):\n"  # more than the stub's stack has room for
        "    driver.end_stream(0, driver.stream(0))\n"
        "    try: driver.copy_in(0, 4096, 4096, 10, 1)\n"
        "    except TrimsError: pass\n"
        "    answer.append(now() == before)\n"
    )
    assert len(answer) == 22 and all(answer)


def test_other_threads_run_while_one_waits(peers, home):
    fifo = home / "held"
    os.mkfifo(fifo)
    peer = peers(STUBCUDA_WAIT=str(fifo))
    peer.open(0)
    assert (
        peer.run(
            "import threading\n"
            "stream = driver.stream(0)\n"
            "waiting = threading.Thread(target=driver.wait, args=(0, stream))\n"
            "waiting.start()\n"
            f"open({str(fifo)!r}, 'w').close()\n"  # the wait ends with this, and this begins with the wait
            "waiting.join()\n"
            "answer = 'ran'\n"
        )
        == "ran"
    )


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({}, []),
        ({"STUBNVML_MODE": "3"}, ["one process in at a time"]),
        ({"STUBNVML_MODE": "2"}, ["no process in"]),
        ({"STUBNVML_MIG": "0"}, []),
        ({"STUBNVML_MIG": "1"}, ["MIG is on"]),
        ({"STUBNVML_MPS": "1"}, ["by MPS:"]),
        ({"STUBNVML_PID": "1"}, []),
        ({"STUBNVML_MODE": "3", "STUBNVML_MIG": "1"}, ["MIG is on", "one process in"]),
    ],
)
def test_what_is_unusual_about_a_gpu_is_noted(peers, switches, words):
    peer = peers(**switches)
    notes = peer.notes(peer.gpus()[0].uuid)
    assert len(notes) == len(words)
    for note, word in zip(notes, words, strict=True):
        assert word in note and "\n" not in note


def test_an_mps_server_is_known_by_its_name(peers, home):
    server = home / "nvidia-cuda-mps-server"
    shutil.copy(shutil.which("cat") or "", server)
    with subprocess.Popen([server], stdin=subprocess.PIPE) as running:
        peer = peers(STUBNVML_PID=str(running.pid))
        (note,) = peer.notes(peer.gpus()[0].uuid)
    assert f"MPS server {running.pid}" in note


def test_without_the_management_library_memory_cannot_be_watched(peers, stub_cuda, tmp_path):
    (tmp_path / "libcuda.so.1").symlink_to(stub_cuda / "libcuda.so.1")
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    peer = peers(LD_LIBRARY_PATH=str(tmp_path))
    uuid = peer.gpus()[0].uuid
    for call in (peer.usage, peer.notes):
        with pytest.raises(DeviceLost, match="utility"):
            call(uuid)
    peer.release(peer.create(0, SIZE))


@pytest.mark.parametrize("call", ["cuMemAlloc", "cuIpcGetMemHandle"])
def test_a_gpu_without_legacy_ipc_says_so(peers, call):
    peer = peers(STUBCUDA_FAIL=f"{call}=801")
    peer.open(0)
    with pytest.raises(DeviceLost, match=f"{call}: CUDA_ERROR_NOT_SUPPORTED .this GPU, or its driver, cannot do that"):
        peer.ipc_handle(0, peer.allocate(0, SIZE))
