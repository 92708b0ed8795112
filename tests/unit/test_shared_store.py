"""A store that a group shares: what each member makes, the others may change, whatever the umask."""

from __future__ import annotations

import os
import stat

import pytest
from helpers import sources, stores

from trims.disk import gc
from trims.disk.catalog import Catalog
from trims.disk.store import create_store
from trims.linux import atomic


def directories(root):
    return [root, *(os.path.join(at, name) for at, names, _ in os.walk(root) for name in names)]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_directories_are_the_groups_whatever_the_umask(store_root, umask):
    os.umask(umask)
    store = create_store(str(store_root), group=os.getgid())
    stores.put(store)
    for path in directories(store.root):
        info = os.stat(path)
        assert stat.S_IMODE(info.st_mode) == 0o2775 and info.st_gid == os.getgid(), path
    assert stat.S_IMODE(os.stat(store.paths.lock).st_mode) == 0o664


def test_other_stores_follow_the_umask(store_root):
    os.umask(0o077)
    store = create_store(str(store_root))
    stores.put(store)
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in directories(store.root)} == {0o700}


def test_a_shared_parent_does_not_open_what_is_private(tmp_path):
    os.chmod(tmp_path, 0o2775)
    os.umask(0o077)
    store = create_store(str(tmp_path / "deep" / "store"))
    atomic.make_directory(str(tmp_path / "state"), 0o700)
    atomic.make_directory(str(tmp_path / "open"))
    modes = [os.stat(path).st_mode & 0o777 for path in (store.root, tmp_path / "deep", tmp_path / "state")]
    assert modes == [0o700] * 3 and os.stat(tmp_path / "open").st_mode & 0o777 == 0o775


def in_child(uid, gid, action):
    """Do it as another user with a strict umask; gives whether it went well."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.umask(0o077)
            os.setgroups([gid])
            os.setgid(gid)
            os.setuid(uid)
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
def test_two_users_import_and_collect(home):
    os.chmod(home, 0o755)
    gid = 54321
    store = create_store(str(home / "store"), group=gid)
    os.umask(0o077)
    stores.put(store, "theirs", 1)
    sources.sample(2)  # imported before the other user lacks the right to read modules

    def other():
        stores.put(store, "ours", 2)
        stores.put(store, "theirs", 3)
        gc.collect(store, gc.plan(store))

    assert in_child(12345, gid, other)
    assert not in_child(12346, 54322, lambda: stores.put(store, "not", 4))
    assert sorted(e.ref for e in Catalog(store.paths).entries()) == ["ours:latest", "theirs:latest"]
    assert os.stat(store.paths.entry("ours:latest")).st_uid == 12345
    Catalog(store.paths).remove("ours:latest")
    assert len(gc.collect(store, gc.plan(store)).removed) == 1
    stores.assert_sound(store)
