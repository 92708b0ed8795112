"""Memory that a model's users see: one read-only map of a descriptor, and NumPy views that keep it alive.

There is no "unmap". A view's base is the array over the map, that array holds the map, and the map holds the lease and
the descriptor; so they go in that order when the last view, session or tensor goes, and nothing can be unmapped under
a reader. (The naive form, `np.ndarray(buffer=mmap)`, does not hold its buffer: closing under a live view is a
segmentation fault.)

What a region contains is parsed once a process for each model and variant: the cache is bounded, its entries immutable.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from trims.errors import Damaged, UsageError
from trims.linux import descriptors
from trims.linux.atomic import translate

if TYPE_CHECKING:
    from trims.manifest import Manifest

_CACHED_CONTENTS = 64

View = tuple[tuple[int, ...], "np.dtype[Any]", int]
_dtypes: dict[str, np.dtype[Any]] = {}
_contents: OrderedDict[tuple[str, str, int], Contents] = OrderedDict()


def dtype_of(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a manifest's dtype name; ml_dtypes is imported only for those NumPy alone does not know."""
    known = _dtypes.get(name)
    if known is None:
        try:
            known = np.dtype(name)
        except TypeError:
            import ml_dtypes

            known = np.dtype(getattr(ml_dtypes, name))
        _dtypes[name] = known
    return known


class _Columns(msgspec.Struct):
    """What a client needs of a region table. Other columns (the digests) are skipped, not parsed."""

    names: list[str]
    dtypes: list[str]
    shapes: list[tuple[int, ...]]
    offsets: list[int]
    graph_at: tuple[int, int] | None
    files_at: dict[str, tuple[int, int]]


_decode_columns = msgspec.json.Decoder(_Columns).decode


class Contents:
    """What one region holds.

    views: a tensor's (shape, dtype, offset) by its name, in region order. graph, files: (offset, nbytes).
    """

    __slots__ = ("_dtypes", "_manifest", "_names", "_offsets", "_shapes", "_views", "files", "graph")

    def __init__(self, columns: _Columns, manifest: Callable[[], Manifest]) -> None:
        self._names, self._shapes, self._offsets = columns.names, columns.shapes, columns.offsets
        self._dtypes = list(map({name: dtype_of(name) for name in set(columns.dtypes)}.__getitem__, columns.dtypes))
        if not len(self._names) == len(self._shapes) == len(self._offsets) == len(self._dtypes):
            raise Damaged("a region is damaged", "the columns of its table differ in length", "restart the manager")
        self._views: dict[str, View] | None = None
        self.graph = columns.graph_at
        self.files = columns.files_at
        self._manifest = manifest

    @property
    def views(self) -> dict[str, View]:
        """Made on demand: who takes all tensors at once does not look them up."""
        if self._views is None:
            self._views = dict(
                zip(self._names, zip(self._shapes, self._dtypes, self._offsets, strict=True), strict=True)
            )
        return self._views

    def over(self, base: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """A view of every tensor in the bytes `base`."""
        # NumPy takes the array behind a memoryview as the base of the view, and reads its bounds faster from there.
        array: Callable[..., np.ndarray[Any, Any]] = np.ndarray
        views = map(array, self._shapes, self._dtypes, repeat(base.data), self._offsets)
        return dict(zip(self._names, views, strict=True))

    @property
    def manifest(self) -> Manifest:
        """What the model is. Made on demand: most clients never ask."""
        made = self._manifest()
        self._manifest = lambda: made
        return made

    @classmethod
    def of_table(cls, data: bytes) -> Contents:
        """The contents that a region table tells. It comes from a sealed region, so it is trusted."""
        return cls(_decode_columns(data), lambda: _manifest(data))

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> Contents:
        """The contents of a span whose region table is not at hand: a container's."""
        layout, tensors = manifest.layout, manifest.tensors
        columns = _Columns(
            [t.name for t in tensors],
            [t.dtype for t in tensors],
            [t.shape for t in tensors],
            [layout.tensors[t.name] for t in tensors],
            layout.graph,
            layout.files,
        )
        return cls(columns, lambda: manifest)


def contents(digest: str, variant: str, span_nbytes: int, make: Callable[[], Contents]) -> Contents:
    """The contents of that variant of that model, parsed once. A variant built anew may have another span."""
    key = (digest, variant, span_nbytes)
    known = _contents.get(key)
    if known is None:
        known = _contents[key] = make()
        while len(_contents) > _CACHED_CONTENTS:
            _contents.popitem(last=False)
    return known


class Hold:
    """A descriptor and whatever keeps its bytes where they are (a lease, a lock). Both are given up with the object.

    `release` must neither raise nor block: it runs wherever the last reference happened to go.
    """

    __slots__ = ("_close", "_identity", "_is_still", "_release", "fd")

    def __init__(self, fd: int, release: Callable[[], None] | None = None) -> None:
        self.fd = fd
        self._release = release
        self._identity = descriptors.identity(fd)
        self._close = os.close  # bound here: at interpreter exit the module's own names may be gone
        self._is_still = descriptors.is_still

    @property
    def is_lost(self) -> bool:
        """Whether somebody else closed the descriptor: its number may be another file's now."""
        return not self._is_still(self.fd, self._identity)

    def __del__(self) -> None:
        if self._is_still(self.fd, self._identity):
            self._close(self.fd)
        if self._release is not None:
            self._release()


class _Map(mmap.mmap):
    """A map that holds its `Hold`, so that whoever holds the map holds the lease."""

    hold: Hold
    keep: object

    @property
    def span(self) -> tuple[int, int]:
        """(address, bytes)."""
        return np.frombuffer(self, np.uint8).__array_interface__["data"][0], len(self)


class Watch:
    """What is left of a region, without keeping any of it; called, whether anything is.

    nbytes: the region's. own: whether it is memory of this process alone.
    """

    __slots__ = ("_copies", "_private", "_shared", "nbytes", "own")

    def __init__(self, shared: weakref.ref[Any], nbytes: int, own: bool) -> None:
        self._shared = shared
        self._private: dict[int, weakref.ref[Any]] = {}
        self._copies: dict[int, tuple[weakref.ref[Any], int]] = {}
        self.nbytes, self.own = nbytes, own

    def __call__(self) -> bool:
        return self._shared() is not None or any(ref() is not None for ref in list(self._private.values()))

    def add(self, mapped: weakref.ref[Any]) -> None:
        """Watch one more copy-on-write map of the region, as long as there is one."""
        private = self._private  # by the reference's id, as below; each step is atomic, so threads need no lock
        ref = weakref.ref(mapped(), lambda ref: private.pop(id(ref), None))
        private[id(ref)] = ref

    def count(self, owner: object, nbytes: int) -> None:
        """Know of `nbytes` copied out of the region, for as long as `owner` lives."""
        copies = self._copies  # by the reference's id: tensors neither hash nor compare as things
        made = weakref.ref(owner, lambda ref: copies.pop(id(ref), None))
        copies[id(made)] = (made, nbytes)

    @property
    def copied(self) -> int:
        """Bytes copied out of the region that still live."""
        return sum(nbytes for _, nbytes in list(self._copies.values()))

    def private(self) -> list[_Map]:
        """The copy-on-write maps that are still used."""
        return [mapped for ref in list(self._private.values()) if isinstance(mapped := ref(), _Map)]


class Region:
    """One mapped span: `nbytes` at `offset` of the descriptor of `hold`. own: its memory is this process's alone.

    base: the bytes as one read-only uint8 array; every view's base.
    """

    __slots__ = ("_hold", "_offset", "_watch", "base", "contents")

    on_gpu: Literal[False] = False

    def __init__(
        self, hold: Hold, offset: int, nbytes: int, contents: Contents | None = None, own: bool = False
    ) -> None:
        self._hold = hold
        self._offset = offset
        self.base, mapped = _map(hold, offset, nbytes, private=False)
        self._watch = Watch(mapped, nbytes, own)
        self.contents: Contents = contents if contents is not None else _EMPTY

    def watch(self) -> Watch:
        """What says whether anything still uses the region, and does not itself keep it."""
        return self._watch

    def read_table(self, digest: str, variant: str, at: tuple[int, int]) -> None:
        """Learn the contents from the region table at (offset, nbytes) of the region itself."""
        offset, nbytes = at
        if offset + nbytes > len(self.base):
            raise Damaged("a region is damaged", "its table lies outside of it", "restart the manager")
        self.contents = contents(
            digest, variant, offset, lambda: Contents.of_table(self.base[offset : offset + nbytes].tobytes())
        )

    def view(self, name: str) -> np.ndarray[Any, Any]:
        """A read-only view of one tensor, without a copy. KeyError when there is none of that name."""
        shape, dtype, offset = self.contents.views[name]
        return np.ndarray(shape, dtype, self.base, offset)

    def views(self, base: np.ndarray[Any, Any] | None = None) -> dict[str, np.ndarray[Any, Any]]:
        """A view of every tensor by name, in region order; of `base`, the region's own or its private one."""
        return self.contents.over(self.base if base is None else base)

    def blob(self, at: tuple[int, int]) -> bytes:
        """A copy of the bytes at (offset, nbytes): the graph, or a file."""
        offset, nbytes = at
        return self.base[offset : offset + nbytes].tobytes()

    def private_base(self, keep: object = None, offset: int = 0, nbytes: int = -1) -> np.ndarray[Any, Any]:
        """The same bytes once more, copy-on-write: a write stays in this process and touches one page.

        Pages that are only read are shared as with `base`. For frameworks that cannot be told that memory is read-only.
        keep: what is to live as long as the map. offset, nbytes: the part that is wanted, if not all.
        """
        nbytes = len(self.base) if nbytes < 0 else nbytes
        base, mapped = _map(self._hold, self._offset + offset, nbytes, private=True)
        found = mapped()
        if isinstance(found, _Map):
            found.keep = keep
        self._watch.add(mapped)
        return base


def _map(hold: Hold, offset: int, nbytes: int, private: bool) -> tuple[np.ndarray[Any, Any], weakref.ref[Any]]:
    """(the bytes as an array, a weak reference to the map that it holds)."""
    if not nbytes:
        empty = np.empty(0, np.uint8)
        empty.flags.writeable = private
        return empty, weakref.ref(empty)
    if hold.is_lost:
        raise UsageError("a model cannot be mapped once more", "the program closed its descriptor", "open it again")
    skip = offset % mmap.ALLOCATIONGRANULARITY  # a container's span is aligned to 4096, some machines' pages are larger
    flags, prot = (mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) if private else (mmap.MAP_SHARED, mmap.PROT_READ)
    try:
        mapped = _Map(hold.fd, skip + nbytes, flags, prot, offset=offset - skip)
    except OSError as error:
        raise translate(error, "mapping a model") from None
    except ValueError as error:  # the file is shorter than what it should hold
        raise Damaged("a model cannot be mapped", str(error), "see `trims verify`") from None
    mapped.hold = hold
    return np.frombuffer(mapped, np.uint8, nbytes, skip), weakref.ref(mapped)


def _manifest(table: bytes) -> Manifest:
    from trims.manifest import parse_table  # its classes cost 2 ms, and most clients never ask

    return parse_table(table).manifest


def _nothing() -> Manifest:
    from trims.manifest import Manifest

    return Manifest(())


_EMPTY = Contents(_Columns([], [], [], [], None, {}), _nothing)
