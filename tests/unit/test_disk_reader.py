import itertools
import mmap
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import pages, sources, stores
from helpers.sources import CodeSource, tensor

from trims.disk import reader, spanfile
from trims.disk.ingest import import_model
from trims.disk.reader import Cancelled, fill, read_blob
from trims.disk.sidecar import PIECE
from trims.errors import Damaged, NoSuchModel
from trims.linux import pagecache, readahead

ROWS = (3 * PIECE + 123 * 512) // 4


@pytest.fixture
def store(store_root):
    return stores.fresh(store_root)


def large(seed=0):
    """A model of four pieces, tensors across their borders."""
    data = sources.numbers(seed, ROWS)
    cut = [0, 1000, PIECE // 4 + 5, 2 * PIECE // 4 + 77, ROWS]
    return CodeSource([tensor(f"t{n}", data[a:b]) for n, (a, b) in enumerate(itertools.pairwise(cut))])


def imported(store, codec="none"):
    digest = import_model(store, large(), "m", codec=codec).entry.digest
    return stores.sidecar_of(store, digest), store.paths.container(digest)


def drop_cache(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("cold", [False, True])
def test_fill_into_aligned_memory_and_not(store, codec, threads, cold):
    sidecar, path = imported(store, codec)
    want = b"".join(bytes(t.read()).ljust(-(-len(t.read()) // 512) * 512, b"\0") for t in large().tensors)
    for start in (0, 4096, 7):  # 7: O_DIRECT cannot be used
        if cold:
            drop_cache(path)
        with mmap.mmap(-1, sidecar.span_nbytes + 8192) as memory:
            with memoryview(memory) as whole, whole[start:] as view:
                fill(path, sidecar, view, threads=threads)
            assert memory[start : start + sidecar.span_nbytes] == want
            assert not any(memory[start + sidecar.span_nbytes :]), "it wrote past the span"


def test_progress_counts_up_to_the_span(store):
    sidecar, path = imported(store)
    seen = []
    fill(path, sidecar, memoryview(bytearray(sidecar.span_nbytes)), progress=seen.append, threads=3)
    assert seen == sorted(seen) and seen[-1] == sidecar.span_nbytes and len(seen) == len(sidecar.pieces) == 4


def test_a_load_can_be_cancelled(store):
    sidecar, path = imported(store)
    stop, seen = threading.Event(), []

    def progress(done):
        seen.append(done)
        stop.set()

    with pytest.raises(Cancelled):
        fill(
            path,
            sidecar,
            memoryview(bytearray(sidecar.span_nbytes)),
            threads=1,
            progress=progress,
            cancelled=stop.is_set,
        )
    assert len(seen) == 1


def test_a_buffer_that_is_too_small_is_our_own_mistake(store):
    sidecar, path = imported(store)
    with pytest.raises(ValueError, match="the span"):
        fill(path, sidecar, memoryview(bytearray(100)))


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_damage_is_never_handed_out_and_has_the_tensors_name(store, codec):
    sidecar, path = imported(store, codec)
    at = sidecar.frames[1].offset if sidecar.frames else sidecar.span_offset + PIECE + 8192
    stores.flip(path, at * 8)
    with pytest.raises(Damaged) as caught:
        fill(path, sidecar, memoryview(bytearray(sidecar.span_nbytes)))
    assert caught.value.details["parts"] == (["t1"] if codec == "zstd" else ["t2"])
    assert f"tensor {caught.value.details['parts'][0]}" in str(caught.value)


def test_a_file_of_another_size_or_none_is_refused(store):
    sidecar, path = imported(store)
    buffer = memoryview(bytearray(sidecar.span_nbytes))
    os.chmod(path, 0o644)
    os.truncate(path, sidecar.container_nbytes - 4096)
    with pytest.raises(Damaged, match="container"):
        fill(path, sidecar, buffer)
    os.unlink(path)
    with pytest.raises(NoSuchModel):
        fill(path, sidecar, buffer)


def test_a_file_that_shrinks_while_it_is_read_is_damage(store):
    sidecar, path = imported(store)
    os.chmod(path, 0o644)
    with pytest.raises(Damaged):
        fill(
            path,
            sidecar,
            memoryview(bytearray(sidecar.span_nbytes)),
            threads=1,
            progress=lambda _: os.truncate(path, sidecar.span_offset + PIECE + 100),
        )


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_blobs(store, codec):
    source = sources.sample()
    source.files["big"] = os.urandom(PIECE + 5)
    digest = import_model(store, source, "m", codec=codec).entry.digest
    sidecar, path = stores.sidecar_of(store, digest), store.paths.container(digest)
    assert read_blob(path, sidecar, "graph") == source.graph(sidecar.manifest.layout.tensors)
    for name, data in source.files.items():
        assert read_blob(path, sidecar, f"file {name}") == data
    for name in ("file nix", "conv1.weight"):
        with pytest.raises(NoSuchModel):
            read_blob(path, sidecar, name)
    if codec == "none":
        stores.flip(path, 8 * (sidecar.span_offset + sidecar.manifest.layout.graph[0]))
        with pytest.raises(Damaged, match="graph"):
            read_blob(path, sidecar, "graph")


def test_an_empty_model_is_filled_with_nothing(store):
    digest = import_model(store, CodeSource([tensor("e", np.zeros((0, 4)))]), "m").entry.digest
    fill(store.paths.container(digest), stores.sidecar_of(store, digest), memoryview(bytearray(1)))


def test_a_file_system_that_cannot_tell_what_is_cached_is_read_all_the_same(store):
    """Where RWF_NOWAIT or O_DIRECT are missing, reads wait."""
    sidecar, path = imported(store)
    with reader.SpanFile(path, sidecar, direct=False) as file:
        file._cached = False
        out = bytearray(PIECE)
        assert file.read_piece(0, memoryview(out)) == sidecar.pieces[0]


@pytest.mark.parametrize("ahead", [0, 1 << 60])
def test_a_cold_file_is_read_without_staying_in_the_page_cache(store, store_root, monkeypatch, ahead):
    """Through the page cache and out of it, or past it: the same bytes, and nobody's pages are pushed out."""
    pages.need_dropping(Path(store_root).parent)
    monkeypatch.setattr(spanfile, "AHEAD", ahead)
    sidecar, path = imported(store)
    pagecache.drop(path)
    want = fill_all(path, sidecar)
    assert pagecache.resident(path)[0] <= (spanfile.LOOKS + 3 * len(sidecar.pieces)) * mmap.PAGESIZE
    pagecache.bring(path)
    assert fill_all(path, sidecar) == want
    assert pagecache.resident(path)[0] >= sidecar.span_nbytes, "what others had there must stay"


def fill_all(path, sidecar):
    with mmap.mmap(-1, sidecar.span_nbytes) as memory:  # aligned, as O_DIRECT needs it
        with memoryview(memory) as view:
            fill(path, sidecar, view)
        return memory[:]


def test_read_ahead_is_none_where_there_is_no_disk(tmp_path):
    assert readahead.nbytes(os.makedev(0, 12345)) == 0
    assert readahead.nbytes(os.stat("/proc").st_dev) == 0
    assert readahead.nbytes(os.stat(tmp_path).st_dev) >= 0
