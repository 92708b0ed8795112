"""systemd units for the manager, as text: nothing is installed here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping

from trims.config import Config

_FLAGS = {
    "budget.host": "--host-budget",
    "manager.idle_exit": "--idle-exit",
    "residency.policy": "--policy",
    "residency.ttl": "--ttl",
}


def text(config: Config, flags: Mapping[str, str]) -> str:
    """A user service with the settings in effect. Save it as ~/.config/systemd/user/trims.service."""
    trims = shutil.which("trims") or os.path.abspath(sys.argv[0])
    words = [trims, "start", "--foreground", "--store", config.store]
    if config.origin("manager.socket") != "default":
        words += ["--socket", config.own_socket]
    for key, value in flags.items():
        words += [_FLAGS[key], value]
    return f"""\
# trims start --print-unit > ~/.config/systemd/user/trims.service
# systemctl --user daemon-reload && systemctl --user enable --now trims
# For a manager that outlives your logins: loginctl enable-linger
[Unit]
Description=trims residency manager
Documentation=man:trims(1)

[Service]
Type=notify
ExecStart={" ".join(map(_quoted, words))}
TimeoutStopSec=90
LimitNOFILE=infinity
Restart=on-failure

[Install]
WantedBy=default.target
"""


def _quoted(word: str) -> str:
    """A word of ExecStart: `%`, `$`, quotes and backslashes mean something there."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word else word
