"""Every failure a user can cause, as one tree: a class is a code, an exit status and a shape of message.

A message has three parts, and prints as one line: *what* went wrong, *why*, and *what to do*.
`code` is the stable word of the JSON form and of the wire; `exit_code` is the status of the command line
(the table is in trims(1)). This module imports nothing: it is on the path of the fastest commands.
"""

from __future__ import annotations


class TrimsError(Exception):
    """An expected failure. `str(error)` is the one line a user sees.

    what: the thing that failed, lower case, no full stop.
    why:  the cause, or "" when `what` says it all.
    hint: what to do about it, usually one command, or "".
    details: plain JSON values for machines (holders, bytes short, candidates); never needed to understand the line.
    """

    code = "failed"
    exit_code = 1

    def __init__(self, what: str, why: str = "", hint: str = "", **details: object) -> None:
        super().__init__(what, why, hint)
        self.what = what
        self.why = why
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        line = self.what
        if self.why:
            line += f": {self.why}"
        if self.hint:
            line += f" ({self.hint})"
        return one_line(line)

    def __reduce__(self) -> tuple[object, ...]:
        return (rebuild, (self.code, self.what, self.why, self.hint, self.details))

    def to_dict(self) -> dict[str, object]:
        """The JSON form: code, exit, message, what, why, hint and details."""
        return {
            "code": self.code,
            "exit": self.exit_code,
            "message": str(self),
            "what": self.what,
            "why": self.why,
            "hint": self.hint,
            "details": self.details,
        }


class UsageError(TrimsError):
    """The words of the command, the configuration or an argument are wrong."""

    code = "usage"
    exit_code = 2


class NotPermitted(UsageError):
    """The operating system refuses: a read-only store, somebody else's directory."""

    code = "not-permitted"


class ManagerNotRunning(TrimsError):
    """No manager answers at any of the sockets looked at."""

    code = "not-running"
    exit_code = 3


class ManagerUnreachable(TrimsError):
    """A manager is there but cannot be talked to: wedged, another version, another user's."""

    code = "unreachable"
    exit_code = 4


class PartialFailure(TrimsError):
    """Some of several targets failed; each has had its own line."""

    code = "partial"
    exit_code = 5


class NoSuchModel(TrimsError):
    """The ref or digest names nothing in the store."""

    code = "no-such-model"
    exit_code = 10


class AmbiguousModel(NoSuchModel):
    """A digest prefix or pattern names more than one model."""

    code = "ambiguous"


class NoSuchVariant(TrimsError):
    """The model is there, the asked variant of it is not, and could not be built."""

    code = "no-such-variant"
    exit_code = 10


class LockTimeout(TrimsError):
    """Somebody else held the store's lock for longer than we were told to wait."""

    code = "locked"
    exit_code = 11


class NoStore(TrimsError):
    """The directory is no trims store."""

    code = "no-store"
    exit_code = 12


class StoreTooNew(TrimsError):
    """The store, or a container, was made by a newer trims."""

    code = "store-too-new"
    exit_code = 13


class Damaged(TrimsError):
    """Bytes are not what was imported; the message names the tensor, or the container."""

    code = "damaged"
    exit_code = 14


class NoSpace(TrimsError):
    """The disk cannot hold what was asked, found out before the work where possible."""

    code = "no-space"
    exit_code = 15


class BadInput(TrimsError):
    """A file to import is unsupported, malformed or unsafe."""

    code = "bad-input"
    exit_code = 16


class NoRoom(TrimsError):
    """A place cannot hold the model: budget, pins or leased models are in the way."""

    code = "no-room"
    exit_code = 20


class InUse(TrimsError):
    """Refused, or timed out, because clients hold leases."""

    code = "in-use"
    exit_code = 21


class Pinned(TrimsError):
    """Refused because the model is pinned."""

    code = "pinned"
    exit_code = 22


class DeviceLost(TrimsError):
    """A device is absent or has failed."""

    code = "device-lost"
    exit_code = 23


class TimedOut(TrimsError):
    """A timeout expired for any reason without a code of its own (as timeout(1) does)."""

    code = "timed-out"
    exit_code = 124


class ProtocolError(TrimsError):
    """The peer sent bytes that are no message of this protocol."""

    code = "protocol"
    exit_code = 4


def one_line(text: str) -> str:
    """`text` with what is not printable escaped, so that a hostile name cannot draw on a terminal."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def all_errors(base: type[TrimsError] = TrimsError) -> list[type[TrimsError]]:
    """`base` and every class below it, parents first."""
    found = [base]
    for child in base.__subclasses__():
        found += all_errors(child)
    return found


def rebuild(code: str, what: str, why: str, hint: str, details: dict[str, object]) -> TrimsError:
    """The error that another process reported; an unknown code becomes a plain TrimsError."""
    for cls in all_errors():
        if cls.code == code:
            return cls(what, why, hint, **details)
    return TrimsError(what, why, hint, **details)
