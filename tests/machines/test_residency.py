"""The residency machine against a world that does things in any order: nothing it does may break a rule."""

from __future__ import annotations

from typing import Any

from helpers.residency_world import World
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from trims.residency.effects import Grant, Reply
from trims.residency.events import (
    AttachAsked,
    Cancelled,
    Closed,
    EvictAsked,
    ForgetAsked,
    Key,
    Lost,
    Opened,
    PinAsked,
    PolicyAsked,
    Released,
    Restored,
    StopAsked,
    UnpinAsked,
    WaitAsked,
    WarmAsked,
    Who,
)
from trims.residency.machine import Machine
from trims.residency.policies import make
from trims.residency.policy import POLICIES

BUDGETS = {"host": 10, "gpu:a": 6}
SIZES = {"a": 1, "b": 3, "c": 4, "d": 6, "e": 9, "f": 12}
FOREVER = float("inf")

digests = st.sampled_from(sorted(SIZES))
places = st.sampled_from([*["host"] * 6, *["gpu:a"] * 3, "gpu:gone"])
keys = st.builds(Key, digests, st.sampled_from(["raw", "raw", "ort"]), places)
patience = st.sampled_from([0.0, 1.0, 5.0, 30.0, FOREVER])
flags = st.booleans()
owners = st.sampled_from(["ann", "bob"])


class Residency(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from(sorted(POLICIES)),
        ttl=st.sampled_from([FOREVER, FOREVER, 4.0, 0.0]),
        cap=st.sampled_from([10, 7]),
        min_resident=st.sampled_from([0.0, 0.0, 3.0]),
        turn=st.sampled_from([FOREVER, FOREVER, 2.0, 0.0]),
    )
    def start(self, policy: str, ttl: float, cap: int, min_resident: float, turn: float) -> None:
        self.begin(policy, ttl, cap, min_resident, turn)

    def begin(self, policy: str, ttl: float, cap: int, min_resident: float, turn: float) -> None:
        machine = Machine(BUDGETS, POLICIES[policy](), ttl, {"host": cap}, min_resident, turn, {"gpu:a": ("host",)})
        self.world = World(machine, BUDGETS)
        self.requests = getattr(self, "requests", 0)
        self.connections = 0
        self.open: list[int] = []
        self.connect()

    def connect(self) -> int:
        self.connections += 1
        self.world.tell(Opened(self.connections, Who(100 + self.connections, 7, 1000)))
        self.open.append(self.connections)
        return self.connections

    def asked(self, data: Any, patience: float) -> tuple[int, int, float]:
        """(conn, request, deadline) of a new request of some client."""
        self.requests += 1
        return data.draw(st.sampled_from(self.open)), self.requests, self.world.now + patience

    def target(self, key: Key) -> tuple[Key, str, int]:
        return key, f"{key.digest}:latest", SIZES[key.digest]

    # ---- clients

    @precondition(lambda self: len(self.open) < 5)
    @rule()
    def opens(self) -> None:
        self.connect()

    @precondition(lambda self: len(self.open) > 1)
    @rule(data=st.data())
    def closes(self, data: Any) -> None:
        conn = data.draw(st.sampled_from(self.open))
        self.open.remove(conn)
        self.world.tell(Closed(conn))

    @rule(data=st.data(), key=keys, patience=patience)
    def attaches(self, data: Any, key: Key, patience: float) -> None:
        self.world.tell(AttachAsked(*self.asked(data, patience), *self.target(key)))

    @rule(data=st.data(), strange=flags)
    def releases(self, data: Any, strange: bool) -> None:
        if self.world.leases:
            lease = data.draw(st.sampled_from(sorted(self.world.leases)))
            conn = self.world.leases[lease][0]
            if strange:  # somebody else's lease, or none: no effect
                assert self.world.tell(Released(conn + 1, lease)) == []
                assert self.world.tell(Released(conn, lease + 1000)) == []
            else:
                del self.world.leases[lease]
                self.world.tell(Released(conn, lease))

    @rule(
        data=st.data(),
        key=keys,
        patience=patience,
        ttl=st.sampled_from([None, 0.0, 3.0, FOREVER]),
        wait=flags,
        evict=flags,
        dry_run=st.sampled_from([False, False, True]),
    )
    def warms(self, data: Any, key: Key, patience: float, ttl: float, wait: bool, evict: bool, dry_run: bool) -> None:
        event = WarmAsked(
            *self.asked(data, patience), *self.target(key), ttl=ttl, wait=wait, evict=evict, dry_run=dry_run
        )
        before = list(self.world.machine.residencies())
        self.world.tell(event)
        if not wait or dry_run:
            assert (event.conn, event.request) not in self.world.asks, "an answer at once was asked for"
        if dry_run:
            assert list(self.world.machine.residencies()) == before

    @rule(data=st.data(), key=keys, patience=patience, owner=owners, lasting=st.sampled_from([0.0, 6.0, FOREVER]))
    def pins(self, data: Any, key: Key, patience: float, owner: str, lasting: float) -> None:
        asked = self.asked(data, patience)
        self.world.tell(PinAsked(*asked, *self.target(key), owner, "because", self.world.now + lasting))

    @rule(data=st.data(), digest=st.sampled_from(["", *SIZES]), owner=st.sampled_from(["", "ann", "bob"]))
    def unpins(self, data: Any, digest: str, owner: str) -> None:
        self.world.tell(UnpinAsked(*self.asked(data, 5.0), digest, f"{digest}:latest", owner))
        assert not [p for p in self.world.machine.pins() if owner in ("", p.owner) and digest in ("", p.key.digest)], (
            "unpinned, and still there"
        )

    @rule(
        data=st.data(), place=places, digest=digests, patience=patience, force=flags, wait=flags,
        dry_run=st.sampled_from([False, False, True]),
    )  # fmt: skip
    def evicts(
        self, data: Any, place: str, digest: str, patience: float, force: bool, wait: bool, dry_run: bool
    ) -> None:
        asked = self.asked(data, patience)
        self.world.tell(EvictAsked(*asked, place, digest, f"{digest}:latest", force=force, wait=wait, dry_run=dry_run))

    @rule(
        data=st.data(), place=places, idle=st.sampled_from([None, 0.0, 3.0]),
        until_free=st.sampled_from([None, None, 2, 8, 99]), dry_run=flags,
    )  # fmt: skip
    def evicts_by_rule(self, data: Any, place: str, idle: float | None, until_free: int | None, dry_run: bool) -> None:
        asked = self.asked(data, 30.0)
        self.world.tell(EvictAsked(*asked, place, idle=idle, until_free=until_free, dry_run=dry_run))

    @rule(data=st.data(), digest=digests, force=flags)
    def forgets(self, data: Any, digest: str, force: bool) -> None:
        self.world.tell(ForgetAsked(*self.asked(data, 5.0), digest, force))

    @rule(
        data=st.data(), condition=st.sampled_from(["warm", "gone", "idle", "attached", "free"]), place=places,
        digest=digests, nbytes=st.sampled_from([1, 5, 11]), patience=patience,
    )  # fmt: skip
    def waits(self, data: Any, condition: str, place: str, digest: str, nbytes: int, patience: float) -> None:
        digest = "" if condition == "free" else digest
        self.world.tell(WaitAsked(*self.asked(data, patience), condition, place, digest, f"{digest}:latest", nbytes))

    @rule(data=st.data(), policy=st.sampled_from(sorted(POLICIES)))
    def changes_the_policy(self, data: Any, policy: str) -> None:
        before = self.world.machine.policy
        self.world.tell(PolicyAsked(*self.asked(data, 5.0), make(policy)))
        told = [a for a in self.world.answers if isinstance(a, Reply) and a.request == self.requests]
        assert [a.items for a in told] == [({"policy": policy, "before": before},)]
        assert self.world.machine.policy == policy

    @rule(data=st.data(), patience=st.sampled_from([0.0, 1.0]))
    def asks_to_drain(self, data: Any, patience: float) -> None:
        """Where clients are served it does not end, mostly; where it does, another one begins."""
        if self.world.leases:
            self.world.tell(StopAsked(*self.asked(data, patience)))
            self.world.advance(patience)
            assert self.world.exited or not self.world.machine.stopping
        if self.world.exited:
            self.begin("lru", FOREVER, 10, 0.0, FOREVER)

    @rule(data=st.data())
    def cancels(self, data: Any) -> None:
        if self.world.asks:
            ask = data.draw(st.sampled_from(sorted(self.world.asks)))
            del self.world.asks[ask]
            self.world.tell(Cancelled(*ask))

    @rule(key=keys, owner=st.sampled_from(["", "ann"]))
    def restores(self, key: Key, owner: str) -> None:
        self.world.tell(Restored(*self.target(key), owner))

    # ---- the world

    @precondition(lambda self: self.world.loads)
    @rule(data=st.data(), fail=st.sampled_from([False, False, False, True]))
    def load_ends(self, data: Any, fail: bool) -> None:
        self.world.load_done(data.draw(st.sampled_from(sorted(self.world.loads))), fail)

    @precondition(lambda self: self.world.frees)
    @rule(data=st.data())
    def free_ends(self, data: Any) -> None:
        self.world.free_done(data.draw(st.sampled_from(self.world.frees)))

    @precondition(lambda self: self.world.regions)
    @rule(data=st.data())
    def memory_is_lost(self, data: Any) -> None:
        key = data.draw(st.sampled_from(sorted(self.world.regions)))
        self.world.tell(Lost(key))
        found = self.world.machine.residency(key)
        assert found is not None and found.state == "doomed"

    @precondition(lambda self: self.world.shrinks)
    @rule()
    def shrink_ends(self) -> None:
        self.world.shrink_done()

    @rule(
        place=st.sampled_from(sorted(BUDGETS)), name=st.sampled_from(["spare", "orphan 12"]), nbytes=st.integers(0, 4)
    )
    def others_take_memory(self, place: str, name: str, nbytes: int) -> None:
        self.world.reserve(place, name, nbytes)

    @rule(seconds=st.sampled_from([0.5, 2.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    # ---- the end

    def teardown(self) -> None:
        """Nobody is there and nothing is pinned: everything can be evicted, and the books close at zero."""
        if not hasattr(self, "world") or self.world.broken:
            return
        world = self.world
        for conn in self.open:
            world.tell(Closed(conn))
        self.open = []
        me = self.connect()
        world.tell(UnpinAsked(me, 10**6, FOREVER))
        for place, name in list(world.reserved):
            world.reserve(place, name, 0)
        world.shrinks.clear()
        for _ in range(len(SIZES) * 2):  # whoever still waits for what is too young has it in the end
            world.settle()
            world.advance(4.0)
        assert not world.leases
        for number, place in enumerate(BUDGETS, 10**6 + 1):
            world.tell(EvictAsked(me, number, FOREVER, place))
            world.settle()
            assert isinstance(world.answers[-1], Reply)
            assert world.used(place) == 0
        assert not list(world.machine.residencies()) and not world.asks
        key = Key("e", "raw", "host")
        world.tell(AttachAsked(me, 10**7, FOREVER, key, "e:latest", SIZES["e"]))
        world.settle()
        assert world.answers[-1] == Grant(me, 10**7, max(world.leases), key, "loaded")


TestResidency = Residency.TestCase
TestResidency.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
