"""Unmodified programs that make ONNX Runtime sessions: redirected they get the same, whatever way they take."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import models as model_files

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from helpers import onnx_models, ort_styles  # noqa: E402

import trims  # noqa: E402
from trims.disk.importers import open_source  # noqa: E402
from trims.disk.ingest import import_model  # noqa: E402
from trims.disk.store import Store, create_store, open_store  # noqa: E402
from trims.integrations import ort_variant  # noqa: E402

BOOT = str(Path(trims.__file__).parent / "redirect" / "boot")
_TIMES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+|\x1b\[[\d;]*m")


@pytest.fixture
def files(home: Path) -> Path:
    """The files that ort_styles reads. In a store of their own are cnn.onnx, and its external form: the same model."""
    directory = home / "files"
    directory.mkdir()
    made = model_files.ModelFiles(directory)
    onnx.save_model(onnx_models.branches(), directory / "branches.onnx")
    onnx.save_model(model_files.cnn(seed=9), directory / "unknown.onnx")
    (directory / "link.onnx").symlink_to("cnn.onnx")
    np.save(directory / "x.npy", model_files.cnn_input())
    store = create_store(str(home / "store"))
    derive(store, made.onnx)
    derive(store, made.onnx_external)
    return directory


def derive(store: Store, path: Path) -> None:
    with open_source(str(path)) as source:
        entry = import_model(store, source, path.stem + path.parent.stem).entry
    ort_variant.build(store, entry.digest)


def ran(files: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TRIMS_STORE": str(files.parent / "store"), "TRIMS_SOCKET": str(files / "none.sock")}
    env |= {"PYTHONPATH": BOOT, "TRIMS_EXEC": "redirect", **variables}
    done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_every_way_to_make_a_session_gives_what_it_gives_without_trims(files: Path) -> None:
    derive(open_store(str(files.parent / "store")), files / "branches.onnx")
    program = str(Path(ort_styles.__file__))
    native = ran(files, program, str(files), TRIMS_DISABLE="1")
    redirected = ran(files, program, str(files))
    before, after = json.loads(native.stdout.splitlines()[-1]), json.loads(redirected.stdout.splitlines()[-1])
    shared: dict[str, list[bool]] = {name: after[name].pop("shared") for name in after}
    assert not any(flag for name in before for flag in before[name].pop("shared"))
    for name in before:
        assert after[name] == before[name], name
    assert redirected.stdout.splitlines()[:-1] == native.stdout.splitlines()[:-1]
    lines, ours = said(redirected.stderr)
    assert lines == said(native.stderr)[0]
    assert {name for name, flags in shared.items() if not flags or not all(flags)} == ort_styles.NATIVE | {"binding"}
    assert [line for line in ours if "cnn.onnx is loaded natively" in line] != []
    assert [line for line in ours if "none.onnx" in line] == []  # no file, no load


def said(text: str) -> tuple[list[str], list[str]]:
    """(what the program and ONNX Runtime printed, what trims did); the times are cut out."""
    lines = [_TIMES.sub("", line) for line in text.splitlines()]
    return [line for line in lines if not line.startswith("trims: ")], [x for x in lines if x.startswith("trims: ")]


@pytest.mark.parametrize("broken", ["lambda region: b'no graph'", "{}.__getitem__"])
def test_whatever_fails_in_trims_the_session_is_native(files: Path, broken: str) -> None:
    """A hook that cannot do it says so once and leaves the program alone."""
    code = (
        "import os, sys, onnxruntime as ort, numpy as np\n"
        "from trims.integrations import ort_start\n"
        f"ort_start.graph_of = {broken}\n"
        f"os.chdir({str(files)!r})\n"
        "for _ in range(2):\n"
        "    s = ort.InferenceSession('cnn.onnx')\n"
        "    assert not hasattr(s, '_trims_model') and s._model_path == 'cnn.onnx' and s.get_session_options()\n"
        "    s.run(None, {'x': np.load('x.npy')})\n"
    )
    (line,) = ran(files, "-c", code).stderr.splitlines()
    assert line.startswith(f"trims: {files}/cnn.onnx is loaded natively: ")


def test_without_a_derived_form_the_original_is_shared_and_one_line_says_so(files: Path) -> None:
    code = (
        "import os, onnxruntime as ort\n"
        "from trims.integrations import ort_start\n"
        "ort_start.variant_key = lambda: 'ort-none'\n"
        f"os.chdir({str(files)!r})\n"
        "for _ in range(2):\n"
        "    assert ort.InferenceSession('cnn.onnx')._trims_model\n"
    )
    (line,) = ran(files, "-c", code).stderr.splitlines()
    assert line.startswith(f"trims: {files}/cnn.onnx: its session optimises the shared weights into private memory: ")


def test_the_hook_is_one_function_that_looks_like_the_original(home: Path) -> None:
    code = (
        "import inspect, onnxruntime as ort\n"
        "made = ort.InferenceSession._create_inference_session\n"
        "assert made.__name__ == '_create_inference_session' and made.__wrapped__\n"
        "assert list(inspect.signature(ort.InferenceSession).parameters)[0] == 'path_or_bytes'\n"
        "import sys; assert 'trims.client' not in sys.modules and 'msgspec' not in sys.modules\n"
        "o = ort.SessionOptions(); o.add_session_config_entry('a', 'b')\n"
        "assert o.get_session_config_entry('a') == 'b'\n"
    )
    assert ran(home / "none", "-c", code).stderr == ""
