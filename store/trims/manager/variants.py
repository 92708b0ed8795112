"""Derived forms for ONNX Runtime, made by a confined child of this process: never in the loop, never in this process.

The child is `python -m trims.integrations.ort_variant`. It prints one JSON object and is killed when nobody wants its
work any more. Its key says for which runtime and processor it derives; that of this interpreter is asked for once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import msgspec

from trims.disk.reader import Cancelled
from trims.errors import NoSuchVariant, TrimsError, rebuild

_MODULE = "trims.integrations.ort_variant"


class Errand:
    """Work that somebody waits for. `cancel` kills its child, if it has one, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = True
            if self._child is not None:
                self._child.kill()

    def run(self, arguments: list[str]) -> dict[str, object]:
        """What the child printed. Raises what it reported, NoSuchVariant when it died, Cancelled."""
        with self._lock:
            if self.cancelled:
                raise Cancelled("nobody waits for this any more")
            self._child = subprocess.Popen(
                [sys.executable, "-m", _MODULE, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
            )
        try:
            out, err = self._child.communicate()
            status = self._child.returncode
        finally:
            with self._lock:
                self._child = None
        if self.cancelled:
            raise Cancelled("nobody waits for this any more")
        return _report(out, err, status)


def _report(out: bytes, err: bytes, status: int) -> dict[str, object]:
    try:
        report = msgspec.json.decode(out.strip().rpartition(b"\n")[2], type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        last = err.decode("utf-8", "replace").strip().rpartition("\n")[2]
        why = last or (f"it was killed by signal {-status}" if status < 0 else f"it ended with status {status}")
        raise NoSuchVariant("the variant cannot be built", why) from None
    if "code" in report:
        details = report.get("details")
        code, what, why, hint = (str(report.get(name, "")) for name in ("code", "what", "why", "hint"))
        raise rebuild(code, what, why, hint, details if isinstance(details, dict) else {})
    return report


class Variants:
    """What this manager can derive. `key` is "" until it is known, and when nothing can be derived here."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._error: TrimsError | None = None
        self._asking = Errand()
        self.key = ""

    def find_key(self) -> str:
        """The key of this manager's runtime; asks a child the first time. Raises NoSuchVariant when there is none."""
        with self._lock:
            if not self.key and self._error is None:
                try:
                    self.key = str(self._asking.run(["key"])["key"])
                except Cancelled:
                    raise
                except TrimsError as error:
                    self._error = error
            if self._error is not None:
                raise self._error
            return self.key

    def close(self) -> None:
        """Ask no more."""
        self._asking.cancel()

    def build(self, digest: str, errand: Errand) -> str:
        """Have the variant of a model in the store; its key. Raises NoSuchVariant, Cancelled, NoSpace, ..."""
        report = errand.run(["build", "--store", os.path.abspath(self._root), "--digest", digest])
        return str(report["key"])
