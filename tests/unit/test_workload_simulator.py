"""The simulator against what can be worked out by hand: shares of a resource, the times of a request, counts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trims.errors import BadInput, UsageError
from trims.residency.policies import POLICIES
from trims.workload import belady, cost, outcomes, popularity
from trims.workload.models import ModelSpec
from trims.workload.plan import Stream
from trims.workload.sharing import Sharing
from trims.workload.simulator import Setup, alone, simulate, unlimited

ROUND = cost.Cost(
    cores=2,
    fork=1.0,
    connect=1.0,
    attach=cost.Line(1.0),
    compute=cost.Line(2.0, 0.01),
    finish=1.0,
    cold=cost.Link(10.0, 10.0, 5.0),
    cached=cost.Link(100.0, 200.0),
    native=cost.Line(3.0),
    native_compute=cost.Line(4.0),
)


def stream(model, sizes, clients=1, at=None):
    models = tuple(ModelSpec(f"m{i}", size, 1) for i, size in enumerate(sizes))
    return Stream(models, np.array(model), None if at is None else np.array(at, float), clients)


def times(run):
    return [tuple(float(row[name]) for name in outcomes.TIMES) for row in run.outcomes]


# ---- sharing


def halved(jobs, background):
    return 1 / max(1, jobs + background - 1)


def ends(sharing, adds):
    """[(job, end)] when `adds` [(time, work)] are given in order."""
    found = []
    for number, (at, work) in enumerate(adds):
        while sharing.due <= at:
            found.append((sharing.due, sharing.pop()))
        sharing.add(at, work, number)
    while sharing.due < math.inf:
        found.append((sharing.due, sharing.pop()))
    return found


def test_two_jobs_on_one_core_share_it():
    # 0 runs alone for 1 s, then both at half speed: 0 needs 4 more seconds; 1 has then 1 s of work left, alone.
    assert ends(Sharing(lambda n, _: 1 / n), [(0, 3), (1, 3)]) == [(5.0, 0), (6.0, 1)]


def test_jobs_that_end_together_end_in_the_order_they_came():
    assert [job for _, job in ends(Sharing(lambda n, _: 1 / n), [(0, 2), (0, 2), (0, 2)])] == [0, 1, 2]


def test_what_goes_on_beside_them_slows_jobs_from_then_on():
    sharing = Sharing(halved)
    sharing.add(0.0, 4.0, "a")
    sharing.surround(2.0, 2)
    assert sharing.due == 6.0
    sharing.surround(4.0, 0)
    assert sharing.due == 5.0


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10)), min_size=1, max_size=12), st.integers(1, 3)
)  # arrivals and work
def test_sharing_is_what_small_steps_give(adds, cores):
    adds = sorted(adds, key=lambda add: add[0])
    found = {job: end for end, job in ends(Sharing(lambda n, _: min(1, cores / n)), adds)}
    assert found == pytest.approx(stepped(adds, cores), abs=1e-6)


def stepped(adds, cores):
    """The same by walking from event to event, all jobs of which work is left at the speed they have."""
    now, left, done = 0.0, {}, {}
    todo = list(enumerate(adds))
    while todo or left:
        rate = min(1, cores / len(left)) if left else 1
        first = min(left.values()) / rate if left else math.inf
        step = min(first, todo[0][1][0] - now if todo else math.inf)
        now += step
        left = {job: work - step * rate for job, work in left.items()}
        done.update({job: now for job, work in left.items() if work <= 1e-9})
        left = {job: work for job, work in left.items() if work > 1e-9}
        while todo and todo[0][1][0] <= now + 1e-12:
            job, (_, work) = todo.pop(0)
            if work:
                left[job] = work
            else:
                done[job] = now
    return done


# ---- one request, and few


def test_a_load_and_a_hit_take_the_seconds_of_the_cost():
    run = simulate(stream([0, 0], [100]), Setup(100, cache="cold"), ROUND)
    # fork 1, connect 1, load 5 + 100/10, attach 1, compute 2 + 100 * 0.01, finish 1
    assert times(run) == [(0.0, 1.0, 18.0, 21.0), (22.0, 23.0, 25.0, 28.0)]
    assert run.outcomes["how"].tolist() == [outcomes.LOADED, outcomes.HIT]
    assert run.counters["loads"] == 1 and run.moved == {"disk": 100}


def test_two_clients_join_one_load():
    run = simulate(stream([0, 0], [100], clients=2), Setup(100), ROUND)
    assert sorted(run.outcomes["how"]) == [outcomes.JOINED, outcomes.LOADED]
    assert run.moved == {"page cache": 100}


def test_three_functions_on_two_cores_slow_each_other():
    run = simulate(stream([0, 1, 2], [0, 0, 0], clients=3), Setup(1), ROUND)
    done = run.outcomes["done"]
    assert done == pytest.approx([(1 + 1 + 1 + 2) * 1.5] * 3)


def test_two_loads_share_the_disk():
    run = simulate(stream([0, 1], [100, 100], clients=2), Setup(200, cache="cold"), ROUND)
    assert run.outcomes["ready"] == pytest.approx([2 + 30 + 1] * 2)


def test_open_arrivals_wait_for_a_free_client():
    run = simulate(stream([0, 0, 0], [0], clients=1, at=[0, 1, 100]), Setup(1), ROUND)
    assert run.outcomes["asked"].tolist() == [0, 1, 100]
    assert run.outcomes["began"].tolist() == [1.0, 7.0, 101.0]


def test_natively_every_request_reads_its_file():
    run = simulate(stream([0, 0], [100]), Setup(100, side="native", cache="cold"), ROUND)
    assert times(run)[0] == (0.0, 1.0, 20.0, 24.0)
    assert set(run.outcomes["how"]) == {outcomes.NATIVE} and run.moved == {"disk": 200}
    assert alone(stream([0], [100]).models, ROUND, "cold") == ({"m0": 24.0}, {"m0": 20.0})


def test_a_model_larger_than_the_budget_is_served_natively():
    run = simulate(stream([0, 1], [100, 10]), Setup(50), ROUND)
    assert run.outcomes["how"].tolist() == [outcomes.NATIVE, outcomes.LOADED]
    assert run.counters["refusals"] == 1


def test_a_request_that_finds_no_room_in_time_is_served_natively():
    """Its one competitor holds the model for 5 load + 1 attach + 2 + 5 compute + 1 finish, longer than the timeout."""
    run = simulate(stream([0, 1], [500, 500], clients=2), Setup(500, timeout=10.0), ROUND)
    assert run.outcomes["how"].tolist() == [outcomes.LOADED, outcomes.NATIVE]
    asked = float(run.outcomes["began"][1]) + 1.0
    assert run.outcomes["ready"][1] > asked + 10.0


def test_an_idle_model_is_given_up_when_its_time_is_over():
    run = simulate(stream([0, 0], [10], at=[0, 100]), Setup(100, ttl=5.0), ROUND)
    assert run.outcomes["how"].tolist() == [outcomes.LOADED] * 2
    assert run.counters["expired"] == 1


def test_memory_is_back_only_after_it_was_given_up():
    slow = cost.Cost(**{**_fields(ROUND), "free": cost.Line(7.0)})
    fast, late = (simulate(stream([0, 1], [100, 100]), Setup(100), c).outcomes["ready"][1] for c in (ROUND, slow))
    assert late - fast == pytest.approx(7.0)


def _fields(value):
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_is_the_same_again(policy):
    asked = np.random.default_rng(1).integers(0, 8, 200)
    runs = [simulate(stream(asked, range(10, 90, 10), clients=3), Setup(150, policy), ROUND) for _ in range(2)]
    assert runs[0].outcomes.tobytes() == runs[1].outcomes.tobytes()
    outcomes.validate(runs[0].outcomes, 8)
    assert len(np.unique(runs[0].outcomes["done"])) > 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=30),
    st.lists(st.integers(1, 9), min_size=5, max_size=5),
    st.integers(1, 30),
    st.sampled_from(sorted(POLICIES)),
)
def test_no_policy_passes_the_bound(asked, sizes, budget, policy):
    given_ = stream(asked, sizes)
    run = simulate(given_, Setup(budget, policy), ROUND)
    hit = run.outcomes["how"] == outcomes.HIT
    hits, hit_bytes = belady.bound(given_, budget)
    nbytes = np.array(sizes)[np.array(asked)]
    assert hit.sum() <= hits
    assert nbytes[hit].sum() <= hit_bytes
    scheduled = belady.schedule(given_, budget)
    assert scheduled.sum() <= hits and nbytes[scheduled].sum() <= hit_bytes


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 6))
def test_with_equal_sizes_lru_is_the_lru_of_the_curve(asked, room):
    given_ = stream(asked, [7] * 6)
    run = simulate(given_, Setup(7 * room), ROUND)
    curve = popularity.lru_curve(given_, [7 * room])
    assert (run.outcomes["how"] == outcomes.HIT).mean() == pytest.approx(curve.hit_rate[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=10), st.integers(1, 4))
def test_with_equal_sizes_the_schedule_is_the_optimum(asked, room):
    assert belady.schedule(stream(asked, [3] * 5), 3 * room).sum() == _best(tuple(asked), frozenset(), room)


def _best(asked, resident, room):
    """Most hits, by trying every victim."""
    if not asked:
        return 0
    first, rest = asked[0], asked[1:]
    if first in resident:
        return 1 + _best(rest, resident, room)
    if len(resident) < room:
        return _best(rest, resident | {first}, room)
    return max(_best(rest, resident - {victim} | {first}, room) for victim in resident)


def test_the_bound_of_a_case_worked_out_by_hand():
    # pairs: m0 0-2 (area 20), m1 1-3 (area 10); room 5 x 3 = 15: m1 whole, then 5/20 of m0
    assert belady.bound(stream([0, 1, 0, 1], [10, 5]), 5) == (1, 5)
    assert belady.bound(stream([0, 1, 0, 1], [10, 5]), 15) == (2, 15)
    assert belady.limits(stream([0, 1, 0, 1], [10, 5]), 15).bytes_loaded == 15


def test_the_schedule_spares_what_a_larger_victim_made_needless():
    # room 10: m0 (3) and m1 (7) go for m2 (7) by next use; m1 alone gives enough, so m0 stays
    assert belady.schedule(stream([1, 0, 2, 0], [3, 7, 7]), 10).tolist() == [False, False, False, True]


def test_limits_of_nothing():
    assert belady.limits(stream([], [1]), 10).to_dict()["hit_rate"] is None


# ---- the cost file


def test_a_cost_comes_back_from_its_file():
    one = cost.Cost(**{**_fields(ROUND), "models": {"m": (1.0, 2.0)}, "slowdown": ((1.0, 1.0), (4.0, 2.5))})
    assert cost.from_json(cost.to_json(one)) == one
    assert cost.from_json(cost.to_json(cost.ASSUMED)) == cost.ASSUMED and not cost.ASSUMED.measured


@pytest.mark.parametrize(
    "change", [("fork", -1), ("cores", 0), ("slowdown", [[1, 0.5]]), ("slowdown", [[2, 1], [1, 1]]), ("cold", 3)]
)
def test_a_cost_file_that_cannot_be_is_refused(change):
    fields = {**ROUND.to_dict(), change[0]: change[1]}
    with pytest.raises(BadInput):
        cost.from_json(__import__("json").dumps(fields))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "trims.cost/1"}'])
def test_what_is_no_cost_file_is_refused(text):
    with pytest.raises(BadInput):
        cost.from_json(text)


def test_slowing_follows_the_points_and_then_the_number_of_functions():
    bent = cost.Cost(**{**_fields(ROUND), "slowdown": ((1.0, 1.0), (3.0, 2.0))})
    assert [bent.slower(k) for k in (1, 2, 3, 6)] == [1.0, 1.5, 2.0, 4.0]
    assert [ROUND.slower(k) for k in (1, 2, 4)] == [1.0, 1.0, 2.0]


def test_a_setup_that_means_nothing_is_refused():
    with pytest.raises(UsageError):
        simulate(stream([0], [1]), Setup(1, policy="best"), ROUND)
    with pytest.raises(UsageError):
        simulate(stream([0], [1]), Setup(1, cache="lukewarm"), ROUND)
    assert unlimited(stream([0], [0])) == 1
