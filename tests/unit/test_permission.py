"""Who may read and change a ref, as a table; what an import and a share make of it."""

from __future__ import annotations

import pytest

from trims import permission
from trims.errors import NotPermitted, UsageError
from trims.permission import Access, Asker, Importer

OWNER = Asker(1000, 1000, frozenset((1000, 50)))
MEMBER = Asker(1001, 1001, frozenset((1001, 50)))
STRANGER = Asker(1002, 1002, frozenset((1002,)))


@pytest.mark.parametrize(
    ("mode", "who"),
    [
        (0o000, ""), (0o400, "o"), (0o600, "o"), (0o040, "m"), (0o640, "om"), (0o004, "s"), (0o644, "oms"),
        (0o444, "oms"), (0o044, "ms"), (0o404, "os"), (0o333, ""), (0o777, "oms"),
    ],
)  # fmt: skip
def test_the_first_class_that_fits_decides(mode, who):
    access = Access(1000, 50, mode)
    found = [
        letter for letter, asker in (("o", OWNER), ("m", MEMBER), ("s", STRANGER)) if permission.may_read(access, asker)
    ]
    assert "".join(found) == who
    assert [permission.may_change(access, asker) for asker in (OWNER, MEMBER, STRANGER)] == [True, False, False]


def test_what_is_nobodys_is_closed():
    assert not permission.may_read(None, OWNER)
    assert not permission.may_change(None, OWNER)


@pytest.mark.parametrize(
    ("importer", "access", "domain"),
    [
        (Importer(OWNER), Access(1000, 1000, 0o600), "uid:1000"),
        (Importer(OWNER, group=50), Access(1000, 50, 0o640), "gid:50"),
        (Importer(OWNER, group=50, mode=0o600), Access(1000, 50, 0o600), "uid:1000"),
        (Importer(OWNER, mode=0o644), Access(1000, 1000, 0o644), "gid:1000"),
        (Importer(OWNER, mode=0o604), Access(1000, 1000, 0o604), "uid:1000"),
    ],
)
def test_a_new_ref_is_private_unless_said(importer, access, domain):
    assert importer.access("m", False, None) == access
    assert importer.domain(access) == domain


def test_an_import_over_ones_own_keeps_what_it_was():
    before = Access(1000, 50, 0o640)
    assert Importer(OWNER).access("m", True, before) == before
    assert Importer(OWNER, mode=0o600).access("m", True, before) == Access(1000, 50, 0o600)
    given = Access(1000, 7, 0o640)  # an operator gave it to a group that its owner is not in
    assert Importer(OWNER).access("m", True, given) == given
    assert Importer(OWNER).domain(given) == "uid:1000"


@pytest.mark.parametrize(
    ("importer", "before"),
    [
        (Importer(MEMBER), Access(1000, 50, 0o644)),
        (Importer(OWNER), None),
        (Importer(STRANGER, group=50), Access(1002, 1002, 0o600)),
    ],
)
def test_others_names_and_groups_are_not_ones_own(importer, before):
    with pytest.raises(NotPermitted):
        importer.access("m", True, before)


def test_an_operator_may_and_the_owner_stays():
    root = Importer(Asker(0, 0, frozenset((0,))), operator=True, group=7)
    assert root.access("m", True, Access(1000, 50, 0o600)) == Access(1000, 7, 0o600)
    assert root.access("m", True, None) == Access(0, 7, 0o640)


def test_sharing():
    before = Access(1000, 1000, 0o600)
    assert permission.changed("m", before, OWNER, group=50, mode=0o640) == Access(1000, 50, 0o640)
    assert permission.changed("m", before, None, owner=1001) == Access(1001, 1000, 0o600)
    assert permission.changed("m", before, OWNER) == before
    for asker, change in (
        (MEMBER, {"mode": 0o644}), (OWNER, {"owner": 1001}), (OWNER, {"group": 7}), (OWNER, {"group": 0}),
    ):  # fmt: skip
        with pytest.raises(NotPermitted):
            permission.changed("m", before, asker, **change)
    for mode in (-1, 0o1000, 1 << 40):
        with pytest.raises(UsageError, match="bad mode"):
            permission.changed("m", before, None, mode=mode)


def test_modes_are_read_as_of_files():
    assert [permission.parse_mode(text) for text in ("640", "0640", "0", "777")] == [0o640, 0o640, 0, 0o777]
    for text in ("", "8", "rw-r-----", "-1", "7777", "64O", "00640"):
        with pytest.raises(UsageError):
            permission.parse_mode(text)
