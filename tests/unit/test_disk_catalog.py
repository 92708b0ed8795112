import json
import os
import threading
from multiprocessing import get_context

import pytest
from helpers import stores

from trims.disk import snapshot
from trims.disk.catalog import Catalog, Entry
from trims.errors import AmbiguousModel, Damaged, LockTimeout, NoSuchModel, UsageError


def entry(ref, digest="ab" * 32, **fields):
    values = {
        "origin_format": "onnx",
        "tensors": 3,
        "nbytes": 1000,
        "stored": 900,
        "codec": "none",
        "created": 1.0,
        "origin": {"path": "/x"},
        "labels": {"team": "a\tb\n\u00e9"},
    }
    return Entry(ref, digest, **{**values, **fields})


@pytest.fixture
def store(store_root):
    return stores.fresh(store_root)


@pytest.fixture
def catalog(store):
    return Catalog(store.paths, lock_timeout=0.05)


def test_put_get_replace_remove(catalog):
    first = entry("m:latest")
    catalog.put(first)
    assert catalog.get("m:latest") == first and catalog.entries() == [first]
    second = first._replace(digest="cd" * 32)
    catalog.put(second)
    assert catalog.get("m:latest") == second and catalog.refs() == ["m:latest"]
    catalog.remove("m:latest")
    assert catalog.refs() == [] and catalog.find("m:latest") is None
    with pytest.raises(NoSuchModel):
        catalog.remove("m:latest")


def test_names_with_slashes_and_tags_are_one_entry_each(catalog):
    refs = ["a:latest", "a/b:latest", "a:b", "a-b:latest", "A:latest"]
    for ref in refs:
        catalog.put(entry(ref))
    assert catalog.refs() == sorted(refs)


def test_resolve(catalog):
    catalog.put(entry("net:latest", "ab" * 32))
    catalog.put(entry("net:v2", "abcdef" + "0" * 58))
    catalog.put(entry("alias:latest", "ab" * 32))
    assert catalog.resolve("net").ref == "net:latest"
    assert catalog.resolve("net:v2").digest.startswith("abcdef")
    assert catalog.resolve("id:ababab").ref == "alias:latest"
    assert catalog.resolve("id:ABCDEF0").ref == "net:v2"
    for text, error in (("id:ffffff", NoSuchModel), ("nix", NoSuchModel), ("id:ab", UsageError), ("../x", UsageError)):
        with pytest.raises(error):
            catalog.resolve(text)


def test_an_ambiguous_prefix_names_its_candidates(catalog):
    catalog.put(entry("a:latest", "abcdef" + "0" * 58))
    catalog.put(entry("b:latest", "abcdef" + "1" * 58))
    with pytest.raises(AmbiguousModel) as caught:
        catalog.resolve("id:abcdef")
    assert len(caught.value.details["candidates"]) == 2


def test_an_unknown_tag_is_answered_with_the_known_ones(catalog):
    catalog.put(entry("net:v2"))
    assert catalog.refs() == ["net:v2"]
    with pytest.raises(NoSuchModel, match="there is net:v2"):
        catalog.resolve("net")


def test_match(catalog):
    for ref in ("resnet50:latest", "resnet50:v2", "bert:latest"):
        catalog.put(entry(ref))
    assert [e.ref for e in catalog.match(["resnet*"])] == ["resnet50:latest", "resnet50:v2"]
    assert [e.ref for e in catalog.match(["*:v2", "bert", "b*"])] == ["resnet50:v2", "bert:latest"]
    with pytest.raises(NoSuchModel, match="no model matches"):
        catalog.match(["vit*"])


def test_any_flipped_bit_of_an_entry_is_found(store, catalog):
    catalog.put(entry("m:latest"))
    path = store.paths.entry("m:latest")
    for bit in range(os.path.getsize(path) * 8):
        stores.flip(path, bit)
        with pytest.raises(Damaged):
            catalog.get("m:latest")
        stores.flip(path, bit)
    assert catalog.get("m:latest") == entry("m:latest")


def test_an_entry_under_another_name_is_damage(store, catalog):
    catalog.put(entry("m:latest"))
    target = store.paths.entry("other:latest")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.rename(store.paths.entry("m:latest"), target)
    with pytest.raises(Damaged):
        catalog.get("other:latest")


def _write_many(root, worker, count):
    catalog = Catalog(stores.open_store(root).paths)
    for n in range(count):
        catalog.put(entry(f"w{worker}-{n}:latest"))


def test_eight_writers_lose_nothing(store, catalog):
    context = get_context("fork")
    workers = [context.Process(target=_write_many, args=(store.root, n, 25)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        worker.close()
    assert len(catalog.refs()) == len(catalog.entries()) == 200
    assert os.listdir(store.paths.tmp) == []


def test_the_writer_lock_excludes_and_times_out(store, catalog):
    held, release = threading.Event(), threading.Event()

    def hold():
        with catalog.writing("m:latest"):
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    with pytest.raises(LockTimeout), Catalog(store.paths, lock_timeout=0.01).writing("m:latest"):
        pass
    release.set()
    thread.join()
    with catalog.writing("m:latest"):
        pass


def test_the_snapshot_is_used_when_current_and_rebuilt_when_not(store, catalog):
    catalog.put(entry("a:latest"))
    assert not snapshot.current(store.paths)
    _age(store)
    assert catalog.refs() == ["a:latest"] and snapshot.current(store.paths)
    with open(store.paths.names) as file:
        assert file.read() == "a:latest\n"
    [(digest, ref, item)] = snapshot.load(store.paths)
    assert (digest, ref) == ("ab" * 32, "a:latest")
    assert item.startswith('{"name":"a:latest","id":"abab') and item.endswith('"labels":{"team":"a\\tb\\n\\u00e9"}')
    catalog.put(entry("b:latest"))
    assert not snapshot.current(store.paths)
    assert catalog.refs() == ["a:latest", "b:latest"]
    catalog.remove("a:latest")
    assert catalog.refs() == ["b:latest"] == [row[1] for row in catalog.rows()]


def test_a_change_within_the_same_clock_tick_is_seen(store, catalog):
    """The directory's mtime may not move between two changes: a fresh snapshot of a fresh directory is not believed."""
    catalog.put(entry("a:latest"))
    catalog.refs()
    path = os.path.dirname(store.paths.entry("a:latest"))
    stamp = os.stat(path).st_mtime_ns
    catalog.put(entry("a:latest", "cd" * 32))
    os.utime(path, ns=(stamp, stamp))
    assert catalog.rows()[0][0] == "cd" * 32


@pytest.mark.parametrize("junk", [b"", b"x", b"trims.snapshot/1 1 2\n", b"\xff\xfe\n", None])
def test_a_damaged_snapshot_is_rebuilt(store, catalog, junk):
    catalog.put(entry("a:latest"))
    _age(store)
    catalog.refs()
    with open(store.paths.snapshot, "rb") as file:
        whole = file.read()
    with open(store.paths.snapshot, "wb") as file:
        file.write(whole.replace(b"\t", b" ") if junk is None else junk)
    [item] = snapshot.spliced(store.paths, {}, "}")
    assert json.loads(item)["name"] == "a:latest"
    assert [row[1] for row in catalog.rows()] == ["a:latest"]
    assert catalog.refs() == ["a:latest"]


def test_the_spliced_listing_is_the_rows_with_their_tails(store, catalog, monkeypatch):
    monkeypatch.setattr(snapshot, "_BLOCK", 500)  # a few lines a block
    for n in range(9):
        catalog.put(entry(f"m{n}:latest", ("ab" if n % 3 else "cd") * 32))
    stale = snapshot.spliced(store.paths, {"cd" * 32: "|here"}, "|not")
    _age(store)
    catalog.refs()
    current = snapshot.spliced(store.paths, {"cd" * 32: "|here"}, "|not")
    assert len(current) > len(stale) == 1 and b",\n".join(current) == stale[0]
    rows = catalog.rows()
    assert stale[0].decode() == ",\n".join(item + ("|here" if d[0] == "c" else "|not") for d, _, item in rows)


def test_only_changed_directories_are_read_again(store, catalog):
    for n in range(20):
        catalog.put(entry(f"m{n}:latest"))
    _age(store)
    catalog.refs()
    # Damage behind the snapshot's back, without touching the directory: a full rebuild would lose this entry.
    stores.flip(store.paths.entry("m3:latest"), 9)
    other = next(f"x{n}:latest" for n in range(999) if _shard(store, f"x{n}:latest") != _shard(store, "m3:latest"))
    catalog.put(entry(other))
    assert catalog.refs() == sorted([*(f"m{n}:latest" for n in range(20)), other])


def _shard(store, ref):
    return os.path.dirname(store.paths.entry(ref))


def _age(store):
    """Make the catalog's directories old enough for a snapshot of them to be believed."""
    for name in os.listdir(store.paths.catalog):
        path = f"{store.paths.catalog}/{name}"
        stamp = os.stat(path).st_mtime_ns - 10**9
        os.utime(path, ns=(stamp, stamp))
