"""Having a variant built: by a child process of this interpreter, so that a hostile model cannot hurt the program."""

from __future__ import annotations

import json
import os
import sys

from trims.disk.store import Store
from trims.errors import NoSuchVariant, TrimsError, rebuild

BUILD_TIMEOUT = 900.0
"""Seconds. The largest models take about a second for 100 MB; a child that takes longer than this hangs."""

_failed: dict[tuple[str, str], str] = {}


def build_in_child(store: Store | None, digest: str) -> None:
    """Put the ONNX Runtime variant of the model `digest` into `store`. Raises NoSuchVariant, saying why not.

    What could not be built is not tried again by this process.
    """
    if store is None:
        raise NoSuchVariant(
            "it cannot be built", "this process cannot see the store", "build it: `trims warm --for onnxruntime`"
        )
    known = _failed.get((store.root, digest))
    if known is None:
        try:
            run_child(store.root, digest)
            return
        except TrimsError as error:
            known = _failed[store.root, digest] = str(error)
    raise NoSuchVariant("it cannot be built", known)


def run_child(root: str, digest: str) -> dict[str, object]:
    """What the building child reports: {"key", "built", "nbytes"}. Raises the error that it reports."""
    if not sys.executable:
        raise NoSuchVariant("no interpreter to build it with", "sys.executable is empty")
    command = [
        sys.executable,
        "-P",
        "-m",
        "trims.integrations.ort_variant",
        "build",
        "--store",
        root,
        "--digest",
        digest,
    ]
    import subprocess  # 8 ms to import: for those who build only

    path = os.pathsep.join(entry for entry in sys.path if entry)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=BUILD_TIMEOUT,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        report = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise NoSuchVariant("building it took too long", f"over {BUILD_TIMEOUT:g} s") from None
    except OSError as error:
        raise NoSuchVariant("the builder cannot be started", os.strerror(error.errno or 0)) from None
    except ValueError:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise NoSuchVariant("the builder ended early", last or f"status {done.returncode}") from None
    if "code" in report:
        raise rebuild(report["code"], report["what"], report["why"], report["hint"], report["details"])
    return dict(report)
