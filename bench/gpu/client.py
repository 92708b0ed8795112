"""A process that does what it is told, a JSON line an order: opens models on a GPU, looks at them, writes to them.

    python -m bench.gpu.client [MODULE...]   imports these modules first, and says {"ready": seconds}

An answer is one line; {"failed": why} when it could not be done. What it opened it keeps until it is told to close.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from typing import Any

_BORN = time.perf_counter()
_open: dict[str, Any] = {}


def open_(ref: str, place: str) -> dict[str, Any]:
    """Open and keep: how, seconds in all, and of those for the context and for the mapping."""
    import trims

    begun = time.perf_counter()
    model = trims.open(ref, place=place, timeout=200.0)
    views = model.tensors()
    taken = time.perf_counter() - begun
    mapped = model.region().mapped
    _open["model"], _open["mapped"] = model, mapped
    return {
        "how": model.how, "seconds": taken, "since_start": time.perf_counter() - _BORN,
        "context": mapped.context_seconds, "attach": mapped.attach_seconds, "tensors": len(views),
        "nbytes": mapped.nbytes,
    }  # fmt: skip


def again(ref: str, place: str, times: int) -> dict[str, Any]:
    """Open and give back, so many times: the seconds of each opening."""
    import trims

    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        model = trims.open(ref, place=place)
        views = model.tensors()
        seconds.append(time.perf_counter() - begun)
        del views
        model.close()
    return {"seconds": seconds}


def digest() -> dict[str, Any]:
    """Of all tensors, copied back. What lies between and behind them is nobody's."""
    found = hashlib.blake2b(digest_size=8)
    for view in _open["model"].tensors().values():
        found.update(view.get().tobytes())
    return {"digest": found.hexdigest()}


def write() -> dict[str, Any]:
    """Write to the weights through the mapping: by a kernel where a framework is there, else by a copy."""
    from bench.gpu import programs

    mapped = _open["mapped"]
    found = programs.write_by_kernel(mapped.driver, mapped.address, mapped.nbytes)
    if "skipped" in found:
        found = programs.write_by_copy(mapped.driver, mapped.address, mapped.nbytes) | {"by": "a copy"}
    return found


def native(way: str, path: str) -> dict[str, Any]:
    """Load a file into this process's own memory of the GPU, and keep it; seconds, and bytes."""
    from bench.gpu import loaders

    begun = time.perf_counter()
    _open["native"] = loaders.load(way, path)
    return {"seconds": time.perf_counter() - begun, "since_start": time.perf_counter() - _BORN}


def prepare() -> dict[str, Any]:
    """Have what a warm process has; what computes on the GPU here."""
    from bench.gpu import loaders

    return {"engine": loaders.prepare()}


def driver() -> dict[str, Any]:
    """Have the driver, without a context: its Python bindings imported, cuInit done; the seconds that took."""
    begun = time.perf_counter()
    from trims.devices import drivers

    drivers.find().gpus()
    return {"seconds": time.perf_counter() - begun}


def context() -> dict[str, Any]:
    """Have a context on GPU 0 from now on; the seconds that took."""
    from trims.devices import drivers

    begun = time.perf_counter()
    drivers.find().open(0)
    return {"seconds": time.perf_counter() - begun}


def request(side: str, ref: str, place: str, path: str, cold: bool) -> dict[str, Any]:
    """One request of a workload: get the weights and read every byte of them on the GPU."""
    from bench.gpu import loaders

    return loaders.request(side, ref, place, path, cold)


def close() -> dict[str, Any]:
    """Give back what was opened."""
    import gc

    model = _open.pop("model", None)
    _open.clear()
    if model is not None:
        model.close()
    gc.collect()
    return {}


ORDERS = {
    "open": open_, "again": again, "digest": digest, "write": write, "native": native, "context": context,
    "driver": driver, "prepare": prepare, "request": request, "close": close,
}  # fmt: skip


def _do(order: dict[str, Any]) -> dict[str, Any]:
    try:
        return ORDERS[order.pop("do")](**order)
    except Exception as error:  # whoever asked says what that means
        return {"failed": f"{type(error).__name__}: {error}".partition("\n")[0]}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for name in sys.argv[1:]:
        importlib.import_module(name)
    print(json.dumps({"ready": time.perf_counter() - _BORN}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_do(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
