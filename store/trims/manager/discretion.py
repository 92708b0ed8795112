"""What a tenant is not told: the names of models that they may not read, and who else holds or pins anything.

The machine answers everybody alike; this goes over an answer before a tenant gets it. Sizes and states stay: they are
why there is no room. Refs are replaced by one that the tenant may read, as the same model may have several.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from trims.manager.gate import owner_name
from trims.manager.names import Names
from trims.permission import Asker

Item = dict[str, object]
OTHERS = "others use it"


class Discretion:
    """`names` knows what is whose to read. root: the store's; where its files are is nobody's to know."""

    def __init__(self, names: Names, root: str) -> None:
        self._names = names
        self._file = re.compile(re.escape(root) + r"(?:/[^\s:;,()'\"]*)?")

    def readable(self, tenant: Asker, digest: str) -> bool:
        """Whether the tenant may read a model now."""
        return self._names.readable(digest, tenant) is not None

    def items(self, tenant: Asker, items: Iterable[Item]) -> list[Item]:
        """The items of a result."""
        return [self._item(tenant, item) for item in items]

    def error(self, tenant: Asker, error: Item) -> Item:
        """A refusal's dictionary."""
        details: dict[str, Any] = dict(error.get("details") or {})  # type: ignore[call-overload]
        why = str(error.get("why", ""))
        if "blockers" in details:
            details["blockers"] = [self._blocker(tenant, item) for item in details["blockers"]]
            why = why.partition(";")[0]  # what follows names them
        if "holders" in details:
            kept = _own(tenant, details["holders"])
            why = why if len(kept) == len(details["holders"]) else OTHERS
            details["holders"] = kept
        if "pins" in details:
            kept = [pin for pin in details["pins"] if pin.get("owner") == owner_name(tenant)]
            why = why if len(kept) == len(details["pins"]) else "it is pinned by others"
            details["pins"] = kept
        what, hint = (self._file.sub("a file of the store", str(error.get(part, ""))) for part in ("what", "hint"))
        why = "" if self._file.search(why) else why
        details = {name: value for name, value in details.items() if not self._file.search(str(value))}
        return {**error, "what": what, "why": why, "hint": hint, "details": details}

    def history(self, tenant: Asker, lines: Sequence[Item]) -> list[Item]:
        """What happened to a model that the tenant may read: why and by whom is about others, too."""
        return [{**self._item(tenant, line), "why": "", "by": ""} for line in lines]

    def _item(self, tenant: Asker, item: Item) -> Item:
        told = dict(item)
        if "digest" in item:
            named = self._names.readable(str(item["digest"]), tenant)
            told |= {"ref": named.ref} if named is not None else {"ref": "", "digest": ""}
        if "victims" in item:
            told["victims"] = self.items(tenant, item["victims"])  # type: ignore[arg-type]
        if "holders" in item:
            told["holders"] = _own(tenant, item["holders"])
        return told

    def _blocker(self, tenant: Asker, item: Item) -> Item:
        ref = str(item["ref"])
        return {**item, "ref": ref if self._names.quick(ref, tenant) else "", "holders": [], "pins": []}


def _own(tenant: Asker, holders: Any) -> list[Item]:
    return [holder for holder in holders if holder.get("uid") == tenant.uid]
