"""Having a variant built: by a child process of this interpreter, so that a hostile model cannot hurt the program.

An interpreter that trims is only lent to may lack what writes containers: the child is lent that, too. Where the two
do not go together trims' own interpreter builds, if it has the same runtime. What ONNX Runtime cannot derive is noted
in the store: the next process does not find out anew.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time

from trims.disk.store import Store
from trims.errors import NoSuchVariant, TrimsError, rebuild
from trims.integrations.ort_key import variant_key
from trims.linux import atomic
from trims.paths import StorePaths
from trims.version import __version__

BUILD_TIMEOUT = 900.0
"""Seconds. The largest models take about a second for 100 MB; a child that takes longer than this hangs."""

REFUSAL = 86400.0
"""Seconds for which a refusal is believed: what stood in the way may have been memory."""

_NEEDS = ("onnx", "h5py")
_failed: dict[tuple[str, str], str] = {}


def build_in_child(store: Store | None, digest: str) -> None:
    """Put the ONNX Runtime variant of the model `digest` into `store`. Raises NoSuchVariant, saying why not.

    What could not be built is not tried again by this process.
    """
    if store is None:
        raise NoSuchVariant(
            "it cannot be built", "this process cannot see the store", "build it: `trims warm --for onnxruntime`"
        )
    known = _failed.get((store.root, digest)) or refusal(store.paths, digest, variant_key())
    if known is None:
        try:
            _build(store.root, digest)
            return
        except TrimsError as error:
            known = _failed[store.root, digest] = str(error)
    raise NoSuchVariant("it cannot be built", known)


def _build(root: str, digest: str) -> None:
    """By this interpreter, or by trims' own where this one lacks what it takes, and cannot use what it is lent."""
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    own = os.environ.get("TRIMS_EXEC_PYTHON", "")
    if missing and own in ("", sys.executable):
        raise NoSuchVariant("no interpreter to build it with", f"this one lacks {' and '.join(missing)}")
    try:
        run_child(root, digest)
    except TrimsError:
        if not missing:
            raise
        run_child(root, digest, own)


def run_child(root: str, digest: str, python: str | None = None) -> dict[str, object]:
    """What the building child reports: {"key", "built", "nbytes"}. Raises the error that it reports."""
    python = sys.executable if python is None else python
    if not python:
        raise NoSuchVariant("no interpreter to build it with", "sys.executable is empty")
    command = [python, "-P", "-m", "trims.integrations.ort_variant", "build", "--store", root, "--digest", digest]
    command += ["--key", variant_key()]
    import subprocess  # 8 ms to import: for those who build only

    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    if python == sys.executable:
        lent = os.environ.get("TRIMS_EXEC_HOME", "").split(os.pathsep)
        variables["PYTHONPATH"] = os.pathsep.join(entry for entry in [*sys.path, *lent] if entry)
    else:
        variables.pop("PYTHONPATH", None)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=BUILD_TIMEOUT,
            env=variables,
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


def refuse(paths: StorePaths, digest: str, key: str, why: str) -> None:
    """Note that a variant cannot be had."""
    fields = {"trims": __version__, "at": time.time(), "why": why}
    try:
        atomic.make_directory(paths.variants_of(digest))
        atomic.replace(paths.variant_refusal(digest, key), json.dumps(fields).encode(), paths.tmp, durable=False)
    except (OSError, TrimsError):
        pass  # a store that takes no note: others find out anew


def refusal(paths: StorePaths, digest: str, key: str) -> str | None:
    """Why a variant cannot be had, where this trims has found that out lately."""
    try:
        with open(paths.variant_refusal(digest, key), "rb") as file:
            fields = json.loads(file.read(1 << 16))
        lately = 0 <= time.time() - fields["at"] < REFUSAL and fields["trims"] == __version__
        return str(fields["why"]) if lately else None
    except (OSError, ValueError, TypeError, LookupError):
        return None
