"""Changing the policy of a machine at work: what is there is told to the new one in order of last use."""

from __future__ import annotations

from trims.residency.core import Core
from trims.residency.events import PolicyAsked
from trims.residency.records import KNOWN, UNHELD


def change_policy(core: Core, event: PolicyAsked) -> None:
    """Give every place a fresh policy, which knows nothing of earlier hits. Costs n log n of what is there."""
    before = core.policy
    core.policy = event.policy.name
    for place in core.places.values():
        place.policy = event.policy.fresh()
        core.dirty[place.name] = None
    there = [r for r in core.residencies.values() if r.kind in KNOWN]
    for r in sorted(there, key=lambda r: r.last_use):
        policy = core.places[r.key.place].policy
        policy.insert(r.key, r.nbytes, r.load_seconds, core.now)
        if r.kind not in UNHELD:
            policy.hold(r.key)
    core.log(f"policy {core.policy} instead of {before}, asked by pid {core.clients[event.conn].who.pid}")
    core.reply((event.conn, event.request), ({"policy": core.policy, "before": before},))
