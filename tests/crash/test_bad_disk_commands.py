"""Commands whose disk is full or read-only: one line that says so, the right code, and nothing left over."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import cli, models, mounts, stores
from helpers.capabilities import needs_tmpfs

from trims.disk.store import Store
from trims.errors import NoSpace, NotPermitted

pytestmark = needs_tmpfs


def on_store(home: Path, size: str, body: Callable[[Store, Path], None]) -> None:
    """Run `body` with an empty store in effect that has a disk of its own."""

    def inside(root: Path) -> None:
        os.environ.update(TRIMS_STORE=str(root / "store"), TRIMS_SOCKET=str(home / "none.sock"))
        body(stores.fresh(root / "store"), root)

    mounts.on_tmpfs(home / "disk", size, inside)


def test_a_read_only_store(home: Path) -> None:
    source = models.write_safetensors(home / "m.safetensors", models.arrays())

    def body(store: Store, root: Path) -> None:
        cli.ok("import", source, "--name", "m")
        mounts.make_read_only(root)
        before = stores.tree(root)
        for words in (("import", source, "--name", "n"), ("rm", "--yes", "m"), ("init",)):
            assert "read-only file system" in cli.fails(2, *words)
        for words in (("ls",), ("show", "m"), ("verify", "--all"), ("gc", "--yes"), ("df",)):
            cli.ok(*words)
        assert stores.tree(root) == before

    on_store(home, "4m", body)


def test_a_full_disk_is_why_a_variant_is_not_built(home: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from trims.integrations.ort_builder import run_child

    source = home / "cnn.onnx"
    onnx.save(models.cnn(hidden=1024), source)

    def body(store: Store, root: Path) -> None:
        cli.ok("import", source, "--name", "cnn", "--no-variant")
        digest = cli.items("show", "cnn")[0]["id"]
        before = stores.tree(store.root)
        with open(root / "filler", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while file.write(bytes(4096)):
                pass
        with pytest.raises(NoSpace, match="the variant does not fit into the store"):
            run_child(store.root, digest)
        assert {path for path in stores.tree(store.root) - before if not path.startswith("locks/")} == set()
        stores.assert_sound(store)
        os.unlink(root / "filler")
        assert run_child(store.root, digest)["built"]
        stores.assert_sound(store)

    on_store(home, "24m", body)


def test_a_variant_for_a_read_only_store(home: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from trims.integrations.ort_builder import run_child

    source = home / "cnn.onnx"
    onnx.save(models.cnn(), source)

    def body(store: Store, root: Path) -> None:
        cli.ok("import", source, "--name", "cnn", "--no-variant")
        digest = cli.items("show", "cnn")[0]["id"]
        mounts.make_read_only(root)
        with pytest.raises(NotPermitted, match="read-only file system"):
            run_child(store.root, digest)

    on_store(home, "4m", body)


def test_a_source_that_is_cut_while_it_is_imported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may kill the importer for touching what is gone: as after any kill, nothing half-done stays."""
    size = 8 << 20
    source = home / "m.npy"
    program = (
        "import os, sys; from trims.disk import ingest; from trims.disk.importers import open_source;"
        "from trims.disk.store import open_store;"
        "source = open_source(sys.argv[2]); os.truncate(sys.argv[2], 5000);"
        "ingest.import_model(open_store(sys.argv[1]), source, 'm')"
    )
    np.save(source, np.frombuffer(os.urandom(size), np.uint8))
    store = stores.fresh(home / "store")
    kept = stores.put(store, "kept").entry
    done = subprocess.run([sys.executable, "-c", program, store.root, str(source)], capture_output=True, timeout=60)
    assert done.returncode != 0
    stores.assert_sound(store)
    monkeypatch.setenv("TRIMS_STORE", store.root)
    assert [item["id"] for item in cli.items("ls")] == [kept.digest]
    cli.ok("gc", "--yes")
    assert os.listdir(store.paths.tmp) == []


def on_runtime(home: Path, size: str, body: Callable[[Path], None]) -> None:
    """Run `body` with a store in effect, and a runtime directory that has a disk of its own."""
    stores.fresh(home / "store")

    def inside(root: Path) -> None:
        os.chmod(root, 0o700)
        os.environ.update(TRIMS_STORE=str(home / "store"), TRIMS_SOCKET=str(root / "sock"))
        body(root)

    mounts.on_tmpfs(home / "run", size, inside)


def test_a_manager_whose_index_does_not_fit_leaves_no_socket(home: Path) -> None:
    def body(root: Path) -> None:
        assert "No space left" in cli.fails(15, "start")
        assert "sock" not in os.listdir(root)
        assert cli.run("status").returncode == 3

    on_runtime(home, "1m", body)


def test_a_read_only_runtime_directory(home: Path) -> None:
    def body(root: Path) -> None:
        mounts.make_read_only(root)
        assert "--socket" in cli.fails(2, "start")
        assert os.listdir(root) == []

    on_runtime(home, "1m", body)
