import json
import os

import pytest
from helpers import capabilities

from trims.disk.store import create_store, open_store
from trims.errors import Damaged, NoStore, NotPermitted, StoreTooNew, UsageError


def test_a_new_store_opens_again_as_the_same(store_root):
    made = create_store(str(store_root), codec="zstd")
    assert open_store(str(store_root)) == made
    assert made.codec == "zstd" and len(made.id) == 32
    assert json.loads((store_root / "store.json").read_text())["magic"] == "trims store"


def test_an_existing_store_is_refused_unless_that_is_allowed(store_root):
    made = create_store(str(store_root))
    with pytest.raises(UsageError, match="is a store already"):
        create_store(str(store_root))
    assert create_store(str(store_root), codec="zstd", if_missing=True) == made


def test_a_directory_with_other_things_is_refused_and_left_alone(store_root):
    store_root.mkdir()
    (store_root / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        create_store(str(store_root), if_missing=True)
    assert os.listdir(store_root) == ["thesis.tex"]


def test_a_half_made_store_is_finished(store_root):
    (store_root / "tmp").mkdir(parents=True)
    (store_root / "lock").touch()
    with pytest.raises(NoStore):
        open_store(str(store_root))
    assert create_store(str(store_root)) == open_store(str(store_root))


def test_an_unknown_codec_is_refused(store_root):
    with pytest.raises(UsageError, match="lz4"):
        create_store(str(store_root), codec="lz4")
    assert not store_root.exists()


@pytest.mark.parametrize("root", ["nothing/here", "file"])
def test_no_store(home, root):
    (home / "file").touch()
    with pytest.raises(NoStore, match="trims init"):
        open_store(str(home / root))


@pytest.mark.parametrize(
    ("marker", "error"),
    [
        (b"", Damaged),
        (b"[1]", Damaged),
        (b'{"magic":"trims store","format":1}', Damaged),
        (b'{"magic":"other","format":1}', NoStore),
        (b'{"magic":"trims store","format":2,"id":"0","codec":"none"}', StoreTooNew),
    ],
)
def test_markers_that_are_not_ours(store_root, marker, error):
    store_root.mkdir()
    (store_root / "store.json").write_bytes(marker)
    with pytest.raises(error):
        open_store(str(store_root))


@pytest.mark.skipif(capabilities.is_root(), reason="root writes everywhere")
def test_a_directory_that_cannot_be_written(home):
    home.joinpath("ro").mkdir(mode=0o555)
    with pytest.raises(NotPermitted):
        create_store(str(home / "ro" / "store"))
