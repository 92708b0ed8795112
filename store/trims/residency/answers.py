"""What the machine answers: the items of results, and refusals that say what stood in the way.

The shapes of items and of the details of NoRoom are part of the protocol (trims-protocol(7)).
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest

from trims.errors import InUse, ManagerUnreachable, NoRoom, Pinned, TimedOut, TrimsError
from trims.residency.core import Core
from trims.residency.events import Target, Who
from trims.residency.records import COMING, GONE, HELD, IDLE, LEASED, MOVING, PINNED, PROMISED, YOUNG, Place, Residency
from trims.units import format_age, format_size

Item = dict[str, object]

MAX_BLOCKERS = 32
MAX_HOLDERS = 16
MAX_KEPT = 8
_WHY = {
    PROMISED: "loading",
    MOVING: "loading",
    PINNED: "pinned",
    LEASED: "leased",
    HELD: "leased",
    COMING: "loading",
    YOUNG: "young",
}
_WHY_KEPT = {**_WHY, IDLE: "kept", YOUNG: "kept"}  # where the policy never evicts


def warm_item(
    residency: Residency, outcome: str, seconds: float, victims: Iterable[Item] = (), more: Item | None = None
) -> Item:
    """One item of the answer to warm and pin. more: what a dry run adds: need and free."""
    return {
        "ref": residency.ref,
        "digest": residency.key.digest,
        "variant": residency.key.variant,
        "place": residency.key.place,
        "nbytes": residency.nbytes,
        "outcome": outcome,
        "seconds": seconds,
        "victims": list(victims),
        **(more or {}),
    }


def _free(place: Place) -> int:
    return max(0, place.free + place.spare_left)


def victim_item(residency: Residency) -> Item:
    key = residency.key
    fields = {"ref": residency.ref, "digest": key.digest, "variant": key.variant, "nbytes": residency.nbytes}
    return {**fields, "load_seconds": residency.load_seconds}


def evict_item(core: Core, residency: Residency, outcome: str) -> Item:
    """One item of the answer to evict."""
    key = residency.key
    return {
        "ref": residency.ref,
        "digest": key.digest,
        "variant": key.variant,
        "place": key.place,
        "nbytes": residency.nbytes,
        "measured": None,
        "outcome": outcome,
        "holders": holders(core, [residency]),
    }


def holder(who: Who) -> Item:
    return {"pid": who.pid, "uid": who.uid, "job": who.job, "container": who.container}


def holders(core: Core, residencies: Iterable[Residency]) -> list[Item]:
    """The clients that hold these, or wait for them to be loaded; each once."""
    seen: dict[tuple[int, int], Item] = {}
    for residency in residencies:
        for lease in core.leases.of(residency.key):
            seen.setdefault((lease.who.pid, lease.who.started), holder(lease.who))
        for waiter in residency.live_waiters():
            seen.setdefault((waiter.who.pid, waiter.who.started), holder(waiter.who))
    return list(seen.values())[:MAX_HOLDERS]


def pids(items: Iterable[Item]) -> str:
    """`pid 12, pid 34` of holders, for a sentence."""
    names = [f"pid {item['pid']}{_where(item)}" for item in items]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _where(item: Item) -> str:
    words = [f"job {item['job']}"] if item["job"] else []
    words += [str(item["container"])] if item["container"] else []
    return f" ({', '.join(words)})" if words else ""


def blockers(core: Core, place: Place, but: Residency | None = None) -> list[Item]:
    """What stands in the way in a place, largest first: all that is there and cannot be evicted for a request."""
    here = core.residencies.values() if place.policy.evicts else _largest(core, place)
    why = _WHY if place.policy.evicts else _WHY_KEPT
    found = [r for r in here if r.kind in why and r.key.place == place.name and r is not but]
    items = [_blocker(core, r, why[r.kind]) for r in nlargest(MAX_BLOCKERS, found, key=_size)]
    for name, (nbytes, spare) in place.reserved.items():
        if not spare:
            items.append({"ref": name, "nbytes": nbytes, "why": "reserved", "holders": [], "pins": []})
    items.sort(key=lambda item: (-int(str(item["nbytes"])), str(item["ref"])))
    return items[:MAX_BLOCKERS]


def _blocker(core: Core, residency: Residency, why: str) -> Item:
    return {
        "ref": residency.ref,
        "nbytes": residency.nbytes,
        "why": why,
        "holders": holders(core, [residency]),
        "pins": [{"owner": p.owner, "reason": p.reason} for p in residency.pins.values()],
    }


def _size(residency: Residency) -> tuple[int, str]:
    return residency.nbytes, residency.ref


def _largest(core: Core, place: Place) -> list[Residency]:
    """The largest that are there. Where nothing is ever evicted each refusal asks for them, and they rarely change."""
    if place.largest is None:
        here = [r for r in core.residencies.values() if r.kind != GONE and r.key.place == place.name]
        place.largest = nlargest(MAX_KEPT, here, key=_size)
    return place.largest


def no_room(core: Core, place: Place, ref: str, need: int, why: str = "", but: Residency | None = None) -> TrimsError:
    """NoRoom for `need` bytes, naming who holds what."""
    stand = blockers(core, place, but)
    evictable, young = (place.sums[IDLE], place.sums[YOUNG]) if place.policy.evicts else (0, 0)
    if not why:
        may = f"{format_size(evictable)} can be evicted" if place.policy.evicts else _never(place)
        why = f"it needs {format_size(need)}, {format_size(_free(place))} are free, {may}{_in_the_way(core, stand)}"
    hint = "`trims ps` shows who holds what"
    if need > place.budget:
        hint = "start the manager with a larger budget"
    elif not place.policy.evicts:
        hint = "`trims evict` makes room by hand; another policy lets it be made"
    details = {"place": place.name, "need": need, "budget": place.budget, "free": _free(place)}
    details |= {"evictable": evictable, "young": young}
    return NoRoom(f"no room for {ref} on {place.name}", why, hint, **details, blockers=stand)


def not_that_free(core: Core, place: Place, need: int) -> TrimsError:
    """NoRoom for who evicts by hand: what is young, or kept by the policy, does not stand in their way."""
    evictable = place.sums[IDLE] + place.sums[YOUNG]
    stand = [item for item in blockers(core, place) if item["why"] not in ("young", "kept")]
    why = f"{format_size(_free(place))} are free, {format_size(evictable)} can be evicted{_in_the_way(core, stand)}"
    details = {"place": place.name, "need": need, "budget": place.budget, "free": _free(place)}
    details |= {"evictable": evictable, "young": 0}
    hint = "`trims ps` shows who holds what"
    return NoRoom(f"{format_size(need)} cannot be free on {place.name}", why, hint, **details, blockers=stand)


def _never(place: Place) -> str:
    return f"nothing is evicted under the policy {place.policy.name}"


def _in_the_way(core: Core, stand: list[Item]) -> str:
    words = []
    for item in stand[:3]:
        who = pids(item["holders"]) if isinstance(item["holders"], list) else ""
        owners = ", ".join(pin["owner"] for pin in item["pins"]) if isinstance(item["pins"], list) else ""
        by = f" by {owners or who}" if owners or who else ""
        why = item["why"]
        if why == "young":
            why = f"there for less than {format_age(core.min_resident)}"
        words.append(f"{item['ref']} ({format_size(int(str(item['nbytes'])))}) is {why}{by}")
    more = f" and {len(stand) - 3} more" if len(stand) > 3 else ""
    return "; " + ", ".join(words) + more if words else ""


def over_budget(core: Core, place: Place, ref: str, need: int) -> TrimsError:
    why = f"it needs {format_size(need)}, the whole budget is {format_size(place.budget)}"
    return no_room(core, place, ref, need, why)


def over_pin_cap(core: Core, place: Place, ref: str, need: int, pinned: int) -> TrimsError:
    cap = format_size(place.pin_cap)
    why = f"it needs {format_size(need)}, {format_size(pinned)} are pinned and at most {cap} may be"
    return no_room(core, place, ref, need, why)


def in_use(core: Core, what: str, residencies: Iterable[Residency], hint: str = "") -> TrimsError:
    """InUse, naming the holders."""
    who = holders(core, residencies)
    return InUse(
        what, f"{pids(who)} {'holds' if len(who) == 1 else 'hold'} it" if who else "it is in use", hint, holders=who
    )


def pinned(what: str, residencies: Iterable[Residency]) -> TrimsError:
    """Pinned, naming the owners."""
    pins = [(r.ref, p) for r in residencies for p in r.pins.values()]
    by = ", ".join(f"{p.owner or 'somebody'}" + (f" ({p.reason})" if p.reason else "") for _, p in pins[:4])
    details = [{"ref": ref, "owner": p.owner, "reason": p.reason} for ref, p in pins]
    return Pinned(what, f"it is pinned by {by}", "`trims unpin` it first", pins=details)


def addressed(error: TrimsError | Item, ref: str, own: str) -> Item:
    """A refusal's dictionary about the model that has the `ref`, for who asked for it by another, their `own`."""
    fields = error.to_dict() if isinstance(error, TrimsError) else error
    if ref == own:
        return fields
    return {name: value.replace(ref, own) if isinstance(value, str) else value for name, value in fields.items()}


def still_loading(event: Target, goes_on: bool) -> TrimsError:
    hint = "it goes on loading; `trims wait --for warm` waits for it" if goes_on else "allow more with --timeout"
    return TimedOut(f"{event.ref} is not on {event.key.place} yet", "the time ran out while it was loading", hint)


def stopping() -> TrimsError:
    return ManagerUnreachable("the manager is stopping", "it takes no new work", "start another with `trims start`")
