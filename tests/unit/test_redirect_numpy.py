"""Archives of the store behind numpy.load: arrays as NumPy's own, private to whoever writes, and never wrong."""

from __future__ import annotations

import gc
import io
import os
import pathlib
import resource
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import redirecting

from trims.redirect import deciding, hooks_numpy

LARGE = 40_000


@pytest.fixture
def loads(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """numpy.load as a redirected program has it; its report is `report` in the private home."""
    redirecting.here(
        monkeypatch, TRIMS_STORE=str(home / "store"), TRIMS_SOCKET=str(home / "none.sock"),
        TRIMS_EXEC_REPORT=str(home / "report"),
    )  # fmt: skip
    yield hooks_numpy._load(np.load)
    gc.collect()


def outcomes(home: Path) -> list[str]:
    return redirecting.outcomes(home / "report") if (home / "report").exists() else []


def every_kind(path: Path) -> Path:
    """An archive with arrays of all orders and sizes, and a member that is none."""
    big = np.arange(LARGE, dtype=np.float32)
    np.savez(
        path, big=big, same=big, small=np.arange(3), f=np.asfortranarray(np.arange(90_000.0).reshape(300, 300)),
        be=np.arange(9, dtype=">f4"), none=np.zeros((0, 4)), scalar=np.array(2.5), flag=np.array([True]),
    )  # fmt: skip
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("about.txt", "words")
    return path


def test_arrays_are_as_numpys_own(home: Path, loads: Any) -> None:
    path = every_kind(home / "m.npz")
    redirecting.bring(home / "store", path)
    with np.load(path) as theirs, loads(path) as ours:
        assert isinstance(ours, np.lib.npyio.NpzFile) and repr(ours) == repr(theirs)
        assert list(ours) == list(theirs) and ours.files == theirs.files and len(ours) == len(theirs)
        for name in theirs.files:
            want, got = theirs[name], ours[name]
            if isinstance(want, bytes):
                assert got == want
                continue
            assert (got.dtype, got.shape, got.strides) == (want.dtype, want.shape, want.strides)
            assert got.tobytes() == want.tobytes() and type(got) is type(want)
            assert got.flags.writeable and got.flags.aligned and got.flags.f_contiguous == want.flags.f_contiguous
        assert np.array_equal(ours["big.npy"], ours["big"]) and np.array_equal(ours.f.small, theirs["small"])
        assert "big" in ours and "nothing" not in ours
        for odd in ("nothing", 3, None):
            with pytest.raises(KeyError, match="is not a file in the archive"):
                ours[odd]
    with pytest.raises(AttributeError):  # closed, as NumPy says it
        ours["big"]
    assert outcomes(home) == ["redirected"]


def test_every_look_up_is_an_array_of_its_own(home: Path, loads: Any) -> None:
    path = every_kind(home / "m.npz")
    redirecting.bring(home / "store", path)
    first, second = loads(path), loads(path)
    made = [first["big"], first["big"], first["same"], second["big"], first["small"], first["small"]]
    for n, array in enumerate(made):
        array[:3] = n + 100
    assert [float(array[0]) for array in made] == [100, 101, 102, 103, 104, 105]
    del first, second
    gc.collect()
    assert [float(array[-1]) for array in made] == [LARGE - 1] * 4 + [104, 105]
    assert loads(path)["big"][0] == 0 and np.load(path)["big"][0] == 0


def test_the_memory_is_shared_until_written(home: Path, loads: Any) -> None:
    path = redirecting.archive(home / "m.npz", n=1 << 20)
    redirecting.bring(home / "store", path)
    found = loads(path)
    array = found["w"]
    model = found._trims._model
    assert float(array.sum()) > 0 and model.memory().written == 0
    array[0] = 5
    assert 0 < model.memory().written <= 65536


def test_a_neighbour_never_sees_a_write(home: Path, loads: Any) -> None:
    path = redirecting.archive(home / "m.npz")
    redirecting.bring(home / "store", path)
    before = loads(path)["w"].copy()
    child = os.fork()
    if not child:
        array = loads(path)["w"]
        array[:] = -1
        os._exit(0 if (array == -1).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(loads(path)["w"], before)


def test_what_is_not_a_path_to_an_archive_is_numpys(home: Path, loads: Any) -> None:
    path = redirecting.archive(home / "m.npz")
    redirecting.bring(home / "store", path)
    np.save(home / "a.npy", np.arange(3))
    with open(path, "rb") as file:
        assert type(loads(file)) is np.lib.npyio.NpzFile
    assert type(loads(io.BytesIO(path.read_bytes()))) is np.lib.npyio.NpzFile
    with loads(path, "r") as found:
        assert type(found) is np.lib.npyio.NpzFile
    assert isinstance(loads(home / "a.npy", mmap_mode="r"), np.memmap) and loads(str(home / "a.npy"))[2] == 2
    with pytest.raises(FileNotFoundError):
        loads(home / "missing.npz")
    with pytest.raises(TypeError):
        loads(path, nonsense=1)
    assert outcomes(home) == []  # not a word about any of them


def test_every_path_to_a_content_is_known(
    home: Path, loads: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = redirecting.archive(home / "m.npz")
    redirecting.bring(home / "store", path)
    (home / "link.npz").symlink_to("m.npz")
    (home / "copy.npz").write_bytes(path.read_bytes())
    os.link(path, home / "hard.npz")
    monkeypatch.chdir(home)
    for name in (path, "m.npz", "./tmp/../link.npz", pathlib.PurePath("copy.npz"), "hard.npz"):
        assert loads(name)["w"].sum() == float(redirecting.total(path))
    assert outcomes(home) == ["redirected"] * 5 and capfd.readouterr().err == ""


def test_pickles_may_be_allowed_where_there_are_none(home: Path, loads: Any) -> None:
    """Many programs allow them always; an archive that has one is never imported."""
    path = redirecting.archive(home / "m.npz")
    redirecting.bring(home / "store", path)
    with loads(path, allow_pickle=True) as found:
        assert str(float(found["w"].sum())) == redirecting.total(path) and found.allow_pickle
    np.savez(home / "objects.npz", o=np.array([{}], object))
    assert loads(home / "objects.npz", allow_pickle=True)["o"][0] == {}
    assert outcomes(home) == ["redirected", "fallback"]


def test_a_changed_file_is_another_file(home: Path, loads: Any, capfd: pytest.CaptureFixture[str]) -> None:
    path = redirecting.archive(home / "m.npz", seed=1)
    redirecting.bring(home / "store", path)
    old = loads(path)
    times = path.stat()
    data = redirecting.archive(home / "other.npz", seed=2).read_bytes()
    assert len(data) == times.st_size
    with open(path, "r+b") as file:  # in place, of the same length, with the old times put back
        file.write(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert str(float(loads(path)["w"].sum())) == redirecting.total(path) == redirecting.total(home / "other.npz")
    assert outcomes(home) == ["redirected", "fallback"]
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and f"{path} is loaded natively: it is not in the store, or has changed" in err
    loads(path)
    assert capfd.readouterr().err == ""  # said once
    assert old["w"].shape == (LARGE,)


def test_an_archive_replaced_between_the_looks_is_native(
    home: Path, loads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = redirecting.archive(home / "m.npz", seed=1)
    other = redirecting.archive(home / "other.npz", seed=2)
    redirecting.bring(home / "store", path)
    find = deciding._find

    def find_then_replace(source: Any) -> Any:
        known = find(source)
        os.replace(other, path)
        return known

    monkeypatch.setattr(deciding, "_find", find_then_replace)
    old = redirecting.total(path)
    assert str(float(loads(path)["w"].sum())) == old  # what was open, not what came after
    assert [line["why"] for line in redirecting.lines(home / "report", "fallback")] == [
        "it was replaced while it was opened"
    ]


def test_options_that_count_at_look_up_are_numpys(home: Path, loads: Any) -> None:
    path = redirecting.archive(home / "m.npz")
    redirecting.bring(home / "store", path)
    with loads(path, max_header_size=5) as found, pytest.raises(ValueError, match="max_header_size"):
        found["w"]


def test_numpy_reloaded_is_patched_once(home: Path, loads: Any) -> None:
    module = types.SimpleNamespace(load=loads, lib=types.SimpleNamespace())
    hooks_numpy.patch(module)
    assert module.load is loads


def test_many_arrays_leave_the_program_its_descriptors(home: Path, loads: Any) -> None:
    """Natively an array keeps none; here each map does, and a program may keep thousands of arrays."""
    path = redirecting.archive(home / "m.npz")
    redirecting.bring(home / "store", path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        kept = [loads(path)["w"] for _ in range(100)]
        with loads(path) as archive:
            kept += [archive["w"] for _ in range(100)]
        assert len(os.listdir("/proc/self/fd")) < 160
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len({float(array.sum()) for array in kept}) == 1
    assert "redirected" in outcomes(home)
