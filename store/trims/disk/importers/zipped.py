"""Zip archives as npz files and PyTorch checkpoints use them: a directory of members, stored or deflated.

Stored members are views of the mapped file. The directory is believed only where the archive bears it out: members lie
before it, do not overlap, have different names and are what their local headers say. Nothing is inflated beyond the
size that the directory declares. No encryption, no other compression, no archive of several disks.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from trims.disk.importers.base import MAX_TENSORS, MappedFile, bad, check_ratio, quoted

STORED, DEFLATED = 0, 8
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED, _UTF8 = 0x1, 0x800
_ZIP64_EXTRA = 1
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its `stored` bytes lie at `offset` of the file and are `nbytes` when inflated."""

    name: str
    method: int
    crc: int
    offset: int
    stored: int
    nbytes: int


def read_members(file: MappedFile) -> list[Member]:
    """All files in the archive, in directory order. Raises BadInput."""
    start, nbytes, count = _directory(file)
    members = [_locate(file, member, start) for member in _entries(file, start, nbytes, count)]
    if len({member.name for member in members}) != len(members):
        raise bad(file.path, "two members of the archive have the same name")
    end = 0
    for member in sorted(members, key=lambda m: (m.offset, m.stored)):
        if member.offset < end:
            raise bad(file.path, f"the member {quoted(member.name)} overlaps another")
        end = member.offset + member.stored
    return [member for member in members if not member.name.endswith("/")]


def read_member(file: MappedFile, member: Member, check: bool = True) -> memoryview:
    """The bytes of a member; a view when it is stored. check: whether to hold them to their CRC. Raises BadInput."""
    data = file.view(member.offset, member.stored)
    if member.method == DEFLATED:
        data = _inflate(file.path, member, data)
    if check and zlib.crc32(data) != member.crc:
        raise bad(file.path, f"the member {quoted(member.name)} does not have its checksum", "the file is damaged")
    return data


def read_start(file: MappedFile, member: Member, nbytes: int) -> bytes:
    """The first bytes of a member, at most `nbytes`, not checked."""
    data = file.view(member.offset, member.stored)
    if member.method == STORED:
        return bytes(data[:nbytes])
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[: 2 * nbytes + 64], nbytes)
    except zlib.error as error:
        raise bad(file.path, f"the member {quoted(member.name)} cannot be inflated: {error}") from None


def _inflate(path: str, member: Member, data: memoryview) -> memoryview:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        out = inflater.decompress(data, member.nbytes + 1)
    except (zlib.error, MemoryError, OverflowError) as error:
        raise bad(path, f"the member {quoted(member.name)} cannot be inflated: {error or 'it is too large'}") from None
    if len(out) != member.nbytes or not inflater.eof:
        raise bad(path, f"the member {quoted(member.name)} is not {member.nbytes} bytes long as declared")
    return memoryview(out)


def _directory(file: MappedFile) -> tuple[int, int, int]:
    """(offset, nbytes, number of entries) of the central directory."""
    tail = bytes(file.data[-(_MAX16 + _END.size) :])
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise bad(file.path, "it is no whole zip archive: its directory is missing", "it may be cut")
    _, disk, other, _, count, nbytes, start, _ = _END.unpack_from(tail, at)
    end = file.nbytes - len(tail) + at
    if _MAX16 in (disk, other, count) or _MAX32 in (nbytes, start):
        end, disk, other, count, nbytes, start = _directory64(file, end, (disk, other, count, nbytes, start))
    if disk or other:
        raise bad(file.path, "it is one part of an archive of several")
    if start + nbytes > end:
        raise bad(file.path, "the directory of the archive lies outside it", "it may be cut")
    if count > MAX_TENSORS:
        raise bad(file.path, f"the archive has over {MAX_TENSORS} members")
    return start, nbytes, count


def _directory64(file: MappedFile, end: int, old: tuple[int, ...]) -> tuple[int, ...]:
    """The end record's (own offset, disks, count, nbytes, start) of an archive in the 64-bit form."""
    if end < _END64_LOCATOR.size or bytes(file.data[end - _END64_LOCATOR.size :][:4]) != b"PK\6\7":
        return (end, *old)
    _, _, at, _ = _END64_LOCATOR.unpack(file.view(end - _END64_LOCATOR.size, _END64_LOCATOR.size))
    record = _END64.unpack(file.view(at, _END64.size))
    if record[0] != b"PK\6\6":
        raise bad(file.path, "its 64-bit directory is malformed")
    return (at, record[4], record[5], *record[7:])


def _entries(file: MappedFile, start: int, nbytes: int, count: int) -> Iterator[Member]:
    """The directory's members; `offset` is still that of the local header."""
    at, end = start, start + nbytes
    for _ in range(count):
        fields = _ENTRY.unpack(file.view(at, _ENTRY.size))
        flags, method, crc, stored, size, name_len, extra_len, comment_len = (
            fields[3], fields[4], fields[7], fields[8], fields[9], fields[10], fields[11], fields[12],
        )  # fmt: skip
        text = bytes(file.view(at + _ENTRY.size, name_len))
        extra = bytes(file.view(at + _ENTRY.size + name_len, extra_len))
        at += _ENTRY.size + name_len + extra_len + comment_len
        if fields[0] != b"PK\1\2" or at > end:
            raise bad(file.path, "the directory of the archive is malformed")
        try:
            name = text.decode("utf-8" if flags & _UTF8 else "cp437")
        except UnicodeDecodeError:
            raise bad(file.path, f"the member name {text!r} is no valid Unicode") from None
        size, stored, offset = _wide(file.path, name, extra, [size, stored, fields[16]])
        if flags & _ENCRYPTED:
            raise bad(file.path, f"the member {quoted(name)} is encrypted")
        if method not in (STORED, DEFLATED) or (method == STORED and stored != size):
            raise bad(file.path, f"the member {quoted(name)} is compressed in a way that is not supported ({method})")
        check_ratio(file.path, name, size, stored)
        yield Member(name, method, crc, offset, stored, size)


def _wide(path: str, name: str, extra: bytes, sizes: list[int]) -> list[int]:
    """`sizes` with those that did not fit into 32 bits taken from the extra field."""
    if _MAX32 not in sizes:
        return sizes
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64_EXTRA:
            words = [value[0] for value in struct.iter_unpack("<Q", extra[at + 4 : at + 4 + length // 8 * 8])]
            if len(words) < sizes.count(_MAX32):
                break
            return [words.pop(0) if size == _MAX32 else size for size in sizes]
        at += 4 + length
    return sizes


def _locate(file: MappedFile, member: Member, limit: int) -> Member:
    """`member` with the offset of its data, which its local header tells."""
    fields = _LOCAL.unpack(file.view(member.offset, _LOCAL.size))
    at = member.offset + _LOCAL.size + fields[9] + fields[10]
    if fields[0] != b"PK\3\4" or fields[3] != member.method or at + member.stored > limit:
        raise bad(file.path, f"the member {quoted(member.name)} is not where the directory says", "it may be cut")
    return Member(member.name, member.method, member.crc, at, member.stored, member.nbytes)
