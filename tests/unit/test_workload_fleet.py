"""Fleets on paper: a fleet of one is the simulator, routers keep their word, the remote store's link is shared."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trims.errors import UsageError
from trims.workload import distributions, fleet, outcomes, routing
from trims.workload.cost import ASSUMED, Line, Link
from trims.workload.models import ModelSpec
from trims.workload.plan import Plan, Stream
from trims.workload.simulator import Setup, simulate

MODELS = tuple(ModelSpec(f"m{i}", (i % 7 + 1) << 24, 10) for i in range(30))
TOTAL = sum(model.nbytes for model in MODELS)
WAYS = ("random", "hash", "hash:k=2", "warm-first")


def plan(clients=6, requests=600, seed=1, spread="zipf"):
    return Plan(MODELS, distributions.parse(spread), 1.0, clients, requests, seed=seed).stream()


def serve(stream, machines, way, budget=TOTAL // 3, disk=TOTAL, cost=ASSUMED, **more):
    asked = fleet.Fleet(machines, routing.parse(way), Setup(budget), disk, **more)
    return fleet.serve(stream, asked, cost)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cache", ["warm", "cold"])
@pytest.mark.parametrize("budget", [TOTAL, TOTAL // 4, MODELS[4].nbytes])
def test_one_machine_with_everything_on_disk_is_the_simulator(way, cache, budget):
    # The smallest budget refuses the largest models: they are served natively on both sides.
    stream, setup = plan(), Setup(budget, cache=cache)
    apart = simulate(stream, setup, ASSUMED)
    served = fleet.serve(stream, fleet.Fleet(1, routing.parse(way), setup, TOTAL, filled=True), ASSUMED)
    for name in ("request", "model", "how", *outcomes.TIMES):
        np.testing.assert_array_equal(served.outcomes[name], apart.outcomes[name])
    assert served.counters == apart.counters
    assert served.egress == 0 and not np.any(served.tier == fleet.REMOTE)


@pytest.mark.parametrize("way", WAYS)
def test_the_same_again_is_the_same_to_the_last_digit(way):
    first, again = (serve(plan(), 7, way, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.outcomes, again.outcomes)
    assert first.to_dict() == again.to_dict()
    np.testing.assert_array_equal(first.busy, again.busy)


def test_random_follows_its_own_seed():
    assert not np.array_equal(*(serve(plan(), 7, "random", seed=seed).outcomes["client"] for seed in (1, 2)))


@pytest.mark.parametrize(("way", "most"), [("hash", 1), ("hash:k=3", 3)])
def test_hash_sends_a_model_to_as_many_machines_as_it_may(way, most):
    served = serve(plan(clients=40), 20, way)
    used = [len(set(served.outcomes["client"][served.outcomes["model"] == model])) for model in range(len(MODELS))]
    assert max(used) == most == served.replicas.max()
    asked = plan(clients=40).counts() > 0
    np.testing.assert_array_equal(served.replicas[asked] > 0, True)


@given(st.integers(0, 5000), st.integers(1, 60))
@settings(max_examples=40)
def test_one_machine_more_moves_only_its_own_models(model, machines):
    few, more = routing.rendezvous(model, machines), routing.rendezvous(model, machines + 1)
    assert sorted(more) == list(range(machines + 1))
    assert [number for number in more if number != machines] == few


def test_models_spread_evenly_by_their_hash():
    first = np.bincount([routing.rendezvous(model, 10)[0] for model in range(5000)], minlength=10)
    assert first.min() > 400 and first.max() < 600  # 500 each; five sigma are 106


@pytest.mark.parametrize("seed", range(3))
def test_warm_first_never_loads_what_an_idle_machine_holds(seed):
    stream = plan(clients=60, requests=1200, seed=seed)
    served = serve(stream, 6, "warm-first", budget=TOTAL)  # nothing is evicted: what was loaded stays
    made = served.outcomes
    loads = np.flatnonzero(made["how"] == outcomes.LOADED)
    assert len(loads) > np.count_nonzero(stream.counts())  # it does spread
    for row in made[loads]:
        there = set(made["client"][(made["model"] == row["model"]) & (made["ready"] < row["asked"])])
        under_way = (
            (made["asked"] <= row["asked"]) & (made["done"] > row["asked"]) & (made["request"] != row["request"])
        )
        assert there <= set(made["client"][under_way])


def test_a_model_spreads_as_far_as_its_load_is_worth():
    one = (ModelSpec("m", 1 << 30, 1),)
    stream = Stream(one, np.zeros(2000), None, 40)

    def replicas(compute):
        cost = replace(ASSUMED, compute=Line(compute), slowdown=((1.0, 1.0), (4.0, 1.0)))
        return int(serve(stream, 50, "warm-first", budget=1 << 30, disk=1 << 30, cost=cost, filled=True).replicas[0])

    # 40 at once on four cores: on one machine each takes ten times its work. A load takes 0.36 s.
    assert replicas(0.0001) == 1
    assert 1 < replicas(0.1) < replicas(1.0) <= 40


def test_what_is_on_no_disk_comes_over_the_link_and_the_store_is_shared():
    link = Link(100.0, 200.0, 1.0)  # 1 s and 100 bytes a second each, 200 in all
    models = tuple(ModelSpec(f"m{i}", 300, 1) for i in range(8))
    owner = [routing.rendezvous(model, 50)[0] for model in range(8)]
    assert len(set(owner)) == 8
    cost = replace(
        ASSUMED, cores=1000, fork=0.0, connect=0.0, attach=Line(0.0), compute=Line(0.0), finish=0.0, remote=link,
        load_weight=0.0, slowdown=((1.0, 1.0), (1000.0, 1.0)),
    )  # fmt: skip
    for at_once in (1, 2, 4, 8):
        served = serve(Stream(models, np.arange(8)[:at_once], None, at_once), 50, "hash", 1000, 1000, cost)
        expected = 4.0 * max(1, at_once / 2)
        np.testing.assert_allclose(served.outcomes["done"], expected)
        assert served.egress == 300 * at_once and set(served.tier) == {fleet.REMOTE}


def test_transfers_to_one_machine_come_one_after_another():
    models = tuple(ModelSpec(f"m{i}", 100, 1) for i in range(3))
    cost = replace(
        ASSUMED, cores=9, fork=0.0, connect=0.0, attach=Line(0.0), compute=Line(0.0), finish=0.0,
        remote=Link(100.0, 1e9), load_weight=0.0, slowdown=((1.0, 1.0), (9.0, 1.0)),
    )  # fmt: skip
    served = serve(Stream(models, np.arange(3), None, 3), 1, "hash", 1000, 1000, cost)
    np.testing.assert_allclose(served.outcomes["done"], [1, 2, 3])


def test_a_model_that_was_evicted_from_memory_is_still_on_the_disk_until_that_is_full():
    models = tuple(ModelSpec(f"m{i}", 100, 1) for i in range(3))
    stream = Stream(models, np.array([0, 1, 0, 2, 0, 1]), None, 1)
    served = serve(stream, 1, "hash", budget=100, disk=200)
    tiers = [fleet.TIERS[number] for number in served.tier]
    # 2 displaces 1 from the disk, not 0, which was used since.
    assert tiers == ["remote", "remote", "disk", "remote", "disk", "remote"]
    assert served.egress == 400
    assert [tier.requests for tier in served.tiers] == [0, 0, 2, 4]
    assert [tier.nbytes for tier in served.tiers] == [0, 0, 200, 400]
    none = serve(stream, 1, "hash", budget=100, disk=0)
    assert none.egress == 600 and math.isnan(none.tiers[fleet.DISK].mean)


def test_a_filled_disk_holds_what_fits_and_keeps_the_first_models_longest():
    disk = fleet.Disk(250)
    disk.fill([100, 100, 100, 50])
    assert [model in disk for model in range(4)] == [True, True, False, True] and disk.used == 250
    disk.keep(2, 100)
    assert [model in disk for model in range(4)] == [True, False, True, False]


@pytest.mark.parametrize("way", WAYS)
def test_figures_hold_together(way):
    stream = plan(clients=20, requests=900)
    served = serve(stream, 10, way, disk=TOTAL // 3)
    outcomes.validate(served.outcomes, len(MODELS))
    assert sum(tier.requests for tier in served.tiers) == 900 == served.requests.sum()
    assert sum(tier.nbytes for tier in served.tiers) == stream.bytes_asked()
    assert served.egress == served.tiers[fleet.REMOTE].nbytes
    assert served.counters["loads"] == served.summary.loads
    assert served.imbalance == served.requests.max() / 90 >= 1
    assert np.all(served.busy <= served.summary.seconds + 1) and np.all((served.busy > 0) == (served.requests > 0))
    np.testing.assert_array_equal(served.requests, np.bincount(served.outcomes["client"], minlength=10))


def test_busy_is_the_time_in_which_anything_goes_on():
    models = (ModelSpec("m", 1, 1),)
    cost = replace(ASSUMED, slowdown=((1.0, 1.0), (4.0, 1.0)), remote=Link(1e9, 1e9, 0.0))
    stream = Stream(models, np.zeros(3), np.array([0.0, 0.001, 50.0]), 5)
    served = serve(stream, 1, "hash", budget=1, disk=1, cost=cost)
    made, end = served.outcomes, cost.finish
    assert served.busy[0] == pytest.approx(made["done"][1] + end + made["done"][2] + end - 50.0)
    assert served.busy_imbalance == 1.0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fleet.Fleet(0, routing.parse("hash"), Setup(1), 1), "0 machines"),
        (lambda: fleet.Fleet(1001, routing.parse("hash"), Setup(1), 1), "1001 machines"),
        (lambda: fleet.Fleet(1, routing.parse("hash"), Setup(1), -1), "less than nothing"),
        (lambda: routing.parse("nearest"), "unknown routing"),
        (lambda: routing.parse("hash:k=0"), "k=0"),
        (lambda: routing.parse("random:k=2"), "no parameter"),
    ],
)
def test_what_is_no_fleet_is_refused(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_no_request_at_all_is_a_result_too():
    served = serve(Stream(MODELS, np.array([], int)), 3, "warm-first")
    assert served.egress == 0 and served.imbalance == 1.0 and served.to_dict()["replicas_max"] == 0


def test_what_was_evicted_is_on_that_machine_no_more():
    models = tuple(ModelSpec(f"m{i}", 100, 1) for i in range(40))
    stream = Plan(models, distributions.parse("uniform"), requests=400).stream()
    # Room for one model on each of four machines: none is ever on all four, though most were on each once.
    served = serve(stream, 4, "random", budget=100)
    asked = {(row["model"], row["client"]) for row in served.outcomes}
    assert len(asked) > 130 and served.replicas.max() < 4
