from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trims import errors
from trims.errors import TrimsError, one_line, rebuild

ALL = [cls for cls in errors.all_errors() if cls.__module__ == errors.__name__]


def test_every_code_is_one_class() -> None:
    codes = [cls.code for cls in ALL]
    assert len(codes) == len(set(codes))


def test_exit_codes_are_those_of_the_manual() -> None:
    table = {cls.code: cls.exit_code for cls in ALL}
    assert table == {
        "failed": 1,
        "usage": 2,
        "not-permitted": 2,
        "not-running": 3,
        "unreachable": 4,
        "protocol": 4,
        "partial": 5,
        "no-such-model": 10,
        "ambiguous": 10,
        "no-such-variant": 10,
        "locked": 11,
        "no-store": 12,
        "store-too-new": 13,
        "damaged": 14,
        "no-space": 15,
        "bad-input": 16,
        "no-room": 20,
        "in-use": 21,
        "pinned": 22,
        "device-lost": 23,
        "timed-out": 124,
    }


@pytest.mark.parametrize("cls", ALL)
def test_an_error_survives_the_wire_and_pickle(cls: type[TrimsError]) -> None:
    error = cls("a thing failed", "for a reason", "do this", nbytes=3, holders=[{"pid": 1}])
    again = rebuild(error.code, error.what, error.why, error.hint, error.details)
    pickled = pickle.loads(pickle.dumps(error))
    for other in (again, pickled):
        assert type(other) is cls
        assert other.to_dict() == error.to_dict()


def test_an_unknown_code_is_a_plain_failure() -> None:
    error = rebuild("from-the-future", "it failed", "", "", {"n": 1})
    assert type(error) is TrimsError and error.details == {"n": 1} and str(error) == "it failed"


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (("it failed",), "it failed"),
        (("it failed", "a cause"), "it failed: a cause"),
        (("it failed", "a cause", "run this"), "it failed: a cause (run this)"),
        (("it failed", "", "run this"), "it failed (run this)"),
        (("bad \x1b[31m name\n",), "bad \\x1b[31m name\\n"),
        (("right to left \u202e", "\udcff"), "right to left \\u202e: \\udcff"),
    ],
)
def test_the_line(parts: tuple[str, ...], line: str) -> None:
    assert str(TrimsError(*parts)) == line


@given(st.text(st.characters(codec=None)))
def test_one_line_is_printable_and_encodable(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    line.encode()
