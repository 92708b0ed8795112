"""A reader races a writer that is killed at some random moment: every row it sees is whole, before and after."""

from __future__ import annotations

import os
import random
import signal

import pytest
from helpers.index_rows import is_whole, is_whole_lease, put, put_lease, writer
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trims.linux import flock
from trims.shmindex.reader import Index, Snapshot, read


def check(snapshot: Snapshot) -> None:
    assert all(is_whole(r) for r in snapshot.residencies)
    assert all(is_whole_lease(x) for x in snapshot.leases)
    slots = {r.slot: r.serial for r in snapshot.residencies}
    assert all(slots[x.residency_slot] == x.serial for x in snapshot.leases)


def write_for_ever(path: str, seed: int, ready: int) -> None:
    """What the child does: own the lock, then change rows as fast as it can."""
    rng = random.Random(seed)
    directory = os.path.dirname(path)
    assert flock.own(os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT))
    index = writer(path)
    n = 0
    while True:
        n += 1
        if n == 200:
            os.write(ready, b"r")
        key = rng.randrange(12)
        if rng.random() < 0.2:
            index.drop_residency(key)
        elif rng.random() < 0.7:
            put(index, key, n)
        else:
            put_lease(index, n, key)
            index.drop_lease(rng.randint(max(1, n - 40), n))
        index.put_meta({"n": n})


@pytest.mark.parametrize("seed", range(8))
def test_a_killed_writer(tmp_path, seed):
    path = str(tmp_path / "index")
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            write_for_ever(path, seed, told)
        finally:
            os._exit(1)
    os.close(told)
    assert os.read(ready, 1) == b"r"
    os.close(ready)
    with Index(path) as index:
        for _ in range(random.Random(seed).randrange(20, 300)):
            snapshot = index.snapshot()
            assert snapshot.alive
            check(snapshot)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        last = index.snapshot()
    assert not last.alive
    check(last)
    assert last.residencies


class IndexAgainstDictionary(RuleBasedStateMachine):
    """The file says what a dictionary would."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.path = f"{self.directory.name}/index"
        self.index = writer(self.path)
        self.rows: dict[int, int] = {}
        self.held: dict[int, int] = {}
        self.next = 0

    def teardown(self) -> None:
        self.index.close()
        self.directory.cleanup()

    @rule(key=st.integers(0, 7), n=st.integers(0, 1 << 40))
    def put(self, key: int, n: int) -> None:
        put(self.index, key, n)
        self.rows[key] = n

    @rule(key=st.integers(0, 7))
    def drop(self, key: int) -> None:
        for lease in [lease for lease, of in self.held.items() if of == key]:
            self.index.drop_lease(lease)
            del self.held[lease]
        self.index.drop_residency(key)
        self.rows.pop(key, None)

    @rule(key=st.integers(0, 7))
    def lease(self, key: int) -> None:
        if key in self.rows and len(self.held) < 16:
            self.next += 1
            put_lease(self.index, self.next, key)
            self.held[self.next] = key

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            lease = data.draw(st.sampled_from(sorted(self.held)))
            self.index.drop_lease(lease)
            del self.held[lease]

    @rule()
    def restart(self) -> None:
        self.index.close()
        self.index = writer(self.path)
        self.rows.clear()
        self.held.clear()

    @invariant()
    def same(self) -> None:
        self.index.put_meta({})
        snapshot = read(self.path)
        assert snapshot is not None
        check(snapshot)
        by_slot = {r.slot: int(r.digest, 16) for r in snapshot.residencies}
        assert {by_slot[r.slot]: r.hits for r in snapshot.residencies} == self.rows
        assert {x.lease: by_slot[x.residency_slot] for x in snapshot.leases} == self.held


TestIndexAgainstDictionary = IndexAgainstDictionary.TestCase
TestIndexAgainstDictionary.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


@given(st.binary(min_size=0, max_size=200), st.integers(0, 30_000))
@settings(max_examples=60, deadline=None)
def test_any_damage_gives_rows_that_are_whole_or_none(junk, at):
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/index"
        index = writer(path)
        for key in range(8):
            put(index, key, key)
        put_lease(index, 1, 2)
        index.put_meta({"n": 1})
        index.close()
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(junk)
        snapshot = read(path)
        if snapshot is not None:
            assert all(is_whole(r) for r in snapshot.residencies)
