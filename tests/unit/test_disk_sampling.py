"""Which models are verified when not all are."""

from __future__ import annotations

import hashlib

import pytest

from trims.disk.catalog import Entry
from trims.disk.sampling import choose
from trims.errors import UsageError


def entry(ref: str, stored: int = 100) -> Entry:
    return Entry(ref, hashlib.sha256(ref.encode()).hexdigest(), "npz", 1, 1, stored, "none", 0.0)


ALL = [entry(f"m{n}:latest") for n in range(20)]


def test_the_longest_unverified_come_first():
    verified = {ALL[0].digest: 50.0, ALL[1].digest: 20.0}
    assert [e.ref for e in choose(ALL[:3], verified, None, None, 100.0)] == ["m2:latest", "m1:latest", "m0:latest"]
    assert [e.ref for e in choose(ALL[:3], verified, None, 60.0, 100.0)] == ["m2:latest", "m1:latest"]


def test_parts_cover_everything_once():
    parts = [choose(ALL, {}, f"{n}/7", None, 0.0) for n in range(1, 8)]
    assert sorted(e.ref for part in parts for e in part) == sorted(e.ref for e in ALL)
    assert choose(ALL, {}, "1/1", None, 0.0) == choose(ALL, {}, None, None, 0.0)


def test_shares_and_sizes():
    assert len(choose(ALL, {}, "10%", None, 0.0)) == 2
    assert len(choose(ALL, {}, "150", None, 0.0)) == 2
    assert len(choose(ALL, {}, "1", None, 0.0)) == 1
    assert choose([], {}, "1", None, 0.0) == []


def test_runs_go_round():
    verified: dict[str, float] = {}
    for now in range(1, 11):
        for chosen in choose(ALL, verified, "10%", None, float(now)):
            assert chosen.digest not in verified
            verified[chosen.digest] = float(now)
    assert len(verified) == len(ALL)


def test_one_digest_is_verified_once():
    other = Entry("copy:latest", ALL[0].digest, "npz", 1, 1, 100, "none", 0.0)
    assert choose([ALL[0], other], {}, None, None, 0.0) == [ALL[0]]


@pytest.mark.parametrize("subset", ["0/7", "8/7", "a/7", "1/", "/", "x", "101%", "-1"])
def test_bad_subsets(subset):
    with pytest.raises(UsageError):
        choose(ALL, {}, subset, None, 0.0)
