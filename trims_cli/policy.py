"""`trims policy`: which policy the manager gives up by, which there are, and another one for the manager that runs."""

from __future__ import annotations

from trims.client.control import Control
from trims.config import guess
from trims.errors import ManagerNotRunning, UsageError
from trims.residency.policies import ALIASES, POLICIES
from trims_cli import glance, output
from trims_cli.output import Column, Item
from trims_cli.settings import Settings

LISTED = (Column("POLICY", "name"), Column("CURRENT", "current"), Column("ALIASES", "aliases"))
CHANGED = (Column("POLICY", "policy"), Column("BEFORE", "before"))


def check(name: str, where: str = "") -> str:
    """The canonical name of a policy. Raises UsageError, with a guess, for one that there is not."""
    known = ALIASES.get(name, name)
    if known in POLICIES:
        return known
    near = guess(name, (*POLICIES, *ALIASES))
    raise UsageError(f"no policy {name!r}{near}", where, f"policies are {', '.join(POLICIES)}")


def summary(name: str) -> str:
    """What a policy does, in one sentence: the first of its own description."""
    return " ".join((POLICIES[name].__doc__ or "").split()).partition(". ")[0].rstrip(".") + "."


def show(settings: Settings) -> int:
    """List the policies, the one in force marked. Raises ManagerNotRunning after the list when none is in force."""
    snapshot = glance.look(settings)
    current = snapshot.settings.get("policy") if snapshot is not None else None
    also = {name: [alias for alias, of in ALIASES.items() if of == name] for name in POLICIES}
    items: list[Item] = [
        {"name": name, "current": name == current, "aliases": also[name], "summary": summary(name)} for name in POLICIES
    ]
    if settings.form != "table":
        output.emit(settings, "policy", items, LISTED)
    elif settings.quiet:
        output.write(f"{current}\n" if current else "")
    else:
        output.write("".join(_line(item) for item in items))
    if snapshot is None:
        looked = ", ".join(settings.config.sockets)
        raise ManagerNotRunning("no manager is running", f"looked at {looked}", "start one with `trims start`")
    return 0


def _line(item: Item) -> str:
    also = f" (also: {', '.join(item['aliases'])})" if item["aliases"] else ""
    return f"{'*' if item['current'] else ' '} {item['name']:<8} {item['summary']}{also}\n"


def change(settings: Settings, name: str) -> int:
    """Have the manager that runs give up by another policy from now on."""
    wanted = check(name)
    with Control(settings.config.sockets) as control:
        item = control.request("policy", policy=wanted, wait=settings.seconds(60.0))[0]
    if settings.form != "table":
        output.emit(settings, "policy-change", [item], CHANGED, "policy")
        return 0
    if item["before"] == item["policy"]:
        output.tell(settings, lambda: f"policy {item['policy']}, as before")
    else:
        output.tell(settings, lambda: f"policy {item['policy']}, before {item['before']}")
    kept = settings.config.text("residency.policy")
    if ALIASES.get(kept, kept) != wanted and not settings.quiet:
        output.note(f"trims: the next manager gives up by {kept} again; keep this: `{_keep(settings, wanted)}`")
    return 0


def _keep(settings: Settings, name: str) -> str:
    """How to make it last, where it would not."""
    origin = settings.config.origin("residency.policy")
    if origin.startswith("environment "):
        return f"export {origin.partition(' ')[2]}={name}"
    return f"trims config set residency.policy {name}"
