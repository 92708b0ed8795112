"""The key of an ONNX Runtime variant: everything that the optimised graph depends on, as one file name.

The graph that the default level makes is for one release, one provider and one kind of processor: the layout of
convolution weights follows the width of its vectors. The processor enters by its vector extensions only, so that a
kernel update that merely renames a mitigation builds nothing anew.
"""

from __future__ import annotations

import functools
import os

try:
    from _blake2 import blake2b  # hashlib itself loads all of OpenSSL: 4 ms of a program's first session
except ImportError:
    from hashlib import blake2b

_VECTOR = ("sse", "ssse", "avx", "fma", "f16c", "amx", "asimd", "sve", "sme", "bf16", "i8mm", "fphp", "dotprod")


@functools.cache
def variant_key() -> str:
    """The key of this process's ONNX Runtime on this processor, at the default optimisation level."""
    import onnxruntime

    return f"ort-{onnxruntime.__version__}-cpu-all-{isa()}"


@functools.cache
def isa() -> str:
    """This processor's architecture and vector extensions, as 12 hexadecimal digits."""
    words = sorted(word for word in _flags() if word.startswith(_VECTOR))
    return blake2b(" ".join([os.uname().machine, *words]).encode(), digest_size=6).hexdigest()


def _flags() -> list[str]:
    """The flags of the first processor. The file is made while it is read, so no more of it is read than that."""
    try:
        with open("/proc/cpuinfo", "rb") as file:
            for line in file:
                name, _, value = line.partition(b":")
                if name.strip() in (b"flags", b"Features"):
                    return value.decode("utf-8", "replace").split()  # the one codec that is always loaded
    except OSError:
        pass
    return []
