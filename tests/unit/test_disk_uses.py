"""The memory of uses: merged, bounded, and deaf to what it cannot read."""

from __future__ import annotations

import os

from trims.disk import uses

A, B, C = "a" * 64, "b" * 64, "c" * 64


def test_the_later_time_wins(tmp_path):
    path = str(tmp_path / "used" / "store")
    assert uses.read(path) == {}
    uses.merge(path, {A: 10.7, B: 20.0})
    uses.merge(path, {A: 5.0, B: 30.0, C: 1.0})
    assert uses.read(path) == {A: 10.0, B: 30.0, C: 1.0}
    assert os.stat(path).st_mode & 0o777 == 0o600 and os.listdir(tmp_path / "used") == ["store"]


def test_only_the_newest_are_kept(tmp_path):
    path = str(tmp_path / "store")
    uses.merge(path, {f"{n:064x}": float(n) for n in range(1, 50)}, limit=10)
    assert sorted(uses.read(path).values()) == [float(n) for n in range(40, 50)]


def test_lines_that_are_none(tmp_path):
    path = tmp_path / "store"
    path.write_bytes(b"\xff\xff\n" + f"{A} 7\n{B} -3\n{B} x\nshort 9\n{C}".encode())
    assert uses.read(str(path)) == {A: 7.0}


def test_where_it_is():
    assert uses.path("id", {"XDG_STATE_HOME": "/s"}) == "/s/trims/used/id"
