"""How requests spread over ranks: the formulas, their sources, their tails, and what users type."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trims.errors import UsageError
from trims.workload.distributions import KNOWN, Distribution, parse

PAPERS = (
    *("pareto:alpha=1,xm=1", "pareto:alpha=2,xm=1", "pareto:alpha=3,xm=1", "uniform"),
    *("exponential:rate=0.5", "exponential:rate=1", "exponential:rate=1.5"),
    *("weibull:k=0.5,lam=1", "weibull:k=1,lam=1", "weibull:k=1.5,lam=1", "weibull:k=5,lam=1"),
    *("zipf:s=1", "poisson:lam=1"),
)

sizes_ = st.floats(1e-300, 1e6)
distributions = st.one_of(
    st.builds(lambda a, x: Distribution("pareto", (("alpha", a), ("xm", x))), sizes_, sizes_),
    st.builds(lambda s: Distribution("zipf", (("s", s),)), st.floats(0, 1e300)),
    st.just(Distribution("uniform")),
    st.builds(lambda r: Distribution("exponential", (("rate", r),)), sizes_),
    st.builds(lambda k, x: Distribution("weibull", (("k", k), ("lam", x))), sizes_, sizes_),
    st.builds(lambda x: Distribution("poisson", (("lam", x),)), sizes_),
)


@given(distributions, st.integers(1, 10_000))
@example(parse("weibull:k=0.5"), 10_000)
@example(parse("weibull:k=1e-300"), 10_000)
@example(parse("pareto:alpha=0.01"), 10_000)
@example(parse("pareto:alpha=1e-300"), 2)
@example(parse("zipf:s=1e308"), 10_000)
@example(parse("poisson:lam=1000000"), 10_000)
@example(parse("poisson:lam=1e-300"), 1)
def test_shares_are_a_falling_split_of_one(distribution: Distribution, n: int) -> None:
    shares = distribution.shares(n)
    assert shares.shape == (n,) and shares.dtype == np.float64
    assert np.isfinite(shares).all() and (shares >= 0).all()
    assert (np.diff(shares) <= 0).all()
    assert math.isclose(shares.sum(), 1, abs_tol=1e-12)


@given(distributions)
def test_what_is_written_reads_back_the_same(distribution: Distribution) -> None:
    assert parse(str(distribution)) == distribution


@pytest.mark.parametrize("text", PAPERS)
def test_the_papers_are_known_and_canonical(text: str) -> None:
    assert str(parse(text)) == text


def test_a_parameter_left_out_takes_its_default() -> None:
    assert parse(" Pareto ") == parse("pareto:xm=1,alpha=1") == Distribution("pareto")
    assert str(parse("zipf: s = 1.10")) == "zipf:s=1.1"


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("pareto", [2 / 1, 2 / 3, 2 / 5, 2 / 7]),  # (i - 1/2)^-1
        ("pareto:alpha=2", [0.5**-0.5, 1.5**-0.5, 2.5**-0.5, 3.5**-0.5]),
        ("zipf", [1, 1 / 2, 1 / 3, 1 / 4]),
        ("zipf:s=2", [1, 1 / 4, 1 / 9, 1 / 16]),
        ("zipf:s=0", [1, 1, 1, 1]),
        ("uniform", [1, 1, 1, 1]),
        ("exponential", [math.log(8), math.log(8 / 3), math.log(8 / 5), math.log(8 / 7)]),
        ("weibull:k=0.5", [math.log(8 / j) ** 2 for j in (1, 3, 5, 7)]),
        ("weibull:k=5", [math.log(8 / j) ** 0.2 for j in (1, 3, 5, 7)]),
    ],
)
def test_four_ranks_by_hand(text: str, weights: list[float]) -> None:
    np.testing.assert_allclose(parse(text).shares(4), np.array(weights) / sum(weights), rtol=1e-12)


@pytest.mark.parametrize("lam", [0.2, 1.0, 3.7, 40.0])
def test_poisson_is_the_quantile_averaged_over_each_slice(lam: float) -> None:
    n, fine = 5, 100_000
    masses = [math.exp(k * math.log(lam) - lam - math.lgamma(k + 1)) for k in range(400)]
    points = (np.arange(n * fine) + 0.5) / (n * fine)
    quantiles = np.searchsorted(np.cumsum(masses), points)
    means = quantiles.reshape(n, fine).mean(axis=1)[::-1]
    np.testing.assert_allclose(parse(f"poisson:lam={lam}").shares(n), means / means.sum(), atol=1e-4)


def test_the_profile_is_that_of_expected_order_statistics() -> None:
    """The i-th highest of n exponential draws has the mean 1/i + ... + 1/n (Rényi 1953)."""
    n = 37
    expected = np.cumsum((1 / np.arange(1, n + 1))[::-1])[::-1]
    np.testing.assert_allclose(parse("exponential").shares(n), expected / n, atol=0.004)


@pytest.mark.parametrize("text", ["pareto", "pareto:alpha=2", "weibull:k=0.5"])
def test_the_profile_is_the_mean_of_random_draws(text: str) -> None:
    distribution = parse(text)
    of = dict(distribution.parameters)
    p = np.random.Generator(np.random.PCG64(1)).random((4000, 37))
    drawn = p ** (-1 / of["alpha"]) if distribution.name == "pareto" else (-np.log(p)) ** (1 / of["k"])
    drawn = np.sort(drawn / drawn.sum(axis=1, keepdims=True), axis=1)[:, ::-1]
    np.testing.assert_allclose(distribution.shares(37), drawn.mean(axis=0), atol=0.03)


@pytest.mark.parametrize("name", ["pareto:xm", "exponential:rate", "weibull:lam"])
def test_a_scale_changes_nothing(name: str) -> None:
    np.testing.assert_array_equal(parse(f"{name}=0.5").shares(37), parse(f"{name}=20").shares(37))


def test_a_large_poisson_is_nearly_uniform_and_a_small_one_asks_for_one_model() -> None:
    assert parse("poisson:lam=1000000").shares(100)[0] < 0.0101
    assert parse("poisson:lam=0.001").shares(100)[0] > 0.99


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gauss", "unknown distribution 'gauss' (known: pareto, zipf, uniform, exponential, weibull, poisson)"),
        ("", "unknown distribution ''"),
        ("zipf:alpha=1", "zipf has no parameter 'alpha': it takes s (for example zipf:s=1)"),
        ("uniform:a=1", "uniform has no parameter 'a': it takes no parameters (for example uniform)"),
        ("pareto:alpha", "cannot read 'alpha' in distribution 'pareto:alpha': a parameter is written key=value"),
        ("pareto:alpha=x", "'x' is no number"),
        ("pareto:alpha=1,alpha=2", "given twice"),
        ("pareto:alpha=0", "pareto cannot have alpha=0: alpha is above 0"),
        ("pareto:alpha=nan", "pareto cannot have alpha=nan: alpha is above 0"),
        ("zipf:s=-1", "zipf cannot have s=-1: s is at least 0"),
        ("zipf:s=inf", "zipf cannot have s=inf"),
        ("poisson:lam=2e6", "lam is above 0 and at most 1000000"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert says in str(caught.value)


def test_a_distribution_cannot_be_built_wrong() -> None:
    with pytest.raises(UsageError):
        Distribution("zipf", (("s", -1.0),))
    with pytest.raises(UsageError, match="n is 0"):
        Distribution("uniform").shares(0)
    assert all(str(Distribution(name)).startswith(name) for name in KNOWN)
