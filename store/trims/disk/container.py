"""A container: an HDF5 file in which a region lies as it will lie in memory.

`/tensors/<name>` is one contiguous dataset a tensor, `/graph` and `/files/<name>` are bytes, `/trims.json` says it all
in one place. Uncompressed, their data lie back to back in region order, so that

    file offset = span_offset + region offset

holds for every one of them, and the file can be mapped or read as a region without opening HDF5. A compressed container
has its frames in `/frames`, and the tensors as datasets without data that keep their type and shape.

HDF5 does not promise where it puts things, so it is led there and checked. The file's skeleton is made in memory (HDF5
never touches the disk, so a full disk, or a kill, cannot catch it half-way): first all groups, datasets and attributes,
their data not yet allocated; then, with nothing left to allocate but data, the datasets are allocated in region order
at an alignment of 512. Its small-data aggregation keeps to that order, since an aligned address is never inside a gap.
The first is placed by an alignment that *is* its address. The data are then written around HDF5, and the skeleton last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5fd, h5g, h5p, h5s, h5t
from xxhash import xxh3_128_hexdigest

from trims.disk import span
from trims.disk.sidecar import FORMAT, PIECE, Sidecar
from trims.errors import TrimsError
from trims.linux import atomic
from trims.manifest import ALIGNMENT, STORAGE, Manifest, TensorSpec, align, canonical_json

BLOCK = 4096  # spans begin and files end at multiples of it: the sector of a 4Kn disk, and a page
_SLACK = 16384  # more than the metadata of one more dataset, which has to fit between skeleton and frames


def link_name(name: str) -> str:
    """`name` as HDF5 can hold it: `/`, `%`, control characters, a lone `.` as %XX. `paths.unescape` undoes it."""
    if name in (".", ".."):
        return name.replace(".", "%2E")
    return "".join(f"%{ord(c):02X}" if c in "/%" or ord(c) < 32 or ord(c) == 127 else c for c in name)


def write_container(
    fd: int,
    manifest: Manifest,
    segments: list[span.Segment],
    codec: str,
    origin: dict[str, Any],
    created: float,
    progress: span.Progress | None = None,
) -> Sidecar:
    """Write a whole container into the empty file `fd`; returns the sidecar to publish beside it.

    segments: one for each of the manifest's layout's `stored`, in order.
    """
    nbytes = manifest.layout.nbytes
    with _Skeleton(manifest, codec) as skeleton:
        start = skeleton.span_offset
        if codec == "none":
            pieces, frames = span.write_raw(fd, start, segments, nbytes, progress), None
        else:
            pieces, frames = span.write_frames(fd, start, segments, nbytes, progress)
        sidecar = Sidecar(
            digest=manifest.digest,
            manifest=manifest,
            codec=codec,
            span_offset=start,
            span_nbytes=nbytes,
            piece_nbytes=PIECE,
            pieces=tuple(pieces),
            frames=None if frames is None else tuple(frames),
            container_nbytes=0,
            rest="",
            origin=origin,
            created=created,
        )
        head, tail = skeleton.finish(sidecar)
    begin, length = sidecar.data_range()
    atomic.write_all(fd, head, 0)
    atomic.write_all(fd, tail, begin + length)
    return replace(sidecar, container_nbytes=begin + length + len(tail), rest=xxh3_128_hexdigest(head + tail))


class _Skeleton:
    """The HDF5 file without its data, in memory. A context manager."""

    def __init__(self, manifest: Manifest, codec: str) -> None:
        self._manifest = manifest
        self._fd = os.memfd_create("trims skeleton", os.MFD_CLOEXEC)
        try:
            self._links = self._create(codec)
            if codec == "none":
                self.span_offset = align(os.fstat(self._fd).st_size, BLOCK)
                self._allocate()
            else:
                self.span_offset = align(os.fstat(self._fd).st_size + _SLACK, BLOCK)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> _Skeleton:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def finish(self, sidecar: Sidecar) -> tuple[bytes, bytes]:
        """Add what is known only now; returns the file's bytes before and after its data, padded to whole blocks."""
        begin, length = sidecar.data_range()
        if sidecar.frames:
            # Not below BLOCK, so that this dataset alone is aligned, and not its header.
            with _file(self._fd, BLOCK, begin) as file:
                if _bytes(file, b"frames", max(length, BLOCK)) != begin:
                    raise TrimsError("a container cannot be laid out", "HDF5 put its frames elsewhere")
        text = canonical_json(
            {
                "format": FORMAT,
                "digest": sidecar.digest,
                "manifest": sidecar.manifest.to_dict(),
                "layout": sidecar.layout_dict(),
                "origin": sidecar.origin,
                "created": sidecar.created,
            }
        )
        with _file(self._fd, 1, ALIGNMENT) as file:
            dataset = h5d.create(file, b"trims.json", h5t.py_create(np.dtype(f"S{len(text)}")), h5s.create(h5s.SCALAR))
            dataset.write(h5s.ALL, h5s.ALL, np.array(text))
        end = max(align(os.fstat(self._fd).st_size, BLOCK), begin + length)
        os.ftruncate(self._fd, align(end, BLOCK))
        tail = os.pread(self._fd, align(end, BLOCK) - begin - length, begin + length)
        return os.pread(self._fd, begin, 0), tail

    def _create(self, codec: str) -> list[tuple[bytes, int]]:
        """All but the data; returns (path, offset in the span) of every dataset that has some, in order."""
        layout, links = self._manifest.layout, []
        with _file(self._fd, create=True) as file:
            root = h5py.Group(file)
            root.attrs["trims_format"] = FORMAT
            root.attrs["trims_digest"] = self._manifest.digest
            root.attrs["trims_codec"] = codec
            tensors = h5g.create(file, b"tensors")
            first: dict[tuple[str, str, tuple[int, ...]], bytes] = {}
            for spec in self._manifest.tensors:
                content, link = (spec.digest, spec.dtype, spec.shape), link_name(spec.name).encode()
                if content in first:
                    tensors.links.create_hard(link, tensors, first[content])
                    continue
                first[content] = link
                _tensor(tensors, link, spec, empty=codec != "none")
                if spec.nbytes:
                    links.append((b"tensors/" + link, layout.tensors[spec.name]))
            links += self._create_blobs(file, codec)
        return links if codec == "none" else []

    def _create_blobs(self, file: Any, codec: str) -> list[tuple[bytes, int]]:
        layout, links = self._manifest.layout, []
        blobs = [("graph", b"graph", layout.graph)] if layout.graph else []
        files = h5g.create(file, b"files")
        blobs += [(name, b"files/" + link_name(name).encode(), layout.files[name]) for name in sorted(layout.files)]
        for name, link, (offset, nbytes) in blobs:
            dataset = _create(file, link, h5t.NATIVE_UINT8, (nbytes,), empty=codec != "none")
            if codec != "none":
                dataset.attrs["trims_shape"] = np.array([nbytes], np.int64)
            _true_name(dataset, name, b"graph" if link == b"graph" else link.removeprefix(b"files/"))
            if nbytes:
                links.append((link, offset))
        del files
        return links

    def _allocate(self) -> None:
        """Give every dataset its place. Writing one element allocates the whole of a contiguous dataset."""
        for part, alignment in ((self._links[:1], self.span_offset), (self._links[1:], ALIGNMENT)):
            with _file(self._fd, 1, alignment) as file:
                for path, offset in part:
                    dataset = h5d.open(file, path)
                    space = dataset.get_space()
                    rank = space.get_simple_extent_ndims()
                    if rank:
                        space.select_hyperslab((0,) * rank, (1,) * rank)
                    dataset.write(h5s.create_simple((1,)), space, np.zeros(1, dataset.dtype))
                    if dataset.get_offset() != self.span_offset + offset:
                        raise TrimsError("a container cannot be laid out", f"HDF5 put {path!r} elsewhere")


@contextmanager
def _file(fd: int, threshold: int = 1, alignment: int = 1, create: bool = False) -> Iterator[Any]:
    """The skeleton, opened by HDF5: objects of `threshold` bytes and more go to multiples of `alignment`."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_libver_bounds(h5f.LIBVER_EARLIEST, h5f.LIBVER_V110)
    access.set_alignment(threshold, alignment)
    with os.fdopen(os.dup(fd), "r+b", buffering=0) as raw:
        access.set_fileobj_driver(h5fd.fileobj_driver, raw)
        file = h5f.create(b"trims", h5f.ACC_EXCL, fapl=access) if create else h5f.open(b"trims", h5f.ACC_RDWR, access)
        try:
            yield file
        finally:
            file.close()


def _tensor(group: Any, link: bytes, spec: TensorSpec, empty: bool) -> None:
    storage = np.dtype(STORAGE.get(spec.dtype, spec.dtype)).newbyteorder("<")
    dataset = _create(group, link, h5t.py_create(storage, logical=True), spec.shape, empty)
    if spec.dtype in STORAGE:
        dataset.attrs["trims_dtype"] = spec.dtype
    if empty:
        dataset.attrs["trims_shape"] = np.array(spec.shape, np.int64)
    _true_name(dataset, spec.name, link)


def _true_name(dataset: h5py.Dataset, name: str, link: bytes) -> None:
    """Say what an escaped link stands for. The link says so too, and alone does where HDF5 strings end at a NUL."""
    if link != name.encode() and "\0" not in name:
        dataset.attrs["trims_name"] = name


def _create(group: Any, link: bytes, kind: Any, shape: tuple[int, ...], empty: bool) -> h5py.Dataset:
    """A contiguous dataset whose data are neither allocated yet nor ever filled; `empty`: one without data."""
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)
    if not empty:
        creation.set_layout(h5d.CONTIGUOUS)
        creation.set_alloc_time(h5d.ALLOC_TIME_LATE)
        creation.set_fill_time(h5d.FILL_TIME_NEVER)
    space = h5s.create(h5s.NULL) if empty else h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
    return h5py.Dataset(h5d.create(group, link, kind, space, creation))


def _bytes(file: Any, link: bytes, nbytes: int) -> int:
    """A dataset of that many bytes, allocated; returns where."""
    dataset = _create(file, link, h5t.NATIVE_UINT8, (nbytes,), empty=False).id
    space = dataset.get_space()
    space.select_hyperslab((0,), (1,))
    dataset.write(h5s.create_simple((1,)), space, np.zeros(1, np.uint8))
    return int(dataset.get_offset())
