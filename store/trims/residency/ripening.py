"""The shortest time to stay: what was loaded less than `min_resident` seconds ago is no victim of somebody's request.

Each place has a queue of what is ripening, soonest first, since all take the same time; and one timer, for its head.
Who evicts by hand, and memory that others take, do not wait for it.
"""

from __future__ import annotations

from trims.residency.core import Core
from trims.residency.records import Residency
from trims.residency.states import RESIDENT
from trims.residency.timers import FOREVER


def begin(core: Core, residency: Residency) -> None:
    """It was loaded now. To be called before it is settled."""
    residency.ripe = not core.min_resident
    if core.min_resident:
        place = core.places[residency.key.place]
        place.ripening.append((core.now + core.min_resident, residency, residency.since))
        core.timers.set(("ripe", place.name), place.ripening[0][0])


def ripen(core: Core) -> None:
    """Let everything be a victim from now on that has been resident for long enough."""
    for place in core.places.values():
        queue = place.ripening
        if not queue or queue[0][0] > core.now:
            continue
        while queue and queue[0][0] <= core.now:
            _, residency, since = queue.popleft()
            if residency.state == RESIDENT and residency.since == since:
                residency.ripe = True
                core.settle(residency)
        core.timers.set(("ripe", place.name), queue[0][0] if queue else FOREVER)
