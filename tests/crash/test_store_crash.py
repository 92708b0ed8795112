"""Stop every durable operation of the store at every step it has, by killing it and by failing the system call.

Afterwards the store must verify clean, show the old state or the new one, give up all leftovers to one `gc`, and let
the same operation succeed.
"""

import errno
import os
import shutil

import pytest
from helpers import sources, stores

from trims.disk import gc
from trims.disk.catalog import Catalog
from trims.disk.ingest import import_variant
from trims.disk.store import create_store, open_store
from trims.errors import NoSpace, TrimsError
from trims.linux import install_hook

OLD, NEW, OTHER = 1, 2, 3
KILLED = 9


def old_digest(store):
    return next(e.digest for e in Catalog(store.paths).entries() if e.ref == "keep:latest")


def collect(store):
    return gc.collect(store, gc.plan(store))


def damage(store):
    """A container with a bad bit in a tensor, which an import of the same model has to repair."""
    stores.put(store, "m", NEW)
    digest = Catalog(store.paths).get("m:latest").digest
    stores.flip(store.paths.container(digest), 8 * stores.sidecar_of(store, digest).span_offset)


def litter(store):
    """What gc finds after a busy week: an unnamed model, its variant, and what killed importers left."""
    stores.put(store, "gone", OTHER)
    import_variant(store, Catalog(store.paths).get("gone:latest").digest, "ort-x", sources.sample(8))
    Catalog(store.paths).remove("gone:latest")
    for name in ("t-a", "t-b.h5"):
        with open(f"{store.paths.tmp}/{name}", "wb") as file:
            file.write(b"half")


NOTHING = lambda store: None  # noqa: E731
OPERATIONS = {
    "import": (NOTHING, lambda store: stores.put(store, "m", NEW)),
    "import compressed": (NOTHING, lambda store: stores.put(store, "m", NEW, codec="zstd")),
    "replace": (lambda store: stores.put(store, "m", OLD), lambda store: stores.put(store, "m", NEW)),
    "second ref": (lambda store: stores.put(store, "x", NEW), lambda store: stores.put(store, "m", NEW)),
    "variant": (NOTHING, lambda store: import_variant(store, old_digest(store), "ort-x", sources.sample(8))),
    "rm": (lambda store: stores.put(store, "m", NEW), lambda store: Catalog(store.paths).remove("m:latest")),
    "gc": (litter, collect),
}


@pytest.fixture(params=OPERATIONS)
def case(request, home):
    """(a store as it is before, the operation)."""
    prepare, operation = OPERATIONS[request.param]
    store = stores.fresh(home / "before")
    stores.put(store, "keep", OLD)
    prepare(store)
    return store, operation


def copy_of(store, home):
    """The store, at the start again."""
    shutil.rmtree(home / "now", ignore_errors=True)
    shutil.copytree(store.root, home / "now")
    return open_store(str(home / "now"))


def steps_of(store, operation):
    names = []
    install_hook(names.append)
    try:
        operation(store)
    finally:
        install_hook(None)
    return len(names)


def state(store):
    """What a user can see: refs with their digests, and variants."""
    seen = {(e.ref, e.digest) for e in Catalog(store.paths).entries()}
    seen |= {("variant", f"{d}/{v}") for d in os.listdir(store.paths.variants) for v in _keys(store, d)}
    return seen


def _keys(store, digest):
    return [name for name in os.listdir(f"{store.paths.variants}/{digest}") if name.endswith(".json")]


def files_of(store):
    """Every file that holds data, besides what listing and locking leave."""
    kept = ("lock", "names", "snapshot", "store.json")
    return {path for path in stores.tree(store.root) if path not in kept and not path.startswith("locks/")}


def killed_at(store, operation, step):
    """Run the operation in a child that ends at that step, as by SIGKILL; True if it got to its end before."""
    pid = os.fork()
    if pid == 0:
        left = [step]

        def hook(_name):
            left[0] -= 1
            if left[0] == 0:
                os._exit(KILLED)

        try:
            install_hook(hook)
            operation(store)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def assert_recovered(store, operation, before, after):
    """Sound, old or new, swept clean by one gc, and able to do it again."""
    stores.assert_sound(store)
    seen = state(store)
    named = {item for item in seen if item[0] != "variant"}
    assert named in ({i for i in before if i[0] != "variant"}, {i for i in after if i[0] != "variant"})
    collect(store)
    assert gc.plan(store).items == ()
    assert os.listdir(store.paths.tmp) == []
    digests = {digest for _, digest in named}
    for path in files_of(store):
        assert path.startswith("catalog/") or any(digest in path for digest in digests), f"{path} was left"
    try:
        operation(store)
    except TrimsError:
        assert state(store) == after  # rm, done already
    stores.assert_sound(store)
    assert {i for i in state(store) if i[0] != "variant"} == {i for i in after if i[0] != "variant"}


def test_killed_at_every_step(case, home):
    template, operation = case
    before = state(template)
    final = copy_of(template, home)
    count = steps_of(final, operation)
    after = state(final)
    assert count >= 2
    for step in range(1, count + 1):
        store = copy_of(template, home)
        assert killed_at(store, operation, step) == KILLED
        assert_recovered(store, operation, before, after)
    assert killed_at(copy_of(template, home), operation, count + 1) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_call_at_every_step(case, home, number):
    template, operation = case
    before = state(template)
    final = copy_of(template, home)
    count = steps_of(final, operation)
    after = state(final)
    for step in range(1, count + 1):
        store, left = copy_of(template, home), [step]

        def hook(_name, left=left):
            left[0] -= 1
            if left[0] == 0:
                raise OSError(number, os.strerror(number))

        install_hook(hook)
        try:
            with pytest.raises(NoSpace if number == errno.ENOSPC else TrimsError) as caught:
                operation(store)
        finally:
            install_hook(None)
        assert "\n" not in str(caught.value)
        litter_before = set(os.listdir(template.paths.tmp))
        assert set(os.listdir(store.paths.tmp)) <= litter_before, "a failed operation left a temporary file"
        assert_recovered(store, operation, before, after)


def test_a_repair_that_is_killed_leaves_known_damage_or_none(home):
    template = stores.fresh(home / "before")
    damage(template)
    operation = OPERATIONS["import"][1]
    count = steps_of(copy_of(template, home), operation)
    for step in range(1, count + 1):
        store = copy_of(template, home)
        assert killed_at(store, operation, step) == KILLED
        found = {finding.part for finding in stores.verify_store(store)}
        assert found in (set(), {"conv1.weight"}, {"sidecar"})
        operation(store)
        stores.assert_sound(store)


def test_making_a_store_that_is_killed_goes_on_later(home):
    count = steps_of(None, lambda _: create_store(str(home / "full")))
    for step in range(1, count + 1):
        root = home / f"s{step}"
        assert killed_at(None, lambda _, root=root: create_store(str(root)), step) == KILLED
        store = create_store(str(root), if_missing=True)
        assert open_store(str(root)) == store
        collect(store)
        assert os.listdir(store.paths.tmp) == []
