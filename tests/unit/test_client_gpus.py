"""Which GPU a person means: numbers in their own view, beginnings of UUIDs, and the one that PyTorch uses."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from trims.client import gpus
from trims.devices import drivers, simulated
from trims.errors import DeviceLost, UsageError

FIRST, SECOND = (f"gpu:SIM-{n:08x}-0000-4000-8000-{n:012x}" for n in range(2))


@pytest.fixture(autouse=True)
def directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    made = simulated.make(str(home / "gpus"))
    monkeypatch.setenv(drivers.SIMULATED, made)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return made


def test_what_is_no_certain_gpu_stays_as_it_is() -> None:
    assert [gpus.resolve(place) for place in ("host", "disk", "gpu")] == ["host", "disk", "gpu"]


def test_numbers_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [gpus.resolve("gpu:0"), gpus.resolve("gpu:1")] == [FIRST, SECOND]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus.resolve("gpu:0") == gpus.own("gpu:0") == gpus.own("gpu") == SECOND
    assert gpus.seen(SECOND)[1].ordinal == 0


def test_a_number_that_there_is_none_of_names_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceLost, match="no GPU 2: this process sees 2, numbers 0 to 1"):
        gpus.resolve("gpu:2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(DeviceLost, match="sees one, number 0"):
        gpus.own("gpu:1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceLost, match="no GPU 0: this process sees none"):
        gpus.own("gpu")


@pytest.mark.parametrize(
    "text", ["SIM-00000001", "sim-00000001-0000", "00000001-0", "00000001", SECOND.removeprefix("gpu:")]
)
def test_the_beginning_of_a_uuid_will_do(text: str) -> None:
    assert gpus.resolve(f"gpu:{text}") == gpus.own(f"gpu:{text}") == SECOND


def test_an_ambiguous_beginning_is_refused() -> None:
    with pytest.raises(UsageError, match=f"{FIRST[4:]} or {SECOND[4:]}"):
        gpus.resolve("gpu:SIM-0000")


def test_a_gpu_that_is_not_seen_is_the_managers_to_find_and_not_ours_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for place in (SECOND, "gpu:SIM-00000001", "gpu:GPU-feedbeef"):
        assert gpus.resolve(place) == place
        with pytest.raises(DeviceLost, match=f"does not see {place}: this process sees one"):
            gpus.own(place)


def test_without_a_driver_uuids_still_reach_the_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(drivers.SIMULATED, "/nonexistent")
    assert gpus.resolve("gpu:GPU-1") == "gpu:GPU-1"
    for place in ("gpu:0", "gpu", "gpu:GPU-1"):
        with pytest.raises(DeviceLost):
            gpus.own(place)


@pytest.mark.parametrize(("initialised", "place"), [(True, SECOND), (False, FIRST)])
def test_any_gpu_is_the_one_that_torch_uses(monkeypatch: pytest.MonkeyPatch, initialised: bool, place: str) -> None:
    cuda = SimpleNamespace(is_initialized=lambda: initialised, current_device=lambda: 1)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert gpus.own("gpu") == place
