"""The paper's models as files: the table, synthetic tensors, and the directory they are built into."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from trims import linux
from trims.errors import BadInput, LockTimeout, NoSpace, UsageError
from trims.workload import zoo
from trims.workload.zoo import files, plain, synthetic, table
from trims.workload.zoo.noise import Noise
from trims.workload.zoo.output import Output
from trims.workload.zoo.recipes import choose

SCALE = 0.001


@pytest.fixture
def hook() -> Iterator[Callable[[Callable[[str], None]], None]]:
    yield linux.install_hook
    linux.install_hook(None)


def some(*names: str, scale: float = SCALE) -> list[zoo.ZooModel]:
    return [model for model in zoo.paper_models(scale) if model.spec.name in names]


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("*.*s*t*")}


def test_the_table_is_the_papers() -> None:
    models = zoo.paper_models()
    assert [model.id for model in models] == list(range(1, 38))
    assert len({model.spec.name for model in models}) == 37
    assert sum(model.paper_mib for model in models) == pytest.approx(7006, abs=1)
    vgg = models[31]
    assert (vgg.spec.name, vgg.spec.tensors, vgg.paper_mib, vgg.paper_internal_bytes) == ("VGG16", 32, 528, 1227778448)
    assert vgg.spec.nbytes == 528 << 20
    assert zoo.paper_models(0.5)[31].spec.nbytes == 264 << 20


def test_the_table_is_found_in_an_installed_package() -> None:
    """The wheel holds whole packages, so data beside the module goes with it unless a pattern takes it out."""
    import tomllib

    root = Path(__file__).parents[2]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "store/trims" in wheel["packages"]
    assert not {"exclude", "only-include", "include"} & wheel.keys()
    ignored = subprocess.run(["git", "check-ignore", "-q", table.__file__.replace("table.py", "zoo37.csv")], cwd=root)
    assert ignored.returncode != 0  # hatch leaves out what git ignores


@pytest.mark.parametrize("name", plain.CHAINS)
def test_counted_sizes_round_up_to_the_papers(name: str) -> None:
    (model,) = some(name, scale=1.0)
    counted = plain.nbytes(plain.CHAINS[name]) / 2**20
    slack = 2 if name == "NIN" else 1  # NIN is 28.97 MiB, the table's 30
    assert model.paper_mib - slack < counted <= model.paper_mib
    assert len(plain.shapes(plain.CHAINS[name])) == model.spec.tensors


def test_only_the_first_full_layer_grows_with_the_input() -> None:
    small, large = (dict(plain.shapes(plain.CHAINS["VGG16"].enlarged(side))) for side in (224, 448))
    assert [name for name in small if small[name] != large[name]] == ["fc14.weight"]
    assert (small["fc14.weight"], large["fc14.weight"]) == ((4096, 7 * 7 * 512), (4096, 14 * 14 * 512))


def test_large_models_stay_below_the_limit() -> None:
    models = zoo.large_models()
    assert [model.spec.name for model in models] == [
        "AlexNet-454",
        "VGG16-448",
        "AlexNet-681",
        "AlexNet-908",
        "VGG16-672",
    ]
    assert all(model.spec.family == "large" and model.spec.nbytes <= 4 << 30 for model in models)
    assert [model.spec.nbytes for model in models] == sorted(model.spec.nbytes for model in models)
    assert {model.spec.name for model in zoo.large_models(up_to=1 << 40)} >= {"AlexNet-1135", "VGG16-896"}
    assert zoo.large_models(up_to=1) == []


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 17.0])
def test_a_bad_scale_is_refused(scale: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="scale"):
        zoo.paper_models(scale)
    with pytest.raises(UsageError, match="scale"):
        zoo.build([], tmp_path, scale=scale)


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.001, 1e-9])
def test_a_profile_has_exactly_the_count_and_the_bytes(scale: float) -> None:
    for model in zoo.paper_models(scale):
        named = synthetic.profile(model.spec.name, model.spec.tensors, model.spec.nbytes, 0)
        sizes = [int(np.prod(shape)) for _, shape in named]
        assert len({name for name, _ in named}) == len(named) == model.spec.tensors
        assert min(sizes) >= 1 and 4 * sum(sizes) == model.spec.nbytes


def test_a_profile_has_many_small_and_few_huge_tensors() -> None:
    for model in zoo.paper_models():
        named = synthetic.profile(model.spec.name, model.spec.tensors, model.spec.nbytes, 0)
        sizes = sorted((4 * int(np.prod(shape)) for _, shape in named), reverse=True)
        assert sum(sizes[len(sizes) // 2 :]) < model.spec.nbytes / 20, model.spec.name
        assert sizes[0] > 4 * model.spec.nbytes / model.spec.tensors, model.spec.name


def test_noise_never_repeats_and_has_the_asked_deviation() -> None:
    noise = Noise(3, "a")
    cuts = [cut.copy() for cut in noise.cuts(1 << 21, 0.5)]
    assert len({cut.tobytes() for cut in cuts}) == len(cuts) == 8
    assert len({round(float(cut.std()), 3) for cut in cuts}) > 4  # no cut is a shifted copy of another
    values = noise.normal((300, 1000), 0.5)
    assert values.shape == (300, 1000) and np.isfinite(values).all()
    assert values.std() == pytest.approx(0.5, rel=0.5)
    assert not np.array_equal(Noise(3, "b").normal((10,)), Noise(3, "a").normal((10,)))
    assert not np.array_equal(Noise(4, "a").normal((10,)), Noise(3, "a").normal((10,)))


def test_built_files_hold_what_their_specs_say(tmp_path: Path) -> None:
    models = some("AlexNet", "DPN68", "Xception")
    specs = zoo.build(models, tmp_path, scale=SCALE)
    for model, spec in zip(models, specs, strict=True):
        assert (spec.name, spec.tensors, spec.nbytes) == (model.spec.name, model.spec.tensors, model.spec.nbytes)
        assert spec.synthetic and zoo.sources([spec]) == ["synthetic"] and spec.runs == "weights"
        with safe_open(spec.file, "numpy") as file:
            tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - not a dictionary
            assert file.metadata()["synthetic"] == "true"
        assert len(tensors) == spec.tensors and sum(tensor.nbytes for tensor in tensors) == spec.nbytes
        assert all(tensor.dtype == np.float32 and np.isfinite(tensor).all() for tensor in tensors)
        assert len({tensor.tobytes() for tensor in tensors}) == len(tensors)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    models = some("VGG16", "ResNet50-v2")
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        zoo.build(models[:: 1 if place == "a" else -1], tmp_path / place, seed=seed, scale=SCALE)
    a, b, c = (digests(tmp_path / place) for place in "abc")
    assert a == b and len(a) == 2
    assert not set(a) & set(c) and not set(a.values()) & set(c.values())


def test_large_models_at_full_scale_have_their_true_tensors(tmp_path: Path) -> None:
    chain = plain.CHAINS["NIN"]
    named = plain.shapes(chain)
    fd = os.open(tmp_path / "m.safetensors", os.O_RDWR | os.O_CREAT)
    reported: list[int] = []
    synthetic.write(Output(fd, reported.append), named, {}, Noise(0, "NIN"))
    os.close(fd)
    with safe_open(tmp_path / "m.safetensors", "numpy") as file:
        assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == dict(named)  # noqa: SIM118
    assert sum(reported) == (tmp_path / "m.safetensors").stat().st_size
    assert {choose(model, 0, 1.0, True, False).source for model in zoo.large_models()} == {"true tensors, no graph"}


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    models = some("AlexNet", "NIN")
    first = zoo.build(models[:1], tmp_path, scale=SCALE)
    before = os.stat(first[0].file).st_ino
    calls: list[tuple[str, int, int]] = []
    both = zoo.build(models, tmp_path, scale=SCALE, progress=lambda *call: calls.append(call))
    assert both[0] == first[0] and os.stat(first[0].file).st_ino == before
    assert {name for name, _, _ in calls} == {"NIN"}
    assert calls[-1][1] == calls[-1][2] == models[1].spec.nbytes
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_another_scale_or_seed_is_another_file(tmp_path: Path) -> None:
    built = {
        zoo.build(some("NIN", scale=scale), tmp_path, seed=seed, scale=scale)[0].file
        for scale in (0.001, 0.002)
        for seed in (0, 1)
    }
    assert len(built) == 4
    listed = json.loads((tmp_path / "zoo.json").read_text())["models"]
    assert {entry["file"] for entry in listed} == {os.path.basename(path) for path in built}
    assert all(entry["synthetic"] and entry["source"] == "synthetic" for entry in listed)


def test_a_cut_off_file_is_built_again(tmp_path: Path) -> None:
    (spec,) = zoo.build(some("NIN"), tmp_path, scale=SCALE)
    whole = Path(spec.file).read_bytes()
    os.truncate(spec.file, 1000)
    zoo.build(some("NIN"), tmp_path, scale=SCALE)
    assert Path(spec.file).read_bytes() == whole


def test_an_interrupt_at_any_step_leaves_nothing_half_done(
    tmp_path: Path, hook: Callable[[Callable[[str], None]], None]
) -> None:
    models = some("SqueezeNet-v1.0", "NIN")
    seen: list[str] = []
    hook(seen.append)
    zoo.build(models, tmp_path / "whole", scale=SCALE)
    expected = digests(tmp_path / "whole")
    for at in range(0, len(seen), 7 if len(seen) > 40 else 1):
        left = [at]

        def interrupt(_: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        directory = tmp_path / str(at)
        hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            zoo.build(models, directory, scale=SCALE)
        hook(lambda _: None)
        assert digests(directory).items() <= expected.items()
        assert not list(directory.glob("t-*"))
        zoo.build(models, directory, scale=SCALE)
        assert digests(directory) == expected


def test_what_a_killed_build_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    abandoned, alive = tmp_path / "t-1.zoo-part", tmp_path / "t-2.zoo-part"
    others = [tmp_path / "notes.txt", tmp_path / "t-3"]
    for path in (abandoned, alive, *others):
        path.write_bytes(b"x")
    with open(alive) as writer:
        fcntl.flock(writer, fcntl.LOCK_SH)
        zoo.build(some("NIN"), tmp_path, scale=SCALE)
    assert not abandoned.exists() and alive.exists() and all(path.exists() for path in others)


def test_a_file_of_the_users_is_never_replaced(tmp_path: Path) -> None:
    theirs = tmp_path / "NIN.synthetic.x0.001.seed0.safetensors"
    theirs.write_bytes(b"mine")
    with pytest.raises(BadInput, match="in the way") as raised:
        zoo.build(some("NIN", "AlexNet"), tmp_path, scale=SCALE)
    assert raised.value.exit_code == 16
    assert theirs.read_bytes() == b"mine"
    assert not (tmp_path / "AlexNet.synthetic.x0.001.seed0.safetensors").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other/1", "models": []}', '{"schema": "trims.zoo/1"}'])
def test_a_strange_manifest_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "zoo.json").write_text(text)
    with pytest.raises(BadInput, match=r"zoo\.json"):
        zoo.build(some("NIN"), tmp_path, scale=SCALE)
    assert (tmp_path / "zoo.json").read_text() == text


def test_too_little_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with files.held(str(tmp_path)) as room, pytest.raises(NoSpace, match="does not fit") as raised:
        room.check_space(1 << 60)
    assert raised.value.exit_code == 15
    assert list(tmp_path.iterdir()) == []


def test_two_builds_do_not_share_a_directory_at_once(tmp_path: Path) -> None:
    with files.held(str(tmp_path)), pytest.raises(LockTimeout, match="being built"):
        zoo.build(some("NIN"), tmp_path, scale=SCALE)
    assert zoo.build(some("NIN"), tmp_path, scale=SCALE)


def test_importing_the_zoo_loads_no_framework() -> None:
    code = "import sys, trims.workload.zoo; print({'onnx', 'torch', 'onnxruntime'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
