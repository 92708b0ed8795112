"""Is everything as it was written? Every byte of container, sidecar and catalog entry is covered by some hash.

Sidecars and entries are sealed (disk.sealed). In a container, each piece of the span has its xxh3_128, each frame
besides one of its stored bytes, and `rest` covers all other bytes of the file, HDF5's own included. Damage within a
tensor, the graph or a file is named by that; anything else is "container". Quick checks leave the pieces out.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3
from xxhash import xxh3_128, xxh3_128_hexdigest

from trims.disk import source_care
from trims.disk.catalog import Catalog, Entry, parse_entry
from trims.disk.parts import CONTAINER, Part, parts
from trims.disk.reader import SpanFile
from trims.disk.sidecar import Sidecar, read_sidecar
from trims.disk.span import in_order
from trims.disk.store import Store
from trims.errors import Damaged, NoSuchModel, StoreTooNew, one_line
from trims.paths import unescape

CATALOG = "catalog"
SIDECAR = "sidecar"
SOURCE = "source"
_CHUNK = 1 << 20

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was written.

    model: the ref, or `id:DIGEST` where there is none, with ` variant KEY` after it when it is in a variant; for a
    source, the path of its record in the store.
    part: the name of a tensor, `graph`, `file NAME`, `container`, `sidecar`, `catalog` or `source`.
    """

    model: str
    part: str
    message: str


def verify_model(
    store: Store, entry: Entry | str, quick: bool = False, progress: Progress | None = None
) -> list[Finding]:
    """Check one model (an entry or a whole digest) and its variants. progress: called with the bytes checked since."""
    digest, model = (entry, f"id:{entry}") if isinstance(entry, str) else (entry.digest, entry.ref)
    paths = store.paths
    findings = check_files(model, paths.container(digest), paths.sidecar(digest), digest, quick, progress)
    for key in variant_keys(store, digest):
        findings += check_files(
            f"{model} variant {key}",
            paths.variant(digest, key),
            paths.variant_sidecar(digest, key),
            None,
            quick,
            progress,
        )
    return findings


def verify_store(store: Store, quick: bool = False, progress: Progress | None = None) -> list[Finding]:
    """Check every catalog entry, and every model that one names, once."""
    entries, findings = read_catalog(store)
    for entry in {entry.digest: entry for entry in reversed(entries)}.values():
        findings += verify_model(store, entry, quick, progress)
    return findings


def read_catalog(store: Store) -> tuple[list[Entry], list[Finding]]:
    """(every entry that can be read, what is wrong with the others, and with records of sources)."""
    entries: list[Entry] = []
    findings: list[Finding] = []
    for path in Catalog(store.paths).files():
        try:
            with open(path, "rb") as file:
                entries.append(parse_entry(file.read(), path))
        except FileNotFoundError:  # removed meanwhile
            continue
        except (Damaged, StoreTooNew) as error:
            ref = one_line(unescape(os.path.basename(path).removesuffix(".json")))
            findings.append(Finding(ref, CATALOG, str(error)))
    findings += [Finding(name, SOURCE, why) for name, why in source_care.damaged(store.paths)]
    return sorted(entries, key=lambda entry: entry.ref), findings


def variant_keys(store: Store, digest: str) -> list[str]:
    """The keys of a model's published variants, sorted."""
    try:
        names = os.listdir(f"{store.paths.variants}/{digest}")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def check_files(
    model: str, container: str, sidecar_path: str, digest: str | None, quick: bool, progress: Progress | None = None
) -> list[Finding]:
    """Findings in one container and its sidecar. digest: what the model's must be, None when it is free."""
    try:
        sidecar = read_sidecar(sidecar_path)
    except (Damaged, StoreTooNew, NoSuchModel) as error:
        return [Finding(model, SIDECAR, str(error))]
    if sidecar.manifest.digest != sidecar.digest or sidecar.digest != (digest or sidecar.digest):
        return [Finding(model, SIDECAR, f"{sidecar_path} describes another model")]
    return check_container(model, container, sidecar, quick, progress)


def check_container(
    model: str,
    path: str,
    sidecar: Sidecar,
    quick: bool = False,
    progress: Progress | None = None,
    direct: bool = True,
) -> list[Finding]:
    """Findings in one container, of which `sidecar` is true. direct: see SpanFile."""
    try:
        with SpanFile(path, sidecar, direct) as file:
            bad = [] if _rest(file) == sidecar.rest else [CONTAINER]
            if not quick:
                bad += _bad_pieces(file, progress)
    except (Damaged, NoSuchModel) as error:
        return [Finding(model, CONTAINER, str(error))]
    return [Finding(model, part, f"{path} is not as it was written") for part in dict.fromkeys(bad)]


def unlike_manifest(path: str, sidecar: Sidecar, threads: int) -> list[str]:
    """The names of parts whose bytes in the container do not have the digests of the manifest."""
    held = parts(sidecar.manifest)
    with SpanFile(path, sidecar, direct=False) as file:
        if sidecar.frames is not None or not sidecar.span_nbytes:
            same = in_order(file.is_whole, held, threads)
            return [part.name for part, whole in zip(held, same, strict=True) if not whole]
        with mmap.mmap(file.fd, 0, prot=mmap.PROT_READ) as memory, memoryview(memory) as view:
            digests = in_order(lambda part: _digest(view, sidecar.span_offset, part), held, threads)
            return [part.name for part, digest in zip(held, digests, strict=True) if digest != part.digest]


def _digest(view: memoryview, start: int, part: Part) -> str:
    with view[start + part.offset :] as rest, rest[: part.nbytes] as data:
        return str(blake3(data).hexdigest())


def _rest(file: SpanFile) -> str:
    """The xxh3_128 of all bytes of the file outside the span, or outside the frames."""
    begin, length = file.sidecar.data_range()
    hasher = xxh3_128()
    for at, end in ((0, begin), (begin + length, file.sidecar.container_nbytes)):
        while at < end:
            data = file.read_at(at, min(_CHUNK, end - at))
            hasher.update(data)
            at += len(data)
    return hasher.hexdigest()


def _bad_pieces(file: SpanFile, progress: Progress | None) -> list[str]:
    """The names of what is damaged in the span."""
    sidecar, bad = file.sidecar, []
    with mmap.mmap(-1, sidecar.piece_nbytes) as memory, memoryview(memory) as buffer:
        for index, digest in enumerate(sidecar.pieces):
            nbytes = sidecar.piece(index)[1]
            with buffer[:nbytes] as view:
                if not _piece_is_whole(file, index, digest, view):
                    bad += file.blame(index)
            if progress:
                progress(nbytes)
    return bad


def _piece_is_whole(file: SpanFile, index: int, digest: str, view: memoryview) -> bool:
    if file.sidecar.frames is not None:
        frame = file.sidecar.frames[index]
        # A frame can have bits that decode to nothing: its stored bytes have a hash of their own.
        if xxh3_128_hexdigest(file.read_at(frame.offset, frame.nbytes)) != frame.digest:
            return False
    try:
        return file.read_piece(index, view) == digest
    except Damaged:
        return False
