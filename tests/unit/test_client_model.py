"""`trims.open` and the model it returns, from the store's files and through a scripted manager."""

from __future__ import annotations

import copy
import fcntl
import gc
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from helpers import sources
from helpers.peers import Peer, listening

import trims
from trims.client import connections
from trims.client.direct import DirectModeWarning
from trims.disk.ingest import import_model
from trims.disk.store import Store, create_store
from trims.errors import (
    Damaged,
    ManagerNotRunning,
    ManagerUnreachable,
    NoStore,
    NoSuchModel,
    NoSuchVariant,
    UsageError,
)
from trims.wire.messages import Attach, Refused, Release


@pytest.fixture
def store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with the sample model as `m`, which TRIMS_STORE names; TRIMS_SOCKET names a socket that is not there."""
    monkeypatch.setenv("TRIMS_STORE", str(home / "store"))
    monkeypatch.setenv("TRIMS_SOCKET", str(home / "m.sock"))
    made = create_store(str(home / "store"))
    import_model(made, sources.sample(), "m")
    yield made
    connections.close_idle()


def container(store: Store, ref: str = "m") -> str:
    with trims.open(ref, "disk") as model:
        return store.paths.container(model.digest)


def is_locked(path: str) -> bool:
    """Whether anybody holds the file, so that no collector may take it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


# ---- what a model is


def test_a_model_is_a_mapping_of_read_only_views(store: Store) -> None:
    expected = {t.name: bytes(t.read()) for t in sources.sample().tensors}
    with trims.open("m") as model:
        assert list(model) == list(expected) and len(model) == len(expected)
        assert {name: view.tobytes() for name, view in model.items()} == expected
        assert {name: view.tobytes() for name, view in model.tensors().items()} == expected
        assert not any(view.flags.writeable for view in model.values())
        assert model["embedding"].dtype == np.dtype(ml_dtypes.bfloat16)
        assert model["step"].shape == () and model["empty"].shape == (0, 3)
        assert np.shares_memory(model["conv1.weight"], model["tied/weight"])
        assert "step" in model and "no" not in model and model.get("no") is None
        with pytest.raises(KeyError):
            model["no"]


def test_a_model_knows_what_it_is(store: Store) -> None:
    with trims.open("m") as model:
        assert (model.ref, model.place, model.variant) == ("m:latest", "disk", "raw")
        assert model.manifest.digest == model.digest
        assert model.nbytes == model.manifest.nbytes
        assert dict(model.files) == sources.sample().files
        assert model.graph is not None and model.graph.startswith(b"graph conv1.weight@0")
        assert repr(model) == f"<trims.Model m:latest id:{model.digest[:12]} disk, 6 tensors, {nbytes(model)}>"
    assert trims.open("id:" + model.digest[:10]).digest == model.digest


def nbytes(model: trims.Model) -> str:
    from trims.units import format_size

    return format_size(model.nbytes)


def test_models_are_compared_as_things(store: Store) -> None:
    with trims.open("m") as one, trims.open("m") as two:
        assert one == one and one != two and len({one, two}) == 2


def test_a_model_without_graph_has_none(store: Store) -> None:
    import_model(store, sources.source({"w": sources.numbers(0, 3)}), "plain")
    with trims.open("plain") as model:
        assert model.graph is None and dict(model.files) == {}


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_model_cannot_be_pickled_or_copied(store: Store, send: object) -> None:
    with trims.open("m") as model, pytest.raises(UsageError, match=r"trims\.open\('m:latest'\)"):
        send(model)  # type: ignore[operator]


# ---- its end


def test_close_ends_the_hold_at_once_when_nothing_is_used(store: Store) -> None:
    path = container(store)
    model = trims.open("m")
    assert is_locked(path)
    model.close()
    model.close()
    assert not is_locked(path) and not model.in_use
    assert repr(model).endswith("disk, closed>")


def test_a_view_outlives_close_and_holds_the_container(store: Store) -> None:
    path = container(store)
    with trims.open("m") as model:
        part = model["conv1.weight"][3:5]
        before = part.tobytes()
    assert is_locked(path) and model.in_use
    assert repr(model).endswith("closed, still in use>")
    assert part.tobytes() == before
    del part
    assert not is_locked(path) and not model.in_use


def test_a_model_that_is_dropped_is_closed(store: Store) -> None:
    path = container(store)
    view = trims.open("m")["step"]
    assert is_locked(path)
    assert view == 0
    del view
    gc.collect()
    assert not is_locked(path)


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m["step"],
        lambda m: len(m),
        lambda m: list(m),
        lambda m: "step" in m,
        lambda m: m.tensors(),
        lambda m: m.manifest,
        lambda m: m.graph,
        lambda m: m.files,
        lambda m: m.onnxruntime(),
        lambda m: m.torch(),
        lambda m: m.__enter__(),
    ],
)
def test_a_closed_model_says_so(store: Store, use: object) -> None:
    model = trims.open("m")
    model.close()
    with pytest.raises(UsageError, match="m:latest is closed"):
        use(model)  # type: ignore[operator]


def test_closing_while_others_read_harms_nobody(store: Store) -> None:
    model = trims.open("m")
    expected = model["conv1.weight"].tobytes()
    go, wrong = threading.Barrier(5), []

    def read() -> None:
        go.wait()
        for _ in range(300):
            try:
                if model["conv1.weight"].tobytes() != expected:
                    wrong.append("bytes")
            except UsageError:
                return

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    go.wait()
    model.close()
    for thread in threads:
        thread.join()
    assert not wrong and not model.in_use


def test_a_forked_child_reads_and_closes_by_itself(store: Store) -> None:
    path = container(store)
    model = trims.open("m")
    expected = model["conv1.weight"].tobytes()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if model["conv1.weight"].tobytes() == expected and trims.open("m")["step"] == 0 else 2
            model.close()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert is_locked(path) and model["conv1.weight"].tobytes() == expected
    model.close()


# ---- what can be wrong with the files


def test_what_is_not_there(store: Store, home: Path) -> None:
    with pytest.raises(NoSuchModel, match="nothing"):
        trims.open("nothing")
    with pytest.raises(UsageError, match="bad model name"):
        trims.open("../x")
    with pytest.raises(NoStore):
        trims.open("m", store=str(home / "elsewhere"))
    with pytest.raises(UsageError, match="no place"):
        trims.open("m", "moon")
    for timeout in (-1.0, float("nan")):
        with pytest.raises(UsageError, match="bad timeout"):
            trims.open("m", timeout=timeout)
    with pytest.raises(UsageError, match="place remote"):
        trims.open("m", "remote")
    with trims.open("m") as model, pytest.raises(NoSuchVariant):
        model.region("ort-0")


def test_damage_is_found_before_anything_is_handed_out(store: Store) -> None:
    with trims.open("m", "disk") as model:
        digest, path = model.digest, store.paths.container(model.digest)
    view = bytes(sources.sample().tensors[0].read())
    data = Path(path).read_bytes()
    at = data.index(view[:64])
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(at + 5)
        file.write(bytes([data[at + 5] ^ 1]))
    with pytest.raises(Damaged, match=r"conv1\.weight"):
        trims.open("m", "disk")
    assert digest


def test_a_compressed_container_is_decompressed_with_a_warning(store: Store) -> None:
    import_model(store, sources.sample(3), "z", codec="zstd")
    expected = {t.name: bytes(t.read()) for t in sources.sample(3).tensors}
    with pytest.warns(DirectModeWarning, match=r"z:latest is compressed: .* of its own memory") as caught:
        model = trims.open("z")
    assert caught[0].filename == __file__
    assert {name: view.tobytes() for name, view in model.items()} == expected
    model.close()


def test_no_client_path_loads_hdf5(store: Store) -> None:
    import_model(store, sources.sample(3), "z", codec="zstd")
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "import trims\n"
        "assert 'numpy' not in sys.modules\n"
        "for name in ('m', 'z'):\n"
        "    with trims.open(name) as model: model['conv1.weight'].sum(); model.graph; dict(model.files)\n"
        "bad = {'h5py', 'onnx', 'onnxruntime', 'torch', 'filelock', 'typer', 'rich'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- manager or files


def test_without_a_manager_the_files_are_used_silently(store: Store) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with trims.open("m") as model:
            assert model.place == "disk"


def test_a_named_place_insists_on_a_manager(store: Store) -> None:
    with pytest.raises(ManagerNotRunning, match="no manager is running"):
        trims.open("m", "host")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (lambda peer: peer.welcome(version=9), "its protocol is 9, ours is 1"),
        (lambda peer: peer.welcome(store_id="f" * 32), "serves another store"),
        (lambda peer: [peer.hear(), peer.hear()], "does not answer"),
    ],
)
def test_a_manager_that_cannot_be_used_is_named_in_one_warning(
    store: Store, home: Path, script: object, reason: str
) -> None:
    with listening(home / "m.sock", script):  # type: ignore[arg-type]
        with pytest.warns(DirectModeWarning, match=reason) as caught:
            model = trims.open("m")
        assert len(caught) == 1 and caught[0].filename == __file__
        assert model.place == "disk"
        model.close()
        connections.close_idle()


def test_a_dead_managers_socket_is_a_reason_to_warn(store: Store, home: Path) -> None:
    with listening(home / "m.sock"):
        pass
    with pytest.warns(DirectModeWarning, match="left from one that ended"), trims.open("m"):
        pass


def test_a_manager_of_another_store_is_refused_for_a_named_place(store: Store, home: Path) -> None:
    with listening(home / "m.sock", lambda peer: [peer.welcome(store_id="f" * 32), peer.hear()]):
        with pytest.raises(ManagerUnreachable, match="serves another store"):
            trims.open("m", "host")
        connections.close_idle()


def test_a_manager_that_dies_while_asked_leaves_the_files(store: Store, home: Path) -> None:
    with listening(home / "m.sock", lambda peer: [peer.welcome(store_id=store.id), peer.hear()]):
        with pytest.warns(DirectModeWarning, match="without a manager"), trims.open("m") as model:
            assert model.place == "disk"


def test_a_manager_serves_the_model(store: Store, home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome(store_id=store.id)
        assert peer.attach(lease=4).timeout == 7.0
        assert peer.hear() == Release(lease=4)
        assert peer.hear() is None

    with listening(home / "m.sock", script):
        with trims.open("m", timeout=7.0) as model:
            assert (model.place, model.variant, model.digest) == ("host", "raw", "d" * 64)
            view = model["w"]
            assert view.tolist() == [4.0] * 4
        assert model.in_use and view.tolist() == [4.0] * 4
        del view
        connections.close_idle()


def test_another_form_is_asked_for_by_digest_and_leased_by_itself(store: Store, home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome(store_id=store.id)
        peer.attach(lease=1)
        request = peer.attach(lease=2)
        assert (request.ref, request.variant) == ("id:" + "d" * 64, "k")
        assert {peer.hear(), peer.hear()} == {Release(lease=1), Release(lease=2)}
        assert peer.hear() is None

    with listening(home / "m.sock", script):
        with trims.open("m") as model:
            assert model.region("k").view("w").tolist() == [2.0] * 4
            assert model.region("k") is model.region("k")
        connections.close_idle()


def test_what_stands_in_the_way_is_raised_and_not_gone_around(store: Store, home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome(store_id=store.id)
        request = peer.hear()
        assert isinstance(request, Attach)
        peer.say(Refused(id=request.id, code="no-room", what="no room for m", why="pins are in the way"))
        peer.hear()

    with listening(home / "m.sock", script):
        with pytest.raises(trims.TrimsError, match="no room for m") as caught:
            trims.open("m")
        assert caught.value.exit_code == 20
        connections.close_idle()


def test_a_client_that_sees_no_store_takes_the_managers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMS_STORE", str(home / "none"))
    with listening(home / "m.sock", lambda peer: [peer.welcome(), peer.attach(), peer.hear(), peer.hear()]):
        with trims.open("m", socket=str(home / "m.sock")) as model:
            assert model.place == "host" and model.backend.store is None
        connections.close_idle()
