"""Import: from a source into the store, visible whole or not at all.

The source is read twice: to learn what the model is (disk.examine), and to write it; what was written is read back and
must be what was examined, since a file can change in between. Then, in this order: the container is renamed into place,
its sidecar, its ref. Each is one durable rename; before the last nothing names the model. The store lock is held shared
from the first look to the last rename, so the collector never takes what is about to be named; a lock of the digest
makes two importers of the same content publish one container, not half of each. Last of all, what can be done without:
the files it came from are remembered (disk.sources).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trims import units
from trims.disk.catalog import Catalog, Entry
from trims.disk.container import write_container
from trims.disk.examine import Examined, Progress, threads
from trims.disk.parts import parts
from trims.disk.sidecar import PIECE, Sidecar, read_sidecar
from trims.disk.sources import Sources
from trims.disk.store import CODECS, Store
from trims.disk.verify import check_container, unlike_manifest
from trims.errors import BadInput, Damaged, NoSpace, NoSuchModel, NotPermitted, StoreTooNew, UsageError
from trims.linux import atomic, flock, step
from trims.permission import Access, Asker, Importer
from trims.refs import parse_ref

if TYPE_CHECKING:
    from trims.disk.importers.base import Source

_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+@")


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did.

    already: the store had this content. nbytes_in: bytes read; deduplicated: those of them that are not stored again;
    stored: size of the container that was written, 0 when none was. replaced: the digest that the ref named before,
    "" when it named none or the same.
    """

    entry: Entry
    already: bool
    nbytes_in: int
    stored: int
    deduplicated: int
    seconds: float
    replaced: str = ""

    def to_dict(self) -> dict[str, Any]:
        """In the protocol's words."""
        entry = self.entry
        return {
            "ref": entry.ref, "digest": entry.digest, "format": entry.origin_format, "tensors": entry.tensors,
            "nbytes": entry.nbytes, "codec": entry.codec, "container": entry.stored, "already": self.already,
            "nbytes_in": self.nbytes_in, "stored": self.stored, "deduplicated": self.deduplicated,
            "seconds": self.seconds, "replaced": self.replaced,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a container goes. lock: the name under which its publication is locked; digest: None for a variant."""

    container: str
    sidecar: str
    lock: str
    digest: str | None

    def whole(self, model: Examined) -> Sidecar | None:
        """The sidecar of what is there already, if that is whole. A model's is read in full, so as to repair it."""
        try:
            sidecar = read_sidecar(self.sidecar)
        except (NoSuchModel, Damaged, StoreTooNew):
            return None
        if self.digest not in (None, sidecar.digest):
            return None
        quick = self.digest is None
        found = check_container("", self.container, sidecar, quick, model.meter.add)
        return None if found else sidecar


def import_model(
    store: Store,
    source: Source,
    ref: str,
    *,
    codec: str | None = None,
    labels: dict[str, str] | None = None,
    if_exists: str = "replace",
    lock_timeout: float = 60.0,
    progress: Progress | None = None,
    importer: Importer | None = None,
) -> ImportResult:
    """Store `source` and make `ref` name it. progress: called with (bytes done, bytes in all).

    if_exists: what to do when `ref` names something: replace, skip (nothing is read), or fail.
    importer: for a store that users share: in whose name; None is this process, as an operator.
    Raises BadInput, NoSpace, NotPermitted, LockTimeout, UsageError.
    """
    started, ref, codec = time.monotonic(), parse_ref(ref), codec or store.codec
    if codec not in CODECS:
        raise UsageError(f"no codec {codec!r}", "", f"codecs are {', '.join(CODECS)}")
    catalog, importer = Catalog(store.paths, lock_timeout), (importer or _ourselves()) if store.system else None
    with flock.held(store.paths.lock, exclusive=False, timeout=lock_timeout):
        existing, access = _existing(catalog, ref, if_exists, importer)
        if existing is not None and if_exists == "skip":
            return ImportResult(existing, True, 0, 0, 0, time.monotonic() - started)
        try:
            model = Examined(source, progress, importer.domain(access) if importer and access else "")
            digest = model.manifest.digest
            target = _Target(store.paths.container(digest), store.paths.sidecar(digest), digest, digest)
            sidecar, written = _store(store, model, target, codec, _origin(source), catalog)
        except OSError as error:
            raise atomic.translate(error, f"importing {ref}") from None
        with catalog.writing(ref):
            existing, now = _existing(catalog, ref, if_exists, importer)
            if now != access:  # the domain, and so the digest, may not be the one to be had now
                raise NotPermitted(f"{ref} is not imported", "it was shared or removed meanwhile", "import it again")
            entry = _entry(ref, source, sidecar, labels or {}, existing, access)
            if entry != existing:
                catalog.put(entry)
        Sources(store.paths).record(source.on_disk, entry.digest, ref, catalog.writing)
    model.meter.finish()
    unique = sum(part.nbytes for part in parts(model.manifest)) if written else 0
    stored = sidecar.container_nbytes if written else 0
    before = existing.digest if existing is not None and existing.digest != entry.digest else ""
    took = time.monotonic() - started
    return ImportResult(entry, not written, model.nbytes, stored, model.nbytes - unique, took, before)


def import_variant(store: Store, digest: str, key: str, source: Source, lock_timeout: float = 60.0) -> Sidecar:
    """Publish a variant of a stored model; when one is there already, that is returned.

    Raises NoSuchModel when the store does not hold the model, and what `import_model` raises.
    """
    if not key or not set(key) <= _KEY or key[0] == ".":
        raise UsageError(f"bad variant key {key!r}", "", "use letters, digits and ._-+@")
    paths = store.paths
    target = _Target(paths.variant(digest, key), paths.variant_sidecar(digest, key), f"{digest} {key}", None)
    with flock.held(paths.lock, exclusive=False, timeout=lock_timeout):
        read_sidecar(paths.sidecar(digest))
        try:
            origin = {**_origin(source), "base": digest}
            return _store(store, Examined(source, None), target, "none", origin, Catalog(paths, lock_timeout))[0]
        except OSError as error:
            raise atomic.translate(error, f"building variant {key}") from None


def _ourselves() -> Importer:
    return Importer(Asker(os.geteuid(), os.getegid(), frozenset()), operator=True)


def _existing(
    catalog: Catalog, ref: str, if_exists: str, importer: Importer | None
) -> tuple[Entry | None, Access | None]:
    """(what the ref names, what access it is to have). Raises NotPermitted before it tells anything of another's."""
    if if_exists not in ("replace", "skip", "fail"):
        raise UsageError(f"bad value {if_exists!r} for what exists", "", "use replace, skip or fail")
    try:
        entry = catalog.find(ref)
    except Damaged:
        if importer is not None and not importer.operator:
            raise
        entry = None  # about to be replaced by a whole one
    access = importer and importer.access(ref, entry is not None, entry.access if entry else None)
    if entry is not None and if_exists == "fail":
        raise UsageError(f"{ref} exists", f"it names {entry.digest[:12]}", "say --if-exists replace, or another name")
    return entry, access


def _origin(source: Source) -> dict[str, Any]:
    return {"format": source.format, **source.origin}


def _store(
    store: Store, model: Examined, target: _Target, codec: str, origin: dict[str, Any], catalog: Catalog
) -> tuple[Sidecar, bool]:
    """The sidecar of the model's container, and whether it had to be written."""
    found = target.whole(model)
    if found is not None:
        return found, False
    _check_space(store, model)
    atomic.make_directory(os.path.dirname(target.container))
    with atomic.staged(store.paths.tmp, ".h5") as path:
        sidecar = _write(path, model, codec, origin)
        with catalog.writing(target.lock):
            found = target.whole(model)
            if found is not None:
                return found, False
            # What lies there is not whole: without its sidecar nobody takes it for a container of ours meanwhile.
            atomic.with_suppressed_missing(target.sidecar)
            atomic.publish(path, target.container)
            step("between container and sidecar")
            atomic.replace(target.sidecar, sidecar.to_bytes(), store.paths.tmp, mode=0o444)
    return sidecar, True


def _write(path: str, model: Examined, codec: str, origin: dict[str, Any]) -> Sidecar:
    """The container, complete and on the disk, under a temporary name."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        sidecar = write_container(fd, model.manifest, model.segments, codec, origin, time.time(), model.meter.add)
        changed = unlike_manifest(path, sidecar, threads())
        if changed:
            raise BadInput(f"{changed[0]} changed while it was imported", "the file was written to", "import it again")
        os.fchmod(fd, 0o444)
        os.fsync(fd)  # here, and not under the lock of the digest: it takes as long as the disk does
        return sidecar
    finally:
        os.close(fd)


def _check_space(store: Store, model: Examined) -> None:
    """Raise NoSpace when container and sidecar will not fit. An upper bound: 4 KiB a tensor covers both."""
    manifest = model.manifest
    names = sum(len(spec.name) for spec in manifest.tensors)
    need = manifest.layout.nbytes + (1 << 16) + 4096 * len(manifest.tensors) + 16 * names
    need += manifest.layout.nbytes // PIECE * 128
    disk = os.statvfs(store.root)
    free = disk.f_bavail * disk.f_frsize
    if need > free:
        raise NoSpace(
            "the model does not fit into the store",
            f"it needs {units.format_size(need)}, the disk has {units.format_size(free)} free",
            "free some space with `trims gc`, or choose another store with --store",
            need=need,
            free=free,
        )


def _entry(
    ref: str,
    source: Source,
    sidecar: Sidecar,
    labels: dict[str, str],
    existing: Entry | None,
    access: Access | None,
) -> Entry:
    """The catalog entry; `existing` itself when it says the same already."""
    entry = Entry(
        ref=ref,
        digest=sidecar.digest,
        origin_format=source.format,
        tensors=len(sidecar.manifest.tensors),
        nbytes=sidecar.span_nbytes,
        stored=sidecar.container_nbytes,
        codec=sidecar.codec,
        created=time.time(),
        origin=_origin(source),
        labels=labels,
        **(access._asdict() if access else {}),
    )
    if existing is None:
        return entry
    free = {name: getattr(entry, name) for name in ("created", "origin", "origin_format")}  # when and whence it came
    return existing if existing._replace(**free) == entry else entry
