"""What the errors of the CUDA driver mean to whoever has to do something about them."""

from __future__ import annotations

import ctypes

from trims.errors import DeviceLost, NoRoom, TrimsError

# <cuda.h>, CUresult.
OUT_OF_MEMORY = 2
NO_DEVICE = 100
_FAULTS = frozenset(
    # CUDA_ERROR_ECC_UNCORRECTABLE, NVLINK_UNCORRECTABLE, CONTAINED, ILLEGAL_ADDRESS, ASSERT, HARDWARE_STACK_ERROR,
    # ILLEGAL_INSTRUCTION, MISALIGNED_ADDRESS, INVALID_ADDRESS_SPACE, INVALID_PC, LAUNCH_FAILED, TENSOR_MEMORY_LEAK
    (214, 220, 226, 700, 710, 714, 715, 716, 717, 718, 719, 721)
)
_HINTS = {
    1: "this is a mistake of the caller's",  # INVALID_VALUE
    3: "CUDA does not survive a fork",  # NOT_INITIALIZED
    34: "a stub of libcuda.so.1 was found before the driver's; check LD_LIBRARY_PATH",  # STUB_LIBRARY
    46: "is the GPU in exclusive mode, or in use? see nvidia-smi -q -d COMPUTE",  # DEVICE_UNAVAILABLE
    100: "try nvidia-smi -L; CUDA_VISIBLE_DEVICES hides GPUs",  # NO_DEVICE
    101: "try nvidia-smi -L; CUDA_VISIBLE_DEVICES hides GPUs",  # INVALID_DEVICE
    201: "this is a mistake of the caller's",  # INVALID_CONTEXT
    712: "this is a mistake of the caller's",  # HOST_MEMORY_ALREADY_REGISTERED
    713: "this is a mistake of the caller's",  # HOST_MEMORY_NOT_REGISTERED
    800: "does the container, or the driver's settings, allow it?",  # NOT_PERMITTED
    801: "this GPU, or its driver, cannot do that",  # NOT_SUPPORTED
    802: "the fabric manager of the NVSwitch is not running: systemctl status nvidia-fabricmanager",  # SYSTEM_NOT_READY
    803: "the kernel's module and the libraries are of different drivers; reboot",  # SYSTEM_DRIVER_MISMATCH
    804: "the cuda-compat package does not fit this GPU",  # COMPAT_NOT_SUPPORTED_ON_DEVICE
    805: "is nvidia-cuda-mps-control running?",  # MPS_CONNECTION_FAILED
}


def failed(call: str, error: int, name: str) -> TrimsError:
    """The error of a call that the driver answered with this CUresult, of that name."""
    reason = f"{call}: {name}"
    if error == OUT_OF_MEMORY:
        return NoRoom("the GPU has no memory left", reason, "evict something; nvidia-smi shows who uses it")
    if error in _FAULTS:
        return DeviceLost("the GPU has failed", reason, "the kernel's log has the Xid: dmesg | grep Xid")
    return DeviceLost("the GPU cannot be used", reason, _HINTS.get(error, "see nvidia-smi, and dmesg | grep -i nvidia"))


def unloadable() -> str:
    """What the loader says of the driver's library, which is clearer than what cuda-bindings say; "" where it loads."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return str(error)
    return ""


def unusable(reason: str, hint: str = "is it installed? try nvidia-smi") -> DeviceLost:
    """There is no driver, or not one that trims can use."""
    return DeviceLost("no NVIDIA driver can be used", reason, hint)
