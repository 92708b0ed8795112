"""A load that reads from another place: what it reads stays where it is until it has ended."""

from __future__ import annotations

import pytest
from helpers.residency_script import acts, items, key
from helpers.residency_world import World

from trims.residency.effects import Free, Load
from trims.residency.events import EvictAsked, Freed, Opened, WarmAsked, Who
from trims.residency.machine import Machine
from trims.residency.policies import make

HOST, GPU, OTHER = "host", "gpu:a", "gpu:b"
BUDGETS = {HOST: 10, GPU: 10, OTHER: 10}
SOURCES = {GPU: (OTHER, HOST), OTHER: (GPU, HOST)}


class Places(World):
    """Three places, one client."""

    def __init__(self) -> None:
        super().__init__(Machine(BUDGETS, make("lru"), sources=SOURCES), BUDGETS)
        self.tell(Opened(1, Who(101, 7, 1000)))
        self.requests = 0

    def asked(self) -> tuple[int, int, float]:
        self.requests += 1
        return 1, self.requests, self.now + 60

    def warm(self, place: str, nbytes: int = 4, model: str = "a") -> list[object]:
        target = key(model, place=place), f"{model}:latest", nbytes
        return list(acts(self.tell(WarmAsked(*self.asked(), *target))))

    def evict(self, place: str, **more: object) -> list[object]:
        return list(acts(self.tell(EvictAsked(*self.asked(), place, "a" * 8, "a:latest", **more))))  # type: ignore[arg-type]

    def made_resident(self, *places: str) -> None:
        for place in places:
            self.warm(place)
            self.settle()


def test_a_load_reads_from_the_nearest_place_that_has_it() -> None:
    world = Places()
    assert world.warm(GPU) == [Load(key("a", place=GPU), 1, "a:latest", 4)]  # nobody else has it: from disk
    world.settle()
    assert world.warm(HOST) == [Load(key("a", place=HOST), 2, "a:latest", 4)]  # the host reads the disk alone
    world.settle()
    assert world.warm(OTHER) == [Load(key("a", place=OTHER), 3, "a:latest", 4, GPU)]


def test_it_reads_another_form_or_what_is_only_loading_from_disk() -> None:
    world = Places()
    world.warm(HOST)
    assert world.warm(GPU) == [Load(key("a", place=GPU), 2, "a:latest", 4)]
    world.settle()
    target = key("a", "ort", GPU), "a:latest", 2
    assert acts(world.tell(WarmAsked(*world.asked(), *target))) == [Load(key("a", "ort", GPU), 3, "a:latest", 2)]


@pytest.mark.parametrize("fail", [False, True])
def test_what_is_read_is_no_victim_and_goes_after_it(fail: bool) -> None:
    world = Places()
    world.made_resident(HOST)
    world.warm(GPU)
    assert world.machine.use(HOST).idle == 0 and world.machine.use(HOST).leased == 4
    assert world.evict(HOST) == []  # doomed; answered when it has gone
    assert acts(world.load_done(2, fail))[0] == Free(key("a", place=HOST))
    (answer,) = [e for e in world.free_done(key("a", place=HOST)) if not isinstance(e, Free)][-1:]
    assert items([answer])[0]["outcome"] == "evicted"


def test_it_is_idle_again_when_the_load_has_ended() -> None:
    world = Places()
    world.made_resident(HOST)
    world.warm(GPU)
    world.warm(HOST, 8, "b")  # waits: what is read is no victim
    assert [k.digest[0] for k, _ in world.loads.values()] == ["a"]
    assert Free(key("a", place=HOST)) in world.load_done(2)
    world.settle()
    assert world.machine.residency(key("b", place=HOST)) is not None
    assert world.machine.residency(key("a", place=HOST)) is None


def test_what_a_place_measures_of_what_went_is_in_the_answer() -> None:
    world = Places()
    world.made_resident(GPU)
    world.evict(GPU)
    del world.regions[key("a", place=GPU)]
    world.frees.clear()
    (reply,) = acts(world.tell(Freed(key("a", place=GPU), 3)))
    assert items([reply])[0] == {**items([reply])[0], "nbytes": 4, "measured": 3, "outcome": "evicted"}
