"""trims-protocol(7) names every message, field, limit and offset there is, and its example works."""

from __future__ import annotations

import os
import re
import struct

import pytest

from trims.devices import simulated
from trims.linux.fdpass import MOST_FDS
from trims.manager.connection import QUEUE_LIMIT
from trims.residency.machine import PlaceUse
from trims.shmindex import layout as lay
from trims.wire.header import CLIENT_LIMIT, HEADER, MANAGER_LIMIT, VERSION
from trims.wire.messages import ClientMessage, ManagerMessage

PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "man", "man7", "trims-protocol.7")
MESSAGES = (*ClientMessage.__args__, *ManagerMessage.__args__)


@pytest.fixture(scope="module")
def page() -> str:
    with open(PAGE, encoding="ascii") as file:
        return file.read()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda cls: cls.__name__)
def test_every_message_is_listed_with_exactly_its_fields(page, message):
    (fields,) = re.findall(rf"^\.It Cm {message.__struct_config__.tag} No \\&\((.*)\)$", page, re.MULTILINE)
    assert fields.split(", ") == list(message.__struct_fields__)


def test_no_message_is_listed_that_is_not(page):
    listed = re.findall(r"^\.It Cm (\w+) No \\&\(", page, re.MULTILINE)
    assert sorted(listed) == sorted(m.__struct_config__.tag for m in MESSAGES)


def test_numbers_are_those_of_the_code(page):
    assert f"version of the protocol, {VERSION}" in page
    assert f".It {HEADER.size} Ta" in page
    for number in (CLIENT_LIMIT, MANAGER_LIMIT, QUEUE_LIMIT, lay.CLOSED_AT, MOST_FDS):
        assert str(number) in page
    for name, size in (("meta", lay.META), ("place", lay.PLACE), ("residency", lay.HOT), ("names", lay.NAMES)):
        assert f".It Sy {name} No \\&({size.size} bytes" in page
    assert f".It Sy lease No \\&({lay.LEASE.size} bytes" in page
    for stride in (lay.PLACE_STRIDE, lay.HOT_STRIDE, lay.NAMES_STRIDE, lay.LEASE_STRIDE):
        assert f"{stride} bytes" in page


def test_the_header_table_adds_up(page):
    table = page[page.index("Its first page is the header") : page.index("Behind it, from offset 4096")]
    rows = [(int(a), int(b)) for a, b in re.findall(r"^\.It (\d+) Ta (\d+) Ta", table, re.MULTILINE)]
    at = 0
    for (offset, nbytes), kind in zip(rows, re.findall(r"\d*[a-zA-Z]", lay.HEADER.format[1:]), strict=False):
        for part in [kind] if kind.endswith("s") else [kind[-1]]:
            assert (offset, nbytes) == (at, struct.calcsize("<" + part))
            at += nbytes
        if at == lay.HEADER.size:
            break
    assert at == lay.HEADER.size
    assert rows[-1] == (lay.CLOSED_AT, 8)


def test_items_are_named(page):
    for name in (
        *PlaceUse.__slots__,
        "previous_pid",
        "orphans",
        "blockers",
        "victims",
        "holders",
        "would-evict",
        "gpus",
    ):
        assert name in page, name


def test_what_is_told_of_a_gpu_is_named(page, tmp_path, monkeypatch, request):
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", simulated.make(str(tmp_path), gpus=1))
    (fields,) = request.getfixturevalue("manager").request("status")[0]["gpus"].values()
    assert f"by place: {', '.join(fields)} ," in page


def test_the_example_is_a_client(page, request):
    """Run it, against a real manager."""
    code = page[page.index("import array, json") : page.rindex(".Ed")].replace("\\e", "\\")
    manager = request.getfixturevalue("manager")
    from helpers import sources

    from trims.disk.ingest import import_model
    from trims.disk.store import open_store
    from trims.wire.messages import Status  # noqa: F401

    store = open_store(str(manager.runtime.store))
    import_model(store, sources.source({"w": sources.numbers(1, 8, 8)}), "resnet50:latest")
    manager.request("warm", ref="resnet50")
    scope: dict[str, object] = {}
    code = code.replace("/run/user/1000/trims/trims.sock", str(manager.runtime.socket)).replace("print(", "(")
    exec(code, scope)
    assert scope["answer"]["lease"] == 1
    assert bytes(scope["weights"][:4]) == sources.numbers(1, 8, 8).tobytes()[:4]
    scope["weights"].close()
    os.close(scope["fds"][0])
    scope["sock"].close()
