"""What this machine can do, probed once. Skips and the header of the test run read the same probe."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Where `scripts/test` put models that packages ship. Read now: tests see no TRIMS_* of the caller.
_named = Path(os.environ.get("TRIMS_TEST_MODELS") or "/nonexistent")
REAL_MODELS = _named if _named.is_dir() else None


@functools.cache
def has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@functools.cache
def is_root() -> bool:
    return os.geteuid() == 0


@functools.cache
def can_mount_tmpfs() -> bool:
    """Whether a child in a mount namespace of its own can mount a small tmpfs: how a full disk is made."""
    code = (
        "import ctypes,os,sys,tempfile\n"
        "c=ctypes.CDLL(None,use_errno=True)\n"
        "ok = c.unshare(0x20000)==0\n"
        "ok = ok and c.mount(b'none',b'/',None,0x44000,None)==0\n"
        "d=tempfile.mkdtemp()\n"
        "ok = ok and c.mount(b'tmpfs',d.encode(),b'tmpfs',0,b'size=1m')==0\n"
        "ok and c.umount(d.encode())\n"
        "os.rmdir(d)\n"
        "sys.exit(0 if ok else 1)\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def cannot_contain() -> str:
    """Why no container can be made of namespaces here; "" when one can."""
    from helpers import containers

    return containers.cannot()


@functools.cache
def has_gpu() -> bool:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


@functools.cache
def other_uid() -> int | None:
    """A uid that root can become to be somebody else, or None."""
    return 65534 if is_root() else None


def report() -> str:
    """One line for the header of the test run."""
    probes = {
        "onnxruntime": has_module("onnxruntime"),
        "torch": has_module("torch"),
        "safetensors": has_module("safetensors"),
        "root": is_root(),
        "tmpfs mounts": can_mount_tmpfs(),
        "containers": not cannot_contain(),
        "GPU": has_gpu(),
        "packaged models": REAL_MODELS is not None,
    }
    return "capabilities: " + ", ".join(f"{'' if there else 'no '}{name}" for name, there in probes.items())


needs_onnxruntime = pytest.mark.skipif(not has_module("onnxruntime"), reason="ONNX Runtime is not installed")
needs_torch = pytest.mark.skipif(not has_module("torch"), reason="PyTorch is not installed (TRIMS_TEST_TORCH=1)")
needs_root = pytest.mark.skipif(not is_root(), reason="needs root")
needs_tmpfs = pytest.mark.skipif(not can_mount_tmpfs(), reason="cannot mount a tmpfs")
needs_gpu = pytest.mark.skipif(not has_gpu(), reason="no GPU")
needs_real_models = pytest.mark.skipif(REAL_MODELS is None, reason="packaged models were not fetched")
