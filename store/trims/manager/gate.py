"""What tenants may ask of a manager of system scope, before it is looked at what about: one table, by message.

A rule gives the message as it is to be served, or raises NotPermitted. Whoever may do everything never comes here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import structs

from trims.errors import NotPermitted
from trims.permission import Asker
from trims.wire import messages as wm

Rule = Callable[[Asker, Any], wm.Request]


def admitted(tenant: Asker, message: wm.Request) -> wm.Request:
    """The message as it is served for this tenant. Raises NotPermitted."""
    return _RULES.get(type(message), _closed)(tenant, message)


def owner_name(tenant: Asker) -> str:
    """Whose a tenant's pins are: they cannot be put, or taken away, in anybody else's name."""
    return f"uid {tenant.uid}"


def _closed(_tenant: Asker, message: wm.Request) -> wm.Request:
    raise NotPermitted(f"{_verb(message)} is not permitted", "it is for operators")


def _open(_tenant: Asker, message: wm.Request) -> wm.Request:
    return message


def _as_oneself(tenant: Asker, message: wm.Pin | wm.Unpin) -> wm.Request:
    return structs.replace(message, owner=owner_name(tenant))


def _evict(_tenant: Asker, message: wm.Evict) -> wm.Request:
    if message.force or not message.ref or message.idle is not None or message.until_free is not None:
        raise NotPermitted("evict is not permitted", "force, and eviction by rule, are for operators", "name a model")
    return message


def _history(_tenant: Asker, message: wm.History) -> wm.Request:
    if not (message.ref or message.digest):
        raise NotPermitted("history is not permitted", "that of all models is for operators", "name a model")
    return message


def _verb(message: wm.Request) -> str:
    return str(message.__struct_config__.tag)


_RULES: dict[type, Rule] = {
    **dict.fromkeys(
        (
            wm.Attach,
            wm.Warm,
            wm.WaitFor,
            wm.Status,
            wm.List,
            wm.Show,
            wm.Look,
            wm.Share,
            wm.Remove,
            wm.Import,
            wm.Recognise,
        ),
        _open,
    ),
    wm.Pin: _as_oneself,
    wm.Unpin: _as_oneself,
    wm.Evict: _evict,
    wm.History: _history,
}
