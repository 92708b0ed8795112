"""What the Python of a GPU machine lacks for trims: fetched where there is a package index, used where there is none.

    python -m bench.gpu.wheels fetch            download wheels into build/wheels
    python -m bench.gpu.wheels make DIRECTORY   an environment over this Python and all that it has, and those wheels

Nothing but the standard library is used here. The environment holds no copy of trims: it runs this very tree.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
WHEELS = ROOT / "build" / "wheels"
MOST = 60 << 20
"""Bytes of all wheels together: they have to be carried."""
THERE = ("numpy", "h5py", "onnx", "ml_dtypes")
"""Needs of trims that are large, and that a Python with PyTorch and JAX for GPUs has; fetched with --all."""
OPTIONAL = ("pytest-randomly", "safetensors", "matplotlib", "onnxruntime")
"""Used where they are there."""
TESTS = ("pytest", "pytest-timeout", "hypothesis")
BEHIND = (
    "attrs", "click", "shellingham", "typing-extensions", "markdown-it-py", "mdurl", "pygments", "iniconfig",
    "packaging", "pluggy", "sortedcontainers", "cuda-pathfinder", "annotated-doc",
)  # fmt: skip
"""What those need themselves: fetched by name, because their own needs would bring numpy along."""
GLIBC = (17, 24, 27, 28, 31, 34, 35)
"""Of the manylinux platforms that wheels are looked for: pip takes exactly those it is told."""
LIST = "gpu-check.json"
"""In the environment: what is used, of which version, from where."""


def needs() -> dict[str, str]:
    """The requirements by name, as pyproject.toml has them; of what stands behind them the name alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = {_name(line): line for line in (*project["dependencies"], *extras["cuda"], *extras["test"])}
    kept = {name: named.get(name, name) for name in (*TESTS, *OPTIONAL)}
    wanted = {_name(line): line for line in (*project["dependencies"], *extras["cuda"])}
    return {**wanted, **kept, **{name: name for name in BEHIND}}


def _name(requirement: str) -> str:
    return requirement.partition(";")[0].split("[")[0].split("<")[0].split(">")[0].split("=")[0].strip()


def fetch(python: str, machine: str, to: Path, everything: bool) -> int:
    """Download, and say what came. 1 when something is not to be had, or all of it is too much to carry."""
    left_out = () if everything else (*THERE, *OPTIONAL[1:])
    wanted = [line for name, line in needs().items() if name not in left_out]
    to.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python, "-d", str(to)]
    command += [word for n in GLIBC for word in ("--platform", f"manylinux_2_{n}_{machine}")]
    command += ["--platform", f"manylinux2014_{machine}", "--platform", f"manylinux1_{machine}"]
    failed = [line for line in wanted if subprocess.run([*command, line], stdout=subprocess.DEVNULL).returncode]
    wheels = sorted(to.glob("*.whl"), key=lambda wheel: -wheel.stat().st_size)
    total = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{len(wheels)} wheels, {total / 2**20:.1f} MiB in {to}; the largest is {wheels[0].name if wheels else '-'}")
    if failed:
        print(f"gpu-check: not to be had: {', '.join(failed)}", file=sys.stderr)
    if total > MOST:
        print(f"gpu-check: more than {MOST >> 20} MiB: take away what that Python has", file=sys.stderr)
    return int(bool(failed) or total > MOST)


def make(directory: Path, wheels: Path) -> int:
    """Make the environment anew and see that nothing is missing in it; 1 with one line when something is."""
    python = directory / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(directory)], check=True)
    # Not --system-site-packages: this Python may itself be an environment, whose packages that would not show.
    theirs = dict.fromkeys([*_directories(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    own = Path(subprocess.run([python, "-c", _WHERE], check=True, capture_output=True, text=True).stdout.strip())
    lines = [str(ROOT / "store"), str(ROOT), *(f"import site; site.addsitedir({path!r})" for path in theirs)]
    (own / "gpu-check.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    script = (ROOT / "bin" / "trims").read_text(encoding="utf-8").partition("\n")[2]
    (directory / "bin" / "trims").write_text(f"#!{python}\n{script}", encoding="utf-8")
    (directory / "bin" / "trims").chmod(0o755)
    return subprocess.run([python, "-m", "bench.gpu.wheels", "complete", str(wheels)], cwd=ROOT).returncode


_WHERE = "import sysconfig; print(sysconfig.get_path('purelib'))"


def _directories() -> Iterator[str]:
    """Where this Python finds packages."""
    return (path for path in sys.path if path.endswith(("site-packages", "dist-packages")) and os.path.isdir(path))


def complete(wheels: Path) -> int:
    """In the environment: install what is missing, from the wheels alone; keep and print what is used from where."""
    lacking = {name: line for name, line in needs().items() if not _met(line)}
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    install += ["--disable-pip-version-check", "--no-cache-dir", "--find-links", str(wheels)]
    found = [line for name, line in lacking.items() if _wheel(wheels, name)]
    if found and subprocess.run([*install, *found]).returncode:
        for line in found:  # one that does not fit must not cost the others
            subprocess.run([*install, line], stderr=subprocess.DEVNULL)
    importlib.invalidate_caches()
    used = [_used(name, line) for name, line in needs().items()]
    Path(sys.prefix, LIST).write_text(json.dumps(used, indent=1) + "\n", encoding="utf-8")
    print("used:", ", ".join(f"{u['name']} {u['version']} ({u['where']})" for u in used if u["version"]))
    missing = [u["name"] for u in used if not u["met"] and u["name"] not in (*OPTIONAL, *BEHIND)]
    if missing:
        print(f"gpu-check: {', '.join(missing)} missing: bring {wheels}, made by `scripts/gpu-check wheels`",
              file=sys.stderr)  # fmt: skip
    return int(bool(missing))


def _wheel(wheels: Path, name: str) -> bool:
    wanted = name.replace("-", "_").lower()
    return any(path.name.lower().partition("-")[0] == wanted for path in wheels.glob("*.whl"))


def _used(name: str, line: str) -> dict[str, Any]:
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return {"name": name, "version": "", "where": "", "met": False}
    where = "wheels" if str(found.locate_file("")).startswith(sys.prefix) else "python"
    return {"name": name, "version": found.version, "where": where, "met": _met(line)}


def _met(line: str) -> bool:
    """Whether this Python has what a requirement asks for."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]
    requirement = Requirement(line)
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return bool(requirement.specifier.contains(version, prereleases=True))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu-check wheels", description="Fetch what a GPU machine lacks.")
    parser.add_argument("what", choices=["fetch", "make", "complete"])
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--python", default="3.12", help="version of the Python there")
    parser.add_argument("--machine", default="x86_64", help="its processor")
    parser.add_argument("--wheels", type=Path, default=WHEELS, help="where the wheels are, or shall be")
    parser.add_argument("--all", action="store_true", help=f"{', '.join(THERE)} and the optional ones, too")
    args = parser.parse_args()
    if args.what == "fetch":
        return fetch(args.python, args.machine, args.wheels, args.all)
    if args.what == "make":
        return make(args.directory, args.wheels)
    return complete(args.directory)


if __name__ == "__main__":
    sys.exit(main())
