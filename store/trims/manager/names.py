"""From what a client writes to what it names: ref or digest → a model of the store, as far as its asker may read it.

`quick` answers from memory, checked against the store by one stat of the ref's catalog file, and is what the loop
calls; when it knows nothing (None), `slow` reads the catalog, in a thread. An `asker` is somebody who is no operator
of a shared store: what they may not read is answered as what does not exist, in the same words; a digest is theirs to
name while some ref of it is, so it is looked up by its refs each time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from trims.disk.catalog import Catalog
from trims.disk.sidecar import read_sidecar
from trims.disk.store import Store
from trims.errors import AmbiguousModel, Damaged, NoSuchModel
from trims.permission import Access, Asker, may_change, may_read
from trims.refs import digest_prefix, parse_ref

_HEX = frozenset("0123456789abcdef")
_MOST = 20_000
"""Names remembered; with more than that, all are forgotten and looked up again."""
_TRIES = 64
"""Refs of one digest that the loop looks at before it leaves the rest to a thread."""


class Named:
    """What a ref named when its catalog file was `stamp`; a digest that was named has no `path`."""

    __slots__ = ("access", "digest", "format", "path", "ref", "stamp")

    def __init__(
        self, ref: str, digest: str, format: str, path: str, stamp: tuple[int, int, int], access: Access | None = None
    ) -> None:
        self.ref, self.digest, self.format, self.path, self.stamp = ref, digest, format, path, stamp
        self.access = access


class Names:
    """The store's names. needless: whether nothing of a digest has to be read, its form being known."""

    def __init__(self, store: Store, catalog: Catalog, needless: Callable[[str], bool]) -> None:
        self._store, self._catalog, self._needless = store, catalog, needless
        self._named: dict[str, Named] = {}
        self._refs: dict[str, dict[str, None]] = {}  # digest: refs that named it, the one looked at last at the end
        self._lock = threading.Lock()  # held while their order changes

    # ---- in the loop

    def quick(self, text: str, asker: Asker | None = None) -> Named | None:
        """What `text` names, if that is known and still so, and the asker's to read."""
        if asker is not None and text[:3] == "id:":
            return self.readable(text[3:], asker)
        named = self._named.get(text)
        if named is None:
            return None
        if named.path and _stamp(named.path) != named.stamp:
            self._named.pop(text, None)
            return None
        if asker is None:
            return named
        if not may_read(named.access, asker):
            return None
        self._note(named)
        return named

    def _note(self, named: Named) -> None:
        """Have a ref come first among those of its digest."""
        with self._lock:
            refs = self._refs.setdefault(named.digest, {})
            refs.pop(named.ref, None)
            refs[named.ref] = None

    def readable(self, digest: str, asker: Asker) -> Named | None:
        """A ref of this digest that is known, and the asker's to read."""
        with self._lock:
            refs = self._refs.get(digest, {})
            latest = list(refs)[: -_TRIES - 1 : -1]  # what was looked at last comes first: the asker's own, mostly
        for ref in latest:
            named = self.quick(ref, asker)
            if named is not None and named.digest == digest:
                return named
            known = self._named.get(ref)
            if known is None or known.digest != digest:
                refs.pop(ref, None)  # it has been removed, or names another: tries are for those that count
        return None

    def forget(self, ref: str) -> None:
        """The ref has changed: look at it again, whatever its file's stamp."""
        for text in (ref, ref.removesuffix(":latest")):
            self._named.pop(text, None)

    # ---- in a thread

    def slow(self, text: str, asker: Asker | None = None) -> Named:
        """What `text` names. Raises NoSuchModel, AmbiguousModel, UsageError, Damaged."""
        if len(self._named) > _MOST:
            self._named.clear()
            self._refs.clear()
        if asker is not None:
            return self._for_asker(text, asker)
        if is_digest(text[3:]) and text.startswith("id:"):
            named = self._named[text] = self._by_digest(text[3:])
            return named
        named = self._of_ref(self._catalog.resolve(text).ref)
        if not text.startswith("id:"):  # a prefix may become ambiguous: never remembered
            self._named[text] = named
        return named

    def _of_ref(self, ref: str) -> Named:
        """What a canonical ref names now, remembered. Raises NoSuchModel, Damaged."""
        path = self._store.paths.entry(ref)
        stamp = _stamp(path)
        entry = self._catalog.get(ref)  # after the stamp: what changes in between is then noticed
        named = self._named[ref] = Named(ref, entry.digest, entry.origin_format, path, stamp, entry.access)
        self._note(named)
        return named

    def _by_digest(self, digest: str) -> Named:
        """A model by its whole digest: it needs no ref, nor, when it is known already, its container."""
        known = [self._named[ref] for ref in self._refs.get(digest, ()) if ref in self._named]
        ref, format = (known[-1].ref, known[-1].format) if known else (f"id:{digest}", "")
        if not (format and self._needless(digest)):
            format = str(read_sidecar(self._store.paths.sidecar(digest)).origin.get("format", ""))
        return Named(ref, digest, format, "", (0, 0, 0))

    def _for_asker(self, text: str, asker: Asker) -> Named:
        prefix = digest_prefix(text)
        if prefix is None:
            named = self._seen(parse_ref(text), asker)
            if named is None:
                raise unknown(parse_ref(text))
            self._named[text] = named
            return named
        found: dict[str, Named] = {}
        for digest, ref, _ in self._catalog.rows():
            if digest.startswith(prefix) and digest not in found:
                named = self._seen(ref, asker)
                if named is not None and named.digest.startswith(prefix):
                    found[named.digest] = named
        if not found:
            raise unknown(text)
        if len(found) > 1:
            why = f"{len(found)} models start like that"
            raise AmbiguousModel(f"{text} is ambiguous", why, "give more digits", candidates=sorted(found))
        return next(iter(found.values()))

    def _seen(self, ref: str, asker: Asker) -> Named | None:
        """What a ref names, where the asker may read it."""
        try:
            named = self._of_ref(ref)
        except (NoSuchModel, Damaged):
            return None
        return named if may_read(named.access, asker) else None

    def owned(self, text: str, asker: Asker | None) -> Named:
        """What `text` names, for one who wants to change that ref. Raises NoSuchModel when they cannot know of it."""
        if asker is None:
            return self._of_ref(parse_ref(text))
        try:
            named = self._of_ref(parse_ref(text))
        except (NoSuchModel, Damaged):
            raise unknown(parse_ref(text)) from None
        if not (may_read(named.access, asker) or may_change(named.access, asker)):
            raise unknown(named.ref)
        return named


def unknown(text: str) -> NoSuchModel:
    """The refusal of what is not there, and of what the asker may not know of: one text for both."""
    return NoSuchModel(f"no model {text}", "", "see `trims ls`")


def is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= _HEX


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
