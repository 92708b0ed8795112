"""Frames and messages: what goes in comes out, and anything else is a ProtocolError."""

from __future__ import annotations

import json
import math
import os
import struct

import msgspec
import pytest
from helpers.wire_samples import SAMPLES

from trims.errors import ProtocolError
from trims.wire.framing import Decoder, encode
from trims.wire.header import CLIENT_LIMIT, FOREVER, HEADER, MAGIC, VERSION, Splitter, pack
from trims.wire.messages import Attach, ClientMessage, Hello, ManagerMessage, Progress, Refused, Result, Warm, Welcome

GOLDEN = os.path.join(os.path.dirname(__file__), "..", "golden", "wire.json")


def kind(message: object) -> str:
    return "client" if isinstance(message, ClientMessage) else "manager"


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_every_message_comes_back(message):
    assert Decoder(kind(message)).feed(encode(message)) == [message]


def test_the_samples_cover_every_message():
    assert {type(m) for m in SAMPLES} == {*ClientMessage.__args__, *ManagerMessage.__args__}


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_byte_by_byte(message):
    decoder, got = Decoder(kind(message)), []
    for byte in encode(message) * 2:
        got += decoder.feed(bytes([byte]))
    assert got == [message, message]
    assert decoder.pending == 0


def test_frames_of_every_version_keep_their_bytes():
    with open(GOLDEN) as file:
        golden = json.load(file)
    assert [encode(m).hex() for m in SAMPLES] == [row["hex"] for row in golden]


def test_a_light_client_needs_only_the_standard_library():
    body = json.dumps({"t": "attach", "id": 7, "ref": "m", "unknown": [1]}).encode()
    frame = b"TRMS\x01\0\0\0" + struct.pack("<I", len(body)) + body
    assert Decoder("client").feed(frame) == [Attach(id=7, ref="m")]


def test_infinite_times_are_a_big_number():
    (warm,) = Decoder("client").feed(encode(Warm(id=1, ref="m", timeout=math.inf, ttl=math.inf)))
    assert (warm.timeout, warm.ttl) == (FOREVER, FOREVER)


def test_a_name_that_is_no_utf8_does_not_stop_a_message():
    welcome = Welcome(version=1, trims="", pid=1, identity="", store="/a\udcff", store_id="")
    assert Decoder("manager").feed(encode(welcome))[0].store == "/a\N{REPLACEMENT CHARACTER}"
    result = Result(id=1, items=[{"ref\udcff": ["\udcff", 1]}])
    assert Decoder("manager").feed(encode(result))[0].items == [
        {"ref\N{REPLACEMENT CHARACTER}": ["\N{REPLACEMENT CHARACTER}", 1]}
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "speaks no trims"),
        (b"TRMX", "speaks no trims"),
        (b"\0", "speaks no trims"),
        (b"TRMS\x02", "version 2"),
        (b"TRMS\x01\0\0\x01" + b"\0" * 4, "reserved"),
        (HEADER.pack(MAGIC, VERSION, b"\0\0\0", CLIENT_LIMIT + 1), "too long"),
        (pack(b""), "malformed"),
        (pack(b"[]"), "malformed"),
        (pack(b"null"), "malformed"),
        (pack(b'{"t":"attach"}'), "malformed"),
        (pack(b'{"t":"nothing","id":1}'), "malformed"),
        (pack(b'{"t":"attach","id":"1","ref":"m"}'), "malformed"),
        (pack(b'{"t":"attach","id":1,"ref":"\xff"}'), "malformed"),
        (pack(b'{"t":"attach","id":1,"ref":"m","timeout":1e999}'), "malformed"),
        (pack(b'{"t":"attach","id":1,"ref":"m","z":' + b"[" * 100_000), "malformed"),
        (pack(b'{"t":"result","id":1}'), "malformed"),  # a manager's message, from a client
    ],
)
def test_anything_else_is_a_protocol_error(data, words):
    decoder = Decoder("client")
    with pytest.raises(ProtocolError, match=words):
        decoder.feed(data)
    with pytest.raises(ProtocolError, match=words):  # and the stream stays ended
        decoder.feed(encode(Hello(version=1)))


def test_a_wrong_version_is_named_on_both_sides():
    with pytest.raises(ProtocolError, match=r"version 9 .* version 1"):
        Decoder("client").feed(b"TRMS\x09")


def test_a_message_over_the_limit_is_not_sent():
    with pytest.raises(ProtocolError, match="limit"):
        encode(Attach(id=1, ref="m" * CLIENT_LIMIT))
    assert len(encode(Refused(id=1, code="x", what="m" * CLIENT_LIMIT))) > CLIENT_LIMIT


def test_a_long_body_is_refused_before_it_arrives():
    with pytest.raises(ProtocolError):
        Splitter(100).split(HEADER.pack(MAGIC, VERSION, b"\0\0\0", 101))


def test_messages_are_frozen():
    with pytest.raises(AttributeError):
        Progress(id=1, done=1, total=2).done = 3
    assert issubclass(Progress, msgspec.Struct)
