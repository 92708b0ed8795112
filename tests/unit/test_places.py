from __future__ import annotations

import pytest

from trims.errors import UsageError
from trims.places import parse_place, rank


@pytest.mark.parametrize("place", ["host", "disk", "remote", "gpu:GPU-7a1e", "gpu:0"])
def test_places(place: str) -> None:
    assert parse_place(f" {place} ") == place


@pytest.mark.parametrize("text", ["", "gpu:", "ram", "Host", "gpu:a b", "gpu:" + "x" * 65, "gpu:a\nb"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(UsageError):
        parse_place(text)


def test_nearer_places_rank_higher() -> None:
    order = ["remote", "disk", "host", "gpu:a"]
    assert sorted(order, key=rank) == order
