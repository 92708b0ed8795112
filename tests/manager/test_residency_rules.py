"""The rules of residency, over the wire of a real manager: what the pure tests decide, done with real memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import sources

from trims.client.control import Control
from trims.disk.ingest import import_model
from trims.disk.store import open_store
from trims.errors import InUse, NoRoom, Pinned, TimedOut
from trims.paths import RuntimePaths
from trims.shmindex import reader

MIB = 1 << 20


class Place:
    """A manager with models to serve, and any number of clients of it."""

    def __init__(self, manager: Any, stack: ExitStack) -> None:
        self.manager, self._stack = manager, stack

    def import_models(self, mib: int, *names: str) -> None:
        store = open_store(str(self.manager.runtime.store))
        for seed, name in enumerate(names, mib * 100):
            weights = {"w": np.random.default_rng(seed).integers(0, 255, mib * MIB, dtype=np.uint8)}
            import_model(store, sources.source(weights), name)

    def client(self) -> Control:
        return self._stack.enter_context(self.manager.control())

    def residents(self) -> dict[str, str]:
        """State by ref, as the index has it."""
        snapshot = reader.read(RuntimePaths(str(self.manager.runtime.socket)).index)
        assert snapshot is not None and snapshot.alive
        assert all(place.used <= place.budget for place in snapshot.places)
        return {r.ref: r.state for r in snapshot.residencies}


@pytest.fixture
def small(managers: Callable[..., Any]) -> Iterator[Place]:
    """A manager with a budget of 10 MiB, and the models a to d of 3 MiB each."""
    with ExitStack() as stack:
        place = Place(managers(budget_host="10MiB"), stack)
        place.import_models(3, "a", "b", "c", "d")
        yield place


def test_the_least_recently_used_makes_room(small: Place) -> None:
    client = small.client()
    for name in ("a", "b", "c"):
        client.request("warm", ref=name)
    client.request("warm", ref="a")
    (item,) = client.request("warm", ref="d", dry_run=True)
    assert item["outcome"] == "would-warm"
    assert [victim["ref"] for victim in item["victims"]] == ["b:latest"]
    (item,) = client.request("warm", ref="d")
    assert [victim["ref"] for victim in item["victims"]] == ["b:latest"]
    assert small.residents() == {f"{name}:latest": "resident" for name in "acd"}


def test_a_request_waits_for_room_or_is_told_who_holds_it(small: Place) -> None:
    holder, client = small.client(), small.client()
    for name in ("a", "b", "c"):
        holder.request("attach", ref=name)
    with pytest.raises(NoRoom) as refused:
        client.request("attach", ref="d", timeout=0.05)
    blockers = refused.value.details["blockers"]
    assert {item["ref"] for item in blockers} == {"a:latest", "b:latest", "c:latest"}  # type: ignore[attr-defined]
    assert all(item["why"] == "leased" and item["holders"] for item in blockers)  # type: ignore[attr-defined]
    number = client.begin("attach", ref="d", timeout=60)
    holder.close()
    client.finish([number])
    assert small.residents()["d:latest"] == "resident"


def test_more_than_the_budget_is_refused_at_once(small: Place) -> None:
    small.import_models(11, "big")
    with pytest.raises(NoRoom, match="whole budget"):
        small.client().request("attach", ref="big")


def test_a_forced_eviction_dooms_until_the_client_is_done(small: Place) -> None:
    holder, client = small.client(), small.client()
    holder.request("attach", ref="a")
    with pytest.raises(InUse):
        client.request("evict", ref="a")
    (item,) = client.request("evict", ref="a", force=True)
    assert item["outcome"] == "doomed"
    assert small.residents() == {"a:latest": "doomed"}
    number = client.begin("wait", condition="gone", ref="a")
    again = client.begin("attach", ref="a")
    holder.close()
    assert client.finish([number])[1][0]["held"]
    client.finish([again])
    assert small.residents() == {"a:latest": "resident"}


def test_an_eviction_that_waits_does_not_doom(small: Place) -> None:
    holder, client = small.client(), small.client()
    holder.request("attach", ref="a")
    with pytest.raises(InUse):
        client.finish([client.begin("evict", ref="a", wait=True, timeout=0.05)])
    number = client.begin("evict", ref="a", wait=True, timeout=60)
    holder.close()
    assert client.finish([number])[1][0]["outcome"] == "evicted"
    assert small.residents() == {}


def test_until_free_and_pins(small: Place) -> None:
    client = small.client()
    client.request("pin", ref="a", owner="ann")
    client.request("warm", ref="b")
    with pytest.raises(Pinned):
        client.request("evict", ref="a", force=True)
    with pytest.raises(NoRoom):
        client.request("evict", until_free=9 * MIB)
    assert set(small.residents()) == {"a:latest", "b:latest"}
    assert [item["ref"] for item in client.request("evict", until_free=6 * MIB)] == ["b:latest"]
    with pytest.raises(Pinned):
        client.request("forget", digest=client.request("warm", ref="a")[0]["digest"])
    assert [item["owner"] for item in client.request("unpin", ref="a")] == ["ann"]
    assert [item["ref"] for item in client.request("evict")] == ["a:latest"]


def test_a_drain_that_takes_too_long_leaves_the_manager_serving(small: Place) -> None:
    holder, client = small.client(), small.client()
    holder.request("attach", ref="a")
    with pytest.raises(InUse):
        client.request("stop", drain=True, timeout=0.05)
    client.request("attach", ref="b")


def test_an_idle_model_lives_as_long_as_it_was_told(small: Place) -> None:
    client = small.client()
    client.request("warm", ref="a", ttl=0.05)
    assert client.request("wait", condition="gone", ref="a")[0]["held"]
    with pytest.raises(TimedOut):
        client.request("wait", condition="warm", ref="a", timeout=0.05)


def test_who_comes_after_a_cancelled_load_has_it_loaded_again(managers: Callable[..., Any]) -> None:
    """The load of a client that left at once is cancelled; the next client asks while that is still going on."""
    with ExitStack() as stack:
        place = Place(managers(budget_host="100MiB"), stack)
        place.import_models(48, "large")
        client = place.client()
        client.request("warm", ref="large")
        for _ in range(10):
            hasty = place.client()
            client.finish([client.begin("evict", ref="large", wait=True)])
            hasty.begin("attach", ref="large")
            hasty.close()
            patient = place.client()
            patient.request("attach", ref="large")
            patient.close()


def test_a_warm_that_does_not_wait_goes_on_after_its_client(small: Place) -> None:
    hasty = small.client()
    (item,) = hasty.finish([hasty.begin("warm", ref="a", wait=False)])[1]
    assert item["outcome"] in ("loading", "already")
    hasty.close()
    assert small.client().request("wait", condition="warm", ref="a")[0]["held"]


def test_pins_outlive_a_killed_manager(managers: Callable[..., Any]) -> None:
    with ExitStack() as stack:
        place = Place(managers(budget_host="10MiB"), stack)
        place.import_models(3, "a", "b")
        client = place.client()
        client.request("pin", ref="a", owner="ann", reason="demo")
        client.request("warm", ref="b")
        client.request("evict", ref="b")
        client.request("status")  # a turn later the journal is on its way
        place.manager.stop()
        place.manager = managers(budget_host="10MiB")
        client = place.client()
        assert client.request("wait", condition="warm", ref="a")[0]["held"]
        with pytest.raises(Pinned):
            client.request("evict", ref="a")


def test_a_pin_that_cannot_be_looked_up_today_is_kept_for_tomorrow(managers: Callable[..., Any]) -> None:
    with ExitStack() as stack:
        place = Place(managers(budget_host="10MiB"), stack)
        place.import_models(3, "a", "b")
        (item,) = place.client().request("pin", ref="a", owner="ann")
        place.manager.stop()
        sidecar = Path(open_store(str(place.manager.runtime.store)).paths.sidecar(item["digest"]))
        content = sidecar.read_bytes()
        sidecar.chmod(0o644)
        sidecar.write_bytes(content[:100])
        place.manager = managers(budget_host="10MiB")
        place.client().request("pin", ref="b", owner="bob")  # the journal is written anew
        place.manager.stop()
        sidecar.write_bytes(content)
        place.manager = managers(budget_host="10MiB")
        for name in ("a", "b"):
            assert place.client().request("wait", condition="warm", ref=name)[0]["held"]
        assert len(place.client().request("unpin")) == 2
