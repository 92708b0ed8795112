"""Models for the tests of real managers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers import sources

from trims.disk.ingest import import_model
from trims.disk.store import create_store


@pytest.fixture
def put(runtime: Any) -> Callable[..., str]:
    """Put a model of about `nbytes` into the store: `put("m", 1 << 20)` gives its digest."""
    store = create_store(str(runtime.store), if_missing=True)

    def put(ref: str, nbytes: int = 1 << 16) -> str:
        seed = sum(map(ord, ref)) * 1000 + len(ref)
        tensors = {"w": sources.numbers(seed, nbytes // 4 // 16, 16), "b": sources.numbers(seed + 1, 8)}
        return import_model(store, sources.source(tensors), f"{ref}:latest" if ":" not in ref else ref).entry.digest

    return put
