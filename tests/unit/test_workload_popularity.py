"""Statistics of a stream, against counting by hand, a textbook LRU, and the manager's own machine."""

from __future__ import annotations

import json
import math
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trims.residency import policies
from trims.residency.effects import Free, Grant, Load, Refuse
from trims.residency.events import AttachAsked, Freed, Key, Loaded, Opened, Released, Who
from trims.residency.machine import Machine
from trims.workload import distributions, popularity
from trims.workload.models import ModelSpec
from trims.workload.plan import Plan, Stream
from trims.workload.popularity import FIRST, describe, lru_curve, reuse_distances


def stream(sizes: list[int], *asked: int) -> Stream:
    models = tuple(ModelSpec(f"m{i}", nbytes, 1) for i, nbytes in enumerate(sizes))
    return Stream(models, np.array(asked, dtype=np.int32))


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8))
    return stream(sizes, *draw(st.lists(st.integers(0, len(sizes) - 1), max_size=60)))


def stack_distances(asked: Stream) -> list[int]:
    """The definition, by a stack of models, last used first."""
    stack: list[int] = []
    found = []
    for model in asked.model.tolist():
        depth = stack.index(model) if model in stack else -1
        found.append(sum(asked.models[m].nbytes for m in stack[: depth + 1]) if depth >= 0 else FIRST)
        stack = [model, *(m for m in stack if m != model)]
    return found


def textbook(asked: Stream, budget: int) -> list[bool]:
    """Which requests hit in LRU of `budget` bytes, one at a time; what can never fit is refused."""
    held: OrderedDict[int, int] = OrderedDict()
    hits = []
    for model in asked.model.tolist():
        nbytes = asked.models[model].nbytes
        hits.append(model in held)
        if nbytes <= budget:
            held[model] = nbytes
            held.move_to_end(model)
            while sum(held.values()) > budget:
                held.popitem(last=False)
    return hits


def machine_hits(asked: Stream, budget: int) -> list[bool]:
    """Which requests hit in the manager's brain under lru: each attaches, then gives its lease back."""
    brain = Machine({"host": budget}, policies.make("lru"))
    brain.handle(Opened(1, Who(1, 1, 1000)), 0.0)
    hits: list[bool] = []
    for number, model in enumerate(asked.model.tolist()):
        spec = asked.models[model]
        now = float(number)
        key = Key(f"{model:08x}", "raw", "host")
        todo = brain.handle(AttachAsked(1, number, math.inf, key, spec.name, spec.nbytes), now)
        hit = any(isinstance(effect, Grant) for effect in todo)
        while todo:
            effect = todo.pop(0)
            if isinstance(effect, Free):
                todo += brain.handle(Freed(effect.key), now)
            elif isinstance(effect, Load):
                todo += brain.handle(Loaded(effect.key, effect.load, effect.nbytes), now)
            elif isinstance(effect, Grant):
                todo += brain.handle(Released(1, effect.lease), now)
            else:
                assert not isinstance(effect, Refuse), effect
        hits.append(hit)
    return hits


def test_distances_by_hand() -> None:
    asked = stream([1, 10, 100], 0, 1, 1, 2, 0, 0, 1)
    assert reuse_distances(asked).tolist() == [FIRST, FIRST, 10, FIRST, 111, 1, 111]
    assert reuse_distances(stream([1])).tolist() == []


@given(streams())
def test_distances_are_those_of_a_stack(asked: Stream) -> None:
    assert reuse_distances(asked).tolist() == stack_distances(asked)


@given(streams(), st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_the_curve_is_lru_at_every_budget(asked: Stream, budgets: list[int]) -> None:
    curve = lru_curve(asked, budgets)
    nbytes = np.array([asked.models[m].nbytes for m in asked.model], dtype=np.int64)
    for i, budget in enumerate(budgets):
        hits = np.array(textbook(asked, budget), dtype=bool)
        assert curve.hit_rate[i] == (hits.mean() if len(hits) else 0)
        assert curve.byte_hit_rate[i] == (nbytes[hits].sum() / max(1, nbytes.sum()))
        assert curve.bytes_loaded[i] == nbytes[~hits & (nbytes <= budget)].sum()


@pytest.mark.parametrize("text", ["pareto", "uniform", "zipf:s=1.3"])
def test_with_equal_sizes_the_machine_hits_where_the_curve_says(text: str) -> None:
    models = tuple(ModelSpec(f"m{i}", 1 << 20, 1) for i in range(37))
    asked = Plan(models, distributions.parse(text), requests=400, shift_every=150).stream()
    budgets = [1 << 20, 7 << 20, 18 << 20, 40 << 20]
    curve = lru_curve(asked, budgets)
    for i, budget in enumerate(budgets):
        assert np.mean(machine_hits(asked, budget)) == curve.hit_rate[i]


def test_with_unequal_sizes_the_machine_stays_near_the_curve() -> None:
    models = tuple(ModelSpec(f"m{i}", (i + 1) << 20, 1) for i in range(37))
    asked = Plan(models, distributions.parse("zipf:s=0.8"), requests=600).stream()
    half = sum(model.nbytes for model in models) // 2
    curve = lru_curve(asked, [half])
    assert np.mean(machine_hits(asked, half)) == pytest.approx(curve.hit_rate[0], abs=0.02)


def test_a_stream_of_paper_is_described() -> None:
    models = tuple(ModelSpec(f"m{i}", 1000, 1) for i in range(37))
    asked = Plan(models, distributions.parse("zipf:s=1.1"), requests=50_000).stream()
    found = describe(asked)
    assert (found.requests, found.models, found.unique) == (50_000, 37, 37)
    assert (found.bytes_asked, found.working_set) == (50_000_000, 37_000)
    shares = distributions.parse("zipf:s=1.1").shares(37)
    assert found.top_share == pytest.approx(shares[0], abs=0.01)
    assert found.tenth_share == pytest.approx(shares[:4].sum(), abs=0.01)
    assert found.zipf == pytest.approx(1.1, abs=0.03)
    again = [d for d in stack_distances(asked[:500]) if d != FIRST]
    assert describe(asked[:500]).reuse_p50 == np.median(again)


def test_what_does_not_exist_is_null() -> None:
    for asked in (stream([5]), stream([5, 5]), stream([5, 5], 0)):
        json.dumps(describe(asked).to_dict(), allow_nan=False)
    found = describe(stream([5]))
    assert math.isnan(found.top_share) and math.isnan(found.zipf) and found.to_dict()["reuse_p50"] is None
    assert lru_curve(stream([5]), [10]).hit_rate.tolist() == [0.0]


@pytest.mark.parametrize("s", [0.0, 0.7, 1.0, 2.5])
def test_the_zipf_exponent_is_found_again(s: float) -> None:
    shares = distributions.parse(f"zipf:s={s}").shares(200)
    assert popularity.zipf_exponent(np.round(shares * 10**12).astype(np.int64)) == pytest.approx(s, abs=1e-6)


def test_a_million_requests_are_measured_in_vectors() -> None:
    models = tuple(ModelSpec(f"m{i}", 1 << 20, 1) for i in range(10_000))
    asked = Plan(models, distributions.parse("zipf"), requests=200_000).stream()
    curve = lru_curve(asked, [(1 << 20) * k for k in (10, 100, 1000, 10_000)])
    assert (np.diff(curve.hit_rate) > 0).all()
    assert curve.bytes_loaded[-1] == asked.working_set()
