import os

import numpy as np
import pytest
from helpers.sources import bfloat16, numbers
from hypothesis import given
from hypothesis import strategies as st

from trims.disk import codec
from trims.errors import Damaged


def back(kind, frame, nbytes):
    out = bytearray(nbytes)
    codec.decompress(kind, frame, memoryview(out))
    return bytes(out)


@given(st.binary(max_size=4000), st.sampled_from([1, 2, 4]))
def test_any_bytes_come_back(data, width):
    kind, frame = codec.compress(data, width)
    assert kind in codec.KINDS and len(frame) <= len(data)
    assert back(kind, frame, len(data)) == data


def test_weights_shrink_as_measured():
    """bfloat16 by nearly half, float32 and float16 by the exponent alone; noise not at all."""
    weights = numbers(1, 1 << 18)
    for dtype, data, kind, least in (
        ("bfloat16", bfloat16(weights).tobytes(), "zstd-planes2", 1.44),
        ("float16", weights.astype("float16").tobytes(), "zstd-planes2", 1.15),
        ("float32", weights.tobytes(), "zstd-planes4", 1.17),
    ):
        got, frame = codec.compress(data, codec.plane_width(dtype))
        assert got == kind and len(data) / len(frame) > least
        assert back(got, frame, len(data)) == data


def test_what_does_not_shrink_stays_raw():
    noise = os.urandom(1 << 16)
    for width in (1, 2, 4):
        assert codec.compress(noise, width) == ("raw", noise)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_frame_of_other_length_is_damage(width):
    data = np.zeros(5000, np.float32).tobytes()
    kind, frame = codec.compress(data, width)
    for nbytes in (len(data) - 4, len(data) + 4):
        with pytest.raises(Damaged):
            back(kind, frame, nbytes)
    with pytest.raises(Damaged):
        back(kind, frame[: len(frame) // 2], len(data))


def test_an_unknown_kind_is_damage():
    with pytest.raises(Damaged, match="lz4"):
        back("lz4", b"abc", 3)


@given(st.binary(max_size=300), st.sampled_from(codec.KINDS), st.integers(0, 600))
def test_junk_gives_bytes_or_damage(junk, kind, nbytes):
    try:
        back(kind, junk, nbytes)
    except Damaged:
        pass
