"""safetensors headers that lie. The real library refuses these, too, or would read what no tensor owns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.importing import load, refused

from trims.errors import BadInput


def file(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin: Any = 0, end: Any = 16, dtype: Any = "F32", shape: Any = (4,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_good_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(file({"a": entry()}))
    assert load(tmp_path / "m") == {"a": ("float32", (4,), bytes(16))}


HALVES = {"a": entry(0, 8, shape=[2]), "b": entry(8, 16, shape=[2])}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (file({"a": entry()}, length=1000), "are wanted"),
        (file({"a": entry()}, length=100_000_001), "over 100000000"),
        (file({"a": entry()}, length=(1 << 64) - 1), "over 100000000"),
        (file({"a": entry()}, length=3), "cannot be parsed"),
        (file(b"{" * 100_000), "cannot be parsed"),
        (file(b"{}x"), "cannot be parsed"),
        (file(b'{"a": \xff}'), "cannot be parsed"),
        (file(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b"]}}"), "cannot be parsed"),
        (file({"a": entry()}, bytes(15)), "may be cut"),
        (file({"a": entry()}, bytes(17)), "may be cut"),
        (file({"a": entry()}, b""), "are wanted"),
        (file({}), "may be cut"),
        (file({}, b""), "no tensors"),
        (file({"__metadata__": {"a": "b"}}, b""), "no tensors"),
        (file({"__metadata__": {"a": 1}, "a": entry()}), "__metadata__"),
        (file({"__metadata__": [], "a": entry()}), "__metadata__"),
        (file(b'{"a": 1, "a": 2}'), "'a' comes twice"),
        (
            file(b'{"a": {"dtype": "F32", "dtype": "I32", "shape": [4], "data_offsets": [0, 16]}}'),
            "'dtype' comes twice",
        ),
        (file({"a": []}), "malformed"),
        (file({"a": None}), "malformed"),
        (file({"a": {"dtype": "F32", "shape": [4]}}), "malformed"),
        (file({"a": {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]}}), "malformed"),
        (file({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}}), "malformed"),
        (file({"a": entry(0.0, 16)}), "no whole number"),
        (file({"a": entry(False, 16)}), "no whole number"),
        (file({"a": entry(-16, 0)}), "no whole number"),
        (file({"a": entry(0, 1 << 64)}), "no whole number"),
        (file({"a": entry(shape=[-4])}), "no whole number"),
        (file({"a": entry(shape=["4"])}), "no whole number"),
        (file({"a": entry(shape=[1 << 62, 4])}), "its offsets give 16"),
        (file({"a": entry(16, 0)}), "its offsets give -16"),
        (file({"a": entry(0, 12)}), "its offsets give 12"),
        (file({"a": entry(shape=[3])}), "its offsets give 16"),
        (file({"a": entry(dtype="F4", shape=[32])}), "'F4', which is not supported"),
        (file({"a": entry(dtype="f32")}), "not supported"),
        (file({"a": entry(dtype=[])}), "not supported"),
        (file({"a": entry(16, 32)}), "are wanted"),
        (file({**HALVES, "b": entry(0, 8, shape=[2])}, bytes(8)), "lies at 0, the data before it end at 8"),
        (file({**HALVES, "b": entry(4, 12, shape=[2])}, bytes(12)), "lies at 4, the data before it end at 8"),
        (file({"a": entry(8, 16, shape=[2])}), "lies at 8, the data before it end at 0"),
        (file({**HALVES, "b": entry(12, 16, shape=[1])}), "lies at 12, the data before it end at 8"),
        (file({"": entry()}), "empty"),
        (file({"n" * 2000: entry()}), "too long"),
        (file(b'{"\\ud800": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'), "no valid Unicode"),
        (file({"a": entry(shape=[1] * 40 + [4])}), "over 32"),
        ((12).to_bytes(8, "little") + b"{", "known format"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(BadInput, match=r"^cannot import|^tensor") as caught:
        load(tmp_path / "m.safetensors")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a\nb", "\x1b[2J", "a/b", ".", "..", " ", "-rf", "\N{SNOWMAN}", "\u202e"]
)
def test_hostile_names_are_only_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "m").write_bytes(file({name: entry()}))
    assert load(tmp_path / "m") == {name: ("float32", (4,), bytes(16))}
    (tmp_path / "m").write_bytes(file({name: entry(dtype="?")}))
    assert str(refused(tmp_path / "m", "not supported")).isprintable()
