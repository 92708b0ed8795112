"""What a start asked for of a manager that runs already with something else: said, since it is not done.

Only what somebody asked for is compared: flags, the environment and configuration files, not defaults; and which store
is served. Two texts that mean the same (60s and 1m, lcu and lfu) are the same.
"""

from __future__ import annotations

import os
from typing import Any

from trims import units
from trims.config import BY_KEY, Config
from trims.errors import DeviceLost, UsageError
from trims_cli import gpus
from trims_cli.output import Item

_WORDS = {
    "budget.host": "host budget", "budget.gpu": "GPU budget", "gpu.devices": "GPUs", "gpu.sharing": "GPU sharing",
    "gpu.group": "group for GPUs", "residency.demote_to": "place of what leaves a GPU", "store.path": "store",
}  # fmt: skip
FLAGS = {
    "budget.host": "--host-budget",
    "residency.policy": "--policy",
    "residency.min_resident": "--min-resident",
    "residency.ttl": "--ttl",
    "manager.idle_exit": "--idle-exit",
    "manager.scope": "--scope",
    "gpu.devices": "--gpu",
    "budget.gpu": "--gpu-budget",
    "residency.demote_to": "--demote-to",
    "gpu.sharing": "",
    "gpu.group": "",
    "budget.pin_cap": "",
    "budget.spare": "",
}


def differences(config: Config, running: dict[str, str], store: str | None) -> list[Item]:
    """(key, asked, running) of each setting that the running manager has otherwise."""
    found: list[Item] = []
    if store is not None and os.path.realpath(store) != os.path.realpath(config.store):
        found.append({"key": "store.path", "asked": config.store, "running": store})
    for key in FLAGS:
        asked, has = config.text(key), running.get(key)
        if has is not None and config.origin(key) != "default" and _meaning(key, asked) != _meaning(key, has):
            found.append({"key": key, "asked": asked, "running": has})
    return found


def line(found: list[Item]) -> str:
    """One line that says what stays as it is, and how to have it otherwise."""
    kept = ", ".join(f"{_word(item['key'])} {item['running']} (asked: {item['asked']})" for item in found)
    return f"trims: the manager that runs keeps {kept}; {_remedy(found)}"


def _remedy(found: list[Item]) -> str:
    asked = {item["key"]: item["asked"] for item in found}
    if "store.path" in asked:
        return "stop it first with `trims stop`, or start another with --socket"
    policy = asked.pop("residency.policy", None)
    ways = [f"`trims policy {policy}` changes the policy"] if policy is not None else []
    if asked:
        flags = "".join(f" {FLAGS[key]} {text}" for key, text in asked.items() if FLAGS[key])
        ways.append(f"`trims restart{flags}` changes the {' and '.join(map(_word, asked))}")
    return ", ".join(ways)


def _word(key: str) -> str:
    return _WORDS.get(key, key.partition(".")[2].replace("_", " "))


def _meaning(key: str, text: str) -> Any:
    """What the text says, as far as that can be told here: a share of the memory is only itself."""
    from trims.residency.policies import ALIASES

    try:
        if key == "residency.policy":
            return ALIASES.get(text, text)
        if key == "gpu.devices":
            return set(gpus.devices(text).split(","))
        if key.startswith("budget."):
            return text if "%" in text or text == "auto" else units.parse_size(text)
        return BY_KEY[key].parse(text)
    except (DeviceLost, UsageError):
        return text
