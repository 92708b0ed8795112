"""The disposable listing: all refs in one file, so that listing 100,000 of them opens one file and not 100,000.

Line 1 is the magic, the time the scan began, and the mtime of each of the 256 catalog directories; every further line
is `digest TAB ref TAB json`, sorted by ref, where json is the object `trims ls --json` prints, without its last brace.
Every put and every removal of an entry changes the mtime of its directory, so the file is current iff all 256 match.
The clock that stamps directories is coarse: a directory stamped less than SLACK before its scan may have changed
again within the same tick, so it counts as changed. Whoever finds the file stale rebuilds it, reading again only the
directories that changed, and publishes it if the store can be written; nobody waits for that and nothing relies on it.

`current` and `load` are on the path of the fastest commands: no json, re, dataclasses or tempfile is imported for them.
"""

from __future__ import annotations

import os

from trims.paths import StorePaths, shard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAGIC = "trims.snapshot/1"
SLACK = 50_000_000  # ns: five ticks of the slowest kernel clock that stamps directories (HZ=100)
_DIGEST = 64  # characters
_BLOCK = 1 << 18  # bytes, so that they stay in a cache
_SHARDS = tuple(f"{n:02x}" for n in range(256))

Row = tuple[str, str, str]


def current(paths: StorePaths) -> bool:
    """Whether the snapshot lists exactly what the catalog holds now."""
    try:
        with open(paths.snapshot, encoding="ascii") as file:
            header = _parse_header(file.readline())
    except (OSError, ValueError):
        return False
    return header is not None and not _changed(header, _mtimes(paths))


def load(paths: StorePaths) -> list[Row]:
    """(digest, ref, json prefix) of every line, sorted by ref; [] when there is no snapshot or it is damaged."""
    return _read(paths)[1]


def refs(paths: StorePaths) -> list[str]:
    """All refs as the catalog has them now, sorted: `listing` without taking every line apart."""
    if current(paths):
        try:
            with open(paths.snapshot, "rb") as file:
                return [line.split("\t", 2)[1] for line in file.read().decode("ascii").split("\n")[1:-1]]
        except (OSError, ValueError, IndexError):
            pass
    return [row[1] for row in rebuild(paths)]


def listing(paths: StorePaths) -> list[Row]:
    """The rows as the catalog has them now: the snapshot when it is current, a rebuilt one otherwise."""
    header, rows = _read(paths)
    return rows if header and not _changed(header, _mtimes(paths)) else rebuild(paths)


def state(paths: StorePaths) -> tuple[int, ...] | None:
    """What the catalog's directories look like; None while they may change again without looking otherwise."""
    import time

    limit = time.time_ns() - SLACK
    mtimes = _mtimes(paths)
    return None if max(mtimes) > limit else tuple(mtimes)


def spliced(paths: StorePaths, tails: dict[str, str], usual: str) -> list[bytes]:
    """The items of `listing`, each ended by its digest's tail or the usual one: blocks of one item a line, with commas.

    A line is cut once and no row is made of it, block by block: what one block frees, the next uses.
    """
    end, ends = usual.encode(), {digest.encode(): tail.encode() for digest, tail in tails.items()}
    blocks = []
    try:
        with open(paths.snapshot, "rb") as file:
            header = _parse_header(file.readline().decode("ascii"))
            if header and not _changed(header, _mtimes(paths)):
                while lines := file.readlines(_BLOCK):
                    found = [
                        line[line.index(b"\t", _DIGEST + 1) + 1 : -1] + ends.get(line[:_DIGEST], end) for line in lines
                    ]
                    blocks.append(b",\n".join(found))
                    if not (blocks[-1].isascii() and lines[-1].endswith(b"\n")):
                        raise ValueError
                return blocks
    except (OSError, ValueError):  # ValueError: not ASCII, or a line that is cut or has too few cells
        pass
    rows = listing(paths)
    return [b",\n".join([item.encode() + ends.get(digest.encode(), end) for digest, _, item in rows])] if rows else []


def rebuild(paths: StorePaths) -> list[Row]:
    """Bring the snapshot and `names` up to the catalog and return the rows. A store that cannot be written is no error.

    Entries that cannot be read are left out: `verify` is what reports them.
    """
    import time

    scanned = time.time_ns()
    header, rows = _read(paths)
    mtimes = _mtimes(paths)
    changed = _changed(header, mtimes) if header else frozenset(_SHARDS)
    rows = [row for row in rows if shard(row[1]) not in changed]
    for name in changed:
        rows += _scan(paths, name)
    rows.sort(key=lambda row: row[1])
    _write(paths, scanned, mtimes, rows)
    return rows


def _mtimes(paths: StorePaths) -> list[int]:
    root, found = paths.catalog, dict.fromkeys(_SHARDS, 0)
    try:
        there = os.listdir(root)  # most of 256 are missing in a small store, and asking for each would cost it more
    except OSError:
        there = []
    for name in there:
        if name in found:
            try:
                found[name] = os.stat(f"{root}/{name}").st_mtime_ns
            except OSError:
                pass
    return list(found.values())


def _changed(header: list[int], mtimes: list[int]) -> frozenset[str]:
    """The directories that may differ from what the snapshot says. header: scan time, then the 256 mtimes."""
    limit = header[0] - SLACK
    return frozenset(
        name for name, was, now in zip(_SHARDS, header[1:], mtimes, strict=True) if was != now or now > limit
    )


def _parse_header(line: str) -> list[int] | None:
    words = line.split()
    if len(words) != 2 + len(_SHARDS) or words[0] != MAGIC:
        return None
    return [int(word) for word in words[1:]]


def _read(paths: StorePaths) -> tuple[list[int] | None, list[Row]]:
    try:
        with open(paths.snapshot, "rb") as file:
            lines = file.read().decode("ascii").split("\n")
        header = _parse_header(lines[0])
        rows = [(digest, ref, item) for digest, ref, item in [line.split("\t", 2) for line in lines[1:-1]]]
    except (OSError, ValueError):  # ValueError: not ASCII, or a line of other than three cells
        return None, []
    return (header, rows) if header else (None, [])


def _scan(paths: StorePaths, name: str) -> list[Row]:
    """The rows of one catalog directory, from its files."""
    from trims.disk import sealed
    from trims.errors import Damaged

    try:
        files = os.listdir(f"{paths.catalog}/{name}")
    except OSError:
        return []
    rows = []
    for file_name in files:
        try:
            with open(f"{paths.catalog}/{name}/{file_name}", "rb") as file:
                fields = sealed.unseal(file.read(), file_name)
            rows.append((fields["digest"], fields["ref"], render(fields)))
        except (OSError, Damaged, KeyError):
            continue
    return rows


def render(fields: dict[str, Any]) -> str:
    """The JSON object of `trims ls` for one catalog entry, without its last brace: the caller adds what is live."""
    import json
    import time

    item = {
        "name": fields["ref"],
        "id": fields["digest"],
        "format": fields["origin_format"],
        "tensors": fields["tensors"],
        "nbytes": fields["nbytes"],
        "stored": fields["stored"],
        "codec": fields["codec"],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(fields["created"])),
        "labels": fields["labels"],
    }
    if "owner" in fields:  # in a store that users share
        item |= {name: fields[name] for name in ("owner", "group", "mode")}
    return json.dumps(item, separators=(",", ":"))[:-1]


def _write(paths: StorePaths, scanned: int, mtimes: list[int], rows: list[Row]) -> None:
    from trims.errors import TrimsError
    from trims.linux import atomic

    header = f"{MAGIC} {scanned} {' '.join(map(str, mtimes))}"
    lines = "\n".join([header, *("\t".join(row) for row in rows), ""])
    names = "".join(f"{row[1]}\n" for row in rows)
    try:
        atomic.replace(paths.names, names.encode(), paths.tmp, durable=False)
        atomic.replace(paths.snapshot, lines.encode(), paths.tmp, durable=False)
    except (OSError, TrimsError):
        pass  # a read-only or full store: the rows are right all the same
