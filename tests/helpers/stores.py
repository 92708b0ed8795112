"""Stores for tests: made fresh, filled in one call, damaged one bit at a time, and held to be sound at the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from helpers import sources
from trims.disk.ingest import ImportResult, import_model
from trims.disk.reader import fill
from trims.disk.sidecar import Sidecar, read_sidecar
from trims.disk.store import Store, create_store, open_store
from trims.disk.verify import verify_store

__all__ = ["assert_sound", "flip", "fresh", "open_store", "put", "region", "sidecar_of", "tree", "verify_store"]


def fresh(root: Path | str) -> Store:
    return create_store(str(root))


def put(store: Store, ref: str = "m", seed: int = 0, **options: Any) -> ImportResult:
    """Import the sample model of that seed."""
    return import_model(store, sources.sample(seed), ref, **options)


def sidecar_of(store: Store, digest: str) -> Sidecar:
    return read_sidecar(store.paths.sidecar(digest))


def region(store: Store, digest: str, **options: Any) -> bytes:
    """The bytes of a model's region, read as the manager reads them."""
    sidecar = sidecar_of(store, digest)
    buffer = bytearray(sidecar.span_nbytes)
    fill(store.paths.container(digest), sidecar, memoryview(buffer), **options)
    return bytes(buffer)


def flip(path: str | Path, bit: int) -> None:
    """Flip one bit of a file, whatever its mode."""
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ (1 << bit % 8)]))


def assert_sound(store: Store) -> None:
    assert verify_store(store) == []


def tree(root: Path | str) -> set[str]:
    """Every file below `root`, as relative paths."""
    return {str(path.relative_to(root)) for path in Path(root).rglob("*") if path.is_file()}
