"""Configuration: flag > environment > user file > system file > default, every value with its origin.

One table lists every key; the environment names, the `config` command, the man page and the checks all come from it.
"""

from __future__ import annotations

import os

from trims import units
from trims.config_file import read_file
from trims.errors import UsageError
from trims.paths import SOCKET

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any


class Option:
    """One key: its environment variable, default (as text), parser of text, and one line of help."""

    __slots__ = ("default", "env", "help", "key", "parse")

    def __init__(self, key: str, env: str, default: str, parse: Callable[[str], Any], help: str) -> None:
        self.key, self.env, self.default, self.parse, self.help = key, env, default, parse, help


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise UsageError(f"bad value {text!r}", "", f"use one of {', '.join(words)}")
        return text

    return parse


def _size(text: str) -> str:
    """Sizes stay text until the total that a percentage is of is known; this only checks them."""
    if text != "auto":
        units.parse_size(text, total=1 << 40)
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError(f"bad value {text!r}", "", "use a whole number")
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("", "0", "false", "no", "off"):
        return False
    raise UsageError(f"bad value {text!r}", "", "use true or false")


def _progress(text: str) -> str:
    if text not in ("auto", "off"):
        units.parse_duration(text)
    return text


SYSTEM_SOCKET = f"/run/trims/{SOCKET}"
"""Where a manager of system scope listens, unless it is told otherwise."""

OPTIONS = (
    Option("store.path", "TRIMS_STORE", "", str, "directory of the store; default $XDG_DATA_HOME/trims"),
    Option("store.codec", "TRIMS_CODEC", "none", _one_of("none", "zstd"), "codec of new containers"),
    Option("store.lock_timeout", "TRIMS_LOCK_TIMEOUT", "60s", units.parse_duration, "longest wait for a store lock"),
    Option("budget.host", "TRIMS_HOST_BUDGET", "50%", _size, "host memory for regions; % of what the cgroup allows"),
    Option(
        "budget.gpu", "TRIMS_GPU_BUDGET", "80%", _size, "memory of each GPU for regions; % of what is free at start"
    ),
    Option(
        "budget.spare", "TRIMS_SPARE", "auto", _size, "host memory kept ready for the next load; auto is 256MiB at most"
    ),
    Option("budget.pin_cap", "TRIMS_PIN_CAP", "80%", _size, "most of the host budget that pins may hold"),
    Option(
        "gpu.devices",
        "TRIMS_GPUS",
        "auto",
        str,
        "GPUs to keep models on: auto (all), none, or numbers and UUIDs with commas",
    ),
    Option(
        "gpu.sharing",
        "TRIMS_GPU_SHARING",
        "descriptor",
        _one_of("descriptor", "ipc"),
        "how GPU memory is given to processes: as descriptors, or by legacy CUDA IPC where a driver has none",
    ),
    Option("gpu.group", "TRIMS_GPU_GROUP", "", str, "group whose members a shared manager gives memory of GPUs to"),
    Option("residency.ttl", "TRIMS_TTL", "forever", units.parse_duration, "how long an idle residency is kept"),
    Option("residency.policy", "TRIMS_POLICY", "gdsf", str, "which idle residency goes first when room is needed"),
    Option(
        "residency.min_resident",
        "TRIMS_MIN_RESIDENT",
        "0s",
        units.parse_duration,
        "how long after its load a model is not evicted for another",
    ),
    Option(
        "residency.demote_to",
        "TRIMS_DEMOTE_TO",
        "disk",
        _one_of("disk", "host"),
        "where a model is kept that gives way on a GPU: host has it loaded there where there is room",
    ),
    Option(
        "manager.scope", "TRIMS_SCOPE", "user", _one_of("user", "system"), "whom the manager serves: its user, or every"
    ),
    Option("manager.operators", "TRIMS_OPERATORS", "", str, "group that may do everything in system scope"),
    Option("manager.socket", "TRIMS_SOCKET", "", str, "socket of the manager; its directory is the runtime directory"),
    Option(
        "manager.idle_exit",
        "TRIMS_IDLE_EXIT",
        "forever",
        units.parse_duration,
        "end after so long without leases or pins",
    ),
    Option("manager.log", "TRIMS_LOG", "info", _one_of("debug", "info", "warning"), "least level of the manager's log"),
    Option(
        "exec.fallback",
        "TRIMS_FALLBACK",
        "native",
        _one_of("native", "fail"),
        "what `trims exec` does with loads that cannot be redirected",
    ),
    Option(
        "quota.leased", "TRIMS_QUOTA_LEASED", "0", _size, "most bytes of models that one user attaches; 0 is no bound"
    ),
    Option("quota.pinned", "TRIMS_QUOTA_PINNED", "0", _size, "most bytes of models that one user pins; 0 is no bound"),
    Option("quota.connections", "TRIMS_QUOTA_CONNECTIONS", "0", _count, "most connections of one user; 0 is the most"),
    Option(
        "quota.turn",
        "TRIMS_QUOTA_TURN",
        "10s",
        units.parse_duration,
        "how long in system scope what waits for room keeps later requests waiting",
    ),
    Option("ui.format", "TRIMS_FORMAT", "table", _one_of("table", "tsv", "json", "jsonl"), "form of listings"),
    Option("ui.color", "TRIMS_COLOR", "auto", _one_of("auto", "always", "never"), "colour on terminals"),
    Option("ui.progress", "TRIMS_PROGRESS", "auto", _progress, "progress: auto, off, or seconds between lines"),
    Option("ui.no_input", "TRIMS_NO_INPUT", "false", _flag, "never ask; fail naming the flag instead"),
)

BY_KEY = {option.key: option for option in OPTIONS}
# Names of the environment that are no configuration keys: where the file is, and switches read elsewhere; beside them
# TRIMS_EXEC and those that begin so, which `trims exec` gives its program.
OTHER_ENV = frozenset({"TRIMS_CONFIG", "TRIMS_DISABLE", "TRIMS_SORT", "TRIMS_DEBUG", "TRIMS_SIMULATED_GPUS"})


class Config:
    """Effective values. `config["budget.host"]` is the parsed value, `config.origin(key)` where it came from."""

    __slots__ = ("_origins", "_texts", "environ", "warnings")

    def __init__(
        self, texts: dict[str, str], origins: dict[str, str], environ: Mapping[str, str], warnings: list[str]
    ) -> None:
        self._texts, self._origins, self.environ, self.warnings = texts, origins, environ, warnings

    def __getitem__(self, key: str) -> Any:
        option = BY_KEY[key]
        try:
            return option.parse(self._texts[key])
        except UsageError as error:
            raise UsageError(f"bad {key} from {self._origins[key]}", str(error)) from None

    def text(self, key: str) -> str:
        """The value as it was written."""
        return self._texts[key]

    def origin(self, key: str) -> str:
        """`default`, `flag`, `environment TRIMS_X`, or the path of a file."""
        return self._origins[key]

    @property
    def store(self) -> str:
        """The store's directory, absolute."""
        return os.path.abspath(os.path.expanduser(self._texts["store.path"] or default_store(self.environ)))

    @property
    def sockets(self) -> list[str]:
        """Where a manager may listen, likeliest first; a named socket is the only candidate."""
        named = self._texts["manager.socket"]
        if named:
            return [os.path.abspath(os.path.expanduser(named))]
        return socket_candidates(self.environ, os.getuid())

    @property
    def own_socket(self) -> str:
        """Where `trims start` of this user listens."""
        if self._texts["manager.socket"]:
            return self.sockets[0]
        return SYSTEM_SOCKET if self._texts["manager.scope"] == "system" else own_socket(self.environ, os.getuid())


def default_store(environ: Mapping[str, str]) -> str:
    base = environ.get("XDG_DATA_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local/share")
    return os.path.join(base, "trims")


def state_directory(environ: Mapping[str, str]) -> str:
    """Where verification marks and other long-lived notes go: $XDG_STATE_HOME/trims."""
    base = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local/state")
    return os.path.join(base, "trims")


def own_socket(environ: Mapping[str, str], uid: int) -> str:
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):
        return os.path.join(runtime, "trims", SOCKET)
    return os.path.join(environ.get("TMPDIR") or "/tmp", f"trims-{uid}", SOCKET)


def socket_candidates(environ: Mapping[str, str], uid: int) -> list[str]:
    """The user's own runtime directory, the system's, the user's under TMPDIR; each once."""
    places = [
        own_socket(environ, uid),
        SYSTEM_SOCKET,
        os.path.join(environ.get("TMPDIR") or "/tmp", f"trims-{uid}", SOCKET),
    ]
    return list(dict.fromkeys(places))


def config_files(environ: Mapping[str, str]) -> list[str]:
    """User file, then system file. TRIMS_CONFIG replaces the user file."""
    user = environ.get("TRIMS_CONFIG")
    if not user:
        base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
        user = os.path.join(base, "trims/config.toml")
    return [user, "/etc/xdg/trims/config.toml"]


def load(environ: Mapping[str, str] | None = None, flags: Mapping[str, str | None] | None = None) -> Config:
    """The effective configuration. Raises UsageError for a file that is no TOML or a value of the wrong kind."""
    environ = os.environ if environ is None else environ
    texts = {option.key: option.default for option in OPTIONS}
    origins = dict.fromkeys(texts, "default")
    warnings: list[str] = []

    def put(key: str, value: str, origin: str) -> None:
        texts[key], origins[key] = value, origin

    if environ.get("TRIMS_CONFIG") and not os.path.exists(environ["TRIMS_CONFIG"]):
        warnings.append(f"{environ['TRIMS_CONFIG']}, named by TRIMS_CONFIG, does not exist")
    for path in reversed(config_files(environ)):
        for key, value in read_file(path).items():
            if key in BY_KEY:
                put(key, value, path)
            else:
                warnings.append(f"{path}: unknown key {key}" + guess(key, BY_KEY))
    by_env = {option.env: option.key for option in OPTIONS}
    for name, value in environ.items():
        if name in by_env:
            put(by_env[name], value, f"environment {name}")
        elif name.startswith("TRIMS_") and name not in OTHER_ENV and not name.startswith("TRIMS_EXEC"):
            warnings.append(f"unknown environment variable {name}" + guess(name, by_env))
    for key, flag in (flags or {}).items():
        if flag is not None:
            put(key, flag, "flag")
    return Config(texts, origins, environ, warnings)


def guess(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the known word that shares most letters in order, or nothing."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
