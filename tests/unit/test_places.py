from __future__ import annotations

import pytest

from trims.errors import UsageError
from trims.places import gpu_number, parse_place, rank, short


@pytest.mark.parametrize("place", ["host", "disk", "remote", "gpu", "gpu:GPU-7a1e", "gpu:0"])
def test_places(place: str) -> None:
    assert parse_place(f" {place} ") == place


@pytest.mark.parametrize("text", ["", "gpu:", "ram", "Host", "gpu:a b", "gpu:" + "x" * 65, "gpu:a\nb"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(UsageError):
        parse_place(text)


def test_nearer_places_rank_higher() -> None:
    order = ["remote", "disk", "host", "gpu:a"]
    assert sorted(order, key=rank) == order


@pytest.mark.parametrize(
    ("place", "number"),
    [("gpu:0", 0), ("gpu:12", 12), ("gpu:1234567", 1234567), ("gpu:12345678", None), ("gpu:0a", None), ("gpu", None),
     ("gpu:\u0663", None), ("host", None)],
)  # fmt: skip
def test_what_is_a_number_of_a_gpu(place: str, number: int | None) -> None:
    assert gpu_number(place) == number


@pytest.mark.parametrize("kind", ["GPU", "MIG", "SIM"])
def test_a_gpu_is_shown_by_what_tells_it_apart(kind: str) -> None:
    assert short(f"gpu:{kind}-7a1e0b5c-0000-4000-8000-000000000001") == "gpu:7a1e0b5c"
    assert parse_place("gpu:7a1e0b5c") == "gpu:7a1e0b5c" and gpu_number("gpu:00000001") is None


@pytest.mark.parametrize(
    "place", ["host", "gpu", "gpu:0", "gpu:GPU-7a1e", "gpu:MIG-GPU-7a1e0b5c-0000-4000-8000-000000000001/1/0", "", "?"]
)
def test_what_is_shown_as_it_is(place: str) -> None:
    assert short(place) == place
