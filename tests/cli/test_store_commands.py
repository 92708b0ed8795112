"""init, show, verify, rm, gc, df, import: what they print, what they refuse, what they leave."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import cli
from helpers.models import ModelFiles

from trims.disk.catalog import Catalog
from trims.disk.store import Store


def test_init(home: Path) -> None:
    root = home / "new" / "store"
    (item,) = cli.items("init", str(root))
    assert item["store"] == str(root) and item["made"] is True and item["codec"] == "none" and item["filesystem"]
    assert (root / "store.json").exists()
    assert "already" in cli.fails(2, "init", str(root))
    assert cli.items("init", str(root), "--if-missing")[0]["made"] is False
    (home / "other").mkdir()
    (home / "other" / "thing").touch()
    assert "'thing'" in cli.fails(2, "init", str(home / "other"))
    assert "zstd" in cli.fails(2, "init", str(home / "x"), "--codec", "nope")


def test_init_shared(home: Path) -> None:
    cli.ok("init", str(home / "ours"), "--shared", str(os.getgid()))
    assert stat.S_IMODE((home / "ours").stat().st_mode) == 0o2775
    assert "no group" in cli.fails(2, "init", str(home / "x"), "--shared", "nobody-has-this")
    assert not (home / "x").exists()


def test_show(store: Store) -> None:
    (item,) = cli.items("show", "alpha")
    assert item["name"] == "alpha:latest" and item["resident"] is None and item["variants"] == []
    assert cli.ok("show", "alpha", "--path").strip() == item["path"] == store.paths.container(item["id"])
    tensors = cli.items("show", "alpha", "--tensors")
    assert {t["name"]: t["shape"] for t in tensors} == {"layer.weight": [8, 4], "layer.bias": [8]}
    assert "8x4" in cli.ok("show", "alpha", "--tensors")
    assert cli.ok("show", "alpha").startswith("name:")
    assert cli.items("show", "alpha", "--files") == []
    cli.fails(10, "show", "nope")
    cli.fails(2, "show", "alpha", "--path", "--tensors")


def test_verify_names_the_damage(store: Store) -> None:
    assert {item["result"] for item in cli.items("verify")} == {"ok"}
    path = Path(cli.ok("show", "beta", "--path").strip())
    at = next(t["offset"] for t in cli.items("show", "beta", "--tensors") if t["name"] == "layer.weight")
    data = bytearray(path.read_bytes())
    sidecar = json.loads(path.with_suffix(".json").read_text())
    data[sidecar["layout"]["span_offset"] + at] ^= 1
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    path.write_bytes(data)
    done = cli.run("verify")
    assert done.returncode == 14
    assert "damage in beta:latest: layer.weight:" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines() if " damaged " in line] == ["beta:latest"]
    done = cli.run("verify", "beta", "--json")
    assert cli.error(done)["code"] == "damaged"
    assert json.loads(done.stdout)["items"][0]["findings"][0]["part"] == "layer.weight"
    cli.ok("verify", "alpha")


def test_rm(store: Store) -> None:
    digest = Catalog(store.paths).get("beta:latest").digest
    assert cli.items("rm", "beta", "-n")[0]["outcome"] == "would-remove"
    (item,) = cli.items("rm", "beta")
    assert item == {"name": "beta:latest", "id": digest, "outcome": "removed", "evicted": 0}
    assert not Path(store.paths.container(digest)).exists()
    assert cli.ok("ls", "-q").split() == ["alpha:latest", "gamma:latest"]
    cli.fails(10, "rm", "beta")
    cli.ok("rm", "beta", "--missing-ok")
    done = cli.run("rm", "alpha", "beta")
    assert done.returncode == 5 and cli.ok("ls", "-q") == "gamma:latest\n"


def test_rm_takes_no_abbreviations_and_asks_for_globs(store: Store) -> None:
    digest = Catalog(store.paths).get("beta:latest").digest
    assert "abbreviated" in cli.fails(2, "rm", f"id:{digest[:8]}")
    assert "--yes" in cli.fails(2, "rm", "*a")
    assert len(cli.items("ls")) == 3
    cli.ok("rm", f"id:{digest}")
    cli.ok("rm", "*a", "--yes")
    assert cli.items("ls") == []


def test_rm_keeps_what_another_name_holds(store: Store) -> None:
    catalog = Catalog(store.paths)
    entry = catalog.get("alpha:latest")
    catalog.put(entry._replace(ref="other:v1"))
    cli.ok("rm", "alpha")
    assert Path(store.paths.container(entry.digest)).exists()
    cli.ok("verify")


def test_gc_shows_its_plan_and_frees_it(store: Store) -> None:
    digest = Catalog(store.paths).get("beta:latest").digest
    cli.ok("rm", "beta", "--keep-data")
    assert [item["name"] for item in cli.items("gc", "-n")] == [digest]
    assert "--yes" in cli.fails(2, "gc")
    assert Path(store.paths.container(digest)).exists()
    rows = {item["what"]: item for item in cli.items("df")}
    assert rows["models"]["count"] == 3 and rows["models"]["reclaimable"] > 0 and rows["refs"]["count"] == 2
    assert [item["outcome"] for item in cli.items("gc", "--yes")] == ["removed"]
    assert not Path(store.paths.container(digest)).exists()
    assert cli.items("gc", "-n") == []


def test_import(store: Store, models: ModelFiles) -> None:
    (item,) = cli.items("import", models.safetensors, "--name", "org/new:v2", "--label", "k=v")
    assert item["outcome"] == "imported" and item["name"] == "org/new:v2" and item["format"] == "safetensors"
    assert cli.items("ls", "org/new:v2")[0]["labels"] == {"k": "v"}
    (again,) = cli.items("import", models.safetensors, "--name", "same")
    assert again["outcome"] == "already" and again["written"] == 0 and again["id"] == item["id"]
    assert cli.items("import", models.safetensors, "--name", "same", "--if-exists", "skip")[0]["outcome"] == "skipped"
    cli.fails(2, "import", models.safetensors, "--name", "same", "--if-exists", "fail")
    sources = Path(store.root, "sources")
    assert sources.is_dir()
    before = {path: path.read_bytes() for path in sources.rglob("*.json")}
    assert cli.items("import", models.npz, "-n", "--name", "dry")[0]["outcome"] == "would-import"
    cli.fails(10, "ls", "dry")
    assert {path: path.read_bytes() for path in sources.rglob("*.json")} == before


def test_show_tells_the_files_that_are_the_model(store: Store, models: ModelFiles) -> None:
    cli.ok("import", models.sharded, "-q")
    shards = sorted(models.sharded.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    found = cli.items("show", "sharded")[0]["sources"]
    assert [(item["kind"], item["nbytes"]) for item in found] == [("safetensors", s.stat().st_size) for s in shards]
    assert all(len(item["digest"]) == 64 for item in found)
    record = next(Path(store.root, "sources").rglob(f"{found[0]['digest']}.json"))
    record.write_bytes(b"{}")
    said = cli.run("verify")
    assert said.returncode == 14 and f"sources/{found[0]['nbytes']}" in said.stderr
    assert [item["kind"] for item in cli.items("gc", "--yes")] == ["source"]
    cli.ok("verify")
    assert len(cli.items("show", "sharded")[0]["sources"]) == 1


def test_import_of_several_tries_all(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"nothing at all")
    done = cli.run("import", models.npz, bad, tmp_path / "missing", "--json")
    assert done.returncode == 5 and len(json.loads(done.stdout)["items"]) == 1
    assert {f["code"] for f in cli.error(done)["details"]["failures"]} == {"bad-input"}
    cli.fails(16, "import", bad)
    cli.fails(2, "import", models.npz, models.npy, "--name", "x")
    cli.fails(2, "import", models.npz, "--name", "../x")
    cli.fails(2, "import", models.npz, "--label", "novalue")
    cli.fails(2, "import", models.npz, "--format", "nope")
    assert cli.fails(2, "import").count("\n") == 0


def test_export(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    cli.ok("import", models.npz, "--name", "m")
    out = tmp_path / "out.npz"
    (item,) = cli.items("export", "m", "-o", out)
    assert item.pop("id") == cli.items("ls", "m")[0]["id"]
    assert item == {"name": "m:latest", "format": "npz", "path": str(out), "nbytes": out.stat().st_size}
    with np.load(models.npz) as ours, np.load(out) as theirs:
        assert ours.files and all(ours[name].tobytes() == theirs[name].tobytes() for name in ours.files)
    cli.fails(2, "export", "m", "-o", out)
    cli.ok("export", "m", "-o", out, "--force")
    piped = subprocess.run([*cli.TRIMS, "export", "m", "-o", "-"], capture_output=True, timeout=60)
    assert piped.returncode == 0 and piped.stderr == b"" and piped.stdout[:2] == b"PK"
    cli.fails(10, "export", "nope", "-o", out)
    cli.fails(2, "export", "m", "-o", tmp_path / "x", "--tensor", "no-such-*")
    assert "-o" in cli.fails(2, "export", "m")


def test_import_events(store: Store, models: ModelFiles) -> None:
    lines = [json.loads(line) for line in cli.ok("import", models.npz, "--format", "jsonl").splitlines()]
    assert {line["schema"] for line in lines} == {"trims.import/1"}
    assert [line["event"] for line in lines][-1] == "item"
    progress = [line for line in lines if line["event"] == "progress"]
    assert progress and progress[-1]["done"] == progress[-1]["total"]


_INTERRUPTED = """
import os, signal, sys
from trims import linux
def hook(name):
    if name == "before rename":
        os.kill(os.getpid(), {number})
linux.install_hook(hook)
from trims_cli.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_import_leaves_nothing(store: Store, models: ModelFiles, number: int) -> None:
    command = [
        sys.executable,
        "-c",
        _INTERRUPTED.format(number=int(number)),
        "import",
        str(models.npz),
        "--name",
        "new",
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-number, "", "")
    cli.fails(10, "ls", "new")
    assert os.listdir(store.paths.tmp) == []
    cli.ok("verify")
    cli.ok("import", models.npz, "--name", "new")


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_read_only_store(store: Store, models: ModelFiles) -> None:
    for directory, _, _ in os.walk(store.root):
        os.chmod(directory, 0o555)
    try:
        cli.fails(2, "import", models.npz)
        cli.ok("ls")
    finally:
        for directory, _, _ in os.walk(store.root):
            os.chmod(directory, 0o755)


def test_a_name_that_comes_to_mean_another_model_is_said(store_root: Path, tmp_path: Path) -> None:
    cli.fill(store_root, other=cli.small(1))
    path = tmp_path / "m.npy"
    np.save(path, np.arange(6, dtype=np.float32))
    imported = ["import", str(path), "--name", "other", "--store", str(store_root)]
    assert [cli.items(*imported)[0]["outcome"] for _ in range(2)] == ["replaced", "already"]


def test_a_model_that_was_removed_is_no_suggestion(store_root: Path) -> None:
    cli.fill(store_root, m=cli.small(1))
    cli.ok("ls", "--store", str(store_root))
    cli.ok("rm", "m", "--store", str(store_root))
    assert "there is" not in cli.fails(10, "show", "m", "--store", str(store_root))
