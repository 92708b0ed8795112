"""ONNX Runtime over shared weights: the same bits, nothing copied, nothing unmapped too early, and honest fallbacks."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import capabilities, sources
from helpers import models as model_files

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from helpers import onnx_models  # noqa: E402 - needs onnx

import trims  # noqa: E402
from trims.client import connections  # noqa: E402
from trims.disk import gc as store_gc  # noqa: E402
from trims.disk.catalog import Catalog  # noqa: E402
from trims.disk.ingest import import_model, import_variant  # noqa: E402
from trims.disk.sidecar import read_sidecar  # noqa: E402
from trims.disk.store import Store, create_store  # noqa: E402
from trims.errors import NoSuchVariant, UsageError  # noqa: E402
from trims.integrations import ort_builder, ort_inputs, ort_options, ort_variant  # noqa: E402
from trims.integrations.onnxruntime import NotSharedWarning  # noqa: E402
from trims.integrations.ort_key import variant_key  # noqa: E402

X = model_files.cnn_input()


@pytest.fixture
def store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with the CNN as `cnn`, and no manager."""
    monkeypatch.setenv("TRIMS_STORE", str(home / "store"))
    monkeypatch.setenv("TRIMS_SOCKET", str(home / "none.sock"))
    made = create_store(str(home / "store"))
    import_model(made, onnx_models.onnx_source(model_files.cnn()), "cnn")
    yield made
    connections.close_idle()
    ort_builder._failed.clear()


@pytest.fixture
def derived(store: Store) -> Store:
    """The same, with the variant built."""
    with trims.open("cnn") as model:
        ort_variant.build(store, model.digest)
    return store


@pytest.fixture(scope="session")
def native() -> list[bytes]:
    return onnx_models.run(ort.InferenceSession(model_files.cnn().SerializeToString()), x=X)


# ---- the same bits, shared


def test_the_first_session_builds_the_variant_and_all_have_the_native_bits(store: Store, native: list[bytes]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with trims.open("cnn") as model:
                assert onnx_models.run(model.onnxruntime(), x=X) == native
    sidecar = read_sidecar(store.paths.variant_sidecar(model.digest, variant_key()))
    assert sidecar.origin["verified"] == "bits" and sidecar.origin["base"] == model.digest
    assert sidecar.origin["version"] == ort.__version__ and sidecar.span_nbytes > 0


def test_a_model_opened_where_onnxruntime_is_loaded_attaches_the_variant_alone(derived: Store) -> None:
    with trims.open("cnn") as model:
        assert model.variant == variant_key()
        model.onnxruntime()
        assert set(model._regions) == {variant_key()}
        assert "reduce" in model
        assert set(model._regions) == {variant_key(), "raw"}


def test_sharing_everything_changes_the_last_bits_at_most(derived: Store, native: list[bytes]) -> None:
    with trims.open("cnn") as model:
        result = model.onnxruntime("max").run(None, {"x": X})[0]
    np.testing.assert_allclose(result, np.frombuffer(native[0], np.float32).reshape(result.shape), rtol=1e-4, atol=1e-5)


def test_branches_keep_their_weights_inside(store: Store) -> None:
    model_proto = onnx_models.branches()
    import_model(store, onnx_models.onnx_source(model_proto), "branches")
    plain = ort.InferenceSession(model_proto.SerializeToString())
    x = np.ones((1, 32), np.float32)
    with trims.open("branches") as model:
        session = model.onnxruntime()
        for c in (True, False):
            condition = np.array(c)
            assert onnx_models.run(session, x=x, c=condition) == onnx_models.run(plain, x=x, c=condition)
    assert read_sidecar(store.paths.variant_sidecar(model.digest, variant_key())).origin["verified"] == "bits"


def test_a_session_touches_no_private_copy_of_the_weights(store: Store) -> None:
    """With prepacking off nothing of 16 MiB of weights is private, wherever it lies."""
    import_model(store, onnx_models.onnx_source(onnx_models.wide()), "wide")
    with trims.open("wide") as model:
        ort_variant.build(store, model.digest)
    code = (
        "import numpy as np, onnxruntime as ort, trims\n"
        "def private():\n"
        "    lines = open('/proc/self/smaps_rollup').read().splitlines()\n"
        "    return sum(int(l.split()[1]) for l in lines if l.startswith(('Private_Dirty', 'Private_Hugetlb')))\n"
        "so = ort.SessionOptions(); so.intra_op_num_threads = 1; so.enable_cpu_mem_arena = False\n"
        "x = np.ones((1, 1024, 2, 2), np.float32)\n"
        "model = trims.open('wide'); model.variant\n"
        "before = private()\n"
        "s = model.onnxruntime('max', so); s.run(None, {'x': x}); s.run(None, {'x': x})\n"
        "print(private() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 6 << 10, done.stdout  # KiB


@capabilities.needs_real_models
def test_real_models_have_the_native_bits(store: Store, real_models: Path) -> None:
    from trims.disk.importers import open_source

    for path in sorted(real_models.rglob("*.onnx")):
        with open_source(path) as source:
            import_model(store, source, "real")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        plain = ort.InferenceSession(str(path), options)
        with trims.open("real") as model:
            session = model.onnxruntime(sess_options=options)
        try:
            inputs, expected = ort_inputs.first_run(plain)
        except ort_inputs.FAILURES:
            continue
        assert ort_inputs.outputs(session, inputs) == expected, path


# ---- lifetimes: each in a process of its own, because the failure is a segmentation fault

_PREAMBLE = (
    "import gc, os, sys, threading, warnings\n"
    "import numpy as np, onnxruntime as ort, trims\n"
    "warnings.simplefilter('error')\n"
    "x = np.load(sys.argv[1]); expected = np.load(sys.argv[2])\n"
    "def same(y): return y.tobytes() == expected.tobytes()\n"
    "def mapped():\n"
    "    with open('/proc/self/maps') as file: return any('.h5' in line or 'memfd' in line for line in file)\n"
)
_LIFETIMES = {
    "session outlives the model": (
        "s = trims.open('cnn').onnxruntime(); gc.collect()\n"
        "assert mapped() and same(s.run(None, {'x': x})[0])\n"
        "del s; gc.collect(); assert not mapped()\n"
    ),
    "binding outlives session and model": (
        "with trims.open('cnn') as m: s = m.onnxruntime()\n"
        "b = s.io_binding(); b.bind_cpu_input('x', x); b.bind_output('y'); s.run_with_iobinding(b)\n"
        "c = s._sess; del s, m; gc.collect(); assert mapped()\n"
        "c.run_with_iobinding(b._iobinding, None); del c; gc.collect(); assert mapped()\n"
        "assert same(b.copy_outputs_to_cpu()[0])\n"
        "out = b.get_outputs(); del b; gc.collect(); assert same(out[0].numpy())\n"
        "del out; gc.collect(); assert not mapped()\n"
    ),
    "providers set anew after the model has closed": (
        "with trims.open('cnn') as m: s = m.onnxruntime()\n"
        "del m; s.set_providers(['CPUExecutionProvider']); gc.collect()\n"
        "assert mapped() and same(s.run(None, {'x': x})[0])\n"
        "del s; gc.collect(); assert not mapped()\n"
    ),
    "outputs and metadata outlive the session": (
        "s = trims.open('cnn').onnxruntime(); y = s.run(None, {'x': x}); names = s.get_inputs(), s.get_modelmeta()\n"
        "o = s.get_session_options(); del s; gc.collect()\n"
        "assert same(y[0]) and names[0][0].name == 'x'\n"
        "del names; gc.collect(); assert not mapped(); o.intra_op_num_threads\n"
    ),
    "closed while threads run": (
        "m = trims.open('cnn'); s = m.onnxruntime(); bad = []\n"
        "def work(s):\n"
        "    for _ in range(200):\n"
        "        if not same(s.run(None, {'x': x})[0]): bad.append(1)\n"
        "ts = [threading.Thread(target=work, args=(s,)) for _ in range(4)]\n"
        "for t in ts: t.start()\n"
        "m.close(); del s, m; gc.collect()\n"
        "for t in ts: t.join()\n"
        "del ts, t; gc.collect(); assert not bad and not mapped()\n"
    ),
    "used in a forked child after the parent has closed": (
        "o = ort.SessionOptions(); o.intra_op_num_threads = 1\n"
        "m = trims.open('cnn'); s = m.onnxruntime(sess_options=o); r, w = os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.read(r, 1); os._exit(0 if same(s.run(None, {'x': x})[0]) else 3)\n"
        "m.close(); del m, s; gc.collect(); assert not mapped()\n"
        "os.write(w, b'x'); assert os.waitpid(pid, 0)[1] == 0\n"
    ),
    "alive at the end of the interpreter": "s = trims.open('cnn').onnxruntime(); s.run(None, {'x': x})\n",
}


@pytest.mark.parametrize("name", _LIFETIMES)
def test_lifetimes(derived: Store, native: list[bytes], home: Path, name: str) -> None:
    np.save(home / "x.npy", X)
    np.save(home / "y.npy", np.frombuffer(native[0], np.float32).reshape(1, 10))
    done = subprocess.run(
        [sys.executable, "-c", _PREAMBLE + _LIFETIMES[name], str(home / "x.npy"), str(home / "y.npy")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_model_says_that_a_session_still_uses_it(derived: Store) -> None:
    with trims.open("cnn") as model:
        session = model.onnxruntime()
    assert model.in_use and "still in use" in repr(model)
    del session
    gc.collect()
    assert not model.in_use


# ---- options


def test_the_callers_options_are_left_alone_and_can_be_used_again(derived: Store, native: list[bytes]) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.logid = "mine"
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with trims.open("cnn") as model:
        sessions = [model.onnxruntime(sess_options=options) for _ in range(2)]
    for session in sessions:
        assert onnx_models.run(session, x=X) == native
        used = session.get_session_options()
        assert (used.intra_op_num_threads, used.logid) == (1, "mine")
        assert ort_options.entry(used, "session.intra_op.allow_spinning") == "0"
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert ort_options.entry(options, "session.use_external_initializer_file_buffers_directly") is None


def basic() -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return options


def denormals() -> Any:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


@pytest.mark.parametrize("make", [basic, denormals])
def test_other_options_use_the_original_graph_without_a_warning(store: Store, make: Any) -> None:
    plain = ort.InferenceSession(model_files.cnn().SerializeToString(), make())
    with warnings.catch_warnings(), trims.open("cnn") as model:
        warnings.simplefilter("error")
        for given in (make(), make):  # an object, which is copied, and a function, whose result is used
            session = model.onnxruntime(sess_options=given)
            assert onnx_models.run(session, x=X) == onnx_models.run(plain, x=X)
        assert set(model._regions) == {"raw"}
    assert session.get_session_options().graph_optimization_level == make().graph_optimization_level


def test_disabled_optimizers_are_honoured(store: Store) -> None:
    with trims.open("cnn") as model:
        model.onnxruntime(disabled_optimizers=["MatMulAddFusion"])
        assert set(model._regions) == {"raw"}


def test_every_option_that_can_be_seen_is_copied() -> None:
    options = ort.SessionOptions()
    options.enable_mem_pattern = False
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 3
    options.log_severity_level = 4
    for name in ort_options.RUNTIME_ENTRIES + ort_options.GRAPH_ENTRIES:
        options.add_session_config_entry(name, "7")
    wanted = ort_options.Wanted(options)
    copy = wanted.fresh()
    assert copy is not options and not wanted.is_default
    for name in ("enable_mem_pattern", "execution_mode", "inter_op_num_threads", "log_severity_level"):
        assert getattr(copy, name) == getattr(options, name)
    for name in ort_options.RUNTIME_ENTRIES + ort_options.GRAPH_ENTRIES:
        assert ort_options.entry(copy, name) == "7"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": "some"}, "bad share 'some'"),
        ({"sess_options": 5}, "bad sess_options: it is a int"),
        ({"sess_options": lambda: 5}, "the function returned no SessionOptions"),
    ],
)
def test_wrong_arguments_are_named(derived: Store, arguments: dict[str, Any], message: str) -> None:
    with trims.open("cnn") as model, pytest.raises(UsageError, match=message):
        model.onnxruntime(**arguments)


def test_a_model_without_graph_cannot_be_run(store: Store) -> None:
    import_model(store, sources.source({"w": sources.numbers(0, 3)}), "plain")
    with trims.open("plain") as model, pytest.raises(UsageError, match="plain:latest has no graph"):
        model.onnxruntime()


# ---- fallbacks


def session_with_warning(match: str, **arguments: Any) -> Any:
    with trims.open("cnn") as model, pytest.warns(NotSharedWarning, match=match) as caught:
        session = model.onnxruntime(**arguments)
    assert [w.filename for w in caught if w.category is NotSharedWarning] == [__file__]
    return session


def test_where_no_variant_can_be_written_the_original_is_shared(store: Store, native: list[bytes]) -> None:
    os.rename(f"{store.root}/tmp", f"{store.root}/away")
    Path(f"{store.root}/tmp").write_text("in the way")
    assert onnx_models.run(session_with_warning("cannot be built"), x=X) == native
    # It is not tried a second time by this process, and says the same.
    assert onnx_models.run(session_with_warning("cannot be built"), x=X) == native


def test_a_variant_that_is_refused_gives_way_to_the_original(store: Store, native: list[bytes]) -> None:
    with trims.open("cnn") as model:
        junk = sources.source({"w": sources.numbers(0, 3)}, graph=lambda offsets: b"no graph", format="onnxruntime")
        import_variant(store, model.digest, variant_key(), junk)
    assert onnx_models.run(session_with_warning("the derived form cannot be used"), x=X) == native


def test_a_runtime_that_cannot_share_gets_a_copy(
    store: Store, native: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_options, "can_share", lambda: False)
    session = session_with_warning("1.31 is the first", share="max")
    assert ort_options.entry(session.get_session_options(), ort_options.DISABLE_PREPACKING) == "1"
    assert onnx_models.run(session_with_warning("1.31 is the first"), x=X) == native


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider':UserWarning")
def test_other_providers_get_the_original_where_they_are_here(
    derived: Store, native: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "CUDAExecutionProvider" in (here := ort.get_available_providers()):
        pytest.skip("this ONNX Runtime has CUDA")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    with trims.open("cnn") as model:
        session = model.onnxruntime(providers=providers)  # as on any machine without a GPU: no warning of ours
    assert session.get_providers() == ["CPUExecutionProvider"] and onnx_models.run(session, x=X) == native
    monkeypatch.setattr(ort, "get_available_providers", lambda: [*here, "CUDAExecutionProvider"])
    assert onnx_models.run(session_with_warning("on the CPU only", providers=providers), x=X) == native


# ---- the building child


def child(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "trims.integrations.ort_variant", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_the_child_prints_the_key_of_this_runtime(home: Path) -> None:
    assert child("key") == (0, {"key": variant_key()})


def test_several_children_build_once(store: Store) -> None:
    with trims.open("cnn") as model:
        digest = model.digest
    reports: list[tuple[int, dict[str, Any]]] = []
    threads = [
        threading.Thread(target=lambda: reports.append(child("build", "--store", store.root, "--digest", digest)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [code for code, _ in reports] == [0, 0, 0]
    assert sorted(report["built"] for _, report in reports) == [False, False, True]
    assert {report["key"] for _, report in reports} == {variant_key()}
    assert os.listdir(store.paths.tmp) == []


def test_the_child_reports_errors_as_json(store: Store, home: Path) -> None:
    import_model(store, sources.source({"w": sources.numbers(0, 3)}), "plain")
    with trims.open("plain") as model:
        code, report = child("build", "--store", store.root, "--digest", model.digest)
    assert (code, report["code"]) == (10, "no-such-variant") and "has no graph" in report["why"]
    code, report = child("build", "--store", str(home / "none"), "--digest", model.digest)
    assert (code, report["code"]) == (12, "no-store")


def test_what_cannot_be_derived_is_not_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with trims.open("cnn") as model:
        digest = model.digest
    tried: list[str] = []

    def derive(store: Store, digest: str, key: str) -> None:
        tried.append(key)
        raise NoSuchVariant("no variant can be used", "other bits")

    monkeypatch.setattr(ort_variant, "_derive", derive)
    for _ in range(2):
        with pytest.raises(NoSuchVariant, match="other bits"):
            ort_variant.build(store, digest)
    assert len(tried) == 1
    monkeypatch.setattr(ort_builder, "run_child", lambda *_: pytest.fail("a child was started"))
    with pytest.raises(NoSuchVariant, match="other bits"):
        ort_builder.build_in_child(store, digest)
    monkeypatch.setattr(ort_builder, "REFUSAL", 0.0)  # a day later
    with pytest.raises(NoSuchVariant):
        ort_variant.build(store, digest)
    assert len(tried) == 2
    Catalog(store.paths).remove("cnn:latest")
    store_gc.collect(store, store_gc.plan(store))
    assert not os.path.exists(store.paths.variants_of(digest))


def test_an_interpreter_that_lacks_what_writes_containers_leaves_it_to_the_one_of_trims(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trims.open("cnn") as model:
        digest = model.digest
    own, other = sys.executable, f"{store.root}/python"
    monkeypatch.setattr(ort_builder, "_NEEDS", ("a_module_that_is_not_here",))
    with pytest.raises(NoSuchVariant, match="lacks a_module_that_is_not_here"):
        ort_builder.build_in_child(store, digest)
    ort_builder._failed.clear()
    monkeypatch.setattr(sys, "executable", other)
    monkeypatch.setenv("TRIMS_EXEC_PYTHON", own)
    ort_builder.build_in_child(store, digest)
    assert os.path.exists(store.paths.variant_sidecar(digest, variant_key()))


def test_what_an_interpreter_lacks_is_lent_to_its_child(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """So one with another runtime than that of trims' own gets a form of its own."""
    with trims.open("cnn") as model:
        digest = model.digest
    seen: list[str] = []
    run = subprocess.run

    def look(*args: Any, **options: Any) -> Any:
        seen.append(options["env"]["PYTHONPATH"])
        return run(*args, **options)

    monkeypatch.setattr(subprocess, "run", look)
    monkeypatch.setattr(ort_builder, "_NEEDS", ("a_module_that_is_not_here",))
    monkeypatch.setenv("TRIMS_EXEC_PYTHON", f"{store.root}/python")
    monkeypatch.setenv("TRIMS_EXEC_HOME", "/lent:/lent/too")
    ort_builder.build_in_child(store, digest)
    assert os.path.exists(store.paths.variant_sidecar(digest, variant_key()))
    assert [path.endswith(":/lent:/lent/too") for path in seen] == [True]


def test_a_child_with_another_runtime_builds_nothing(store: Store) -> None:
    with trims.open("cnn") as model:
        code, report = child("build", "--store", store.root, "--digest", model.digest, "--key", "ort-0.9")
    assert (code, report["code"]) == (10, "no-such-variant") and variant_key() in report["why"]


def test_a_derived_form_with_other_bits_is_refused(store: Store) -> None:
    proto = model_files.cnn()
    default = ort.InferenceSession(proto.SerializeToString())
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    offsets, at = {}, 0
    for name, array in arrays.items():
        offsets[name], at = at, at + array.nbytes + -array.nbytes % 512
    weights = np.zeros(at, np.uint8)
    for name, array in arrays.items():
        weights[offsets[name] : offsets[name] + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
    skeleton = onnx_models.onnx_source(proto).graph(offsets)
    weights[offsets["mix.a"] + 3] ^= 0x40
    with pytest.raises(NoSuchVariant, match="other bits"):
        ort_variant._verify(default, skeleton, weights)


def test_the_child_confines_itself() -> None:
    code = (
        "import resource, socket\n"
        "from trims.integrations.ort_variant import confine\n"
        "alone = confine()\n"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\n"
        "status = open('/proc/self/status').read()\n"
        "assert 'NoNewPrivs:\\t1' in status\n"
        "assert not alone or [name for _, name in socket.if_nameindex()] == ['lo']\n"
        "with socket.socket() as s: assert not alone or s.connect_ex(('127.0.0.1', 9)) == 101  # ENETUNREACH\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_interpreter_that_cannot_be_started_is_no_crash(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(NoSuchVariant, match="cannot be started"):
        ort_builder.run_child(store.root, "0" * 64)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(NoSuchVariant, match="ended early: status 1"):
        ort_builder.run_child(store.root, "0" * 64)
