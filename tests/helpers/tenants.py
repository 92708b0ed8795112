"""Other users: real processes of another uid, which root can make. One client of a manager each, told what to do."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

from helpers.raw import Raw
from trims.wire.messages import Hello, Welcome

ANNA, BERT, CARA = 40_001, 40_002, 40_003
TEAM = 40_100
"""A group that Anna and Bert are in."""
OPERATORS = 40_200


class Tenant:
    """A process of `uid`, in its own group and `groups`. It connects to `path` when it first needs to."""

    def __init__(self, path: object, uid: int, *groups: int) -> None:
        self.uid, self.groups = uid, groups
        self._pipe, theirs = Pipe()
        self.pid = os.fork()
        if not self.pid:
            self._pipe.close()
            try:
                become(uid, *groups)
                _serve(theirs, path)
            finally:
                os._exit(0)
        theirs.close()

    def __enter__(self) -> Tenant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.pid:
            self._pipe.send(None)  # no end of file: others that were forked later have our end, too
            self._pipe.close()
            os.waitpid(self.pid, 0)
            self.pid = 0

    def ask(self, cls: type[Any], **fields: Any) -> Any:
        """The answer of the manager to a request of this user."""
        return self.run(_ask, cls, fields)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function of a module returns in that process, called with its client first. Raises what it raised."""
        self._pipe.send((function, args))
        worked, outcome = self._pipe.recv()
        if not worked:
            raise outcome
        return outcome


def become(uid: int, *groups: int) -> None:
    """Be somebody else, for good, without the directories of whom we were."""
    os.environ["HOME"] = "/nonexistent"
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]
    os.setgroups(groups)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


class _Client:
    """The connection, made when first used."""

    def __init__(self, path: object) -> None:
        self.path = path
        self._raw: Raw | None = None

    @property
    def raw(self) -> Raw:
        if self._raw is None:
            self._raw = Raw(self.path)
        return self._raw


def _serve(pipe: Connection, path: object) -> None:
    client = _Client(path)
    while True:
        told = pipe.recv()
        if told is None:
            return
        function, args = told
        try:
            pipe.send((True, function(client, *args)))
        except BaseException as error:
            error.add_note("in the other user's process: " + traceback.format_exc())
            pipe.send((False, error))


def _ask(client: _Client, cls: type[Any], fields: dict[str, Any]) -> Any:
    return client.raw.ask(cls, **fields)


def greeting(client: _Client) -> Any:
    """The answer to a hello, or the refusal that came before it was said."""
    with Raw(client.path, hello=False) as raw:
        with suppress(BrokenPipeError):
            raw.send(Hello(version=1))
        return raw.receive()


def last_descriptor(client: _Client) -> int:
    """The descriptor that came with the last attach; it stays the process's."""
    return client.raw.fds[-1]


def connections(client: _Client, count: int) -> list[bool]:
    """Whether each of so many connections is served; all are open at once."""
    made = [Raw(client.path, hello=False) for _ in range(count)]
    served = []
    for raw in made:
        try:
            with suppress(BrokenPipeError):
                raw.send(Hello(version=1))
            served.append(isinstance(raw.receive(), Welcome))
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            served.append(False)
    for raw in made:
        raw.close()
    return served


def command(uid: int, *words: str, groups: tuple[int, ...] = ()) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a `trims` command of this user.

    A forked child of ours is the process: the interpreter and its modules may lie where that user cannot read them.
    """
    _load_everything()
    (out, theirs), (errors, their_errors) = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.dup2(theirs, 1)
            os.dup2(their_errors, 2)
            become(uid, *groups)
            os._exit(_main(words))
        finally:
            os._exit(99)
    os.close(theirs)
    os.close(their_errors)
    with open(out) as said, open(errors) as complained:  # a few lines each: they fit into the pipes
        texts = said.read(), complained.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), *texts


def _main(words: tuple[str, ...]) -> int:
    import sys

    from trims_cli.__main__ import main

    sys.argv = ["trims", *words]
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _load_everything() -> None:
    """What commands import when they need it: after the change of user it could not be read."""
    import importlib
    import pkgutil

    import trims_cli

    for module in pkgutil.iter_modules(trims_cli.__path__):
        if module.name != "__main__":
            importlib.import_module(f"trims_cli.{module.name}")
    for name in ("trims.disk.gc", "trims.disk.sharing", "trims.shmindex.reader", "difflib", "grp", "pwd", "fnmatch"):
        importlib.import_module(name)
