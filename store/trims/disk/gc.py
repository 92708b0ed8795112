"""Collecting what nothing names: containers without a ref, variants without their model, files a crash left behind.

`plan` only looks. `collect` takes the store lock exclusively, so no import runs, plans again, and removes what is in
both plans: never more than was agreed to, never what has got a name meanwhile. A container that a reader holds (by a
shared lock on the file) stays for the next time. A temporary file is abandoned when its lock can be had, however old
it is. Sidecars go first: what has none is no container, so a crash in between leaves only something to collect. What is
known of the files that a model was imported from goes with it, and is not counted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from trims.disk import source_care
from trims.disk.catalog import Catalog
from trims.disk.store import Store
from trims.errors import Damaged
from trims.linux import atomic, flock, step

KeepVariant = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing to remove. kind: container, variant, temporary or source; files: in the order in which they go."""

    kind: str
    name: str
    files: tuple[str, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class GcPlan:
    """What nothing names. nbytes: what removing it frees."""

    items: tuple[Garbage, ...]

    @property
    def nbytes(self) -> int:
        return sum(item.nbytes for item in self.items)


@dataclass(frozen=True, slots=True)
class GcResult:
    """removed, and kept because somebody holds it. nbytes: freed."""

    removed: tuple[Garbage, ...]
    kept: tuple[Garbage, ...]

    @property
    def nbytes(self) -> int:
        return sum(item.nbytes for item in self.removed)


def plan(store: Store, keep_variant: KeepVariant | None = None) -> GcPlan:
    """What can be removed now. keep_variant: asked with (digest, key) for each variant of a model that stays.

    Raises Damaged when an entry cannot be read: nobody knows then what it names.
    """
    try:
        named = {entry.digest for entry in Catalog(store.paths).entries()}
    except Damaged as error:
        raise Damaged("nothing can be collected", error.what, "repair or remove that ref first") from None
    try:
        return GcPlan(
            (*_containers(store, named), *_variants(store, named, keep_variant), *_temporary(store), *_sources(store))
        )
    except OSError as error:
        raise atomic.translate(error, "looking for what can be collected") from None


def collect(
    store: Store, agreed: GcPlan, lock_timeout: float = 60.0, keep_variant: KeepVariant | None = None
) -> GcResult:
    """Remove what `agreed` names and is still garbage. Raises LockTimeout while an import runs, NotPermitted."""
    wanted = {(item.kind, item.name) for item in agreed.items}
    removed: list[Garbage] = []
    kept: list[Garbage] = []
    with flock.held(store.paths.lock, exclusive=True, timeout=lock_timeout):
        for item in plan(store, keep_variant).items:
            if (item.kind, item.name) in wanted:
                try:
                    (removed if _remove(item) else kept).append(item)
                except OSError as error:
                    raise atomic.translate(error, f"removing {item.name}") from None
        _remove_empty(store)
        source_care.forget(store.paths)
    return GcResult(tuple(removed), tuple(kept))


def _containers(store: Store, named: set[str]) -> list[Garbage]:
    found = []
    for shard in _listdir(store.paths.containers):
        directory = f"{store.paths.containers}/{shard}"
        found += [
            Garbage("container", digest, files, _size(files))
            for digest, files in _pairs(directory).items()
            if digest not in named
        ]
    return found


def _variants(store: Store, named: set[str], keep: KeepVariant | None) -> list[Garbage]:
    """Variants of models that go, those that `keep` gives up, and those whose publication was cut short."""
    found = []
    for digest in _listdir(store.paths.variants):
        for key, files in _pairs(f"{store.paths.variants}/{digest}").items():
            complete = len(files) == 2
            if digest not in named or not complete or (keep is not None and not keep(digest, key)):
                found.append(Garbage("variant", f"{digest}/{key}", files, _size(files)))
        found += _refusals(store, digest) if digest not in named else []
    return found


def _refusals(store: Store, digest: str) -> list[Garbage]:
    """Notes that a variant of a model cannot be built."""
    directory = store.paths.variants_of(digest)
    paths = [f"{directory}/{name}" for name in _listdir(directory) if name.endswith(".refused")]
    return [Garbage("variant", f"{digest}/{os.path.basename(path)}", (path,), _size((path,))) for path in paths]


def _temporary(store: Store) -> list[Garbage]:
    found = []
    for name in _listdir(store.paths.tmp):
        path = f"{store.paths.tmp}/{name}"
        if _is_free(path):
            found.append(Garbage("temporary", name, (path,), _size((path,))))
    return found


def sweep(store: Store, lock_timeout: float = 0.0) -> int:
    """Remove what importers that were killed left in `tmp/`; bytes freed. Raises LockTimeout while an import runs."""
    with flock.held(store.paths.lock, exclusive=True, timeout=lock_timeout):
        found = _temporary(store)
        try:
            return sum(item.nbytes for item in found if _remove(item))
        except OSError as error:
            raise atomic.translate(error, "removing what is left of imports") from None


def _sources(store: Store) -> list[Garbage]:
    """Records of files whose models have left already, or that are damaged; the others go with their model."""
    return [
        Garbage("source", os.path.basename(path).removesuffix(".json"), (path,), _size((path,)))
        for path in source_care.abandoned(store.paths)
    ]


def _pairs(directory: str) -> dict[str, tuple[str, ...]]:
    """The containers of a directory by name: sidecar, container, or the one of them that is there."""
    found: dict[str, tuple[str, ...]] = {}
    names = set(_listdir(directory))
    for name in sorted(names):
        stem, dot, suffix = name.rpartition(".")
        if dot and suffix in ("h5", "json"):
            both = (f"{stem}.json", f"{stem}.h5")
            found[stem] = tuple(f"{directory}/{file}" for file in both if file in names)
    return found


def _remove(item: Garbage) -> bool:
    """Remove one thing; False when somebody holds it."""
    if not _is_free(item.files[-1]):
        return False
    for path in item.files:
        step("before unlink")
        if os.path.isdir(path):  # the files of an import that others did for its user
            shutil.rmtree(path)
        else:
            atomic.with_suppressed_missing(path)
    step("before directory fsync")
    atomic.fsync_path(os.path.dirname(item.files[-1]))
    return True


def _is_free(path: str) -> bool:
    """Whether nobody holds a lock on the file: no reader that maps it, no writer that fills it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return flock.try_lock(fd, exclusive=True)
    finally:
        os.close(fd)


def _remove_empty(store: Store) -> None:
    for digest in _listdir(store.paths.variants):
        try:
            os.rmdir(f"{store.paths.variants}/{digest}")
        except OSError:
            continue  # not empty: it has variants


def _size(files: tuple[str, ...]) -> int:
    total = 0
    for path in files:
        try:
            total += os.stat(path).st_blocks * 512
            if os.path.isdir(path):
                total += _size(tuple(f"{path}/{name}" for name in os.listdir(path)))
        except FileNotFoundError:
            continue
    return total


def _listdir(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
