"""Arrival times: their rate, their spread, and that bursts come in bursts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import UsageError
from trims.workload.arrivals import CLOSED, Arrival, parse


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def times(text: str, n: int, seed: int = 0) -> npt.NDArray[np.float64]:
    found = parse(text).times(n, rng(seed))
    assert found is not None
    return found


def dispersion(at: npt.NDArray[np.float64], window: float) -> float:
    """Variance over mean of arrivals in each window: 1 for a Poisson process."""
    counts = np.bincount((at / window).astype(int))[:-1]
    return float(counts.var() / counts.mean())


def test_a_closed_loop_has_no_times() -> None:
    assert parse("closed") == CLOSED
    assert CLOSED.times(10, rng()) is None and CLOSED.rate is None


@pytest.mark.parametrize("text", ["closed", "poisson:rate=20", "bursty:rate=20,factor=5,on=2,off=8"])
def test_what_is_written_reads_back_the_same(text: str) -> None:
    assert str(parse(text)) == text


def test_bursts_have_defaults_and_a_rate_must_be_given() -> None:
    assert str(parse("bursty:rate=3")) == "bursty:rate=3,factor=5,on=2,off=8"
    with pytest.raises(UsageError, match="poisson needs rate"):
        parse("poisson")


@given(
    st.sampled_from(["poisson", "bursty"]),
    st.floats(1e-3, 1e6),
    st.integers(0, 300),
    st.integers(0, 2**32),
)
def test_times_are_finite_and_never_go_back(name: str, rate: float, n: int, seed: int) -> None:
    at = Arrival(name, (("rate", rate),)).times(n, rng(seed))
    assert at is not None and at.shape == (n,)
    assert np.isfinite(at).all() and (at >= 0).all() and (np.diff(at) >= 0).all()


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(times("poisson:rate=20", 100_000))
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 20, rel=0.02)
    assert np.mean(gaps > 0.1) == pytest.approx(np.exp(-2), rel=0.05)
    assert dispersion(times("poisson:rate=20", 100_000), 1.0) == pytest.approx(1, abs=0.1)


def test_bursts_keep_the_mean_rate_and_come_in_bursts() -> None:
    at = times("bursty:rate=20,factor=5,on=2,off=8", 200_000)
    assert len(at) / at[-1] == pytest.approx(20, rel=0.05)
    # Over windows of 1 s: rates 20 * 10/18 and five times that; the counts' variance adds the rates' own.
    slow = 20 * 10 / 18
    spread = 0.2 * 0.8 * (4 * slow) ** 2
    assert 0.6 * (1 + spread / 20) < dispersion(at, 1.0) < 1 + spread / 20


def test_a_factor_of_one_is_no_burst() -> None:
    assert dispersion(times("bursty:rate=20,factor=1", 50_000), 1.0) == pytest.approx(1, abs=0.1)


def test_bursts_longer_than_the_run_and_shorter_than_a_gap() -> None:
    assert len(times("bursty:rate=1000,on=1e9,off=1e9", 100)) == 100
    assert times("bursty:rate=20,on=0.001,off=0.001", 20_000)[-1] == pytest.approx(1000, rel=0.05)
    with pytest.raises(UsageError, match="use poisson"):
        times("bursty:rate=0.001,on=1e-6,off=1e-6", 1000)


def test_a_run_begins_in_a_burst_as_often_as_it_would_at_any_time() -> None:
    slow = 1000 * 10 / 18
    spans = np.array([times("bursty:rate=1000,factor=5,on=2e6,off=8e6", 100, seed)[-1] for seed in range(400)])
    assert np.mean(spans < 100 / (2.5 * slow)) == pytest.approx(0.2, abs=0.06)


def test_the_same_numbers_give_the_same_times() -> None:
    for text in ("poisson:rate=7", "bursty:rate=7"):
        np.testing.assert_array_equal(times(text, 500, 3), times(text, 500, 3))
        assert (times(text, 500, 3) != times(text, 500, 4)).any()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steady", "unknown arrival 'steady' (known: closed, poisson, bursty)"),
        ("poisson:rate=0", "rate is above 1e-09"),
        ("bursty:rate=1,factor=0.5", "factor is at least 1"),
        ("closed:rate=3", "closed has no parameter 'rate': it takes no parameters"),
        ("bursty:factor=2", "bursty needs rate (for example bursty:rate=1,factor=5,on=2,off=8)"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert says in str(caught.value)
