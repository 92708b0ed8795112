from __future__ import annotations

from pathlib import Path

import pytest
from helpers import cli

from trims.disk.store import Store


@pytest.fixture
def store(runtime: object, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store in effect, with three small models; no manager runs."""
    import os

    return cli.fill(Path(os.environ["TRIMS_STORE"]), alpha=cli.small(1), beta=cli.small(3, 64), gamma=cli.small(5, 16))
