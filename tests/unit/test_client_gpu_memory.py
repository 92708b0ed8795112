"""Mapping slabs on a simulated GPU: the same bits, for reading only, kept by their users, and nothing left behind."""

from __future__ import annotations

import gc
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers import leaks
from helpers.gpu_regions import Made

from trims.client import device_memory, gpus, mapping
from trims.client.device_mapping import DeviceRegion, attached
from trims.devices import drivers, simulated
from trims.errors import Damaged, DeviceLost, ManagerUnreachable, UsageError
from trims.manifest import ITEM_SIZES

FILES = {"labels.txt": b"cat\ndog\n", "empty": b""}


@pytest.fixture
def directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    made = simulated.make(str(home / "gpus"))
    monkeypatch.setenv(drivers.SIMULATED, made)
    return made


@pytest.fixture
def arrays() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray[Any, Any]] = {}
    for name, size in ITEM_SIZES.items():
        dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
        raw = rng.integers(0, 2 if name == "bool" else 60, 6 * size, dtype=np.uint8)
        made[f"t/{name}"] = raw.view(dtype).reshape(2, 3)
    made["large"] = rng.standard_normal((3, 1 << 18), np.float32)  # over a border between slabs
    made["scalar"] = np.array(3.5, np.float64)
    made["empty"] = np.zeros((0, 5), np.float16)
    return made


@pytest.fixture
def made(directory: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Iterator[Made]:
    region = Made(directory, arrays, b"a graph", FILES)
    yield region
    region.close()
    mapping._contents.clear()


@pytest.fixture
def used(directory: str) -> Callable[[], int]:
    """Bytes of the first GPU that somebody still has."""
    driver = simulated.SimulatedDriver(directory)
    return lambda: driver.usage(driver.gpus()[0].uuid).used


class Opened:
    """A mapped region, and how often its lease was given back."""

    def __init__(self, made: Made, **changes: Any) -> None:
        self.released = 0
        self.region: DeviceRegion | None = attached(
            made.answer(**changes), made.descriptors(), self._release, made.place
        )

    def _release(self) -> None:
        self.released += 1


def is_mapped(address: int) -> bool:
    with open("/proc/self/maps") as file:
        spans = [line.split(None, 1)[0].split("-") for line in file]
    return any(int(first, 16) <= address < int(last, 16) for first, last in spans)


def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of the driver from now on."""
    log: list[str] = []

    class Logged(simulated.SimulatedDriver):
        def _check(self, call: str, *uuids: str) -> None:
            log.append(call)
            super()._check(call, *uuids)

    driver = Logged(os.environ[drivers.SIMULATED])
    monkeypatch.setattr(drivers, "find", lambda *_: driver)
    return log


# ---- what is there


def test_every_tensor_has_its_bits(made: Made, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    region = Opened(made).region
    assert region is not None and len(made.sizes) > 1
    assert list(region.views()) == list(arrays)
    for name, array in arrays.items():
        for view in (region.view(name), region.views()[name]):
            assert (view.dtype, view.shape, view.nbytes) == (array.dtype, array.shape, array.nbytes)
            assert view.get().tobytes() == array.tobytes(), name
            assert view.get().dtype == array.dtype and view.get().shape == array.shape
    with pytest.raises(KeyError):
        region.view("none")


def test_graph_and_files_come_from_host_memory_and_tensors_can(
    made: Made, arrays: dict[str, np.ndarray[Any, Any]], directory: str
) -> None:
    region = Opened(made).region
    assert region is not None and region.contents.graph is not None
    simulated.fail(directory, copy_out=list(range(1, 9)))
    assert region.blob(region.contents.graph) == b"a graph"
    assert {name: region.blob(at) for name, at in region.contents.files.items()} == FILES
    assert region.contents.manifest.tensors == made.manifest.tensors
    simulated.fail(directory)
    _, _, offset = region.contents.views["large"]
    assert region.blob((offset, arrays["large"].nbytes)) == arrays["large"].tobytes()
    whole = region.copy()
    assert len(whole) == made.span and whole[offset : offset + 64].tobytes() == arrays["large"].tobytes()[:64]


def test_the_memory_can_only_be_read(made: Made) -> None:
    region = Opened(made).region
    assert region is not None
    driver, gpu = gpus.seen(made.place)
    for n in range(len(made.sizes)):
        assert driver.access(region.mapped.address + n * made.sizes[0], gpu.ordinal) == "read"


def test_times_are_told_apart(made: Made) -> None:
    region = Opened(made).region
    assert region is not None
    assert region.mapped.context_seconds > 0 and region.mapped.attach_seconds > 0


# ---- how long


def test_the_lease_ends_with_the_last_user_and_the_memory_before_it(made: Made, used: Callable[[], int]) -> None:
    opened = Opened(made)
    made.close()
    assert opened.region is not None
    watch, view = opened.region.watch(), opened.region.view("large")
    opened.region = None
    assert watch() and opened.released == 0 and is_mapped(view.address)
    assert view.get().nbytes == view.nbytes
    assert any("test-tail" in name for name in leaks.memfds())  # its holder is known by that to the next manager
    address = view.address
    del view
    assert not any("test-tail" in name for name in leaks.memfds())
    assert not watch() and opened.released == 1 and not is_mapped(address)
    assert used() == 0


def test_a_mapping_ends_in_order(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    log = logged(monkeypatch)
    fds = made.descriptors()
    region = attached(made.answer(), fds, lambda: log.append("release the lease"), made.place)
    slabs = len(made.sizes)
    assert log[:2] == ["open", "reserve"] and log[-slabs - 1 :] == ["allow", *["access"] * slabs]
    assert not any(os.path.exists(f"/proc/self/fd/{fd}") for fd in fds[1:])
    log.clear()
    del region
    assert log == ["synchronize", *["unmap"] * slabs, "free", "close", "release the lease"]


def test_two_of_one_process_end_apart(made: Made, used: Callable[[], int]) -> None:
    one, two = Opened(made), Opened(made)
    assert one.region is not None and two.region is not None
    view = two.region.view("large")
    one.region = None
    assert (one.released, two.released) == (1, 0)
    assert view.get().any()
    two.region = None
    del view
    assert two.released == 1
    made.close()
    assert used() == 0


def test_in_the_middle_of_a_call_of_the_driver_nothing_is_unmapped(made: Made) -> None:
    opened = Opened(made)
    assert opened.region is not None
    address = opened.region.mapped.address
    with device_memory._calling:
        opened.region = None
        assert opened.released == 0 and is_mapped(address)
    assert opened.released == 1 and not is_mapped(address)


def test_cycles_and_threads_may_end_it(made: Made) -> None:
    opened = Opened(made)
    cycle: list[Any] = [opened.region]
    cycle.append(cycle)
    opened.region = None
    del cycle
    gc.collect()
    assert opened.released == 1
    other = Opened(made)
    held = [other.region]
    other.region = None
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert other.released == 1


# ---- what can go wrong


@pytest.mark.parametrize(
    ("call", "nth"),
    [
        ("open", 1), ("reserve", 1), ("import", 1), ("import", 2), ("map", 1), ("map", 2), ("release", 1),
        ("release", 2), ("allow", 1), ("access", 1), ("access", 2),
    ],
)  # fmt: skip
def test_a_failure_half_way_leaves_nothing(
    made: Made, directory: str, used: Callable[[], int], call: str, nth: int
) -> None:
    before = used()
    simulated.fail(directory, **{call: [nth]})
    released: list[int] = []
    fds = made.descriptors()
    with pytest.raises(DeviceLost, match="chosen to fail"):
        attached(made.answer(), fds, lambda: released.append(1), made.place)
    simulated.fail(directory)
    assert released == [1]
    assert not any(os.path.exists(f"/proc/self/fd/{fd}") for fd in fds)
    assert used() == before
    assert not device_memory._calling._threads and not device_memory._calling._ended
    assert Opened(made).region is not None


@pytest.mark.parametrize("call", ["synchronize", "unmap", "free", "close"])
def test_a_failure_at_the_end_is_nobodys(
    made: Made, directory: str, used: Callable[[], int], call: str, recwarn: pytest.WarningsRecorder
) -> None:
    opened = Opened(made)
    made.close()
    simulated.fail(directory, **{call: [1]})
    opened.region = None
    assert opened.released == 1 and used() == 0


def test_a_lost_gpu_is_told_and_given_up(made: Made, directory: str) -> None:
    opened = Opened(made)
    assert opened.region is not None
    view = opened.region.view("large")
    simulated.fail(directory, lost=[made.place.removeprefix("gpu:")])
    with pytest.raises(DeviceLost, match="lost"):
        view.get()
    opened.region = None
    del view
    assert opened.released == 1


@pytest.mark.parametrize("call", ["stream", "copy_out", "wait", "end_stream"])
def test_a_copy_that_fails_is_told(made: Made, directory: str, call: str) -> None:
    region = Opened(made).region
    assert region is not None
    simulated.fail(directory, **{call: [1]})
    with pytest.raises(DeviceLost):
        region.view("large").get()
    assert region.view("large").get().any()


@pytest.mark.parametrize("access", ["", "write"])
def test_memory_that_is_not_for_reading_only_is_refused(
    made: Made, monkeypatch: pytest.MonkeyPatch, access: str
) -> None:
    class Lenient(simulated.SimulatedDriver):
        def access(self, address: int, ordinal: int) -> str:
            return access

    driver = Lenient(os.environ[drivers.SIMULATED])
    monkeypatch.setattr(drivers, "find", lambda *_: driver)
    released: list[int] = []
    with pytest.raises(DeviceLost, match="for reading only"):
        attached(made.answer(), made.descriptors(), lambda: released.append(1), made.place)
    assert released == [1]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"place": "host"}, ManagerUnreachable),
        ({"place": "gpu:GPU-other"}, ManagerUnreachable),
        ({"tail": 1 << 40}, Damaged),
        ({"tail": -1}, Damaged),
        ({"table": (1 << 40, 10)}, Damaged),
        ({"slabs": [-1, 1 << 40]}, Damaged),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(made: Made, changes: dict[str, Any], kind: type[Exception]) -> None:
    released: list[int] = []
    fds = made.descriptors()
    with pytest.raises(kind):
        attached(made.answer(**changes), fds, lambda: released.append(1), made.place)
    assert released == [1] and not any(os.path.exists(f"/proc/self/fd/{fd}") for fd in fds)


def test_a_child_has_the_files_and_not_the_weights(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    log = logged(monkeypatch)
    opened = Opened(made)
    log.clear()
    region = opened.region
    assert region is not None
    view = region.view("large")

    def check() -> None:
        assert region.blob(region.contents.files["labels.txt"]) == FILES["labels.txt"]
        for use in (lambda: region.view("large"), region.views, view.get, view.__dlpack__, region.copy):
            with pytest.raises(DeviceLost, match="fork"):
                use()

    pid = os.fork()
    if not pid:
        status = 1
        try:
            check()
            opened.region = region = view = None
            status = 0 if opened.released == 1 and not log else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert view.get().any()  # the child has not unmapped anything of ours
    assert opened.released == 0


# ---- as a thing


def test_a_tensor_is_no_value(made: Made) -> None:
    region = Opened(made).region
    assert region is not None
    view = region.view("large")
    with pytest.raises(TypeError, match=r"\.get\(\)"):
        np.asarray(view)
    with pytest.raises(UsageError, match="pickled"):
        pickle.dumps(view)
    assert repr(view) == "<trims.DeviceArray float32 (3, 262144) on GPU 0>"
