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
    "residency.min_resident": "--min-resident",
    "residency.ttl": "--ttl",
}


def socket(config: Config) -> str:
    """A user socket that starts the service at the first connection. Save it as ~/.config/systemd/user/trims.socket."""
    path = config.own_socket.replace("%", "%%")
    return f"""\
# trims.socket: for a manager that starts when the first client connects, save what follows in a file of its own, and
# systemctl --user enable --now trims.socket
[Unit]
Description=Socket of the trims residency manager
Documentation=man:trims(1)

[Socket]
ListenStream={path}
SocketMode=0600
DirectoryMode=0700

[Install]
WantedBy=sockets.target
"""


def text(config: Config, flags: Mapping[str, str]) -> str:
    """A user service with the settings in effect. Save it as ~/.config/systemd/user/trims.service."""
    trims = shutil.which("trims") or os.path.abspath(sys.argv[0])
    words = [trims, "start", "--foreground", "--store", config.store]
    if config.origin("manager.socket") != "default":
        words += ["--socket", config.own_socket]
    for key, value in flags.items():
        words += [_FLAGS[key], value]
    return f"""\
# trims.service: save as ~/.config/systemd/user/trims.service, without the socket unit that follows
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
