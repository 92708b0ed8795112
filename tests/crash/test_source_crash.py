"""Stop the import of a file, and the collecting of it, at every step; what is known of the file is true or nothing."""

import errno
import os
import shutil

import numpy as np
from helpers import stores

from trims.disk import gc, source_care
from trims.disk.catalog import Catalog
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.sources import Sources
from trims.errors import TrimsError
from trims.linux import install_hook

KILLED = 9
NOTING = 8  # steps, the last ones of an import: those of the key and of the record


def bring(store, path):
    with open_source(path) as source:
        return import_model(store, source, "m").entry.digest


def sweep(store):
    return gc.collect(store, gc.plan(store))


def stopped(operation, step, failure=None):
    """Run the operation in a child up to that step: killed there, or with `failure`; its exit code."""
    pid = os.fork()
    if pid == 0:
        left = [step]

        def hook(_name):
            left[0] -= 1
            if left[0] == 0:
                if failure is None:
                    os._exit(KILLED)
                raise OSError(failure, os.strerror(failure))

        install_hook(hook)
        try:
            operation()
        except TrimsError:
            os._exit(3)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def steps_of(operation):
    names = []
    install_hook(names.append)
    try:
        operation()
    finally:
        install_hook(None)
    return len(names)


def source_files(store):
    return {path for path in stores.tree(store.root) if path.startswith("sources/")}


def test_an_import_of_a_file_that_is_stopped_anywhere(home):
    path = home / "a.npy"
    np.save(path, np.arange(300, dtype=np.float32))
    first = stores.fresh(home / "first")
    count = steps_of(lambda: bring(first, path))
    digest = Catalog(first.paths).get("m:latest").digest
    for failure in (None, errno.ENOSPC):
        for step in range(1, count + 1):
            store = stores.fresh(home / f"s{step}")
            code = stopped(lambda store=store: bring(store, path), step, failure)
            known = Sources(store.paths).find(path)
            assert known is None or known.model == digest
            named = "m:latest" in Catalog(store.paths).refs()
            noting = step > count - NOTING
            assert code == (KILLED if failure is None else 0 if noting else 3), "what cannot be noted costs no import"
            assert named or not noting
            stores.assert_sound(store)
            sweep(store)
            assert gc.plan(store).items == () and os.listdir(store.paths.tmp) == []
            assert named or source_files(store) == set()
            assert bring(store, path) == digest
            assert Sources(store.paths).find(path).model == digest
            shutil.rmtree(store.root)


def test_a_collection_that_is_killed_anywhere(home):
    path = home / "a.npy"
    np.save(path, np.arange(300, dtype=np.float32))
    template = stores.fresh(home / "template")
    bring(template, path)
    Catalog(template.paths).remove("m:latest")

    def copy(name):
        shutil.copytree(template.root, home / name)
        return stores.open_store(str(home / name))

    full = copy("full")
    count = steps_of(lambda: sweep(full))
    assert source_files(full) == set()
    for step in range(1, count + 1):
        store = copy(f"s{step}")
        assert stopped(lambda store=store: sweep(store), step) == KILLED
        stores.assert_sound(store)
        there = os.path.exists(store.paths.sidecar(Sources(template.paths).find(path).model))
        assert (Sources(store.paths).find(path) is not None) == there
        sweep(store)
        assert source_files(store) == set() and source_care.abandoned(store.paths) == []
