"""Whether this machine has a GPU that can be used; says what is in the way, and ends with 23, when not.

Asks the driver alone, so that it can be the first question, of any Python.
"""

from __future__ import annotations

import ctypes
import sys

NONE = 23
"""The exit status that `trims.errors.DeviceLost` has, too."""


def obstacle() -> str:
    """Why no GPU can be used here, or ""."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1)"
    count = ctypes.c_int()
    try:
        error = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except AttributeError:
        return "its libcuda.so.1 is none"
    if error:
        return f"the driver does not start (error {error}); see nvidia-smi"
    return "" if count.value else "the driver shows no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES"


def main() -> int:
    why = obstacle()
    if why:
        print(f"gpu-check: no GPU: {why}; `scripts/gpu-check --simulated` tries the script without one",
              file=sys.stderr)  # fmt: skip
    return NONE if why else 0


if __name__ == "__main__":
    sys.exit(main())
