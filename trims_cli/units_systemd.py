"""systemd units for the manager, as text: nothing is installed here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping

from trims.config import Config
from trims_cli.asked import FLAGS


def socket(config: Config) -> str:
    """A socket that starts the service at the first connection: of the user, or of the system."""
    path = config.own_socket.replace("%", "%%")
    user, mode, closed = ("", "0666", "0755") if _system(config) else (" --user", "0600", "0700")
    return f"""\
# trims.socket: for a manager that starts when the first client connects, save what follows in a file of its own, and
# systemctl{user} enable --now trims.socket
[Unit]
Description=Socket of the trims residency manager
Documentation=man:trims(1)

[Socket]
ListenStream={path}
SocketMode={mode}
DirectoryMode={closed}

[Install]
WantedBy=sockets.target
"""


def _system(config: Config) -> bool:
    return bool(config["manager.scope"] == "system")


_USER = """\
# trims.service: save as ~/.config/systemd/user/trims.service, without the socket unit that follows
# systemctl --user daemon-reload && systemctl --user enable --now trims
# For a manager that outlives your logins: loginctl enable-linger
"""
_SYSTEM = """\
# trims.service: save as /etc/systemd/system/trims.service, without the socket unit that follows. Once, as root:
# useradd --system trims && systemctl daemon-reload
# install -d -o trims -g trims -m 700 {store} && runuser -u trims -- trims init --system {store}
# systemctl enable --now trims
"""
_SERVICE = """\
User=trims
RuntimeDirectory=trims
RuntimeDirectoryMode=0755
"""


def text(config: Config, flags: Mapping[str, str]) -> str:
    """A service of the user, or of the system, with the settings in effect."""
    system = _system(config)
    head = _SYSTEM.format(store=config.store) if system else _USER
    service, target = (_SERVICE, "multi-user.target") if system else ("", "default.target")
    trims = shutil.which("trims") or os.path.abspath(sys.argv[0])
    words = [trims, "start", "--foreground", "--store", config.store]
    if config.origin("manager.socket") != "default":
        words += ["--socket", config.own_socket]
    for key, value in flags.items():
        words += [FLAGS[key], value]
    return f"""\
{head}[Unit]
Description=trims residency manager
Documentation=man:trims(1)

[Service]
{service}Type=notify
ExecStart={" ".join(map(_quoted, words))}
TimeoutStopSec=90
LimitNOFILE=infinity
Restart=on-failure

[Install]
WantedBy={target}
"""


def _quoted(word: str) -> str:
    """A word of ExecStart: `%`, `$`, quotes and backslashes mean something there."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word else word
