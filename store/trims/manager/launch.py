"""Starting a manager: one comes to be, however many are started at once, and each starter learns that it is ready.

Starters take turns by a lock file. Whoever has the turn greets the manager that may run already; if there is none it
starts the process and waits on a pipe for one word: ready, or the reason. So those behind find it running. Nothing is
polled for and nothing is guessed from time.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import msgspec

from trims.config import OPTIONS, Config
from trims.errors import LockTimeout, ManagerNotRunning, ManagerUnreachable, ProtocolError, TrimsError, rebuild
from trims.linux import flock
from trims.manager import runtime, systemd
from trims.manager.logfile import last_lines
from trims.paths import RuntimePaths
from trims.version import __version__
from trims.wire.framing import Decoder, encode
from trims.wire.messages import VERSION, Hello, Message, Refused, Result, Status

GREETING = 5.0
"""Seconds that a running manager may take to answer: its loop never blocks, so more means that it is stuck."""


def start(config: Config, foreground: bool = False, timeout: float = 30.0) -> dict[str, Any]:
    """Have a manager of this configuration running; see `run.describe` for what is returned.

    foreground: be it, in this process, until it ends. Raises why there is none.
    """
    paths = RuntimePaths(config.own_socket)
    runtime.prepare(paths, config["manager.scope"] == "system")
    deadline = time.monotonic() + timeout
    turn = flock.held(runtime.start_lock(paths), exclusive=True, timeout=timeout)
    try:
        turn.__enter__()
    except LockTimeout:
        raise ManagerUnreachable("the manager was not started", "another start did not come to an end") from None
    in_turn = True

    def end_turn() -> None:
        nonlocal in_turn
        if in_turn:
            in_turn = False
            turn.__exit__(None, None, None)

    try:
        try:
            if not (foreground and systemd.activated()):  # then the socket is there, and it is us who will answer
                return greet(paths.socket, min(timeout, GREETING))
        except ManagerNotRunning:
            pass
        if not foreground:
            return _spawn(config, paths, deadline)
        return _be(config, end_turn)
    finally:
        end_turn()


def _be(config: Config, end_turn: Any) -> dict[str, Any]:
    from trims.manager.run import run

    told: dict[str, Any] = {}

    def ready(answer: dict[str, Any]) -> None:
        told.update(answer)
        end_turn()

    run(config, detached=False, ready=ready)
    return told


def greet(path: str, timeout: float) -> dict[str, Any]:
    """What the manager at `path` says of itself. Raises ManagerNotRunning, ManagerUnreachable."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(path)
            sock.sendall(encode(Hello(VERSION, __version__)) + encode(Status(1)))
            item = _status(sock)
        except (FileNotFoundError, ConnectionRefusedError):
            raise ManagerNotRunning("no manager is running", f"looked at {path}") from None
        except (TimeoutError, BlockingIOError):
            raise ManagerUnreachable(
                f"the manager at {path} is stuck", "it does not answer", "see `trims logs`, then `trims restart --now`"
            ) from None
        except OSError as error:  # it ended meanwhile
            raise ManagerNotRunning("no manager is running", f"{path}: {os.strerror(error.errno or 0)}") from None
        except ProtocolError as error:
            raise ManagerUnreachable(f"the manager at {path} cannot be talked to", str(error)) from None
    return {
        "pid": item["pid"], "socket": path, "budgets": item["budgets"], "already": True, "found": item["found"],
        "settings": item.get("settings", {}), "store": item["store"], "left_out": item.get("left_out", {}),
    }  # fmt: skip


def _status(sock: socket.socket) -> dict[str, Any]:
    decoder = Decoder("manager")
    while True:
        data = sock.recv(1 << 16)
        if not data:
            raise ConnectionResetError("it closed the connection")
        messages: list[Message] = decoder.feed(data)
        for message in messages:
            if isinstance(message, Refused):
                raise rebuild(message.code, message.what, message.why, message.hint, message.details)
            if isinstance(message, Result):
                return message.items[0]


def _spawn(config: Config, paths: RuntimePaths, deadline: float) -> dict[str, Any]:
    """Start the process, and hear from it."""
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        log = os.open(paths.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", "trims.manager", "--ready-fd", str(write)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[write],
                env=_environment(config),
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(log)
            os.close(write)
        child.wait()  # it forks at once; the manager is its child
        data = _read_all(read, deadline)
    finally:
        os.close(read)
    if data is None:
        os.killpg(child.pid, signal.SIGKILL)
        raise ManagerUnreachable("the manager was not ready in time", "it was ended again", _log_hint(paths))
    if not data:
        lines = last_lines(paths.log)
        raise TrimsError("the manager did not start", lines[-1] if lines else "", _log_hint(paths), log=lines)
    answer = msgspec.json.decode(data)
    if "error" in answer:
        error = answer["error"]
        raise rebuild(error["code"], error["what"], error["why"], error["hint"], error["details"])
    return dict(answer["ready"])


def _read_all(fd: int, deadline: float) -> bytes | None:
    """What is written to the pipe until it closes; None when that takes too long."""
    data = b""
    while True:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(fd, 1 << 16)
        if not part:
            return data
        data += part


def _environment(config: Config) -> dict[str, str]:
    """The caller's environment, with every effective value named, so that the manager runs with just this."""
    env = {name: value for name, value in config.environ.items() if name not in ("LISTEN_FDS", "LISTEN_PID")}
    for option in OPTIONS:
        if option.key.partition(".")[0] != "ui":
            env[option.env] = config.text(option.key)
    env["TRIMS_STORE"], env["TRIMS_SOCKET"] = config.store, config.own_socket
    return env


def _log_hint(paths: RuntimePaths) -> str:
    return f"see {paths.log}"
