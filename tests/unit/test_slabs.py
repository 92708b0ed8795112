from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trims.devices.slabs import SLAB, cut, padded

GRANULES = st.sampled_from([4096, 65536, 2 << 20])


def test_a_region_of_nothing_has_one_unit():
    assert cut(0, 2 << 20) == (2 << 20,)
    assert padded(0, 4096) == 4096


@pytest.mark.parametrize(
    ("nbytes", "sizes"),
    [(1, (2 << 20,)), (SLAB, (SLAB,)), (SLAB + 1, (SLAB, 2 << 20)), (2 * SLAB - 1, (SLAB, SLAB))],
)
def test_slabs_are_as_few_as_can_be(nbytes, sizes):
    assert cut(nbytes, 2 << 20) == sizes


@given(nbytes=st.integers(0, 1 << 26), granularity=GRANULES, slab=st.integers(1, 1 << 24))
def test_slabs_hold_the_bytes_in_whole_units(nbytes, granularity, slab):
    sizes = cut(nbytes, granularity, slab)
    assert sum(sizes) == padded(nbytes, granularity)
    assert 0 <= sum(sizes) - max(nbytes, 1) < granularity
    assert all(size % granularity == 0 for size in sizes)
    assert set(sizes[:-1]) <= {padded(slab, granularity)} and sizes[-1] <= padded(slab, granularity)
