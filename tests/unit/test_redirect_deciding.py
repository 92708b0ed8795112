"""The decision, and the finder that patches: whatever fails in trims, a program gets what it would have got without."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from helpers import redirecting

import trims
from trims.errors import TrimsError
from trims.redirect import deciding, environment, opening, report, ticks

BOOT = str(Path(trims.__file__).parent / "redirect" / "boot")


@pytest.fixture
def path(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the store knows; this process decides as a redirected one."""
    made = redirecting.archive(home / "m.npz")
    redirecting.bring(home / "store", made)
    wish(monkeypatch, home)
    return made


def wish(monkeypatch: pytest.MonkeyPatch, home: Path, **more: str) -> None:
    usual = {"TRIMS_STORE": f"{home}/store", "TRIMS_SOCKET": f"{home}/none.sock", environment.REPORT: f"{home}/report"}
    redirecting.here(monkeypatch, **(usual | more))


def fails(decision: Any) -> Any:
    """Fails as trims might, not as a program's own code does: somewhere in a library."""
    return json.loads("[ours]")


def test_our_failures_are_native_loads(path: Path, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def unsuited(decision: Any) -> Any:
        raise deciding.Unsuited("it is on a GPU")

    assert deciding.load(path, "numpy", fails, lambda: "native") == "native"
    assert deciding.load(str(path), "numpy", unsuited, lambda: "native") == "native"
    assert deciding.load(path, "numpy", lambda decision: decision.model()["w"].sum(), lambda: 0) > 0
    whys = [line["why"] for line in redirecting.lines(home / "report", "fallback")]
    assert whys == ["JSONDecodeError: Expecting value: line 1 column 2 (char 1)", "it is on a GPU"]
    assert capfd.readouterr().err == f"trims: {path} is loaded natively: {whys[0]}\n"  # a file once


@pytest.mark.parametrize("broken", ["store", "record", "report", "pipe", "everything"])
def test_nothing_of_ours_reaches_the_program(
    path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    if broken == "store":
        wish(monkeypatch, home / ("x" * 200))
    elif broken == "record":
        for record in (home / "store" / "sources").rglob("*.json"):
            record.write_bytes(b"\0" * 100)
    elif broken == "report":
        wish(monkeypatch, home, **{environment.REPORT: "/nowhere/report"})
    elif broken == "pipe":
        os.mkfifo(home / "pipe")  # nobody reads it
        wish(monkeypatch, home, **{environment.REPORT: f"{home}/pipe"})
    else:
        monkeypatch.setattr(deciding, "_find", fails)
    assert deciding.load(path, "numpy", fails, lambda: "native") == "native"
    monkeypatch.setattr(sys, "stderr", None)
    assert deciding.load(home / "nothing", "numpy", fails, lambda: "native") == "native"


def test_files_that_are_at_fault_are_named(path: Path, home: Path) -> None:
    """Not the manager that does not run: nobody needs one."""
    (container,) = (home / "store").rglob("*.h5")
    container.chmod(0o644)
    with open(container, "r+b") as file:
        file.seek(container.stat().st_size // 2)
        file.write(b"\xff" * 4096)
    assert deciding.load(path, "numpy", lambda decision: decision.model(), lambda: "native") == "native"
    (line,) = redirecting.lines(home / "report", "fallback")
    assert "tensor w is damaged" in line["why"] and report.totals().native == 1


def test_odd_sources_are_native(path: Path) -> None:
    class Odd:
        def __fspath__(self) -> Any:
            return 3

    for source in (None, 3, b"", b"x", "", "a\0b", Odd(), object(), Path("/proc/self/mem"), Path("/dev/zero")):
        assert deciding.load(source, "numpy", fails, lambda: "native") == "native"


def test_the_programs_own_exceptions_pass_through(path: Path) -> None:
    """A callback of the program that raises inside our way of loading: it is not called a second time."""
    calls: list[int] = []

    def callback() -> None:
        calls.append(1)
        raise ValueError("the program's")

    with pytest.raises(ValueError, match="the program's"):
        deciding.load(path, "numpy", lambda decision: callback(), lambda: "native")
    assert calls == [1]
    with pytest.raises(KeyboardInterrupt):
        deciding.load(path, "numpy", lambda decision: (_ for _ in ()).throw(KeyboardInterrupt), lambda: "native")
    with pytest.raises(ZeroDivisionError):
        deciding.load(path, "numpy", fails, lambda: 1 / 0)


def test_a_failure_keeps_nothing_and_leaves_the_programs_exceptions_alone(path: Path) -> None:
    class Thing:
        pass

    def program() -> weakref.ref[Thing]:
        thing = Thing()
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError as error:
            assert deciding.load(path, "numpy", fails, lambda: "native") == "native"
            assert deciding.guard(lambda: fails(None)) is None
            assert error.__traceback__ is not None
        return weakref.ref(thing)

    gc.collect()
    gc.disable()
    try:
        assert program()() is None
    finally:
        gc.enable()


def test_hooks_are_off_inside_ours(path: Path, home: Path) -> None:
    def nested(decision: Any) -> Any:
        return deciding.load(path, "numpy", fails, lambda: "inner")

    assert deciding.load(path, "numpy", nested, lambda: "native") == "inner"
    assert not deciding.is_ours() and redirecting.outcomes(home / "report") == ["redirected"]


def test_a_model_is_opened_once_while_it_is_used(path: Path) -> None:
    known = deciding.sources().find(path)
    assert known is not None
    first = deciding.opened(known)
    assert deciding.opened(known) is first
    first.close()
    second = deciding.opened(known)
    assert second is not first and second["w"].shape == (40_000,)


def test_a_name_that_moved_does_not_mislead(path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = redirecting.total(path)
    (home / "n").mkdir()
    other = redirecting.archive(home / "n" / "m.npz", seed=5)
    (home / "kept.npz").write_bytes(path.read_bytes())
    redirecting.bring(home / "store", home / "kept.npz", path)  # two names of one model, m the later one
    redirecting.bring(home / "store", other)  # under the name m, too
    assert deciding.load(home / "kept.npz", "numpy", lambda d: str(float(d.model()["w"].sum())), lambda: "") == old
    assert redirecting.total(other) != old
    known, entry = deciding.sources().find(home / "kept.npz"), opening.Catalog.find
    assert known is not None and known.ref == "m:latest"
    gc.collect()

    class Late(opening.Catalog):
        """What the names were a moment ago."""

        def find(self, ref: str) -> Any:
            return entry(self, ref)._replace(digest=known.model)

    monkeypatch.setattr(opening, "Catalog", Late)
    model = deciding.opened(known)
    assert str(float(model["w"].sum())) == old and model.digest == known.model


def test_what_is_required_may_not_be_native(path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = deciding.sources().find(path)
    assert known is not None
    memory = os.memfd_create(environment.TICKS)
    main = {environment.MAIN: f"{os.getpid()}:{memory}", environment.REQUIRE: f"m:latest={known.model} n:1=beef"}
    monkeypatch.setattr(ticks, "_ticked", set())
    wish(monkeypatch, home, **main)
    with pytest.raises(deciding.Refused, match=r"Expecting value.*\(m:latest is required\)") as caught:
        deciding.load(path, "numpy", fails, lambda: "native")
    assert caught.value.exit_code == 125 and isinstance(caught.value, TrimsError)
    assert ticks.missing() == ["m:latest", "n:1"]
    child = os.fork()
    if not child:
        deciding.load(path, "numpy", lambda decision: decision.model(), lambda: None)
        os._exit(0)
    os.waitpid(child, 0)
    assert ticks.missing() == ["n:1"]
    os.close(memory)
    assert ticks.missing() == []  # nobody can tell


# ---- the finder, in a Python of its own


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": BOOT, "TRIMS_EXEC": "redirect", **variables}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


def test_the_boot_loads_nothing_and_leaves_no_trace() -> None:
    code = (
        "import sys, sitecustomize\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'trims'])\n"
        "import numpy, importlib, json\n"
        "print(type(numpy.__spec__.loader).__name__, 'exec_module' in vars(numpy.__loader__), numpy.load.__name__)\n"
        "print(numpy.load.__module__, numpy.load.__wrapped__.__module__)\n"
        "heavy = {'trims.client', 'trims.disk.sources', 'blake3', 'msgspec'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "importlib.reload(sitecustomize); print(sum(type(f).__name__ == 'Finder' for f in sys.meta_path))\n"
    )
    done = python(code)
    lines = done.stdout.splitlines()
    assert done.stderr == "" and lines == ["[]", "SourceFileLoader False load", "numpy numpy", "[]", "1"], done


def test_a_hook_that_fails_leaves_the_framework_alone(tmp_path: Path) -> None:
    code = (
        "import sys, types\n"
        "finder = sys.modules['_trims_finder']\n"
        "finder.HOOKS.update({'json': 'trims.errors:nothing', 'csv': 'trims.no_such_hook:patch'})\n"
        "finder.HOOKS['wave'] = 'os:nothing'\n"
        "import json, csv, wave\n"
        "print(json.loads('[1]'), csv.reader, getattr(finder.lending, 'depth', 0))\n"
        "try:\n    import trims_no_such_module\nexcept ModuleNotFoundError as error:\n    print(error.name)\n"
    )
    done = python(code)
    assert done.returncode == 0 and done.stdout.startswith("[1]") and done.stdout.endswith("0\ntrims_no_such_module\n")
    lines = done.stderr.splitlines()
    assert [line.partition(":")[2].split(":")[0] for line in lines] == [
        " cannot redirect json",
        " cannot redirect wave",
    ]


def test_another_python_is_said_once_and_native(tmp_path: Path) -> None:
    """A Python for which trims has no compiled modules: here one that is told so."""
    store = Path(trims.__file__).parent.parent  # not by name: any directory may be called trims
    code = (
        f"import sys; sys.path[:] = [p for p in sys.path if p not in {(str(store.parent), str(store))!r}]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'ditable' not in type(f).__name__]\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'trims' and not getattr(self, 'busy', 0):\n"
        "            self.busy = 1\n"
        "            spec = sys.meta_path[-1].find_spec(name); self.busy = 0\n"
        "            if spec is None: raise ModuleNotFoundError('No module named trims', name='trims')\n"
        "            return spec\n"
        "sys.meta_path.insert(1, Hide())\n"
        "import numpy; print(numpy.load.__module__, hasattr(numpy.load, '__wrapped__'))\n"
    )
    abi = ".cpython-39-x86_64-linux-gnu.so"
    done = python(code, TRIMS_EXEC_ABI=abi)
    assert done.returncode == 0 and done.stdout == "numpy False\n"
    assert done.stderr.count("\n") == 1 and "trims is installed for another (cpython-39" in done.stderr
    done = python(code, TRIMS_EXEC_ABI=abi, TRIMS_FALLBACK="fail")
    assert done.returncode == 125 and "nothing can be redirected" in done.stderr


def test_closed_and_missing_streams_disturb_nobody(path: Path, home: Path) -> None:
    code = (
        "import sys, os, numpy; sys.stderr.close(); os.close(2)\n"
        f"print(numpy.load({str(home / 'n.npz')!r})['w'].shape)\n"
        "sys.stderr = None\n"
        f"print(numpy.load({str(path)!r})['w'].shape)\n"
    )
    redirecting.archive(home / "n.npz", seed=2)
    done = python(code, TRIMS_STORE=str(home / "store"), TRIMS_EXEC_REPORT=str(home / "report"))
    assert (done.returncode, done.stdout) == (0, "(40000,)\n(40000,)\n")
    assert redirecting.outcomes(home / "report") == ["fallback", "redirected"]
