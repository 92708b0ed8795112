"""Programs that write to what they were given, by every route their framework has: an error, or private and counted.

The writer is a process of its own, and so is the neighbour that reads the same memory of the manager meanwhile. Both
open the model a second time as files, which must stay as they are too.
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from helpers import capabilities, sources
from helpers.neighbours import neighbour, seen

from trims.disk.ingest import import_model
from trims.disk.store import open_store

SHAPE = (64, 1024)  # rows of a page
WEIGHTS = {"w": np.ones(SHAPE, np.float32), "b": np.arange(1024, dtype=np.float32)}

_COMMON = """
import ctypes, json
import numpy as np
import trims

tried = {}
def attempt(name, act):
    try:
        act()
        tried[name] = "done"
    except Exception as error:
        tried[name] = type(error).__name__

def use(model):
BODY

report = {}
for place in ("host", "disk"):
    with trims.open("m", place) as model:
        expected = model["w"].copy()
        kept = use(model)
        memory = model.memory()
        report[place] = {
            "place": model.place, "tried": tried, "written": memory.written, "copied": memory.copied,
            "shared": memory.shared, "intact": bool((model["w"] == expected).all()),
        }
print(json.dumps(report))
"""

_NUMPY = """
    w = model["w"]
    attempt("assign", lambda: w.__setitem__(0, 42))
    attempt("flag", lambda: w.setflags(write=True))
    attempt("out", lambda: np.add(w, 1, out=w))
    attempt("sort", lambda: w.sort())
    attempt("view", lambda: w.view(np.uint8).fill(1))
    attempt("base", lambda: w.base.fill(1))
    attempt("buffer", lambda: memoryview(w).__setitem__((0, 0), 1.0))
    attempt("copyto", lambda: np.copyto(model.numpy()["w"], 0))
    mine = model.numpy(writable=True)["w"]
    attempt("writable", lambda: mine.__setitem__(slice(0, 3), 42))
    assert (mine[:3] == 42).all() and (mine[3:] == 1).all()
    from trims.integrations import dlpack
    given = np.from_dlpack(dlpack.tensors(model)["w"])
    attempt("dlpack", lambda: given.fill(42))  # NumPy takes what came by the old protocol as read-only; others do not
    attempt("pointer", lambda: ctypes.memset(given.__array_interface__["data"][0], 0, 2 * 4096) and None)
    assert (given[:2] == 0).all() and (given[2:] == 1).all()
    return mine, given
"""

_TORCH = """
    import torch
    state = model.torch()
    w = state["w"]
    attempt("fill_", lambda: w[:2].fill_(42))
    attempt("numpy", lambda: w.numpy().__setitem__(2, 42))
    attempt("learn", lambda: learn(torch, torch.nn.Parameter(w[3])))
    assert (w[:3] == 42).all() and (w[4:] == 1).all() and (w[3] != 1).all()
    return state

def learn(torch, row):
    row.sum().backward()
    with torch.no_grad():
        row -= 0.5 * row.grad
"""

_JAX = """
    import jax
    arrays = model.jax()
    w = arrays["w"]
    assert w.unsafe_buffer_pointer() % 64 == 0
    attempt("assign", lambda: w.__setitem__(0, 42))
    attempt("numpy", lambda: np.asarray(w).__setitem__(0, 42))
    attempt("at", lambda: w.at[0].set(42).block_until_ready())
    double = jax.jit(lambda v: v * 2, donate_argnums=0)
    attempt("donate", lambda: double(model.jax()["w"]).block_until_ready())
    assert (np.asarray(w) == 1).all()
    # What a careless consumer of w.__dlpack__() would do.
    attempt("pointer", lambda: ctypes.memset(w.unsafe_buffer_pointer(), 0, 4096) and None)
    return arrays
"""

# What each attempt must come to, and the pages that it may leave private: rows of a page each.
_NUMPY_TRIED = dict.fromkeys(("assign", "flag", "out", "sort", "view", "base", "copyto", "dlpack"), "ValueError")
WRITERS = [
    pytest.param(_NUMPY, {**_NUMPY_TRIED, "buffer": "TypeError", "writable": "done", "pointer": "done"}, 5, id="numpy"),
    pytest.param(
        _TORCH, dict.fromkeys(("fill_", "numpy", "learn"), "done"), 4, id="torch",
        marks=[pytest.mark.torch, capabilities.needs_torch],
    ),
    pytest.param(
        _JAX,
        {"assign": "TypeError", "numpy": "ValueError", "at": "done", "donate": "done", "pointer": "done"}, 1, id="jax",
        marks=pytest.mark.skipif(not capabilities.has_module("jax"), reason="JAX is not installed"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "outcome", "pages"), WRITERS)
def test_a_writer_harms_nobody(manager: Any, body: str, outcome: dict[str, str], pages: int) -> None:
    import_model(open_store(str(manager.runtime.store)), sources.source(WEIGHTS), "m")
    with neighbour("m", "host") as shared, neighbour("m", "disk") as mapped:
        assert shared.sees() == mapped.sees() == seen(WEIGHTS)
        done = subprocess.run(
            [sys.executable, "-c", _COMMON.replace("BODY", body)], capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert set(report) == {"host", "disk"}
        for place, said in report.items():
            assert (said["place"], said["tried"]) == (place, outcome)
            assert said["intact"] and said["shared"] >= SHAPE[0] * SHAPE[1] * 4
            assert (said["written"], said["copied"]) == (pages * mmap.PAGESIZE, 0)
        assert shared.sees() == mapped.sees() == seen(WEIGHTS)
