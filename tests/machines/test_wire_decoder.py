"""Whatever bytes arrive, in whatever pieces, a decoder gives messages or ProtocolError, and nothing else."""

from __future__ import annotations

import itertools

from helpers.wire_samples import SAMPLES
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import ProtocolError
from trims.wire.framing import Decoder, encode
from trims.wire.messages import ClientMessage, Message

CLIENT = [encode(m) for m in SAMPLES if isinstance(m, ClientMessage)]
MANAGER = [encode(m) for m in SAMPLES if not isinstance(m, ClientMessage)]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


def drain(decoder: Decoder, chunks: list[bytes]) -> list[Message]:
    got: list[Message] = []
    for chunk in chunks:
        got += decoder.feed(chunk)
    return got


@given(st.lists(st.sampled_from(CLIENT)), st.lists(st.integers(0, 10_000), max_size=20))
def test_cuts_do_not_matter(frames, cuts):
    whole = b"".join(frames)
    assert drain(Decoder("client"), pieces(whole, cuts)) == drain(Decoder("client"), [whole])
    assert b"".join(encode(m) for m in drain(Decoder("client"), [whole])) == whole


@given(
    st.sampled_from(["client", "manager"]),
    st.lists(st.sampled_from(CLIENT + MANAGER), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.lists(st.integers(0, 10_000), max_size=5),
    st.integers(0, 40),
)
def test_mutated_frames(kind, frames, changes, cuts, dropped):
    data = bytearray(b"".join(frames))
    for at, value in changes:
        data[at % len(data)] = value
    try:
        got = drain(Decoder(kind), pieces(bytes(data[: len(data) - dropped]), cuts))
    except ProtocolError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(m, Message) for m in got)


@given(st.sampled_from(["client", "manager"]), st.binary(max_size=300), st.booleans())
def test_junk(kind, junk, behind_a_frame):
    frame = (CLIENT if kind == "client" else MANAGER)[0] if behind_a_frame else b""
    decoder = Decoder(kind)
    try:
        got = decoder.feed(frame + junk)
    except ProtocolError:
        return
    assert len(got) >= behind_a_frame
    assert decoder.pending <= len(junk)
