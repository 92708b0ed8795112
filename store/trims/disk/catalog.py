"""The catalog: which model a ref names. One small sealed file a ref is the truth; the snapshot only speeds listing up.

An entry is published by one durable rename and removed by one unlink, so a reader needs no lock and sees the old or
the new one. Writers that look before they write hold the ref's lock (`writing`). Every writer also holds the store
lock shared, so that the collector, which holds it exclusively, never takes a temporary file from under one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from trims.disk import sealed, snapshot
from trims.errors import AmbiguousModel, Damaged, LockTimeout, NoSuchModel, StoreTooNew
from trims.linux import atomic, flock, step
from trims.paths import StorePaths, escape, shard
from trims.permission import Access
from trims.refs import digest_prefix, near, parse_ref

FORMAT = "trims.ref/1"
_GLOB = frozenset("*?[")
_POLL = 0.003  # filelock's default of 50 ms starves contenders (measured: 2 s worst against 0.04)


class Entry(NamedTuple):
    """What a ref names. nbytes: of its region; stored: of its container file; origin: what it was imported from.

    owner, group, mode: who may read it; None in a store of one user.
    """

    ref: str
    digest: str
    origin_format: str
    tensors: int
    nbytes: int
    stored: int
    codec: str
    created: float
    origin: dict[str, Any] = {}  # one for all: it is read only
    labels: dict[str, str] = {}
    owner: int | None = None
    group: int | None = None
    mode: int | None = None

    @property
    def access(self) -> Access | None:
        if self.owner is None or self.group is None or self.mode is None:
            return None
        return Access(self.owner, self.group, self.mode)


class Catalog:
    """The refs of one store."""

    def __init__(self, paths: StorePaths, lock_timeout: float = 60.0) -> None:
        self._paths = paths
        self._timeout = lock_timeout

    def get(self, ref: str) -> Entry:
        """The entry of a canonical ref. Raises NoSuchModel, Damaged, StoreTooNew."""
        entry = self.find(ref)
        if entry is None:
            raise NoSuchModel(f"no model {ref}", "", "see `trims ls`")
        return entry

    def find(self, ref: str) -> Entry | None:
        """The entry of a canonical ref, or None. Raises Damaged, StoreTooNew."""
        path = self._paths.entry(ref)
        try:
            return parse_entry(_read(path), path)
        except FileNotFoundError:
            return None

    def put(self, entry: Entry) -> None:
        """Make `entry.ref` name this, durably, whatever it named before. Raises NotPermitted, NoSpace."""
        data = sealed.seal({"format": FORMAT, **fields_of(entry)})
        path = self._paths.entry(entry.ref)
        with flock.held(self._paths.lock, exclusive=False, timeout=self._timeout):
            try:
                atomic.make_directory(os.path.dirname(path))
                atomic.replace(path, data, self._paths.tmp)
            except OSError as error:
                raise atomic.translate(error, f"writing the catalog entry of {entry.ref}") from None

    def remove(self, ref: str) -> None:
        """Forget a canonical ref, durably. The model's bytes stay until `gc`. Raises NoSuchModel, NotPermitted."""
        path = self._paths.entry(ref)
        with flock.held(self._paths.lock, exclusive=False, timeout=self._timeout):
            try:
                step("before unlink of a ref")
                os.unlink(path)
                step("before directory fsync")
                atomic.fsync_path(os.path.dirname(path))
            except FileNotFoundError:
                raise NoSuchModel(f"no model {ref}", "", "see `trims ls`") from None
            except OSError as error:
                raise atomic.translate(error, f"removing {ref}") from None

    @contextmanager
    def writing(self, ref: str) -> Iterator[None]:
        """Hold the writer lock of a canonical ref. Raises LockTimeout, NotPermitted."""
        from filelock import FileLock, Timeout  # 50 ms to import: for writers only

        path = self._paths.ref_lock(ref)
        try:
            atomic.make_directory(os.path.dirname(path))
            lock = FileLock(path, timeout=self._timeout, poll_interval=_POLL, mode=0o666)
            lock.acquire()
        except Timeout:
            raise LockTimeout(
                f"{ref} is being written", f"another trims held its lock for {self._timeout:g} s", "try again"
            ) from None
        except OSError as error:
            raise atomic.translate(error, f"locking {ref}") from None
        try:
            yield
        finally:
            lock.release()

    def refs(self) -> list[str]:
        """All canonical refs, sorted."""
        return snapshot.refs(self._paths)

    def rows(self) -> list[snapshot.Row]:
        """(digest, ref, JSON of `trims ls` without its last brace), sorted by ref."""
        return snapshot.listing(self._paths)

    def entries(self) -> list[Entry]:
        """Every entry, read from the catalog itself. Raises Damaged for the first one that cannot be read."""
        found = []
        for path in self.files():
            try:
                found.append(parse_entry(_read(path), path))
            except FileNotFoundError:  # removed while we read
                continue
        return found

    def files(self) -> list[str]:
        """The path of every entry file, sorted."""
        found = []
        for directory in _listdir(self._paths.catalog):
            found += [
                f"{self._paths.catalog}/{directory}/{name}"
                for name in _listdir(f"{self._paths.catalog}/{directory}")
                if name.endswith(".json")
            ]
        return sorted(found)

    def resolve(self, text: str) -> Entry:
        """The entry that `name[:tag]` or `id:PREFIX` names. Raises NoSuchModel, AmbiguousModel, UsageError, Damaged."""
        prefix = digest_prefix(text)
        if prefix is None:
            return self._named(parse_ref(text))
        found = [(digest, ref) for digest, ref, _ in self.rows() if digest.startswith(prefix)]
        digests = sorted({digest for digest, _ in found})
        if not digests:
            raise NoSuchModel(f"no model {text}", "no digest starts like that", "see `trims ls`")
        if len(digests) > 1:
            raise AmbiguousModel(
                f"{text} is ambiguous", f"{len(digests)} models start like that", "give more digits", candidates=digests
            )
        return self.get(found[0][1])

    def _named(self, ref: str) -> Entry:
        entry = self.find(ref)
        if entry is None:
            name = ref.partition(":")[0] + ":"
            known = [other for _, other, _ in snapshot.load(self._paths) if other != ref]
            tags = [other for other in known if other.startswith(name)]
            raise NoSuchModel(
                f"no model {ref}" + ("" if tags else near(ref, known)),
                f"there is {', '.join(tags[:3])}" if tags else "",
                "see `trims ls`",
                candidates=tags,
            )
        return entry

    def match(self, texts: Iterable[str]) -> list[Entry]:
        """The entries that names, digests and globs select, each once. A glob that selects none raises NoSuchModel.

        A glob without a tag matches every tag of the names it matches.
        """
        found: dict[str, Entry] = {}
        for text in texts:
            if not _GLOB & set(text):
                entry = self.resolve(text)
                found[entry.ref] = entry
                continue
            pattern = text if ":" in text else f"{text}:*"
            refs = [ref for ref in self.refs() if fnmatchcase(ref, pattern)]
            if not refs:
                raise NoSuchModel(f"no model matches {text!r}", "", "see `trims ls`")
            found.update((ref, self.get(ref)) for ref in refs)
        return list(found.values())


def fields_of(entry: Entry) -> dict[str, Any]:
    """An entry as JSON values; what it does not have is left out."""
    return {name: value for name, value in entry._asdict().items() if value is not None}


def parse_entry(data: bytes, path: str) -> Entry:
    """The entry in `data`; `path` is for messages. Raises Damaged, StoreTooNew."""
    fields = sealed.unseal(data, path)
    if fields.pop("format", None) != FORMAT:
        raise StoreTooNew(f"{path} was made by a newer trims", f"this trims reads {FORMAT!r}", "upgrade trims")
    del fields["checksum"]
    try:
        entry = Entry(**fields)
    except TypeError as error:
        raise Damaged(f"{path} is damaged", str(error), "import the model again") from None
    if path and not path.endswith(f"/{shard(entry.ref)}/{escape(entry.ref)}.json"):
        raise Damaged(f"{path} is damaged", f"it speaks of {entry.ref}", "import the model again")
    return entry


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise atomic.translate(error, f"reading {path}") from None


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise atomic.translate(error, f"listing {path}") from None
