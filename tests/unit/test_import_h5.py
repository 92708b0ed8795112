"""HDF5 files: datasets by path, nothing outside the file, nothing that is no tensor."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.importing import contents, expected, load, refused
from helpers.models import ModelFiles, arrays
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trims.disk.importers import open_source

DTYPES = ["?", "i1", "<i2", ">i4", "<i8", "u1", ">u2", "<u4", "<u8", "<f2", ">f4", "<f8", "<c8", "<c16"]
any_array = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
part = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/."), min_size=1, max_size=8)


def test_reads_every_dataset_by_its_path(models: ModelFiles) -> None:
    with open_source(models.h5) as source:
        assert source.format == "h5"
        assert contents(source) == expected(arrays())


@given(st.dictionaries(st.tuples(part, part), any_array, min_size=1, max_size=5), st.booleans())
def test_reads_what_h5py_writes(given: dict[tuple[str, str], Any], chunked: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m.h5")
        with h5py.File(path, "w") as file:
            for name, array in given.items():
                options = {"chunks": True, "compression": "gzip"} if chunked and array.size and array.ndim else {}
                file.create_dataset("/".join(name), data=array, **options)
        assert load(path) == expected({"/".join(name): array for name, array in given.items()})


def test_a_user_block_may_come_first(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m", "w", userblock_size=1024) as file:
        file["a"] = np.arange(5)
    assert load(tmp_path / "m") == expected({"a": np.arange(5)})


def test_attributes_tell_what_hdf5_cannot(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m", "w") as file:
        file["a%2Fb"] = np.array([16256], np.uint16)
        file["a%2Fb"].attrs["trims_dtype"] = "bfloat16"
        file["a%2Fb"].attrs["trims_name"] = "a//b"
        file["c"] = np.array([1], np.uint8)
        file["c"].attrs["trims_dtype"] = "bfloat16"  # not what bfloat16 is stored as: not believed
    assert load(tmp_path / "m") == {"a//b": ("bfloat16", (1,), b"\x80\x3f"), "c": ("uint8", (1,), b"\1")}


def test_links_inside_the_file_are_tied_tensors(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m", "w") as file:
        file["g/a"] = np.arange(3)
        file["hard"] = file["g/a"]
        file["soft"] = h5py.SoftLink("/g/a")
        file["g/near"] = h5py.SoftLink("./a")
    whole = expected({"a": np.arange(3)})["a"]
    assert load(tmp_path / "m") == dict.fromkeys(("g/a", "hard", "soft", "g/near"), whole)


def external_link(file: h5py.File, other: Path) -> None:
    file["x"] = h5py.ExternalLink(str(other), "/a")


def soft_through_external(file: h5py.File, other: Path) -> None:
    file["y"] = h5py.SoftLink("/x/a")


def external_storage(file: h5py.File, other: Path) -> None:
    file.create_dataset("x", (8,), "u1", external=[(str(other), 0, 8)])


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((3,), "i8")
    layout[:] = h5py.VirtualSource(str(other), "a", (3,))
    file.create_virtual_dataset("x", layout)


def text(file: h5py.File, other: Path) -> None:
    file["x"] = "words"


def compound(file: h5py.File, other: Path) -> None:
    file["x"] = np.zeros(2, [("a", "f4")])


def reference(file: h5py.File, other: Path) -> None:
    file["g/a"] = 1
    file.create_dataset("x", data=file["g"].ref, dtype=h5py.ref_dtype)


def variable_length(file: h5py.File, other: Path) -> None:
    file.create_dataset("x", (2,), h5py.vlen_dtype("i4"))


def empty(file: h5py.File, other: Path) -> None:
    file["x"] = h5py.Empty("f4")


def circle(file: h5py.File, other: Path) -> None:
    file.create_group("g")["up"] = file["/"]


def dangling(file: h5py.File, other: Path) -> None:
    file["x"] = h5py.SoftLink("/nowhere")


def bomb(file: h5py.File, other: Path) -> None:
    file.create_dataset("x", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024), compression="gzip")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (external_link, "link to another file"),
        (soft_through_external, "no dataset of the file"),
        (external_storage, "in other files"),
        (virtual, "in other files"),
        (text, "no tensor"),
        (compound, "no tensor"),
        (reference, "no tensor"),
        (variable_length, "no tensor"),
        (empty, "no data"),
        (circle, "in a circle"),
        (dangling, "no dataset of the file"),
        (bomb, "claims"),
    ],
)
def test_what_leaves_the_file_or_is_no_tensor_is_refused(tmp_path: Path, make: Any, words: str) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["a"] = np.arange(3)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["good"] = np.arange(4)
        make(file, other)
    refused(tmp_path / "m.h5", words)


def test_a_file_without_datasets_is_refused(tmp_path: Path) -> None:
    h5py.File(tmp_path / "m.h5", "w").close()
    refused(tmp_path / "m.h5", "no tensors")


def test_a_cut_file_is_refused(tmp_path: Path, models: ModelFiles) -> None:
    (tmp_path / "m.h5").write_bytes(models.h5.read_bytes()[:-2000])
    refused(tmp_path / "m.h5", "may be cut")
