"""Files that the store knows by their content: what is told, when, and what is never told wrongly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import capabilities, stores
from helpers import models as model_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trims.disk import fingerprint, gc, source_care
from trims.disk.catalog import Catalog
from trims.disk.fingerprint import FileKey
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.sources import SourceFile, Sources


@pytest.fixture
def store(store_root):
    return stores.fresh(store_root)


def bring(store, path, ref="m"):
    with open_source(path) as source:
        return import_model(store, source, ref).entry


def array_file(path: Path, seed: int = 0) -> Path:
    np.save(path, np.random.default_rng(seed).standard_normal(500).astype(np.float32))
    return path


def find(store, path):
    return Sources(store.paths).find(path)


def keys_of(store):
    return {path for path in stores.tree(store.root) if path.startswith("sources/keys/")}


def records_of(store):
    return {path for path in stores.tree(store.root) if path.startswith("sources/")} - keys_of(store)


def rewrite(path: Path, data: bytes) -> None:
    """Other bytes of the same length in the same file, with the old times put back as far as anybody can."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("kind", ["onnx", "safetensors", "npz", "npy"])
def test_an_imported_file_is_known_by_any_name(store, models, home, kind, monkeypatch):
    path = home / getattr(models, kind).name
    shutil.copy(getattr(models, kind), path)
    entry = bring(store, path)
    known = find(store, path)
    assert (known.model, known.kind, known.ref, known.size) == (entry.digest, kind, "m:latest", path.stat().st_size)
    assert known.tensors is None and known.companions == ()
    (home / "blobs").mkdir()
    (home / "link").symlink_to(path)
    os.link(path, home / "blobs/hard")
    shutil.copy(path, home / "copy")
    monkeypatch.chdir(home / "blobs")
    names = [home / "link", "hard", "../copy", os.fsencode(home / "copy"), str(path)]
    assert [find(store, name) for name in names] == [known] * 5
    assert Sources(store.paths).find_bytes(path.read_bytes()) == known
    assert source_care.of_model(store.paths, entry.digest) == [known]


def test_what_a_format_adds(store, models, home):
    bring(store, models.safetensors)
    extra = find(store, models.safetensors).extra
    assert extra == {"metadata": {"format": "np"}, "names": list(models_arrays_by_offset())}
    bring(store, models.dtypes)
    assert find(store, models.dtypes).extra["metadata"] is None
    path = home / "odd.npz"
    np.savez(
        path, a=np.ones((2, 3), order="F"), b=np.ones(3, ">f4"), c=np.ones((2, 3)), d=np.asfortranarray(np.ones(4))
    )
    bring(store, path)
    assert find(store, path).extra == {"names": ["a", "b", "c", "d"], "converted": ["a", "b"], "others": []}


def models_arrays_by_offset():
    """Names by where their bytes begin and end; what has none goes where it lies."""
    at, spans = 0, []
    for name, array in model_files.arrays().items():
        spans.append((at, at + array.nbytes, name))
        at += array.nbytes
    return [name for _, _, name in sorted(spans)]


def test_every_shard_is_known_with_its_names(store, models):
    entry = bring(store, models.sharded)
    found = {path.name: find(store, path) for path in sorted(models.sharded.glob("*.safetensors"))}
    assert len(found) == 2 and {known.model for known in found.values()} == {entry.digest}
    names = [set(known.tensors) for known in found.values()]
    assert names[0] | names[1] == set(models_arrays_by_offset()) and not names[0] & names[1]
    assert all(known.tensors == {name: name for name in known.tensors} for known in found.values())
    assert find(store, models.sharded) is None and find(store, models.sharded / "config.json") is None


def test_a_hub_directory_of_links_is_known(store, models, home):
    """Names in a snapshot directory lead to one file each in a directory of blobs."""
    blobs, snapshot = home / "blobs", home / "snapshots"
    blobs.mkdir()
    snapshot.mkdir()
    for number, path in enumerate(sorted(models.sharded.iterdir())):
        shutil.copy(path, blobs / f"blob{number}")
        (snapshot / path.name).symlink_to(Path("../blobs") / f"blob{number}")
    entry = bring(store, snapshot)
    for path in snapshot.glob("*.safetensors"):
        assert find(store, path).model == find(store, path.resolve()).model == entry.digest


def test_a_model_with_external_data_needs_its_companion(store, models, home):
    directory = home / "here"
    shutil.copytree(models.onnx_external.parent, directory)
    path, other = directory / "cnn.onnx", directory / "cnn.bin"
    entry = bring(store, path)
    known = find(store, path)
    assert known.model == entry.digest and [name for name, _ in known.companions] == ["cnn.bin"]
    assert find(store, other).kind == "part"
    assert Sources(store.paths).find_bytes(path.read_bytes()) is None
    data = other.read_bytes()
    rewrite(other, data[:-1] + bytes([data[-1] ^ 1]))
    assert find(store, path) is None
    other.unlink()
    assert find(store, path) is None
    other.write_bytes(data)
    assert find(store, path) == known
    # As hubs link it: the model's blob has no companion beside it, the name has.
    (home / "blob").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to("../blob")
    assert find(store, path) == known and find(store, home / "blob") is None


@capabilities.needs_torch
def test_storages_that_a_tensor_covers_are_told(store, home):
    import torch

    base = torch.arange(12.0)
    state = {
        "whole": torch.ones(3, 4),
        "tied": base,
        "again": base,
        "part": torch.zeros(9)[3:],
        "t": torch.ones(2, 3).t(),
    }
    torch.save({"state_dict": state, "epoch": 3}, home / "a.pt")
    bring(store, home / "a.pt")
    names = find(store, home / "a.pt").extra["storages"]
    assert sorted(names.values()) == ["again", "whole"]  # the keys are PyTorch's
    torch.save(state, home / "old.pt", _use_new_zipfile_serialization=False)
    bring(store, home / "old.pt")
    assert find(store, home / "old.pt").extra == {"storages": {}, "legacy": True}


def test_a_rewrite_of_the_same_length_and_time_is_seen(store, home):
    path, other = array_file(home / "a.npy"), array_file(home / "b.npy", 1)
    bring(store, path)
    known, data = find(store, path), path.read_bytes()
    rewrite(path, other.read_bytes())
    assert find(store, path) is None
    rewrite(path, data)
    assert find(store, path) == known


def test_no_later_write_has_the_key_of_an_earlier_state(store, home):
    """Two states within one tick of the clock of file times must never be taken for each other."""
    path, data = array_file(home / "a.npy"), array_file(home / "b.npy", 1).read_bytes()
    first = path.read_bytes()
    bring(store, path)
    for _ in range(40):
        rewrite(path, first)
        assert find(store, path) is not None
        rewrite(path, data)
        assert find(store, path) is None
    for _ in range(20):
        rewrite(path, first)
        with open_source(path) as source:
            key = source.on_disk[0].key
            rewrite(path, data)
            assert key is not None and key != FileKey.of(path.stat())


def test_a_key_is_settled_when_the_clock_of_file_times_is_past_it():
    fine, whole = 1_700_000_000_000_000_001, 1_700_000_000_000_000_000
    now = time.time_ns()
    assert fingerprint.settled(FileKey(1, 2, 3, 4, fine)) and fingerprint.settled(FileKey(1, 2, 3, 4, whole))
    assert not fingerprint.settled(FileKey(1, 2, 3, 4, now + 10_000_000_001))
    fingerprint.let_settle()
    assert fingerprint.settled(FileKey(1, 2, 3, 4, now | 1))
    assert not fingerprint.settled(FileKey(1, 2, 3, 4, now // 10**9 * 10**9)), "it may count whole seconds"


def test_no_key_is_remembered_of_a_file_in_an_image(store, home, monkeypatch):
    """Of a reproducible image, all files have one time: another version of it would be taken for the first."""
    path, real = array_file(home / "a.npy"), os.fstatvfs
    whole = classmethod(lambda cls, st: cls(st.st_dev, st.st_ino, st.st_size, 10**18, 10**18))
    monkeypatch.setattr(FileKey, "of", whole)
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_flag=real(fd).f_flag | os.ST_RDONLY))
    bring(store, path)
    assert find(store, path) is not None and keys_of(store) == set()
    rewrite(path, array_file(home / "b.npy", 1).read_bytes())
    assert find(store, path) is None


def test_a_model_is_told_before_a_part(store, home):
    """The same bytes as a model of their own, and as the external data of another."""
    path = array_file(home / "a.npy")
    digest = bring(store, path).digest
    part = SourceFile(str(path), FileKey.of(path.stat()), "part")
    assert Sources(store.paths).record([part], digest, "n:latest", lambda _: nullcontext())[0].kind == "part"
    assert find(store, path).kind == "npy"


def touch(path):
    os.utime(path)


def replaced(path):
    shutil.copy(path, f"{path}.new")
    os.rename(f"{path}.new", path)


@pytest.mark.parametrize("change", [touch, replaced, os.unlink, lambda path: os.chmod(path, 0o600)])
def test_a_file_that_changes_while_it_is_imported_is_not_recorded(store, home, change):
    path = array_file(home / "a.npy")
    with open_source(path) as source:
        change(path)
        import_model(store, source, "m")
    assert records_of(store) == set() and keys_of(store) == set()


def test_of_a_model_in_two_files_that_which_changed_is_not_recorded(store, models, home):
    shutil.copytree(models.onnx_external.parent, home / "here")
    with open_source(home / "here/cnn.onnx") as source:
        touch(home / "here/cnn.bin")
        import_model(store, source, "m")
    assert find(store, home / "here/cnn.onnx") is None and records_of(store) == set()


def test_a_size_that_is_not_known_costs_no_reading(store, home):
    path, other = array_file(home / "a.npy"), home / "b.npy"
    np.save(other, np.ones(3))
    bring(store, path)
    code = f"""
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
from trims.disk.sources import SourceFile, Sources
from trims.paths import StorePaths
sources = Sources(StorePaths({store.root!r}))
opened.clear()
assert sources.find({str(other)!r}) is None and sources.find_bytes(bytes(77)) is None
assert opened == [], opened
assert not {{"h5py", "zstandard", "blake3", "numpy"}} & set(sys.modules)
assert sources.find({str(path)!r}) is not None
assert not {{"h5py", "zstandard", "blake3", "numpy"}} & set(sys.modules), "its key is known"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_of_a_known_size_is_read_once(store, home):
    bring(store, array_file(home / "a.npy"))
    other = array_file(home / "b.npy", 1)
    fingerprint.let_settle()
    before = keys_of(store)
    assert find(store, other) is None
    assert len(keys_of(store) - before) == 1, "that it is not known is remembered, too"
    entry = bring(store, other, "n")
    assert find(store, other).model == entry.digest


PATHS = st.one_of(
    st.text(), st.binary(), st.none(), st.integers(-5, 5), st.floats(), st.just("x" * 5000), st.just("/dev/zero"),
    st.just("/proc/self/mem"), st.just("/"), st.just("."), st.lists(st.text()), st.builds(Path, st.just("nowhere")),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(PATHS)
def test_odd_paths_are_not_known(store, path):
    assert Sources(store.paths).find(path) is None
    assert Sources(store.paths).find_bytes(path) is None


def test_a_fifo_a_directory_and_a_missing_store_are_not_known(store, home):
    path = array_file(home / "a.npy")
    bring(store, path)
    size = path.stat().st_size
    os.mkfifo(home / "fifo")
    os.makedirs(f"{store.root}/sources/0")
    os.makedirs(f"{store.root}/sources/{os.stat(home).st_size}", exist_ok=True)
    assert [find(store, name) for name in (home / "fifo", home, "/dev/null", "/proc/self/stat")] == [None] * 4
    shutil.rmtree(f"{store.root}/sources/{size}")
    assert find(store, path) is None
    shutil.rmtree(store.root)
    assert find(store, path) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(st.data())
def test_damaged_records_tell_nothing(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("damage")
    store, path = stores.fresh(home / "store"), array_file(home / "a.npy")
    entry = bring(store, path)
    known = find(store, path)
    (record,), (key,) = records_of(store), keys_of(store)
    victim = Path(store.root, data.draw(st.sampled_from([record, key])))
    before = victim.read_bytes()
    victim.write_bytes(damaged(data, before))
    intact = victim.read_bytes() == before
    if intact or str(victim).endswith(key):
        assert find(store, path) == known and stores.verify_store(store) == []
        return
    assert find(store, path) is None and Sources(store.paths).find_bytes(path.read_bytes()) is None
    assert [(finding.model, finding.part) for finding in stores.verify_store(store)] == [(record, "source")]
    assert source_care.of_model(store.paths, entry.digest) == []
    if data.draw(st.booleans()):
        bring(store, path)
        assert find(store, path) == known
    else:
        assert [item.kind for item in gc.collect(store, gc.plan(store)).removed] == ["source"]
        assert records_of(store) == keys_of(store) == set()
    stores.assert_sound(store)


def damaged(data, before: bytes) -> bytes:
    """The bytes of a small file after some accident."""
    at = data.draw(st.integers(0, len(before) - 1))
    accidents = {
        "bit": before[:at] + bytes([before[at] ^ 1 << data.draw(st.integers(0, 7))]) + before[at + 1 :],
        "cut": before[:at], "other": json.dumps({"file": 3}).encode(), "deep": b"[" * 100_000,
        "zeros": bytes(len(before)),
    }  # fmt: skip
    return accidents[data.draw(st.sampled_from(sorted(accidents)))]


def test_a_record_of_a_newer_trims_is_left_alone(store, home):
    from trims.disk import sealed

    path = array_file(home / "a.npy")
    bring(store, path)
    for name in (*records_of(store), *keys_of(store)):
        Path(store.root, name).write_bytes(sealed.seal({"format": "trims.source/2", "models": 7}))
    assert find(store, path) is None and stores.verify_store(store) == []
    before = stores.tree(store.root)
    gc.collect(store, gc.plan(store))
    assert stores.tree(store.root) == before


def test_records_go_with_their_model(store, home, models):
    path = array_file(home / "a.npy")
    bring(store, path)
    bring(store, models.safetensors, "stays")
    sources, known = Sources(store.paths), find(store, path)
    sources.note_native(known, "numpy", 0.5)
    Catalog(store.paths).remove("m:latest")
    assert find(store, path) == known, "until its bytes go"
    gc.collect(store, gc.plan(store))
    assert find(store, path) is None and sources.native(known) == {}
    assert find(store, models.safetensors) is not None
    assert len(records_of(store)) == len(keys_of(store)) == 1


def test_a_file_that_became_two_models_is_known_until_both_are_gone(store, home):
    alone, directory = array_file(home / "a.npy"), home / "model"
    directory.mkdir()
    shutil.copy(alone, directory / "a.npy")
    (directory / "config.json").write_text("{}")
    first, second = bring(store, alone, "first"), bring(store, directory, "second")
    assert first.digest != second.digest and find(store, alone).model == second.digest
    Catalog(store.paths).remove("second:latest")
    assert find(store, alone).model == first.digest, "which has a name, though the bytes of both are there"
    gc.collect(store, gc.plan(store))
    assert find(store, alone).model == find(store, directory / "a.npy").model == first.digest


def test_an_import_of_a_known_file_remembers_it_again(store, home):
    path = array_file(home / "a.npy")
    bring(store, path)
    shutil.rmtree(f"{store.root}/sources")
    assert find(store, path) is None
    with open_source(path) as source:
        assert import_model(store, source, "m").already
    assert find(store, path) is not None
    touch(path)
    before = {name: Path(store.root, name).read_bytes() for name in keys_of(store)}
    bring(store, path)
    assert {name: Path(store.root, name).read_bytes() for name in keys_of(store)} != before


def test_times_of_native_loads_are_kept_by_framework(store, home):
    path = array_file(home / "a.npy")
    bring(store, path)
    sources, known = Sources(store.paths), find(store, path)
    assert sources.native(known) == {}
    for framework, seconds in (("numpy", 0.25), ("torch", 2), ("numpy", 0.125), ("numpy", float("nan")), ("torch", -1)):
        sources.note_native(known, framework, seconds)
    assert sources.native(known) == {"numpy": 0.125, "torch": 2.0}
    assert find(store, path) == known and stores.verify_store(store) == []
    Path(store.paths.source_native(known.size, known.file)).write_bytes(b"{}")
    assert sources.native(known) == {}
    sources.note_native(known, "numpy", 1)
    assert sources.native(known) == {"numpy": 1.0}


def in_child(action, uid=0):
    """Run `action` in a forked child, as another user if one is given; whether it gave True."""
    pid = os.fork()
    if not pid:
        try:
            if uid:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            os._exit(0 if action() is True else 1)
        except BaseException:
            os._exit(2)
    return pid


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@capabilities.needs_root
def test_who_may_not_write_the_store_still_finds_and_who_may_not_read_the_file_does_not(store, home):
    uid = capabilities.other_uid()
    home.chmod(0o755)
    path = array_file(home / "a.npy")
    bring(store, path)
    shutil.copy(path, home / "copy.npy")
    shutil.copy(path, home / "secret.npy")
    assert find(store, home / "secret.npy") is not None
    (home / "secret.npy").chmod(0)
    assert find(store, home / "secret.npy") is not None, "root may read all"
    before = stores.tree(store.root)
    sources = Sources(store.paths)
    assert ended(in_child(lambda: sources.find(path) == sources.find(home / "copy.npy") is not None, uid)) == 0
    assert ended(in_child(lambda: sources.find(home / "secret.npy") is None, uid)) == 0
    assert ended(in_child(lambda: sources.note_native(sources.find(path), "numpy", 1) is None, uid)) == 0
    assert stores.tree(store.root) == before and os.listdir(store.paths.tmp) == []


def test_many_at_once(store, home):
    """Importers of one file under several names and as two models, finders, and a collector, all let go at once."""
    alone, directory = array_file(home / "a.npy"), home / "model"
    directory.mkdir()
    shutil.copy(alone, directory / "a.npy")
    (directory / "config.json").write_text("{}")
    bring(store, alone, "there")
    ready, go = os.pipe()

    def worker(number):
        os.close(go)
        os.read(ready, 1)
        if number == 0:
            gc.collect(store, gc.plan(store))
        elif number % 3 == 0:
            return all(find(store, alone) is not None for _ in range(30))
        else:
            bring(store, alone if number % 3 == 1 else directory, f"m{number}")
        return True

    children = [in_child(lambda number=number: worker(number)) for number in range(9)]
    os.close(ready)
    os.close(go)
    assert [ended(pid) for pid in children] == [0] * 9
    stores.assert_sound(store)
    models = {entry.digest for entry in Catalog(store.paths).entries()}
    assert len(models) == 2 and len(records_of(store)) == 1
    assert all(source_care.of_model(store.paths, model) for model in models)
    assert os.listdir(store.paths.tmp) == []
