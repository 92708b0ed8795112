"""An interpreter of pickles in which nothing can happen: it builds plain containers and inert marks, and calls nothing.

A pickle is a program for a stack machine whose GLOBAL and REDUCE import and call what they name. Here a global is only
looked up in a table of what a checkpoint of tensors needs, and calling one of those makes a value of this module.
Everything else is refused by name. The program is bounded: every step consumes bytes of the file, containers are shared
and not copied, the memo is a dictionary, so that a large index costs nothing, and only plain values are hashed, since a
few nested tuples can take for ever.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, cast

from trims.errors import BadInput

MAX_VALUE = 64 << 20
"""Bytes of one string or number. Whole pickles of checkpoints are smaller."""

_MAX_LINE = 1 << 16


class Window:
    """Bytes as the file that `pickletools` reads; it never makes more of them at once than it should."""

    def __init__(self, data: memoryview, at: int = 0) -> None:
        self._data, self._at = data, at

    def tell(self) -> int:
        return self._at

    def read(self, nbytes: int) -> bytes:
        """So many bytes, or fewer when there are not as many: `pickletools` takes that for the end."""
        if nbytes > MAX_VALUE or nbytes > len(self._data) - self._at:
            return b""
        self._at += nbytes
        return bytes(self._data[self._at - nbytes : self._at])

    def readline(self) -> bytes:
        """One line; b"" when it has no end, or an escape: no checkpoint has one, and decoding some of them warns."""
        line = bytes(self._data[self._at : self._at + _MAX_LINE])
        line = self.read(line.find(b"\n") + 1)
        return b"" if b"\\" in line else line


class Refused(BadInput):
    """The pickle asks for something that no checkpoint of tensors needs. `why` says what."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name in a module, not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True)
class Instance:
    """An object of a class that is not known: its class, the arguments it was made with, and its state."""

    cls: Global
    args: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, slots=True)
class Persistent:
    """What a pickle calls by a name of its own format: a storage, for PyTorch."""

    pid: Any


Allowed = Callable[[Global], bool]
Call = Callable[[Global, tuple[Any, ...]], Any]
"""Gives the value of calling a global, or raises Refused."""


@dataclass(slots=True)
class _State:
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop_mark(self) -> list[Any]:
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def pop(self) -> Any:
        if self.marks and self.marks[-1] >= len(self.stack):
            raise IndexError("the stack is empty")
        return self.stack.pop()


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip
_NOTHING = frozenset(("PROTO", "FRAME"))


def load(file: Window, allowed: Allowed, call: Call) -> Any:
    """The value of the next pickle in `file`. Raises Refused, or one of base.LIBRARY_ERRORS when it is malformed."""
    state = _State()
    for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", file)):
        name = opcode.name
        if name == "STOP":
            return state.pop()
        if name in _LITERALS:
            state.stack.append(argument)
        elif name in _CONSTANTS:
            state.stack.append(_CONSTANTS[name])
        elif name not in _NOTHING:
            step = _STEPS.get(name)
            if step is not None:
                step(state, argument)
            else:
                _name_or_call(state, name, argument, allowed, call)
    raise ValueError("the pickle has no end")


def _name_or_call(state: _State, name: str, argument: Any, allowed: Allowed, call: Call) -> None:
    """The opcodes that name globals and call them."""
    if name in ("GLOBAL", "STACK_GLOBAL"):
        if name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
        else:
            attribute, module = state.pop(), state.pop()
            if not isinstance(module, str) or not isinstance(attribute, str):
                raise TypeError("a global is not named by text")
        found = Global(module, attribute)
        if not allowed(found):
            raise Refused("", f"its pickle names {str(found)[:200]}, which is no part of a checkpoint of tensors")
        state.stack.append(found)
    elif name in ("REDUCE", "NEWOBJ"):
        arguments, function = state.pop(), state.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise Refused("", "its pickle calls something that is no known name")
        state.stack.append(call(function, arguments))
    else:
        raise Refused("", f"its pickle uses {name}, which no checkpoint of tensors needs")


def _set_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise TypeError("items of what is no dictionary")
    target.update(zip(map(_key, items[::2]), items[1::2], strict=True))


def _key(value: Any) -> Any:
    """`value`, which is going to be hashed."""
    if value is not None and not isinstance(value, (str, int, float, bytes, Global)):
        raise Refused("", f"its pickle has a {type(value).__name__} as a key")
    return value


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, set):
        target.update(map(_key, items))
    elif isinstance(target, list):
        target.extend(items)
    else:
        raise TypeError("items of what is no list")


def _dict(state: _State, _: Any) -> None:
    made: dict[Any, Any] = {}
    _set_items(made, state.pop_mark())
    state.stack.append(made)


def _drop(state: _State, _: Any) -> None:
    state.pop()


def _build(state: _State, _: Any) -> None:
    """Give an object its state. Only what is unknown keeps it; dictionaries and tensors do not need theirs."""
    given = state.pop()
    if isinstance(state.stack[-1], Instance):
        state.stack[-1].state = given


def _put(state: _State, index: Any) -> None:
    state.memo[int(index)] = state.stack[-1]


def _tuple(size: int) -> Callable[[_State, Any], None]:
    def make(state: _State, _: Any) -> None:
        items = [state.pop() for _ in range(size)]
        state.stack.append(tuple(reversed(items)))

    return make


def _two(take: Callable[[Any, list[Any]], None], many: bool) -> Callable[[_State, Any], None]:
    """APPEND, SETITEM and their kin: one item, or all since the mark, into what lies below them."""

    def run(state: _State, _: Any) -> None:
        if many:
            items = state.pop_mark()
        else:
            items = [state.pop()] if take is _extend else [state.pop(), state.pop()][::-1]
        take(state.stack[-1], items)

    return run


_STEPS: dict[str, Callable[[_State, Any], None]] = {
    "MARK": lambda s, _: s.marks.append(len(s.stack)),
    "POP": _drop,
    "POP_MARK": lambda s, _: s.pop_mark().clear(),
    "DUP": lambda s, _: s.stack.append(s.stack[-1]),
    "EMPTY_DICT": lambda s, _: s.stack.append({}),
    "EMPTY_LIST": lambda s, _: s.stack.append([]),
    "EMPTY_TUPLE": lambda s, _: s.stack.append(()),
    "EMPTY_SET": lambda s, _: s.stack.append(set()),
    "DICT": _dict,
    "LIST": lambda s, _: s.stack.append(s.pop_mark()),
    "TUPLE": lambda s, _: s.stack.append(tuple(s.pop_mark())),
    "FROZENSET": lambda s, _: s.stack.append(frozenset(map(_key, s.pop_mark()))),
    "TUPLE1": _tuple(1), "TUPLE2": _tuple(2), "TUPLE3": _tuple(3),
    "APPEND": _two(_extend, many=False), "APPENDS": _two(_extend, many=True), "ADDITEMS": _two(_extend, many=True),
    "SETITEM": _two(_set_items, many=False), "SETITEMS": _two(_set_items, many=True),
    "PUT": _put, "BINPUT": _put, "LONG_BINPUT": _put,
    "MEMOIZE": lambda s, _: s.memo.__setitem__(len(s.memo), s.stack[-1]),
    "GET": lambda s, i: s.stack.append(s.memo[int(i)]),
    "BINGET": lambda s, i: s.stack.append(s.memo[i]),
    "LONG_BINGET": lambda s, i: s.stack.append(s.memo[i]),
    "BINPERSID": lambda s, _: s.stack.append(Persistent(s.pop())),
    "BUILD": _build,
}  # fmt: skip
