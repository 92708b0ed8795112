"""The manager's parts by themselves: log, journal, orphans, names, workers."""

from __future__ import annotations

import os
import re
import subprocess
import threading

import pytest
from helpers import index_rows, sources

from trims.devices.fake import FakeDevice
from trims.disk.ingest import import_model
from trims.disk.store import create_store
from trims.errors import NoSuchModel, NoSuchVariant, TrimsError, UsageError
from trims.linux import process
from trims.manager import inheritance, journal, orphans
from trims.manager.journal import Kept, Orphan, State
from trims.manager.loader import Filled, LoadJob, lost
from trims.manager.logfile import Log, last_lines
from trims.manager.resolve import NeedsBuilding, Resolver, is_key
from trims.manager.variants import Errand, Variants
from trims.manager.workers import Mailbox, Pool
from trims.paths import RuntimePaths
from trims.residency.events import Key


def test_log_lines(tmp_path):
    path = str(tmp_path / "log")
    log = Log(path, "info")
    log.write("hello")
    log.write("two\nlines \x1b[31m", "warning")
    log.write("not this", "debug")
    log.close()
    first, second = last_lines(path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ info hello", first)
    assert second.endswith(r" warning two\nlines \x1b[31m")


def test_a_log_is_replaced_before_it_is_too_long(tmp_path):
    path = str(tmp_path / "log")
    log = Log(path, "info", limit=1000)
    for n in range(100):
        log.write(f"line {n}")
    log.close()
    assert os.path.getsize(path) <= 1000
    assert os.path.getsize(path + ".1") <= 1000
    assert last_lines(path, 1)[0].endswith("line 99")


def test_journal_round_trip(tmp_path):
    path = str(tmp_path / "journal")
    state = State(
        journal.FORMAT,
        [Kept("ab", "raw", "host", "m:latest", "me", "why", 12.5), Kept("cd", "raw", "host", "n:latest")],
        {"loads": 3},
        [Orphan("x/1", "host", 4096, [(1, 2)], "m:latest")],
    )
    journal.write(path, state)
    assert journal.read(path) == state
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["journal"]


def test_no_journal_is_an_empty_one(tmp_path):
    assert journal.read(str(tmp_path / "none")) == State()


def test_only_living_holders_are_orphans():
    child = subprocess.Popen(["sleep", "100"])
    started = process.start_time(child.pid)
    dead = Orphan("a", "host", 1, [(child.pid, started + 1)])
    unmapped = Orphan("b", "host", 1, [(child.pid, started)])
    assert orphans.find(None, [dead, unmapped]) == []
    child.kill()
    child.wait()


def test_an_orphan_is_gone_with_its_last_holder():
    import select

    children = [subprocess.Popen(["cat"], stdin=subprocess.PIPE) for _ in range(2)]
    holders = [(child.pid, process.start_time(child.pid)) for child in children]
    handlers: dict[int, object] = {}
    gone: list[str] = []
    watch = orphans.Watch(
        [Orphan("both", "host", 1, holders), Orphan("one", "host", 1, holders[:1])],
        lambda fd, call: handlers.update({fd: call}),
        lambda fd: handlers.pop(fd, None),
        lambda orphan: gone.append(orphan.name),
    )
    for child, expected in zip(children, (["one"], ["one", "both"]), strict=True):
        child.stdin.close()
        child.wait()
        ready, _, _ = select.select(list(handlers), [], [], 10)
        for fd in ready:
            handlers[fd](0)
        assert gone == expected
    assert handlers == {}
    watch.close()


def test_a_start_awaits_the_end_of_the_manager_before_it(tmp_path):
    paths = RuntimePaths(str(tmp_path / "trims.sock"))
    last = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    index_rows.writer(paths.index, pid=last.pid, started=process.start_time(last.pid)).close()
    inheritance.await_end(paths, 0.01)  # not for ever
    waiting = threading.Thread(target=inheritance.await_end, args=(paths, 60.0))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    last.stdin.close()
    last.wait()
    waiting.join()
    inheritance.await_end(paths)
    os.unlink(paths.index)
    inheritance.await_end(paths)


@pytest.fixture
def resolver(store_root):
    store = create_store(str(store_root))
    for name in ("a", "b"):
        import_model(store, sources.source({"w": sources.numbers(ord(name), 8, 8)}), f"{name}:latest")
    resolver = Resolver(store, Variants(store.root))
    resolver.store_for_test = store
    return resolver


def test_what_was_looked_up_is_known_until_the_store_changes(resolver):
    assert resolver.quick("a", "raw") is None
    form = resolver.slow("a", "raw")
    assert resolver.quick("a", "raw") is form
    assert resolver.quick("a", "auto", "ort-1") is form
    assert resolver.quick_flavour("a", "auto") is form
    store = resolver.store_for_test
    import_model(store, sources.source({"w": sources.numbers(99, 8, 8)}), "a:latest")
    assert resolver.quick("a", "raw") is None
    assert resolver.slow("a", "raw").key.digest != form.key.digest
    os.unlink(store.paths.entry("a:latest"))
    assert resolver.quick("a", "raw") is None
    with pytest.raises(NoSuchModel):
        resolver.slow("a", "raw")
    assert resolver.slow(f"id:{form.key.digest}", "raw").key == form.key


def test_a_form_that_was_forgotten_is_read_again(resolver, monkeypatch):
    form = resolver.slow("a", "raw")
    monkeypatch.setattr("trims.manager.resolve._MOST", 0)
    resolver.slow("b", "raw")
    assert resolver.quick("a", "raw") is None
    again = resolver.form_of(form.key, form.ref)  # what a load asks for that waited for room meanwhile
    assert (again.key, again.nbytes, again.container) == (form.key, form.nbytes, form.container)
    resolver.forget(form.key)
    os.unlink(resolver.store_for_test.paths.sidecar(form.key.digest))
    with pytest.raises(NoSuchModel):
        resolver.form_of(form.key, form.ref)


def test_one_form_for_all_names_of_a_model(resolver):
    form = resolver.slow("a", "raw")
    digest = form.key.digest
    assert resolver.slow(f"id:{digest[:10]}", "raw") is form
    assert resolver.quick(f"id:{digest[:10]}", "raw") is None  # a prefix may come to name two
    assert resolver.slow(f"id:{digest}", "raw") is form
    assert resolver.quick(f"id:{digest}", "raw") is form


def test_a_known_digest_needs_no_store_any_more(resolver):
    form = resolver.slow("a", "raw")
    paths = resolver.store_for_test.paths
    os.unlink(paths.sidecar(form.key.digest))
    assert resolver.slow(f"id:{form.key.digest}", "raw") is form
    assert resolver.slow(f"id:{form.key.digest}", "raw").ref == "a:latest"
    resolver.forget(form.key)
    with pytest.raises(NoSuchModel):
        resolver.slow("a", "raw")


def test_variants_and_flavours(resolver):
    with pytest.raises(NoSuchVariant):
        resolver.slow("a", "ort-none")
    with pytest.raises(UsageError):
        resolver.slow("a", "../x")
    with pytest.raises(UsageError):
        resolver.slow_flavour("a", "tea")
    resolver._variants.key = "ort-test"
    with pytest.raises(NeedsBuilding) as needed:
        resolver.slow_flavour("a", "onnxruntime")
    assert not needed.value.optional


@pytest.mark.parametrize("text", ["", "raw", ".x", "-x", "a/b", "a\0b", "x" * 101, "\u00e9"])
def test_what_is_no_key(text):
    assert not is_key(text)


def test_a_childs_death_is_a_reason(monkeypatch):
    monkeypatch.setattr("trims.manager.variants._MODULE", "trims.no_such_module")
    with pytest.raises(NoSuchVariant, match="no_such_module"):
        Errand().run(["key"])


def test_a_cancelled_errand_does_not_run():
    errand = Errand()
    errand.cancel()
    with pytest.raises(TrimsError, match="nobody waits"):
        errand.run(["key"])


def test_work_comes_back_through_the_mailbox():
    import select

    mailbox = Mailbox()
    pool = Pool(mailbox, "test", 2)
    outcomes: list[object] = []
    loop = threading.get_ident()

    def done(outcome: object) -> None:
        assert threading.get_ident() == loop
        outcomes.append(outcome)

    pool.run(lambda: 7, done)
    pool.run(lambda: 1 // 0, done)
    while len(outcomes) < 2:
        assert select.select([mailbox.fd], [], [], 10)[0]
        mailbox.deliver()
    assert 7 in outcomes
    assert any(isinstance(outcome, ZeroDivisionError) for outcome in outcomes)
    pool.close()
    mailbox.close()
    mailbox.post(lambda: None)  # too late, and harmless


def test_a_region_that_was_lost_before_its_load_was_heard_of_is_closed() -> None:
    device = FakeDevice(1 << 20, "gpu:GPU-1")
    region = device.allocate("m", 4096)
    region.seal()
    error = lost(Filled(region, (0, 10)), LoadJob(1, Key("0" * 64, "raw", "gpu:GPU-1"), "m:latest", 4096))
    assert str(error) == "loading m:latest failed: the process that owned the memory on gpu:GPU-1 has ended"
    assert device.statistics().regions == 0
