"""Read-only maps: views hold their memory, private maps keep writes private, the lease ends with the last user."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

from trims.client import mapping
from trims.client.mapping import Contents, Hold, Region
from trims.errors import Damaged, UsageError
from trims.linux import memfd
from trims.manifest import ITEM_SIZES, Manifest, TensorSpec, table_bytes


def manifest_of(arrays: dict[str, np.ndarray]) -> Manifest:
    return Manifest(tuple(TensorSpec(n, a.dtype.name, a.shape, f"{i:064x}") for i, (n, a) in enumerate(arrays.items())))


class Made:
    """A sealed region in memory, and whether it has been given up."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        manifest = manifest_of(arrays)
        self.table, self.span = table_bytes(manifest), manifest.layout.nbytes
        self.nbytes = memfd.pages(self.span + len(self.table))
        self.released: list[str] = []
        writable = memfd.create("test", self.nbytes)
        for name, offset in manifest.layout.tensors.items():
            os.pwrite(writable, arrays[name].tobytes(), offset)
        os.pwrite(writable, self.table, self.span)
        self.fd = memfd.seal(writable)
        os.close(writable)

    def region(self, variant: str = "raw") -> Region:
        hold = Hold(os.dup(self.fd), lambda: self.released.append(variant))
        region = Region(hold, 0, self.nbytes)
        region.read_table(f"{id(self):x}", variant, (self.span, len(self.table)))
        return region


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for name, size in ITEM_SIZES.items():
        dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
        raw = rng.integers(0, 2 if name == "bool" else 60, 6 * size, dtype=np.uint8)
        made[f"t/{name}"] = raw.view(dtype).reshape(2, 3)
    made["scalar"] = np.array(3.5, np.float64)
    made["empty"] = np.zeros((0, 5), np.float16)
    return made


@pytest.fixture
def made(arrays: dict[str, np.ndarray]) -> Iterator[Made]:
    region = Made(arrays)
    yield region
    os.close(region.fd)
    mapping._contents.clear()


def test_views_have_the_bytes_dtype_and_shape_of_every_dtype(made: Made, arrays: dict[str, np.ndarray]) -> None:
    region = made.region()
    for name, array in arrays.items():
        view = region.view(name)
        assert (view.dtype, view.shape) == (array.dtype, array.shape)
        assert view.tobytes() == array.tobytes()
    assert list(region.views()) == list(arrays)


def test_views_cannot_be_written_nor_made_writable(made: Made) -> None:
    view = made.region().view("t/float32")
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True


def test_the_lease_ends_with_the_last_view_in_whatever_order(made: Made) -> None:
    region = made.region()
    in_use = region.watch()
    part = region.view("t/float32")[1:]
    blob = region.base.data
    del region
    assert in_use() and made.released == []
    assert part.tobytes()
    del part
    assert in_use()
    del blob
    assert not in_use() and made.released == ["raw"]


def test_each_of_all_views_is_read_only_and_keeps_the_lease(made: Made) -> None:
    region = made.region()
    views = region.views()
    assert list(views) == list(region.contents.views)
    for name, view in views.items():
        assert view.base is region.base and not view.flags.writeable
        assert np.array_equal(view, region.view(name), equal_nan=view.dtype.kind == "f")
    del region, view
    last = views.popitem()[1]
    del views
    assert made.released == []
    del last
    assert made.released == ["raw"]


def test_a_private_map_alone_keeps_the_lease(made: Made) -> None:
    region = made.region()
    private = region.private_base()
    watch = region.watch()
    del region
    assert made.released == [] and watch()
    del private
    assert made.released == ["raw"] and not watch()


def test_a_write_to_a_private_map_stays_private(made: Made) -> None:
    region = made.region()
    before = region.view("t/float32").copy()
    private = region.private_base()
    region.views(private)["t/float32"][:] = 42
    assert (region.views(private)["t/float32"] == 42).all()
    assert region.view("t/float32").tobytes() == before.tobytes()
    assert made.region().view("t/float32").tobytes() == before.tobytes()


def test_reading_a_map_makes_no_private_memory(home: object) -> None:
    big = {"w": np.ones(4 << 20, np.float32)}
    made = Made(big)
    region = made.region()
    private = region.private_base()
    assert region.view("w").sum() == 4 << 20
    assert region.views(private)["w"].sum() == 4 << 20
    assert private_kilobytes("memfd:test") < 64
    private[0] = 1
    assert 0 < private_kilobytes("memfd:test") < 64
    os.close(made.fd)


def private_kilobytes(name: str) -> int:
    """Private_Dirty of every mapping whose path has `name`."""
    total, inside = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            if "-" in line.split(" ", 1)[0] and ":" not in line.split(" ", 1)[0]:
                inside = name in line
            elif inside and line.startswith("Private_Dirty:"):
                total += int(line.split()[1])
    return total


def test_contents_are_parsed_once_and_the_cache_is_bounded(made: Made) -> None:
    first, second = made.region(), made.region()
    assert first.contents is second.contents
    for n in range(mapping._CACHED_CONTENTS + 5):
        made.region(f"v{n}")
    assert len(mapping._contents) == mapping._CACHED_CONTENTS
    assert made.region().contents is not first.contents


def test_contents_of_a_manifest_are_those_of_its_table(arrays: dict[str, np.ndarray], made: Made) -> None:
    manifest = manifest_of(arrays)
    contents = Contents.of_manifest(manifest)
    region = made.region()
    assert contents.views == region.contents.views
    assert contents.manifest is manifest
    assert region.contents.manifest == manifest


def test_a_model_without_bytes_can_be_mapped() -> None:
    read, write = os.pipe()
    os.close(write)
    contents = Contents.of_manifest(manifest_of({"e": np.zeros((3, 0), np.int8)}))
    region = Region(Hold(read), 0, 0, contents)
    assert region.view("e").shape == (3, 0)
    region.private_base()


def test_a_region_shorter_than_it_says_is_damaged(made: Made) -> None:
    with pytest.raises(Damaged):
        Region(Hold(os.dup(made.fd)), 0, made.nbytes + mmap.PAGESIZE)
    region = Region(Hold(os.dup(made.fd)), 0, made.nbytes)
    with pytest.raises(Damaged, match="outside"):
        region.read_table("d", "raw", (made.nbytes, 10))


def test_ml_dtypes_is_imported_only_for_what_needs_it() -> None:
    code = (
        "import sys, numpy\n"
        "from trims.client.mapping import dtype_of\n"
        "dtype_of('float32'); assert 'ml_dtypes' not in sys.modules\n"
        "dtype_of('bfloat16'); assert 'ml_dtypes' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_views_alive_at_the_end_of_the_interpreter_do_no_harm() -> None:
    code = (
        "import os, numpy as np\n"
        "from trims.client.mapping import Contents, Hold, Region\n"
        "from trims.linux import memfd\n"
        "from trims.manifest import Manifest, TensorSpec\n"
        "fd = memfd.create('t', 4096)\n"
        "m = Manifest((TensorSpec('w', 'float32', (4,), '0' * 64),))\n"
        "r = Region(Hold(fd, lambda: None), 0, 4096, Contents.of_manifest(m))\n"
        "keep = r.view('w'); private = r.private_base()\n"
    )
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_hold_is_given_up_once_even_in_a_cycle(made: Made) -> None:
    region = made.region()
    cycle: list[object] = [region.view("t/int8")]
    cycle.append(cycle)
    del region, cycle
    assert made.released == []
    gc.collect()
    assert made.released == ["raw"]


def test_a_descriptor_that_the_program_closed_is_neither_mapped_nor_closed(arrays: dict[str, np.ndarray]) -> None:
    """A daemon closes all descriptors there are; then the number of ours is a file of its own."""
    made = Made(arrays)
    region = made.region()
    number, other = region._hold.fd, memfd.create("program's", made.nbytes)
    os.dup2(other, number)
    with pytest.raises(UsageError, match="closed its descriptor"):
        region.private_base()
    assert np.array_equal(region.view("t/float32"), arrays["t/float32"])
    del region
    gc.collect()
    assert made.released == ["raw"] and os.fstat(number).st_ino == os.fstat(other).st_ino
    for fd in (number, other, made.fd):
        os.close(fd)
