"""Paths that are no UTF-8: escaped as text, exact in base64."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from helpers import cli

from trims.disk.store import Store


def test_a_path_that_is_no_utf8_has_its_bytes_beside_it(store: Store, tmp_path: Path) -> None:
    out = os.fsencode(tmp_path) + b"/\xff.npz"
    done = cli.run(b"export", b"alpha", b"-o", out, b"--json")
    assert done.returncode == 0, done
    (item,) = json.loads(done.stdout)["items"]
    assert base64.b64decode(item["path_b64"]) == out and os.path.exists(out)
    assert os.fsencode(item["path"]) == out


def test_other_paths_are_only_text(store: Store, tmp_path: Path) -> None:
    (item,) = cli.items("export", "alpha", "-o", str(tmp_path / "é.npz"))
    assert item["path"] == str(tmp_path / "é.npz") and "path_b64" not in item
    assert "path_b64" not in cli.items("show", "alpha")[0]
