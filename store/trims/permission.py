"""Who may read and change a ref of a shared store: an owner, a group and a mode, as of a file. Pure values.

Only the bits for reading count, and the first class that fits decides: owner, group, everybody. To change a ref is its
owner's. A ref without an owner (of a store of one user) has no `Access`; operators of a shared store are not asked.
"""

from __future__ import annotations

from typing import NamedTuple

from trims.errors import NotPermitted, UsageError

PRIVATE = 0o600
"""The mode of what is imported without one: nobody has to notice a model that should not have been seen."""
_BITS = 0o777


class Access(NamedTuple):
    """Of a ref: the number of its owner and its group, and a file's mode."""

    owner: int
    group: int
    mode: int


class Asker(NamedTuple):
    """A user as the kernel knows one: number, group, and all groups it is in."""

    uid: int
    gid: int
    groups: frozenset[int]


def may_read(access: Access | None, asker: Asker) -> bool:
    """Whether one who is no operator may read a ref."""
    if access is None:
        return False
    if access.owner == asker.uid:
        return bool(access.mode & 0o400)
    if access.group in asker.groups:
        return bool(access.mode & 0o040)
    return bool(access.mode & 0o004)


def may_change(access: Access | None, asker: Asker) -> bool:
    """Whether one who is no operator may share, remove and replace a ref."""
    return access is not None and access.owner == asker.uid


class Importer(NamedTuple):
    """In whose name something is imported into a shared store, and for whom: group and mode, None where not said.

    A group makes a new ref readable by that group, unless a mode says otherwise.
    """

    asker: Asker
    operator: bool = False
    group: int | None = None
    mode: int | None = None

    def access(self, ref: str, exists: bool, before: Access | None) -> Access:
        """What the ref has afterwards: what it had, where nothing else is said; private when it is new.

        Raises NotPermitted when it is another's: names belong to whoever came first.
        """
        if exists and not self.operator and not may_change(before, self.asker):
            raise NotPermitted(f"{ref} is not imported", "the name belongs to another user", "choose another name")
        check_group(f"{ref} is not imported", None if self.operator else self.asker, self.group)
        base = before or Access(self.asker.uid, self.asker.gid, PRIVATE)
        mode = self.mode
        if mode is None:
            mode = 0o640 if self.group is not None and before is None else base.mode
        return Access(base.owner, base.group if self.group is None else self.group, check_mode(mode))

    def domain(self, access: Access) -> str:
        """Among whom this content is stored once: its group, if that may read it and is the asker's; else its owner."""
        of_group = access.mode & 0o040 and (self.operator or access.group in self.asker.groups)
        return f"gid:{access.group}" if of_group else f"uid:{access.owner}"


def changed(
    ref: str,
    before: Access,
    asker: Asker | None,
    owner: int | None = None,
    group: int | None = None,
    mode: int | None = None,
) -> Access:
    """The access of a ref after `asker` (None: an operator) has shared it. Raises NotPermitted, UsageError."""
    if asker is not None and not may_change(before, asker):
        raise NotPermitted(f"{ref} is not shared", "it belongs to another user", "ask its owner, or an operator")
    if asker is not None and owner not in (None, before.owner):
        raise NotPermitted(f"{ref} is not given away", "only operators change owners")
    check_group(f"{ref} is not shared", asker, group if group != before.group else None)
    return Access(
        before.owner if owner is None else owner,
        before.group if group is None else group,
        before.mode if mode is None else check_mode(mode),
    )


def check_group(what: str, asker: Asker | None, group: int | None) -> None:
    """Raise NotPermitted, with `what` has failed, when `asker` may not give something to this group."""
    if asker is not None and group is not None and group not in asker.groups:
        raise NotPermitted(what, f"you are not in group {group}", "name a group of yours, as `id` lists them")


def check_mode(mode: int) -> int:
    """`mode`. Raises UsageError for what is none."""
    if not 0 <= mode <= _BITS:
        raise UsageError(f"bad mode {mode:o}", "", "give one as of a file, such as 640")
    return mode


def parse_mode(text: str) -> int:
    """The number of `640`. Raises UsageError."""
    if not text or len(text) > 4 or not set(text) <= set("01234567"):
        raise UsageError(f"bad mode {text!r}", "", "give three octal digits, such as 640")
    return check_mode(int(text, 8))
