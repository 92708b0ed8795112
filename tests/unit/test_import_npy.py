"""Arrays that NumPy wrote: alone and in archives, compressed or not, of any byte order and layout."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers.importing import contents, expected, load, refused
from helpers.models import ModelFiles, arrays
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trims.disk.importers import open_source

DTYPES = ["?", "i1", "<i2", ">i4", "<i8", "u1", ">u2", "<u4", "<u8", "<f2", ">f4", "<f8", "<c8", ">c16"]
any_array = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/\\"), min_size=1, max_size=12).filter(
    lambda name: name not in ("file", "allow_pickle")
)


@given(st.dictionaries(names, any_array, min_size=1, max_size=5), st.booleans(), st.booleans())
def test_reads_what_numpy_writes(given: dict[str, Any], compressed: bool, fortran: bool) -> None:
    if fortran:
        given = {name: np.asfortranarray(array) for name, array in given.items()}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m.npz")
        (np.savez_compressed if compressed else np.savez)(path, **given)
        assert load(path) == expected(given)


@given(any_array, st.booleans())
def test_reads_one_array(array: Any, fortran: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "table.npy")
        np.save(path, np.asfortranarray(array) if fortran and array.ndim else array)
        with open_source(path) as source:
            assert source.format == "npy"
            assert contents(source) == expected({"table": array})


def test_stored_arrays_are_views_of_the_file(models: ModelFiles) -> None:
    with open_source(models.npz) as source:
        assert source.format == "npz"
        assert [tensor.name for tensor in source.tensors] == sorted(name.replace("/", ".") for name in arrays())
        assert type(source.tensors[0].read().obj).__name__ == "mmap"


def test_a_64_bit_archive(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays().items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.save(member, array)
    assert load(path) == expected(arrays())


def test_members_that_are_no_arrays_become_side_files(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, a=np.arange(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "cat\n")
    with open_source(path) as source:
        assert source.files == {"labels.txt": b"cat\n"}


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, a=np.array([{}, None], object))
    refused(path, "'|O'", "no tensor")


@pytest.mark.parametrize("dtype", ["U3", "S3", "m8[s]", [("a", "f4")], ml_dtypes.bfloat16])
def test_what_is_no_tensor_is_refused(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3, dtype))
    refused(tmp_path / "a.npy", "no tensor")


def npy(descr: str, shape: str, data: bytes = b"", fortran: str = "False", length: int | None = None) -> bytes:
    """An npy file with any header at all."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode("latin1")
    return b"\x93NUMPY\1\0" + (len(text) if length is None else length).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy("'<f4'", "(2,)", b"\0" * 7), "needs 8 bytes, it has 7"),
        (npy("'<f4'", "(2,)", b"\0" * 9), "needs 8 bytes, it has 9"),
        (npy("'<f4'", "(4611686018427387904, 4)"), "needs"),
        (npy("'<f4'", "(-1,)"), "whole numbers"),
        (npy("'<f4'", "(1.0,)"), "whole numbers"),
        (npy("'<f4'", "(True,)"), "whole numbers"),
        (npy("'<f4'", "3"), "whole numbers"),
        (npy("'<f4'", "(2,)", b"\0" * 8, fortran="1"), "no tensor"),
        (npy("'<f4,<f4'", "(1,)", b"\0" * 8), "no tensor"),
        (npy("'<f4'", "__import__('os').system('false')"), "cannot be parsed"),
        (npy("'<f4'", "(" * 300 + ")" * 300), "cannot be parsed"),
        (npy("'\\d'", "(1,)"), "backslash"),
        (npy("'<f4'", "(2,)", b"\0" * 8, length=60_000), "cut, too long"),
        (b"\x93NUMPY\1\0", "does not begin"),
        (b"\x93NUMPY\7\0\x10\0\0\0" + b" " * 40, "later version"),
    ],
)
def test_bad_headers_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    refused(tmp_path / "a.npy", words)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", data)
    refused(tmp_path / "a.npz")


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, data in members.items():
            made.writestr(f"{name}.npy", data)
    return file.getvalue()


def test_a_flipped_bit_in_an_archive_is_found(tmp_path: Path) -> None:
    data = bytearray(archive(a=npy("'<f4'", "(2,)", b"ABCDEFGH")))
    data[data.index(b"ABCDEFGH")] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    refused(tmp_path / "a.npz", "checksum", "damaged")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_refused(tmp_path: Path) -> None:
    good = npy("'<f4'", "(1,)", b"\0" * 4)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as made:
        made.writestr("a.npy", good)
        made.writestr("a.npy", good)
    refused(tmp_path / "a.npz", "same name")


def test_a_name_that_an_array_has_with_and_without_suffix(tmp_path: Path) -> None:
    good = npy("'<f4'", "(1,)", b"\0" * 4)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as made:
        made.writestr("a.npy", good)
        made.writestr("a", good)
    refused(tmp_path / "a.npz", "two tensors named 'a'")


def directory_patch(data: bytes, at: int, value: bytes) -> bytes:
    """`data` with bytes of its first directory entry replaced."""
    start = data.index(b"PK\1\2") + at
    return data[:start] + value + data[start + len(value) :]


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (8, b"\1\0", "encrypted"),
        (10, b"\x0c\0", "not supported (12)"),
        (20, b"\xff\xff\xff\x7f", "not supported (0)"),
        (42, b"\xf0\xff\xff\x00", "are wanted"),
        (42, b"\4\0\0\0", "not where the directory says"),
        (28, b"\xff\xff", "are wanted"),
    ],
)
def test_a_directory_that_lies_is_refused(tmp_path: Path, at: int, value: bytes, words: str) -> None:
    data = archive(a=npy("'<f4'", "(2,)", b"\0" * 8), b=npy("'<f4'", "(2,)", b"\1" * 8))
    (tmp_path / "a.npz").write_bytes(directory_patch(data, at, value))
    refused(tmp_path / "a.npz", words)


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    """How a small archive spells much data: all members are one."""
    inner = npy("'<f4'", "(2,)", b"\0" * 8)
    data = archive(a=inner, b=inner)
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    patched = data[: second + 42] + b"\0\0\0\0" + data[second + 46 :]
    (tmp_path / "a.npz").write_bytes(patched)
    refused(tmp_path / "a.npz", "overlaps")


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    data = directory_patch(archive(a=npy("'<f4'", "(2,)", b"\0" * 8)), 24, b"\xff\xff\xff\x7f")
    (tmp_path / "a.npz").write_bytes(directory_patch(data, 10, b"\x08\0"))
    refused(tmp_path / "a.npz", "claims 2147483647 bytes")


def test_a_member_larger_than_declared_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.npy", npy("'<f4'", "(2,)", b"\0" * 8))
    data = file.getvalue()
    (tmp_path / "a.npz").write_bytes(directory_patch(data, 24, b"\x20\0\0\0"))
    refused(tmp_path / "a.npz")


def test_an_archive_without_its_end_is_refused(tmp_path: Path, models: ModelFiles) -> None:
    (tmp_path / "a.npz").write_bytes(models.npz.read_bytes()[:-30])
    refused(tmp_path / "a.npz", "may be cut")


def test_other_archives_are_refused_by_what_they_hold(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("word/document.xml", "")
    refused(tmp_path / "a.zip", "word/document.xml", "unpack")
