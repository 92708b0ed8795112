"""The guards guard: each kind of leak is seen, and what the fixtures promise is so."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import capabilities, leaks
from helpers import models as model_files


def test_an_open_descriptor_is_a_leak() -> None:
    before = leaks.take()
    fd = os.open("/proc/self/status", os.O_RDONLY)
    try:
        assert [line.split(" -> ")[0] for line in leaks.leaked(before)] == [f"descriptor {fd}"]
    finally:
        os.close(fd)
    assert leaks.leaked(before) == []


def test_a_mapped_memfd_is_a_leak() -> None:
    before = leaks.take()
    fd = os.memfd_create("leak-test")
    os.ftruncate(fd, 4096)
    mapped = mmap.mmap(fd, 4096)
    os.close(fd)
    found = [line for line in leaks.leaked(before) if "mapping" in line]
    mapped.close()
    assert len(found) == 1 and "leak-test" in found[0]


def test_a_stray_process_is_a_leak_even_when_its_parent_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE", 0.2)
    before = leaks.take()
    code = "import os,signal\nif os.fork() == 0:\n    os.setsid()\n    signal.pause()\n"
    subprocess.run([sys.executable, "-c", code], check=True)
    found = leaks.leaked(before)
    assert len(found) == 1 and found[0].startswith("process pid ")
    assert leaks.leaked(before) == []  # it was killed


def test_a_thread_is_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE", 0.05)
    before = leaks.take()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="stray")
    thread.start()
    found = leaks.leaked(before)
    end.set()
    thread.join()
    assert found == ["thread stray"]


def test_the_environment_is_private(home, tmp_path) -> None:
    assert not [name for name in os.environ if name.startswith("TRIMS_")]
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "TMPDIR"):
        assert os.environ[name].startswith(str(home))
    assert not str(tmp_path).startswith(str(home))


def test_a_socket_fits_into_the_runtime_directory(runtime) -> None:
    assert len(str(runtime.socket)) < 90
    assert runtime.living() == []
    assert runtime.env["TRIMS_SOCKET"] == str(runtime.socket)


@capabilities.needs_onnxruntime
def test_the_cnn_runs(models) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    inline, external = (
        onnxruntime.InferenceSession(str(path), options).run(None, {"x": model_files.cnn_input()})[0]
        for path in (models.onnx, models.onnx_external)
    )
    assert inline.shape == (1, 10)
    assert np.isfinite(inline).all() and np.ptp(inline) > 0
    assert inline.tobytes() == external.tobytes()
    assert (models.directory / "external" / "cnn.bin").stat().st_size > 1024


def test_a_manager_runs_and_can_be_asked(manager) -> None:
    (status,) = manager.request("status")
    assert status["pid"] == manager.pid and status["budgets"]["host"]["budget"] == 64 << 20
    assert manager.runtime.living() == [manager.pid]


def test_a_manager_can_be_killed_and_another_started(managers) -> None:
    first = managers()
    first.kill()
    assert first.runtime.living() == []
    second = managers(budget_host="8MiB")
    assert second.pid != first.pid
    second.stop()
    assert second.runtime.living() == []
