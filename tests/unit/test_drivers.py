"""Which driver a process gets."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import stubcuda
from helpers.driver_peer import Peer

from trims.devices import drivers, simulated
from trims.errors import DeviceLost

_TELL = (
    "from trims.devices import drivers\ntry: print(drivers.find())\nexcept Exception as e: print(type(e).__name__, e)"
)


def told(program: str = "", **environment: str) -> str:
    """What a new process prints of its driver, which is all that it prints. `program` runs before."""
    command = [sys.executable, "-c", f"{program}\n{_TELL}"]
    ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout


def test_a_process_has_one_driver(home):
    directory = simulated.make(str(home / "gpus"))
    environment = {drivers.SIMULATED: directory}
    found = drivers.find(environment)
    assert found is drivers.find(dict(environment))
    assert found.simulated
    assert len(found.gpus()) == 2


def test_simulated_gpus_are_hidden_as_real_ones(home):
    directory = simulated.make(str(home / "gpus"), gpus=3)
    found = drivers.find({drivers.SIMULATED: directory, "CUDA_VISIBLE_DEVICES": "2,0"})
    assert [gpu.uuid[:12] for gpu in found.gpus()] == ["SIM-00000002", "SIM-00000000"]


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"a": 1}', '[{"uuid": "SIM-1"}]'])
def test_a_directory_that_is_none_of_gpus(home, content):
    if content is not None:
        (home / "gpus.json").write_text(content)
    with pytest.raises(DeviceLost, match="TRIMS_SIMULATED_GPUS"):
        drivers.find({drivers.SIMULATED: str(home)})


def test_without_cuda_bindings_the_extra_is_named():
    for package in ("cuda.bindings", "pynvml"):
        assert "pip install 'trims[cuda]'" in told(f"import sys; sys.modules[{package!r}] = None")


def test_without_a_driver_there_is_one_line_that_names_its_library(stub_cuda, tmp_path):
    (tmp_path / "libcuda.so.1").write_text("no library")
    line = told(LD_LIBRARY_PATH=str(tmp_path))
    assert line.startswith("DeviceLost no NVIDIA driver can be used: ") and "libcuda.so.1: " in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("switch", "value", "words"),
    [
        ("STUBCUDA_VERSION", "11080", ["it is of CUDA 11.8", "update"]),
        ("STUBCUDA_FAIL", "cuInit=803", ["cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "reboot"]),
        ("STUBCUDA_FAIL", "cuInit=999", ["cuInit: CUDA_ERROR_UNKNOWN", "nvidia-smi"]),
        ("STUBCUDA_WITHOUT", "cuMemGetAllocationGranularity", ["cuMemGetAllocationGranularity", "older"]),
    ],
)
def test_a_driver_that_cannot_be_used(stub_cuda, home, switch, value, words):
    line = told(**stubcuda.environment(stub_cuda, home / "gpus", **{switch: value}))
    assert line.startswith("DeviceLost ") and line.count("\n") == 1
    for word in words:
        assert word in line


def test_a_driver_without_gpus_is_one(stub_cuda, home):
    with Peer(stubcuda.environment(stub_cuda, home / "gpus", gpus=0)) as peer:
        assert peer.gpus() == ()


def test_a_forked_child_keeps_the_driver_of_its_parent(home):
    with Peer({drivers.SIMULATED: simulated.make(str(home / "gpus"))}) as peer:
        assert peer.forked("gpus") == peer.gpus()
        with pytest.raises(DeviceLost, match="fork"):
            peer.forked("open", 0)
