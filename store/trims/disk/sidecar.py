"""The sidecar: what a container holds and where, as one sealed JSON file beside it. No HDF5 is needed to read it.

Its presence is what makes a container visible: the container is published first, then the sidecar, then the ref.
A piece is `piece_nbytes` of the span (the last one shorter); a frame is how one piece is stored when compressed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trims.disk import sealed
from trims.errors import Damaged, NoSuchModel, StoreTooNew
from trims.linux import atomic
from trims.manifest import Manifest

FORMAT = "trims.container/1"
PIECE = 4 << 20


class Frame(NamedTuple):
    """One stored piece of a compressed container. kind: see disk.codec; digest: xxh3_128 of the stored bytes."""

    offset: int
    nbytes: int
    kind: str
    digest: str


@dataclass(frozen=True, slots=True)
class Sidecar:
    """span_offset: where in the file the region's bytes start (uncompressed only). pieces: xxh3_128 of each raw piece.

    rest: xxh3_128 of all bytes of the file outside the span, or outside the frames.
    """

    digest: str
    manifest: Manifest
    codec: str
    span_offset: int
    span_nbytes: int
    piece_nbytes: int
    pieces: tuple[str, ...]
    frames: tuple[Frame, ...] | None
    container_nbytes: int
    rest: str
    origin: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0

    def piece(self, index: int) -> tuple[int, int]:
        """(offset in the span, nbytes) of one piece."""
        start = index * self.piece_nbytes
        return start, min(self.piece_nbytes, self.span_nbytes - start)

    def data_range(self) -> tuple[int, int]:
        """(file offset, nbytes) of the span, or of the frames: what `rest` does not cover."""
        if self.frames is None:
            return self.span_offset, self.span_nbytes
        return self.span_offset, sum(frame.nbytes for frame in self.frames)

    def layout_dict(self) -> dict[str, object]:
        return {
            "codec": self.codec,
            "span_offset": self.span_offset,
            "span_nbytes": self.span_nbytes,
            "piece_nbytes": self.piece_nbytes,
            "pieces": list(self.pieces),
            "frames": None if self.frames is None else [list(frame) for frame in self.frames],
        }

    def to_bytes(self) -> bytes:
        """The file."""
        return sealed.seal(
            {
                "format": FORMAT,
                "digest": self.digest,
                "manifest": self.manifest.to_dict(),
                "layout": self.layout_dict(),
                "container": {"nbytes": self.container_nbytes, "rest": self.rest},
                "origin": self.origin,
                "created": self.created,
            }
        )


def read_sidecar(path: str) -> Sidecar:
    """The sidecar at `path`. Raises NoSuchModel when there is none, Damaged, StoreTooNew."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise NoSuchModel("the store does not hold this model", f"there is no {path}", "see `trims verify`") from None
    except OSError as error:
        raise atomic.translate(error, f"reading {path}") from None
    return parse_sidecar(data, path)


def parse_sidecar(data: bytes, path: str) -> Sidecar:
    """The sidecar in `data`; `path` is for messages."""
    fields = sealed.unseal(data, path)
    if fields.get("format") != FORMAT:
        raise StoreTooNew(
            f"{path} has format {fields.get('format')!r}", f"this trims reads {FORMAT!r}", "upgrade trims"
        )
    try:
        layout, container = fields["layout"], fields["container"]
        frames = layout["frames"]
        return Sidecar(
            digest=fields["digest"],
            manifest=Manifest.from_dict(fields["manifest"]),
            codec=layout["codec"],
            span_offset=layout["span_offset"],
            span_nbytes=layout["span_nbytes"],
            piece_nbytes=layout["piece_nbytes"],
            pieces=tuple(layout["pieces"]),
            frames=None if frames is None else tuple(Frame(*frame) for frame in frames),
            container_nbytes=container["nbytes"],
            rest=container["rest"],
            origin=fields["origin"],
            created=fields["created"],
        )
    except (KeyError, TypeError) as error:
        raise Damaged(f"{path} is damaged", f"a field is missing or of the wrong kind: {error}") from None
