"""Opening a region that another process owns, by legacy CUDA IPC: one opening for all uses, and nothing left behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.driver_peer import Peer
from helpers.gpu_regions import OwnedByPeer

from trims.client import device_ipc, mapping
from trims.client.device_mapping import DeviceRegion, attached
from trims.devices import drivers, simulated
from trims.errors import DeviceLost, ManagerUnreachable


@pytest.fixture
def directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    made = simulated.make(str(home / "gpus"), shares=False)
    monkeypatch.setenv(drivers.SIMULATED, made)
    return made


@pytest.fixture
def arrays() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return {"large": rng.standard_normal((3, 1 << 18), np.float32), "scalar": np.array(3.5), "empty": np.zeros((0, 5))}


@pytest.fixture
def made(directory: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Iterator[OwnedByPeer]:
    with Peer({drivers.SIMULATED: directory}) as peer:
        region = OwnedByPeer(peer, directory, arrays)
        yield region
        region.close()
    mapping._contents.clear()
    gc.collect()  # an Opened and its region hold each other
    assert not device_ipc._opened._there


@pytest.fixture
def log(directory: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of the driver that this process makes."""
    calls: list[str] = []

    class Logged(simulated.SimulatedDriver):
        def _check(self, call: str, *uuids: str) -> None:
            calls.append(call)
            super()._check(call, *uuids)

    driver = Logged(directory)
    monkeypatch.setattr(drivers, "find", lambda *_: driver)
    return calls


class Opened:
    def __init__(self, made: OwnedByPeer, **changes: Any) -> None:
        self.released = 0
        self.region: DeviceRegion | None = attached(
            made.answer(**changes), made.descriptors(), self._release, made.place
        )

    def _release(self) -> None:
        self.released += 1


def test_everything_is_there(made: OwnedByPeer, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    region = Opened(made).region
    assert region is not None and region.contents.graph is not None
    assert {name: view.get().tobytes() for name, view in region.views().items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }
    assert region.blob(region.contents.graph) == b"a graph"
    assert region.view("large").__cuda_array_interface__["data"][0] == region.view("large").address
    assert len(region.copy()) == made.span


def test_all_uses_share_one_opening(made: OwnedByPeer, log: list[str]) -> None:
    one, two = Opened(made), Opened(made)
    assert one.region is not None and two.region is not None
    assert one.region.mapped.address == two.region.mapped.address
    assert log == ["open", "ipc_open", "open"]
    log.clear()
    one.region = None
    assert one.released == 1 and log == ["synchronize", "close"]
    assert two.region.view("large").get().any()
    log.clear()
    two.region = None
    assert two.released == 1 and log == ["synchronize", "ipc_close", "close"]
    again = Opened(made)
    assert again.region is not None and again.region.view("large").get().any()


def test_a_write_is_seen_by_all(made: OwnedByPeer, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    region = Opened(made).region
    assert region is not None
    view = region.view("large")
    peer, changed = made.peer, np.zeros(16, np.uint8)
    stream = peer.stream(0)
    at = made.address + view.address - region.mapped.address
    peer.copy_in(0, at, peer.host(changed.tobytes(), False), 16, stream)
    peer.wait(0, stream)
    assert view.get().tobytes() == changed.tobytes() + arrays["large"].tobytes()[16:]


@pytest.mark.parametrize("call", ["open", "ipc_open"])
def test_a_failure_half_way_leaves_nothing(made: OwnedByPeer, directory: str, call: str) -> None:
    simulated.fail(directory, **{call: [1]})
    released: list[int] = []
    fds = made.descriptors()
    with pytest.raises(DeviceLost, match="chosen to fail"):
        attached(made.answer(), fds, lambda: released.append(1), made.place)
    simulated.fail(directory)
    assert released == [1] and not any(os.path.exists(f"/proc/self/fd/{fd}") for fd in fds)
    assert Opened(made).region is not None


@pytest.mark.parametrize("call", ["synchronize", "ipc_close", "close"])
def test_a_failure_at_the_end_is_nobodys(made: OwnedByPeer, directory: str, call: str) -> None:
    opened = Opened(made)
    simulated.fail(directory, **{call: [1]})
    opened.region = None
    assert opened.released == 1


def test_what_has_ended_is_told_with_what_may_be_wrong(made: OwnedByPeer) -> None:
    made.peer.kill()
    with pytest.raises(DeviceLost, match=r"freed it, or has ended.*PID and IPC namespaces"):
        Opened(made)


def test_when_the_owner_ends_a_model_that_is_open_is_no_more(made: OwnedByPeer) -> None:
    opened = Opened(made)
    assert opened.region is not None
    made.peer.kill()
    with pytest.raises(DeviceLost, match="ended"):
        opened.region.view("large").get()
    opened.region = None
    assert opened.released == 1


@pytest.mark.parametrize(
    "changes", [{"ipc": ["00" * 64] * 2}, {"ipc": ["no hexadecimal"]}, {"slabs": [2 << 20, 2 << 20]}]
)
def test_an_answer_that_makes_no_sense_is_refused(made: OwnedByPeer, changes: dict[str, Any]) -> None:
    released: list[int] = []
    with pytest.raises(ManagerUnreachable):
        attached(made.answer(**changes), made.descriptors(), lambda: released.append(1), made.place)
    assert released == [1]


@pytest.mark.parametrize("handle", ["", "00", "00" * 64])
def test_a_handle_that_is_none_is_refused(made: OwnedByPeer, handle: str) -> None:
    with pytest.raises(DeviceLost, match="cannot be opened"):
        Opened(made, ipc=[handle])


def test_a_child_neither_uses_nor_closes_it(made: OwnedByPeer, in_child: Callable[..., int]) -> None:
    opened = Opened(made)
    region = opened.region
    assert region is not None

    def child() -> None:
        nonlocal region
        assert region is not None
        with pytest.raises(DeviceLost, match="fork"):
            region.view("large")
        with pytest.raises(DeviceLost, match="fork"):
            Opened(made)
        opened.region = region = None
        assert opened.released == 1

    assert in_child(child) == 0
    assert opened.released == 0 and region.view("large").get().any()


@pytest.fixture
def in_child() -> Callable[[Callable[[], None]], int]:
    """Call in a forked child; its status."""

    def run(call: Callable[[], None]) -> int:
        pid = os.fork()
        if not pid:
            status = 1
            try:
                call()
                status = 0
            finally:
                os._exit(status)
        return os.waitpid(pid, 0)[1]

    return run
