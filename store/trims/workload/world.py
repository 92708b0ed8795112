"""A world to measure in: a store and a manager of its own, in directories that are gone afterwards.

The store lies below a work directory (a real disk), the manager's runtime directory below the system's directory for
temporary files, because the paths of sockets must be short. Nothing of the user's own trims is read or written:
`env` names other directories for all of it. Each start of a manager gets a fresh runtime directory, so that no run
inherits another's residents, counters or journal.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from trims import units
from trims.client.control import Control
from trims.config import BY_KEY
from trims.disk.catalog import Catalog
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.sidecar import read_sidecar
from trims.disk.store import Store, create_store
from trims.errors import BadInput, ManagerUnreachable, NoSpace, TrimsError, UsageError, rebuild
from trims.linux import flock, memfd
from trims.manifest import table_bytes
from trims.refs import name_from_path, parse_ref
from trims.workload.models import ModelSpec

_LONG = 600.0
_PREFIX = "world-"
_TURN = 60.0  # seconds to wait while others sweep
RESERVE = 1 << 30
"""Bytes of disk that an import leaves free: the disk is not ours alone."""

Progress = Callable[[str, int, int], None]
"""Called with (what, bytes done, bytes in all)."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A model in the world's store: the form that its function uses.

    nbytes: of its region, as it counts against the budget. files: what a load of it reads.
    """

    spec: ModelSpec
    ref: str
    digest: str
    nbytes: int
    files: tuple[str, ...]


class World:
    """A context manager; see the module. `directory`: where its own directory is made, or, with `keep`, itself.

    keep: leave the store there for the next world. log: the manager's, once it has started.
    """

    def __init__(self, directory: str | None = None, keep: bool = False) -> None:
        self._base = os.path.abspath(directory or default_directory(os.environ))
        self._keep = keep
        self._manager: subprocess.Popen[bytes] | None = None
        self._runtime = ""
        self.budget = 0
        self.placed: dict[str, Placed] = {}
        self.checksums: dict[tuple[str, ...], int] = {}

    def __enter__(self) -> World:
        try:
            os.makedirs(self._base, exist_ok=True)
            with flock.held(f"{self._base}/lock", exclusive=True, timeout=_TURN):
                _sweep(self._base)
                self.directory = self._base if self._keep else tempfile.mkdtemp(prefix=_PREFIX, dir=self._base)
                self._lock = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.flock(self._lock, fcntl.LOCK_SH)
        except OSError as error:
            raise UsageError(
                f"no world can be made in {self._base}", os.strerror(error.errno or 0), "name another --work-dir"
            ) from None
        try:
            self.store: Store = create_store(os.path.join(self.directory, "store"), if_missing=True)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._remove()

    def _remove(self) -> None:
        os.close(self._lock)
        if not self._keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def env(self) -> dict[str, str]:
        """The environment of processes that live in this world."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("TRIMS_", "XDG_"))}
        env |= {f"XDG_{kind}_HOME": f"{self.directory}/{kind.lower()}" for kind in ("STATE", "CACHE", "CONFIG", "DATA")}
        env |= {"TRIMS_STORE": self.store.root, "TRIMS_NO_INPUT": "1"}
        if self._runtime:
            env |= {"XDG_RUNTIME_DIR": self._runtime, "TRIMS_SOCKET": self.socket}
        return env

    @property
    def socket(self) -> str:
        return f"{self._runtime}/trims.sock"

    # ---- models

    def import_models(self, models: Sequence[ModelSpec], progress: Progress | None = None) -> None:
        """Bring the files of these models into the store; those that are there already are left as they are.

        Raises NoSpace before anything is written when they will not fit, BadInput for a model without a file.
        """
        missing = [model for model in models if model.name not in self.placed]
        self._check_space(missing)
        total, done = sum(model.nbytes for model in missing), 0
        for model in missing:
            if progress is not None:
                progress(model.name, done, total)
            self.placed[model.name] = self._import(model)
            done += model.nbytes
        if progress is not None and missing:
            progress(missing[-1].name, total, total)

    def _import(self, model: ModelSpec) -> Placed:
        if not model.file:
            raise BadInput(f"model {model.name!r} cannot be imported", "it has no file", "build it first")
        ref = parse_ref(name_from_path(model.name))
        twin = next((placed.spec.name for placed in self.placed.values() if placed.ref == ref), None)
        if twin is not None:
            raise UsageError(f"models {twin!r} and {model.name!r} would both be named {ref}", "", "rename one")
        stamp = _stamp(model.file)
        entry = Catalog(self.store.paths, 60.0).find(ref)
        if entry is None or entry.labels.get("source") != stamp:
            with open_source(model.file) as source:
                entry = import_model(self.store, source, ref, labels={"source": stamp}).entry
        paths = self.store.paths
        container, sidecar = paths.container(entry.digest), paths.sidecar(entry.digest)
        if model.file.endswith(".onnx"):
            from trims.integrations.ort_builder import build_in_child
            from trims.integrations.ort_key import variant_key

            build_in_child(self.store, entry.digest)
            container, sidecar = (
                paths.variant(entry.digest, variant_key()),
                paths.variant_sidecar(entry.digest, variant_key()),
            )
        held = read_sidecar(sidecar)
        nbytes = memfd.pages(held.span_nbytes + len(table_bytes(held.manifest)))
        return Placed(model, ref, entry.digest, nbytes, (container,))

    def _check_space(self, models: Sequence[ModelSpec]) -> None:
        # A model for ONNX Runtime is kept twice: as it is, and as the form that its sessions use.
        need = RESERVE + sum(model.nbytes * (2 if model.file.endswith(".onnx") else 1) for model in models)
        disk = os.statvfs(self.store.root)
        free = disk.f_bavail * disk.f_frsize
        if models and need > free:
            raise NoSpace(
                f"{len(models)} models do not fit into {self.store.root}",
                f"they need {units.format_size(need)} with 1GiB to spare, the disk has {units.format_size(free)} free",
                "name another --work-dir, or take smaller models with --scale",
                need=need,
                free=free,
            )

    def of(self, model: ModelSpec) -> Placed:
        """The model as it lies in the store; raises UsageError when it was not imported."""
        if model.name not in self.placed:
            raise UsageError(f"model {model.name!r} was not imported into this world")
        return self.placed[model.name]

    # ---- the manager

    def start(self, budget: int, policy: str = "lru", min_resident: float = 0.0, **options: str) -> None:
        """Start a manager with `budget` bytes for models; one that runs is stopped. options: more keys, `_` for `.`.

        Raises what it reports.
        """
        self.stop()
        texts = {"budget.host": str(budget), "residency.policy": policy, "residency.min_resident": f"{min_resident:g}s"}
        texts |= {key.replace("_", ".", 1): value for key, value in options.items()}
        self._runtime = tempfile.mkdtemp(prefix="trims-")
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            with open(f"{self._runtime}/early.log", "wb") as log:
                self._manager = subprocess.Popen(
                    [sys.executable, "-P", "-m", "trims.workload.private", str(write)],
                    env=self.env | {BY_KEY[key].env: text for key, text in texts.items()},
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[write], start_new_session=True,
                )  # fmt: skip
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        with open(read, "rb") as pipe:
            said = pipe.read()
        if not said:
            why = _last_line(f"{self._runtime}/early.log")
            self.stop()
            raise TrimsError("the manager of the workload did not start", why)
        answer = msgspec.json.decode(said)
        if "error" in answer:
            self.stop()
            raise rebuild(**{key: answer["error"][key] for key in ("code", "what", "why", "hint", "details")})
        self.budget = budget

    def stop(self) -> None:
        """End the manager, if one runs, and remove its runtime directory."""
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.terminate()
            try:
                manager.wait(30)
            except subprocess.TimeoutExpired:
                manager.kill()
                manager.wait()
        if self._runtime:
            shutil.rmtree(self._runtime, ignore_errors=True)
            self._runtime = ""

    @property
    def running(self) -> bool:
        return self._manager is not None and self._manager.poll() is None

    def control(self) -> Control:
        """A connection of its own to the manager; a context manager. Raises ManagerUnreachable when it has ended."""
        if not self.running:
            raise ManagerUnreachable("the manager of the workload does not run", "it was not started, or has ended")
        return Control([self.socket])

    def counters(self) -> dict[str, int]:
        """The manager's counters by name."""
        with self.control() as control:
            return dict(control.request("status")[0]["counters"])

    def warm(self, models: Iterable[ModelSpec]) -> None:
        """Make these models resident."""
        with self.control() as control:
            for model in models:
                number = control.begin("warm", ref=self.of(model).ref, flavour=_flavour(model), timeout=_LONG)
                control.finish([number], _LONG)

    def evict(self, models: Iterable[ModelSpec]) -> None:
        """Give these models up, in every form, once their leases have ended; what is not resident is left alone."""
        with self.control() as control:
            for model in models:
                number = control.begin("evict", ref=self.of(model).ref, wait=True, timeout=_LONG)
                control.finish([number], _LONG)


def default_directory(environ: Mapping[str, str]) -> str:
    """Where worlds are made unless told otherwise: $XDG_CACHE_HOME/trims/bench."""
    base = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return os.path.join(base, "trims", "bench")


def _sweep(base: str) -> None:
    """Remove worlds whose process was killed: nobody holds their lock."""
    for entry in os.listdir(base):
        path = os.path.join(base, entry)
        if not entry.startswith(_PREFIX) or not os.path.isdir(path):
            continue
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass  # it is in use
        finally:
            os.close(fd)


def _flavour(model: ModelSpec) -> str:
    return "onnxruntime" if model.file.endswith(".onnx") else "raw"


def _stamp(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError as error:
        raise BadInput(f"model file {path} cannot be read", os.strerror(error.errno or 0)) from None
    return f"{found.st_size} {found.st_mtime_ns} {os.path.abspath(path)}"


def _last_line(path: str) -> str:
    with open(path, errors="replace") as file:
        lines = file.read().strip().splitlines()
    return lines[-1] if lines else "it said nothing"
