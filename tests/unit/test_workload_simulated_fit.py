"""Calibration and validation on runs whose truth is known: those that the simulator itself made."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from trims.workload import calibrate, cost, fits, outcomes, validate
from trims.workload.models import ModelSpec
from trims.workload.plan import Stream
from trims.workload.simulator import Setup, simulate

TRUTH = replace(
    cost.ASSUMED,
    cores=2,
    slowdown=((1.0, 1.0), (2.0, 1.3), (4.0, 2.5), (8.0, 5.0)),
    cached=cost.Link(2e9, 2.8e9, 0.002),
    load_weight=0.5,
    free=cost.Line(0.0),
)
MODELS = tuple(ModelSpec(f"m{i}", (i + 1) << 20, 1) for i in range(12))
ROOM = fits.Room(MODELS, MODELS)
N = 400


def served(clients, budget, seed=1, truth=TRUTH, n=N):
    """What a real run would give, with the simulator as the world."""
    bring = np.arange(12, dtype=np.int32)
    asked = np.concatenate((bring, calibrate._draw(12, n, seed)))
    return SimpleNamespace(
        outcomes=simulate(Stream(MODELS, asked, None, clients), Setup(budget), truth).outcomes, counters={}
    )


def test_a_line_is_found_again_and_keeps_the_mean_where_it_cannot_be():
    nbytes = np.array([1, 1, 2, 3], dtype=np.int64)
    groups = np.array([0, 0, 1, 2], dtype=np.int32)
    found = fits.line(nbytes, 2 + 0.5 * nbytes, groups)
    assert (found.fixed, found.per_byte) == (pytest.approx(2.0), pytest.approx(0.5))
    falling = fits.line(nbytes, 9.0 - nbytes, groups)
    assert (falling.fixed, falling.per_byte) == (pytest.approx((8 + 8 + 7 + 6) / 4), 0.0)
    through = fits.line(nbytes, 3.0 * nbytes - 2, groups)
    assert through.fixed == 0 and through.per_byte * nbytes.mean() == pytest.approx((3.0 * nbytes - 2).mean())
    assert fits.line(nbytes[:0], np.zeros(0), groups[:0]) == cost.Line(0.0)


def test_the_parts_of_a_hit_are_those_of_the_truth():
    parts = fits.Parts([served(1, ROOM.nbytes)], ROOM)
    assert parts.fork == pytest.approx(TRUTH.fork) and parts.finish == pytest.approx(TRUTH.finish)
    assert parts.ready.fixed == pytest.approx(TRUTH.connect + TRUTH.attach.fixed)
    assert parts.compute.fixed == pytest.approx(TRUTH.compute.fixed)
    assert parts.compute.per_byte == pytest.approx(TRUTH.compute.per_byte)


def test_a_model_costs_by_its_bytes_and_its_tensors():
    models = tuple(ModelSpec(f"m{i}", (i + 1) << 20, 1 + 7 * i % 5) for i in range(9))
    room, asked = fits.Room(models, models), np.tile(np.arange(9, dtype=np.int32), 3)
    nbytes, tensors = np.array([m.nbytes for m in models]), np.array([m.tensors for m in models])
    truth = 0.001 + 2e-10 * nbytes + 3e-4 * tensors
    assert fits.by_model(room, asked, truth[asked]) == pytest.approx(truth)
    fewer = 0.01 + 2e-10 * nbytes - 3e-4 * tensors
    assert (fits.by_model(room, asked, fewer[asked]) > 0).all(), "a part below 0 was kept"
    assert not fits.by_model(room, asked[:0], truth[:0]).any()


def test_a_machine_at_another_pace_takes_so_many_times_as_long():
    stream = Stream(MODELS, np.arange(12, dtype=np.int32) % 5, np.arange(12) * 10.0)
    truth = replace(TRUTH, models={"m1": (0.5, 0.25)}, dispatch=0.125)
    for cache in ("warm", "cold"):
        one, two = (simulate(stream, Setup(ROOM.nbytes, cache=cache), c).outcomes for c in (truth, truth.slowed(2.0)))
        assert two["done"] - two["asked"] == pytest.approx(2 * (one["done"] - one["asked"]))
    assert (one["began"] - one["asked"]).min() == pytest.approx(0.125 + TRUTH.fork)
    closed = simulate(stream.closed(1), Setup(ROOM.nbytes), truth).outcomes
    assert (closed["began"] - closed["asked"]).max() == pytest.approx(TRUTH.fork), "a closed loop has no dispatch"


def test_functions_slow_the_part_of_a_load_that_takes_processor_time():
    prices = replace(TRUTH, load_weight=0.0, load_cpu=0.5)
    assert prices.load_speed("warm", 1, 0) == 1.0 == prices.load_speed("cold", 1, 8)
    assert prices.load_speed("warm", 1, 8) == pytest.approx(1 / (1 + 0.5 * (5.0 - 1)))
    stream = Stream(MODELS[:1], np.zeros(1, np.int32))
    seconds = {part: simulate(stream, Setup(1 << 30), replace(prices, load_cpu=part)).outcomes for part in (0.0, 0.5)}
    assert seconds[0.0]["done"] == pytest.approx(seconds[0.5]["done"]), "alone, nothing slows it"


def test_slowing_is_found_from_what_a_request_takes_each_client():
    runs = {k: served(k, ROOM.nbytes) for k in (1, 2, 4, 8)}
    found = fits.slowdown({k: fits.cycle(run) for k, run in runs.items()})
    for (k, times), (_, truth) in zip(found, TRUTH.slowdown, strict=True):
        assert times == pytest.approx(truth, rel=0.03), k


def test_the_disk_is_found_from_what_loads_wait():
    parts = fits.Parts([served(1, ROOM.nbytes)], ROOM)
    alone = replace(TRUTH, load_weight=0.0)
    link = fits.link_of(served(1, ROOM.nbytes // 2, truth=alone), parts, ROOM)
    assert link.alone == pytest.approx(2e9, rel=0.01) and link.latency == pytest.approx(0.002, rel=0.01)


def test_what_cannot_be_seen_is_chosen_by_the_simulator():
    guess = replace(TRUTH, load_weight=0.0, cached=cost.Link(2e9, 2e9, 0.002))
    crowds = [(k, "warm", served(k, ROOM.nbytes // 2, seed=k, n=150)) for k in (2, 4)]
    found = fits.sharing_of(guess, ROOM, "warm", crowds)
    misses = [sum(fits._miss(each, ROOM, crowd) for crowd in crowds) for each in (guess, found)]
    assert misses[1] < 0.02 < misses[0]
    assert (found.load_weight, found.cached.together) == (0.5, pytest.approx(2.8e9))


def test_a_replay_has_the_order_in_which_was_asked():
    run = served(3, ROOM.nbytes)
    rows = run.outcomes.copy()
    rows["asked"] = rows["asked"][::-1]
    again = fits.replay(SimpleNamespace(outcomes=rows), ROOM, 3)
    assert sorted(again.model) == sorted(run.outcomes["model"]) and again.at is None
    timed = fits.replay(run, ROOM, 3, timed=True)
    assert (timed.at == np.sort(run.outcomes["asked"])).all()


def test_the_gap_is_each_clients_own():
    rows = outcomes.empty(4)
    rows["client"], rows["asked"], rows["done"] = [0, 1, 0, 1], [0, 0, 5, 9], [4, 6, 8, 10]
    assert fits.gap(SimpleNamespace(outcomes=rows)) == pytest.approx((1 + 3) / 2)


def verdict(**changes):
    usual = {"real_hits": (0.5, 0.6), "simulated_hits": (0.55, 0.55), "real_mean": (1.0, 1.1)}
    usual |= {"simulated_mean": (1.05, 1.07), **changes}
    return validate.Verdict(validate.CHECKS[0], 1000, 1, "closed", **usual)


def test_a_verdict_agrees_within_two_points_and_within_the_spread():
    assert verdict().agrees and verdict().to_dict()["agrees"]
    assert not verdict(simulated_hits=(0.58, 0.58)).hits_agree
    assert verdict(simulated_hits=(0.569, 0.57)).hits_agree
    assert not verdict(simulated_mean=(0.9, 1.0)).mean_agrees
    assert not verdict(simulated_mean=(1.1, 1.2)).agrees


def test_open_arrivals_come_at_a_part_of_what_the_closed_loop_serves():
    check = next(check for check in validate.CHECKS if check.busy)
    wanted = validate.plan(check, ROOM, TRUTH, 500, 1)
    closed = simulate(replace(wanted.stream(), at=None), Setup(int(ROOM.nbytes * check.part), check.policy), TRUTH)
    assert wanted.rate == pytest.approx(check.busy * 500 / closed.seconds, rel=0.01)
    assert len({(c.distribution, c.share, c.clients, c.policy) for c in validate.CHECKS}) == len(validate.CHECKS) == 5


def test_positions_of_a_share_are_those_of_the_room():
    check = replace(validate.CHECKS[2], share=0.5)
    wanted = validate.plan(check, ROOM, TRUTH, 50, 3)
    where = validate._where(wanted, ROOM)
    assert [MODELS[at].name for at in where] == [model.name for model in wanted.in_play()]
    rows = outcomes.empty(2)
    rows["model"] = [0, 1]
    assert validate._moved(rows, where)["model"].tolist() == where[:2]
