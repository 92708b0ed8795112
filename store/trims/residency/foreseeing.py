"""What warming several models would do, one after the other: each finds the room that those before it would leave.

Nothing is changed. Each model is planned as a real request would be, over the bytes that would be free by then, and
what those before it would evict is gone; what was asked for and is there already goes last, as it would have been used
last. Between two questions of one sequence the world may move on: it is an answer of now, not a promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from trims.errors import TrimsError
from trims.residency import answers
from trims.residency.core import Core
from trims.residency.events import Key
from trims.residency.policy import Room, Shortage, plan_room
from trims.residency.records import IDLE, Place, Residency
from trims.residency.states import LOADING, RESIDENT
from trims.units import format_size


@dataclass(slots=True)
class Foresight:
    """What a sequence of questions has come to, in one place.

    need: bytes that the models so far would take; coming: which those are. gone, freed: the victims, and their bytes.
    spare: spare pages that would be given up. kept: what was asked for and is there.
    """

    need: int = 0
    freed: int = 0
    spare: int = 0
    coming: set[Key] = field(default_factory=set)
    gone: set[Key] = field(default_factory=set)
    kept: set[Key] = field(default_factory=set)


def foresee(core: Core, seen: Foresight, key: Key, ref: str, nbytes: int, evict: bool) -> answers.Item:
    """The item for the next model of the sequence, which `seen` takes in. Raises NoRoom, and goes on without it."""
    place = core.places[key.place]
    residency = core.residencies.get(key)
    shown = residency or Residency(key, ref, nbytes, core.ttl)
    need, free = shown.nbytes, place.free + seen.freed + seen.spare - seen.need
    spare = max(0, place.spare_left - seen.spare)
    if key in seen.coming:
        return _item(shown, "would-warm", 0, free + spare, ())
    if shown.state in (RESIDENT, LOADING) and key not in seen.gone:
        seen.kept.add(key)
        return _item(shown, "already" if shown.state == RESIDENT else "loading", 0, free + spare, ())
    evict = evict and place.policy.evicts
    evictable = max(0, place.sums[IDLE] - seen.freed) if evict else 0
    plan = plan_room(need, free, spare, evictable, _order(core, place, seen) if evict else ())
    if isinstance(plan, Shortage):
        raise _no_room(core, place, seen, shown, free + spare, evictable)
    if plan.victims and place.policy.sweeps:
        plan = Room(max(0, need - free - evictable), tuple(key for key, _ in _order(core, place, seen)))
    victims = [core.residencies[victim] for victim in plan.victims]
    seen.coming.add(key)
    seen.gone.update(plan.victims)
    seen.need += need
    seen.spare += plan.spare
    seen.freed += sum(victim.nbytes for victim in victims)
    return _item(shown, "would-warm", need, free + spare, victims)


def _order(core: Core, place: Place, seen: Foresight) -> Iterator[tuple[Key, int]]:
    """What may still go, best to lose first."""
    late = []
    for key, nbytes in core.order(place):
        if key in seen.kept:
            late.append((key, nbytes))
        elif key not in seen.gone:
            yield key, nbytes
    yield from late


def _item(shown: Residency, outcome: str, need: int, free: int, victims: list[Residency] | tuple[()]) -> answers.Item:
    named = [answers.victim_item(victim) for victim in victims]
    return answers.warm_item(shown, outcome, 0.0, named, {"need": need, "free": max(0, free)})


def _no_room(core: Core, place: Place, seen: Foresight, shown: Residency, free: int, evictable: int) -> TrimsError:
    """NoRoom as of then: what those before it take is in the way, too."""
    need = shown.nbytes
    if need > place.budget:
        return answers.over_budget(core, place, shown.ref, need)
    error = answers.no_room(core, place, shown.ref, need, but=shown)
    if seen.need:
        ahead = f"those before it take {format_size(seen.need)}; then {format_size(max(0, free))} are free and "
        error.why = f"{ahead}{format_size(evictable)} can be evicted, it needs {format_size(need)}"
        error.details |= {"free": max(0, free), "evictable": evictable, "ahead": seen.need}
    return error
