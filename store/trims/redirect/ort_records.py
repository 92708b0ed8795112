"""What a program has put into ONNX Runtime session options: they cannot be asked for it, so their methods tell.

A SessionOptions has attributes, which can be read, and configuration entries, custom operators and the like, which can
not be listed. The methods that set those are wrapped, in place, so that a session may be made with a faithful copy,
and is left alone where something was set that no copy can have.
"""

from __future__ import annotations

import functools
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ENTRY = "add_session_config_entry"
_READS = {"get_session_config_entry", "has_providers"}


class Record:
    """What was set. entries: configuration entries. opaque: the method that set what cannot be copied, or ""."""

    __slots__ = ("entries", "opaque")

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.opaque = ""


_records: weakref.WeakKeyDictionary[Any, Record] = weakref.WeakKeyDictionary()


def record_of(options: Any) -> Record | None:
    """What was set in these options; None for those that no program has constructed: then nobody knows."""
    try:
        return _records.get(options)
    except TypeError:  # it is something else altogether
        return None


def same(options: Any, record: Record | None) -> None:
    """ONNX Runtime made `options` as a copy of others, of which `record` tells."""
    if record is not None:
        _records[options] = record


def watch(kind: Any) -> None:
    """Have every object of the class SessionOptions tell from now on."""
    _wrap(kind, "__init__", _made)
    for name, member in list(vars(kind).items()):
        if callable(member) and not name.startswith("_") and name not in _READS:
            _wrap(kind, name, functools.partial(_entered if name == _ENTRY else _became_opaque, name))


def _wrap(kind: Any, name: str, note: Any) -> None:
    original = getattr(kind, name)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        note(self, *args, **kwargs)
        return result

    setattr(kind, name, method)


def _made(options: Any, *args: Any, **kwargs: Any) -> None:
    _records[options] = Record()


def _entered(method: str, options: Any, *args: Any, **kwargs: Any) -> None:
    record = _records.get(options)
    if record is not None:
        if len(args) == 2:
            record.entries[str(args[0])] = str(args[1])
        else:
            record.opaque = method


def _became_opaque(method: str, options: Any, *args: Any, **kwargs: Any) -> None:
    record = _records.get(options)
    if record is not None:
        record.opaque = method
