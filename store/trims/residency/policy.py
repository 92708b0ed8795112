"""Planning room: which residencies go so that another fits, or that it cannot be done. Pure arithmetic, all or nothing.

Spare pages go before any model. Then victims are taken in the policy's order until there is enough; then those that
turned out needless, because a later and larger one was taken too, are put back, most valuable first. So no proper
subset of the victims would do. What may not be a victim is never in the order to begin with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trims.residency.events import Key
from trims.residency.policies import POLICIES, Lru, Policy

__all__ = ["POLICIES", "Lru", "Policy", "Room", "Shortage", "plan_room"]


@dataclass(frozen=True, slots=True)
class Room:
    """A plan: give up `spare` bytes of spare pages, and `victims`, in the policy's order."""

    spare: int = 0
    victims: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Shortage:
    """There is no plan: `short` bytes would be missing even if all that may go went."""

    short: int


def plan_room(need: int, free: int, spare: int, evictable: int, order: Iterable[tuple[Key, int]]) -> Room | Shortage:
    """How to have `need` bytes free where `free` are (negative: the place is over its budget).

    spare: bytes of spare pages. evictable: an upper bound of all bytes in `order`, so that the impossible is known at
    once. order: (key, nbytes) of what may go, best to lose first; read only as far as needed.
    """
    short = need - free
    if short <= 0:
        return Room()
    if short > spare + evictable:
        return Shortage(short - spare - evictable)
    gained = spare
    chosen: list[tuple[Key, int]] = []
    if gained < short:
        for key, nbytes in order:
            chosen.append((key, nbytes))
            gained += nbytes
            if gained >= short:
                break
        else:
            return Shortage(short - gained)
    surplus = gained - short
    victims: list[Key] = []
    for key, nbytes in reversed(chosen):
        if nbytes <= surplus:
            surplus -= nbytes
        else:
            victims.append(key)
    return Room(max(0, spare - surplus), tuple(reversed(victims)))
