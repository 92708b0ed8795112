"""Plans and streams: what is in play, who is asked for, and that a seed says it all."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import UsageError
from trims.workload import arrivals, distributions
from trims.workload.models import ModelSpec, positions, total_bytes
from trims.workload.plan import Plan, Stream


def models(n: int) -> tuple[ModelSpec, ...]:
    return tuple(ModelSpec(f"m{i}", (i + 1) * 1000, i % 7 + 1) for i in range(n))


def plan(n: int = 37, distribution: str = "pareto", **more: object) -> Plan:
    return dataclasses.replace(Plan(models(n), distributions.parse(distribution)), **more)  # type: ignore[arg-type]


def rotated(stream: Stream, by: int) -> np.ndarray:
    return (stream.model + by) % len(stream.models)


@given(st.integers(1, 60), st.floats(0.001, 1), st.floats(0.001, 1), st.integers(0, 2**40))
def test_a_larger_share_contains_the_smaller_with_the_same_ranks(n: int, a: float, b: float, seed: int) -> None:
    small, large = (plan(n, share=share, seed=seed).in_play() for share in sorted((a, b)))
    assert large[: len(small)] == small
    assert len(small) >= 1 and (len(small) - 1) / n <= min(a, b) <= len(small) / n + 1e-9


def test_the_papers_shares_of_37_models() -> None:
    assert [len(plan(share=k / 10).in_play()) for k in range(1, 11)] == [4, 8, 12, 15, 19, 23, 26, 30, 34, 37]
    assert len(plan(100, share=0.07).in_play()) == 7, "0.07 * 100 is a little above 7"


def test_the_seed_chooses_and_ranks_the_models() -> None:
    assert set(plan(seed=1).in_play()) == set(models(37))
    firsts = {plan(share=0.05, seed=seed).in_play()[0].name for seed in range(200)}
    assert len(firsts) > 30, "every model can be the most popular one"


def test_a_seed_says_it_all() -> None:
    """Written down once: PCG64 and `Generator.random` must give this on every machine and version."""
    stream = plan(5, "zipf", seed=2019, requests=12, arrival=arrivals.parse("poisson:rate=10")).stream()
    assert [m.name for m in stream.models] == ["m2", "m3", "m0", "m4", "m1"]
    assert stream.model.tolist() == [2, 4, 0, 2, 1, 1, 2, 2, 4, 4, 2, 0]
    assert stream.at is not None and stream.at[:3].tolist() == [0.31378778, 0.582105931, 0.654217512]
    assert stream == plan(5, "zipf", seed=2019, requests=12, arrival=arrivals.parse("poisson:rate=10")).stream()
    assert stream != plan(5, seed=2020, requests=12, arrival=arrivals.parse("poisson:rate=10")).stream()


def test_clients_arrivals_and_length_leave_the_draws_alone() -> None:
    base = plan(requests=200)
    for other in (
        dataclasses.replace(base, clients=10),
        dataclasses.replace(base, arrival=arrivals.parse("bursty:rate=5")),
        dataclasses.replace(base, requests=500),
    ):
        np.testing.assert_array_equal(other.stream().model[:200], base.stream().model)


def test_draws_follow_the_shares() -> None:
    for text in ("pareto", "zipf:s=1.2", "uniform", "weibull:k=0.5", "poisson:lam=3"):
        made = plan(37, text, requests=200_000)
        found = made.stream().counts() / 200_000
        np.testing.assert_allclose(found, made.distribution.shares(37), atol=0.004)


def test_a_model_of_no_share_is_never_asked_for() -> None:
    made = plan(100, "poisson:lam=0.01", requests=10_000)
    assert (made.distribution.shares(100)[3:] == 0).all()
    assert (made.stream().counts()[3:] == 0).all()


def test_popularity_shifts_by_rotating_the_ranks() -> None:
    still = plan(10, requests=300).stream()
    moved = plan(10, requests=300, shift_every=100, shift_by=3).stream()
    assert moved.models == still.models
    for shift in range(3):
        part = slice(100 * shift, 100 * shift + 100)
        np.testing.assert_array_equal(moved[part].model, rotated(still[part], 3 * shift))
    assert moved[200:].counts().argmax() == 6, "the most popular of the third hundred is rank 0 moved twice by 3"


def test_a_negative_shift_rotates_the_other_way() -> None:
    stream = plan(10, requests=20, shift_every=10, shift_by=-1).stream()
    np.testing.assert_array_equal(stream[10:].model, rotated(plan(10, requests=20).stream()[10:], -1))


def test_open_arrivals_come_with_times_and_a_rate() -> None:
    made = plan(requests=1000, arrival=arrivals.parse("poisson:rate=50"))
    stream = made.stream()
    assert made.rate == 50 and stream.at is not None
    assert stream.at[-1] == pytest.approx(20, rel=0.15)
    assert plan().rate is None and plan().stream().at is None


def test_a_million_requests_are_drawn_at_once() -> None:
    stream = plan(10_000, "zipf", requests=1_000_000, shift_every=1000).stream()
    assert len(stream) == 1_000_000 and stream.model.dtype == np.int32


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("share", 0.0, "share 0 of the models is not possible"),
        ("share", 1.5, "at most 1"),
        ("share", float("nan"), "share nan"),
        ("clients", 0, "clients 0 is not possible: it is at least 1"),
        ("requests", 0, "requests 0"),
        ("seed", -1, "seed -1"),
        ("shift_every", -1, "shift_every -1"),
        ("models", (), "at least one model"),
        ("models", (ModelSpec("a", 1, 1), ModelSpec("a", 2, 1)), "two models of the workload are named 'a'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(field: str, value: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        plan(**{field: value})


# ---- streams


def test_a_stream_counts_what_it_asks_for() -> None:
    stream = Stream(models(4), np.array([0, 2, 2, 3, 0, 2], dtype=np.int32))
    assert stream.counts().tolist() == [2, 0, 3, 1]
    assert stream.bytes_asked() == 2 * 1000 + 3 * 3000 + 4000
    assert stream.working_set() == 8000
    assert len(stream) == 6 and total_bytes(stream.models) == 10_000


def test_a_part_of_a_stream_keeps_models_and_times() -> None:
    stream = Stream(models(3), np.array([0, 1, 2, 1]), np.array([0.0, 1.0, 1.0, 4.0]), 2)
    part = stream[1:3]
    assert part.models == stream.models and part.clients == 2
    assert part.model.tolist() == [1, 2] and part.at is not None and part.at.tolist() == [1.0, 1.0]
    assert len(stream[:0]) == 0 and stream[:0].bytes_asked() == 0
    assert stream.closed(5) == Stream(models(3), np.array([0, 1, 2, 1]), None, 5)


def test_streams_differ_by_anything_in_them() -> None:
    one = Stream(models(3), np.array([0, 1]), np.array([0.0, 1.0]))
    assert one == Stream(models(3), np.array([0, 1]), np.array([0.0, 1.0]))
    for other in (
        Stream(models(4), np.array([0, 1]), np.array([0.0, 1.0])),
        Stream(models(3), np.array([0, 2]), np.array([0.0, 1.0])),
        Stream(models(3), np.array([0, 1]), np.array([0.0, 2.0])),
        Stream(models(3), np.array([0, 1])),
        one.closed(1),
        Stream(models(3), np.array([0, 1]), np.array([0.0, 1.0]), 2),
    ):
        assert one != other
    assert one != "one"


def test_nobody_can_change_a_stream() -> None:
    given_ = np.array([0, 1], dtype=np.int32)
    stream = Stream(models(3), given_, np.array([0.0, 1.0]))
    for array in (stream.model, stream.at):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_a_recorded_list_of_names_becomes_a_stream() -> None:
    stream = Stream.from_requests(models(3), ["m2", "m0", "m2"], [0.5, 0.5, 2.0], clients=3)
    assert stream == Stream(models(3), np.array([2, 0, 2]), np.array([0.5, 0.5, 2.0]), 3)
    with pytest.raises(UsageError, match="asks for 'mx'"):
        Stream.from_requests(models(3), ["m0", "mx"])
    with pytest.raises(UsageError, match="two models"):
        Stream.from_requests((*models(3), models(1)[0]), ["m0"])


@pytest.mark.parametrize(
    ("model", "at", "clients", "says"),
    [
        ([0, 3], None, 1, "does not name"),
        ([-1], None, 1, "does not name"),
        ([0], None, 0, "clients is 0"),
        ([0, 1], [0.0], 1, "2 requests, 1 times"),
        ([0, 1], [1.0, 0.5], 1, "go back"),
        ([0, 1], [0.0, float("nan")], 1, "not numbers"),
        ([0], [-1.0], 1, "go back"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(model: list[int], at: list[float] | None, clients: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Stream(models(3), np.array(model), None if at is None else np.array(at), clients)


# ---- models


def test_a_model_reads_back_and_passes_over_what_is_newer() -> None:
    model = ModelSpec("vgg16", 553_648_128, 32, "large", False, "/m/vgg16.onnx", "onnxruntime")
    assert ModelSpec.from_dict({**model.to_dict(), "colour": "red"}) == model
    assert ModelSpec.from_dict({"name": "a", "nbytes": 1, "tensors": 2}) == ModelSpec("a", 1, 2)
    assert positions((model, *models(2))) == {"vgg16": 0, "m0": 1, "m1": 2}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": ""}, "no name"),
        ({"nbytes": -1}, "negative size"),
        ({"tensors": -1}, "negative size"),
        ({"family": "huge"}, "unknown family 'huge'"),
        ({"runs": "jax"}, "unknown function 'jax'"),
    ],
)
def test_a_model_that_cannot_be_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        dataclasses.replace(ModelSpec("a", 1, 1), **fields)  # type: ignore[arg-type]
