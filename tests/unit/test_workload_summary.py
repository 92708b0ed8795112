"""Figures of runs: what is averaged, what is only counted, and the map's sweet spot."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import BadInput, UsageError
from trims.workload import summary
from trims.workload.models import ModelSpec
from trims.workload.outcomes import FAILED, HIT, JOINED, LOADED, NATIVE, OUTCOME, Outcomes, empty
from trims.workload.summary import Cell, Summary, geometric_mean, summarise, sweet_spot

MODELS = (ModelSpec("a", 100, 1), ModelSpec("b", 300, 1), ModelSpec("c", 1000, 1))


def rows(*given_: tuple[int, int, float, float, float]) -> Outcomes:
    """Rows of (model, how, asked, ready, done)."""
    made = [(i, 0, m, how, asked, asked, ready, done) for i, (m, how, asked, ready, done) in enumerate(given_)]
    return np.array(made, dtype=OUTCOME)


RUN = rows(
    (0, LOADED, 1.0, 2.0, 3.0),  # 2 s, ready after 1
    (0, HIT, 3.0, 3.5, 4.0),  # 1 s, ready after 0.5
    (1, LOADED, 4.0, 7.0, 8.0),  # 4 s, ready after 3
    (1, JOINED, 5.0, 7.0, 8.0),  # 3 s, ready after 2
    (2, FAILED, 8.0, math.nan, 108.0),
)


def cell(share: float = 0.5, clients: int = 1, **more: object) -> Cell:
    base = Cell(share, clients, "pareto:alpha=1,xm=1", "lru", 1 << 30, 100, 0, None, "warm", "weights", False, SUMMED)
    return dataclasses.replace(base, **more)  # type: ignore[arg-type]


SUMMED = summarise(RUN, MODELS)


def test_served_requests_are_averaged_and_failed_ones_counted() -> None:
    assert (
        summary.Summary(
            requests=5,
            failed=1,
            seconds=107.0,
            throughput=4 / 107,
            mean=2.5,
            p50=2.5,
            p90=pytest.approx(3.7),
            p95=pytest.approx(3.85),
            p99=pytest.approx(3.97),
            max=4.0,
            ready_mean=1.625,
            ready_p50=1.5,
            hit_rate=0.25,
            byte_hit_rate=100 / 800,
            hits=1,
            joined=1,
            loads=2,
            bytes_loaded=400,
            bytes_asked=800,
        )
        == SUMMED
    )


def test_a_native_run_loads_for_every_request() -> None:
    run = RUN.copy()
    run["how"][:4] = NATIVE
    found = summarise(run, MODELS, side="native")
    assert (found.hits, found.loads, found.bytes_loaded, found.hit_rate, found.side) == (0, 4, 800, 0.0, "native")


def test_nothing_served_has_no_figures_and_says_null() -> None:
    for run, failed in ((empty(), 0), (RUN[4:], 1)):
        found = summarise(run, MODELS)
        assert (found.failed, found.hits, found.bytes_asked) == (failed, 0, 0)
        assert math.isnan(found.mean) and math.isnan(found.p99) and math.isnan(found.hit_rate)
        plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert plain["mean"] is None and plain["max"] is None
        assert Summary.from_dict(plain).to_dict() == plain


def test_figures_read_back_exactly() -> None:
    made = cell(
        native=summarise(RUN, MODELS, "native"),
        unlimited=SUMMED,
        speedup=1 / 3,
        ready_speedup=24.1,
        batch_ratio=8.0000001,
        penalty=0.2,
        speedup_interval=(0.1, 0.7),
        rate=20.0,
        arrival="poisson:rate=20",
    )
    for each in (made, cell()):
        assert Cell.from_dict(json.loads(json.dumps(each.to_dict(), allow_nan=False))) == each


def test_older_and_newer_reports_are_read() -> None:
    plain = cell(speedup=2.0, native=SUMMED).to_dict()
    for name in ("speedup_interval", "arrival", "penalty", "unlimited"):
        del plain[name]
    del plain["trims"]["side"]
    plain["trims"]["colour"] = plain["colour"] = "red"
    assert Cell.from_dict(plain) == cell(speedup=2.0, native=SUMMED)
    for name in ("trims", "share"):
        with pytest.raises(BadInput, match=f"'{name}' is missing"):
            Cell.from_dict({key: value for key, value in plain.items() if key != name})
    with pytest.raises(BadInput, match="'p99' is missing"):
        Summary.from_dict({key: value for key, value in SUMMED.to_dict().items() if key != "p99"})


def test_the_geometric_mean() -> None:
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4)
    assert geometric_mean(np.full(1000, 1e300)) == pytest.approx(1e300), "no overflow on the way"
    for bad in ([], [1.0, 0.0], [1.0, -1.0], [math.inf], [math.nan]):
        with pytest.raises(UsageError, match="no geometric mean"):
            geometric_mean(bad)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50))
def test_the_mean_of_the_inverse_is_the_inverse_of_the_mean(values: list[float]) -> None:
    x = np.array(values)
    assert geometric_mean(1 / x) == pytest.approx(1 / geometric_mean(x))
    assert x.min() * (1 - 1e-9) <= geometric_mean(x) <= x.max() * (1 + 1e-9)


def test_a_speedup_is_a_mean_over_requests_of_ratios_to_each_model_alone() -> None:
    alone = {"a": 4.0, "b": 12.0}
    assert summary.ratios(RUN, MODELS, alone).tolist() == [2.0, 4.0, 3.0, 4.0]
    assert summary.speedup(RUN, MODELS, alone) == pytest.approx((2 * 4 * 3 * 4) ** 0.25)
    assert summary.ready_speedup(RUN, MODELS, alone) == pytest.approx((4 * 8 * 4 * 6) ** 0.25)
    assert summary.speedup(RUN[4:], MODELS, alone) is None
    with pytest.raises(UsageError, match="no time of 'b' alone"):
        summary.speedup(RUN, MODELS, {"a": 1.0})
    with pytest.raises(UsageError, match="not a positive number"):
        summary.speedup(rows((0, HIT, 1.0, 1.0, 1.0)), MODELS, alone)


def test_the_interval_holds_the_mean_and_narrows() -> None:
    drawn = np.exp(np.random.Generator(np.random.PCG64(5)).normal(1.0, 0.5, 1000))
    low, high = summary.interval(drawn)
    assert low < geometric_mean(drawn) < high
    # The mean of 1000 logarithms of spread 0.5 has a standard error of 0.0158.
    assert math.log(high) - math.log(low) == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(1000), rel=0.08)
    assert summary.interval(drawn) == (low, high)
    assert summary.interval([3.0]) == pytest.approx((3.0, 3.0))
    with pytest.raises(UsageError):
        summary.interval([])


def test_the_sweet_spot_is_contiguous_from_the_smallest_share() -> None:
    def column(clients: int, *figures: float | None) -> list[Cell]:
        return [cell((i + 1) / 10, clients, batch_ratio=figure) for i, figure in enumerate(figures)]

    cells = [
        *column(3, 0.9, 5.0, 5.0),
        *column(1, 8.0, 2.0, 1.0, 0.99, 4.0),
        *column(2, 2.0, None, 4.0),
        cell(0.1, 4, speedup=3.0),
        cell(0.2, 4, speedup=3.0, batch_ratio=0.5),
        cell(0.1, 5, speedup=math.nan),
    ]
    assert sweet_spot(reversed(cells)) == {1: 0.3, 2: 0.1, 3: 0.0, 4: 0.1, 5: 0.0}
    assert list(sweet_spot(cells)) == [1, 2, 3, 4, 5]
    assert sweet_spot([]) == {}


@given(st.lists(st.floats(-1e6, 1e6), max_size=300), st.integers(1, 50))
def test_a_cumulative_distribution_says_what_lies_below(x: list[float], points: int) -> None:
    values, fractions = summary.ecdf(x, points)
    assert len(values) == len(fractions) == min(points, len(x))
    if x:
        assert values[-1] == max(x) and fractions[-1] == 1
        assert (np.diff(values) >= 0).all() and (np.diff(fractions) > 0).all()
        at_most = np.array([np.mean(np.array(x) <= value) for value in values])
        assert (fractions <= at_most + 1e-12).all(), "equal values lie on one step, of which the top is the fraction"
        if len(set(x)) == len(x):
            np.testing.assert_allclose(fractions, at_most)
