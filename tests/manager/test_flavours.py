"""What a model is wanted for: forms are found, or built by a child, and never in anybody's way."""

from __future__ import annotations

import os

import pytest
from helpers import capabilities
from helpers.raw import Raw, until

from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.store import create_store
from trims.shmindex.reader import read
from trims.wire.messages import Attach, Pin, Refused, Status, WaitFor, Warm

pytestmark = pytest.mark.skipif(not capabilities.has_module("onnxruntime"), reason="needs ONNX Runtime")


@pytest.fixture
def network(runtime, models):
    """A store with the classifier `net`, imported from ONNX, and its digest."""
    store = create_store(str(runtime.store), if_missing=True)
    with open_source(str(models.onnx)) as source:
        return import_model(store, source, "net:latest").entry.digest


@pytest.fixture
def strange(runtime, tmp_path):
    """An ONNX model that ONNX Runtime cannot load: its operator is of a domain that nobody knows."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    node = helper.make_node("Riddle", ["x", "w"], ["y"], domain="nobody.knows")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])
    graph = helper.make_graph([node], "strange", [x], [y], [weight])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("nobody.knows", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports), tmp_path / "strange.onnx")
    store = create_store(str(runtime.store), if_missing=True)
    with open_source(str(tmp_path / "strange.onnx")) as source:
        import_model(store, source, "strange:latest")


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            found += map(int, file.read().split())
    return found


def test_an_onnx_model_is_warmed_as_its_variant(network, manager):
    with Raw(manager.runtime.socket) as client:
        (item,) = client.ask(Warm, ref="net").items
        assert item["variant"].startswith("ort-")
        assert item["outcome"] == "warmed"
        answer = client.attach("net", variant="auto", prefer=item["variant"])
        assert (answer.variant, answer.digest) == (item["variant"], network)
        assert client.attach("net", variant=item["variant"]).variant == item["variant"]
        assert client.ask(Warm, ref="net", flavour="onnxruntime").items[0]["outcome"] == "already"
        assert client.ask(Warm, ref="net", flavour="raw").items[0]["variant"] == "raw"
        assert client.ask(Pin, ref="net", owner="me").items[0]["variant"] == item["variant"]
        forms = {(r.variant, r.ref) for r in read(f"{manager.runtime.directory}/index").residencies}
        assert forms == {("raw", "net:latest"), (item["variant"], "net:latest")}


def test_nobody_waits_for_a_build_unless_they_say_so(network, manager):
    with Raw(manager.runtime.socket) as client:
        (item,) = client.ask(Warm, ref="net", wait=False).items
        assert item["outcome"] == "loading"
        client.ask(Status)
        client.ask(WaitFor, condition="warm", ref="net", timeout=30)
        (row,) = read(f"{manager.runtime.directory}/index").residencies
        assert row.variant.startswith("ort-")


def test_others_are_served_during_a_build(network, put, manager):
    put("other")
    with Raw(manager.runtime.socket) as client, Raw(manager.runtime.socket) as builder:
        builder.send(Warm(id=1, ref="net"))
        assert client.attach("other")
        assert client.ask(Warm, ref="net", flavour="raw").items[0]["outcome"] == "warmed"
        assert builder.answer(1).items[0]["variant"].startswith("ort-")


def test_two_who_ask_at_once_make_one_build(network, manager):
    with Raw(manager.runtime.socket) as one, Raw(manager.runtime.socket) as two:
        one.send(Warm(id=1, ref="net"))
        two.send(Warm(id=1, ref="net"))
        assert one.answer(1).items[0]["variant"] == two.answer(1).items[0]["variant"]
        assert one.ask(Status).items[0]["counters"]["loads"] == 1


def test_a_build_that_nobody_waits_for_is_ended(network, manager):
    with Raw(manager.runtime.socket) as watcher:
        client = Raw(manager.runtime.socket)
        client.send(Warm(id=1, ref="net", flavour="onnxruntime"))
        until(lambda: children(manager.pid), watcher)
        client.close()
        until(lambda: not children(manager.pid), watcher)
        assert watcher.ask(Status).items[0]["connections"] == 1


def test_what_cannot_be_derived_is_used_raw(strange, manager):
    with Raw(manager.runtime.socket) as client:
        assert client.ask(Warm, ref="strange").items[0]["variant"] == "raw"
        with open(f"{manager.runtime.directory}/log") as file:
            assert "strange:latest is used raw" in file.read()
        answer = client.ask(Warm, ref="strange", flavour="onnxruntime")
        assert isinstance(answer, Refused)
        assert answer.code == "no-such-variant"


def test_no_graph_no_variant(put, manager):
    put("m")
    with Raw(manager.runtime.socket) as client:
        answer = client.ask(Warm, ref="m", flavour="onnxruntime")
        assert (answer.code, "graph" in answer.why) == ("no-such-variant", True)
        assert client.ask(Attach, ref="m").variant == "raw"


def test_a_build_ends_with_its_manager(network, manager):
    with Raw(manager.runtime.socket) as client, Raw(manager.runtime.socket) as watcher:
        client.send(Warm(id=1, ref="net", flavour="onnxruntime"))
        until(lambda: children(manager.pid), watcher)
        manager.stop()
        assert client.closed_by_peer()
