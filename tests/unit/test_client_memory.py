"""What a model says of its memory: shared as mapped, private as really written, and nothing that is gone."""

from __future__ import annotations

import gc
import mmap
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import capabilities, sources
from helpers.models import ModelFiles

import trims
from trims.client import connections
from trims.client.memory import Memory
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.store import Store, create_store
from trims.errors import TrimsError
from trims.linux import pagemap

PAGE = mmap.PAGESIZE
ROWS = 1024  # of a page each


@pytest.fixture
def store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("TRIMS_STORE", str(home / "store"))
    monkeypatch.setenv("TRIMS_SOCKET", str(home / "none.sock"))
    made = create_store(str(home / "store"))
    import_model(made, sources.source({"w": np.ones((ROWS, PAGE // 4), np.float32)}), "m")
    yield made
    connections.close_idle()


def private(model: trims.Model) -> np.ndarray:
    """The rows of `w`, on a copy-on-write map of their own."""
    region = model.region()
    return region.views(region.private_base())["w"]


def test_views_are_shared_and_cost_nothing_when_read(store: Store) -> None:
    with trims.open("m") as model:
        assert model["w"].sum() == ROWS * PAGE // 4
        assert model.memory() == Memory(shared=len(model.region().base), written=0, copied=0)


def test_reading_a_private_map_is_not_private_and_writing_counts_its_pages(store: Store) -> None:
    with trims.open("m") as model:
        rows = private(model)
        assert rows.sum() == ROWS * PAGE // 4
        assert model.memory().private == 0
        rows[10:17, 3] = 2
        assert model.memory().written == model.memory().private == 7 * PAGE
        rows[12] = 3
        assert model.memory().written == 7 * PAGE
        other = private(model)
        other[0, 0] = 5
        assert model.memory().written == 8 * PAGE
        del other
        assert model.memory() == Memory(len(model.region().base), 7 * PAGE, 0)


def test_a_view_that_outlives_its_model_is_still_counted(store: Store) -> None:
    with trims.open("m") as model:
        rows = private(model)
        rows[5] = 0
    assert model.memory() == Memory(rows.nbytes, PAGE, 0)
    del rows
    assert model.memory() == Memory(0, 0, 0)


def test_copies_count_while_they_live(store: Store) -> None:
    with trims.open("m") as model:
        copies = [model["w"][:1].copy(), model["w"][:2].copy()]
        for copy in copies:
            model.count_copy(copy, copy.nbytes)
        assert model.memory().copied == 3 * PAGE
        del copy
        copies.pop()
        assert model.memory().copied == model.memory().private == PAGE
    assert model.memory() == Memory(0, 0, PAGE)


def test_a_copy_does_not_keep_its_model(store: Store) -> None:
    model = trims.open("m")
    copy = model["w"].copy()
    model.count_copy(copy, copy.nbytes)
    watch = model.region().watch()
    del model
    gc.collect()
    assert not watch() and copy.any()


@capabilities.needs_onnxruntime
def test_every_form_in_use_counts_once(store: Store, models: ModelFiles) -> None:
    with open_source(str(models.onnx)) as source:
        import_model(store, source, "cnn")
    with trims.open("cnn") as model:
        raw = len(model.region().base)
        one, two = model.onnxruntime(), model.onnxruntime()
        derived = sum(len(region.base) for region in model._regions.values()) - raw
        assert derived > 0
        assert model.memory() == Memory(raw + derived, 0, 0)
        assert one.get_inputs() and two.get_inputs()


def test_what_a_child_writes_is_the_childs(store: Store) -> None:
    with trims.open("m") as model:
        rows = private(model)
        rows[0] = 9
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                rows[1:4] = 9
                code = 0 if model.memory().written == 4 * PAGE else 2
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert model.memory().written == PAGE


def test_a_compressed_model_without_a_manager_is_no_shared_memory(store: Store) -> None:
    import_model(store, sources.source({"z": np.zeros(1 << 18, np.float32)}), "small", codec="zstd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = trims.open("small")
    memory = model.memory()
    model.close()
    assert (memory.shared, memory.written) == (0, 0) and memory.copied >= 1 << 20


def test_memory_can_be_asked_for_while_others_write(store: Store) -> None:
    with trims.open("m") as model:
        rows = private(model)

        def write() -> None:
            for row in range(ROWS):
                rows[row] = 1
                model.count_copy(rows[row], 1)

        thread = threading.Thread(target=write)
        thread.start()
        seen = [model.memory().written for _ in range(50)]
        thread.join()
        assert seen == sorted(seen)
        assert model.memory().written == ROWS * PAGE


def test_maps_made_by_threads_at_once_are_all_counted(store: Store) -> None:
    with trims.open("m") as model:
        kept: list[np.ndarray] = []
        go = threading.Barrier(8)

        def write() -> None:
            go.wait()
            for _ in range(20):
                kept.append(private(model))
                kept[-1][0] = 1

        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert model.memory().written == len(kept) * PAGE == 160 * PAGE
        kept.clear()
        assert model.memory().written == 0


def test_long_maps_are_counted_to_their_end(home: Path) -> None:
    pages = pagemap._ENTRIES + 3
    (home / "sparse").touch()
    os.truncate(home / "sparse", pages * PAGE)
    with open(home / "sparse", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    for page in (0, pagemap._ENTRIES - 1, pagemap._ENTRIES, pages - 1):
        mapped[page * PAGE] = 1
    address = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
    assert pagemap.written(address, pages * PAGE) == 4 * PAGE
    assert pagemap.written(address + (pages - 1) * PAGE, 1) == PAGE
    assert pagemap.written(address + PAGE, PAGE) == 0
    assert pagemap.written(address + PAGE - 1, 2) == PAGE


def test_without_proc_it_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open

    def refuse(path: object, *more: object) -> int:
        if path == "/proc/self/pagemap":
            raise PermissionError(13, "Permission denied")
        return really(path, *more)  # type: ignore[arg-type]

    with trims.open("m") as model:
        kept = private(model)
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            with pytest.raises(TrimsError, match=r"/proc/self/pagemap: Permission denied"):
                model.memory()
        del kept
