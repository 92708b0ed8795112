"""Short words for example tests of the residency machine: each tells the machine one event and gives its effects back.

`acts` leaves out what every change brings along (Publish, Journal, Log), so that a test can compare what was decided.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from helpers.residency_world import World
from trims.residency.effects import Cancel, Effect, Free, Grant, Journal, Load, Log, Publish, Refuse, Reply
from trims.residency.events import (
    AttachAsked,
    Closed,
    EvictAsked,
    ForgetAsked,
    Key,
    Opened,
    PinAsked,
    PolicyAsked,
    Released,
    Restored,
    StopAsked,
    UnpinAsked,
    WaitAsked,
    WarmAsked,
    Who,
)
from trims.residency.machine import Machine
from trims.residency.policies import make

FOREVER = float("inf")


def key(model: str, variant: str = "raw", place: str = "host") -> Key:
    return Key(model * 8, variant, place)


def acts(effects: Iterable[Effect]) -> list[Effect]:
    """What was decided."""
    return [e for e in effects if not isinstance(e, Publish | Journal | Log)]


def logs(effects: Iterable[Effect]) -> list[str]:
    return [e.text for e in effects if isinstance(e, Log)]


def refusal(effects: Iterable[Effect]) -> dict[str, Any]:
    """The error of the only refusal among these."""
    (error,) = [e.error for e in effects if isinstance(e, Refuse)]
    return error


def items(effects: Iterable[Effect]) -> tuple[dict[str, Any], ...]:
    """The items of the only reply among these."""
    (found,) = [e.items for e in effects if isinstance(e, Reply)]
    return found


def load(model: str, number: int, nbytes: int, variant: str = "raw") -> Load:
    return Load(key(model, variant), number, f"{model}:latest", nbytes)


def free(model: str) -> Free:
    return Free(key(model))


def cancel(model: str, number: int) -> Cancel:
    return Cancel(key(model), number)


class Script(World):
    """A world of one place, `host`, with clients 1 to 5 connected; client n has pid 100 + n."""

    def __init__(
        self,
        budget: int = 10,
        ttl: float = FOREVER,
        pin_cap: int | None = None,
        policy: str = "lru",
        min_resident: float = 0.0,
        turn: float = FOREVER,
    ) -> None:
        cap = {"host": pin_cap} if pin_cap is not None else None
        machine = Machine({"host": budget}, make(policy), ttl, cap, min_resident, turn)
        super().__init__(machine, {"host": budget})
        self.requests = 0
        for conn in range(1, 6):
            assert self.tell(Opened(conn, Who(100 + conn, 7, 1000, job=f"j{conn}" if conn > 3 else ""))) == []

    def asked(self, conn: int, wait: float) -> tuple[int, int, float]:
        self.requests += 1
        return conn, self.requests, self.now + wait

    def target(self, model: str, nbytes: int, variant: str) -> tuple[Key, str, int]:
        return key(model, variant), f"{model}:latest", nbytes

    def attach(self, model: str, nbytes: int, conn: int = 1, wait: float = 60, variant: str = "raw") -> list[Effect]:
        return acts(self.tell(AttachAsked(*self.asked(conn, wait), *self.target(model, nbytes, variant))))

    def warm(self, model: str, nbytes: int, conn: int = 1, until: float = 60, **more: Any) -> list[Effect]:
        variant = more.pop("variant", "raw")
        return acts(self.tell(WarmAsked(*self.asked(conn, until), *self.target(model, nbytes, variant), **more)))

    def pin(
        self, model: str, nbytes: int, conn: int = 1, owner: str = "ann", expires: float = FOREVER, wait: float = 60
    ) -> list[Effect]:
        target = self.target(model, nbytes, "raw")
        return acts(self.tell(PinAsked(*self.asked(conn, wait), *target, owner, "why not", expires)))

    def unpin(self, model: str = "", owner: str = "", conn: int = 1) -> list[Effect]:
        return acts(self.tell(UnpinAsked(*self.asked(conn, 60), model * 8, f"{model}:latest", owner)))

    def evict(self, model: str = "", conn: int = 1, until: float = 60, **more: Any) -> list[Effect]:
        ref = f"{model}:latest" if model else ""
        return acts(self.tell(EvictAsked(*self.asked(conn, until), "host", model * 8, ref, **more)))

    def wait_for(self, condition: str, model: str = "", nbytes: int = 0, wait: float = 60) -> list[Effect]:
        return acts(self.tell(WaitAsked(*self.asked(5, wait), condition, "host", model * 8, f"{model}:latest", nbytes)))

    def change(self, policy: str, conn: int = 5) -> list[Effect]:
        return acts(self.tell(PolicyAsked(*self.asked(conn, 60), make(policy))))

    def forget(self, model: str, force: bool = False) -> list[Effect]:
        return acts(self.tell(ForgetAsked(*self.asked(5, 60), model * 8, force)))

    def stop(self, drain: bool = True, wait: float = 60, conn: int = 5) -> list[Effect]:
        return acts(self.tell(StopAsked(*self.asked(conn, wait), drain)))

    def restore(self, model: str, nbytes: int, owner: str = "", expires: float = FOREVER) -> list[Effect]:
        return acts(self.tell(Restored(key(model), f"{model}:latest", nbytes, owner, "journal", expires)))

    def release(self, model: str, conn: int = 1) -> list[Effect]:
        """Client `conn` gives its first lease on `model` back."""
        lease = min(n for n, (of, k) in self.leases.items() if of == conn and k.digest == model * 8)
        del self.leases[lease]
        return acts(self.tell(Released(conn, lease)))

    def close(self, conn: int) -> list[Effect]:
        return acts(self.tell(Closed(conn)))

    def loaded(self, model: str, variant: str = "raw", fail: bool = False) -> list[Effect]:
        """The load of `model` that is in flight ends."""
        (number,) = [n for n, (k, _) in self.loads.items() if k == key(model, variant)]
        return acts(self.load_done(number, fail))

    def freed(self, model: str) -> list[Effect]:
        return acts(self.free_done(key(model)))

    def later(self, seconds: float) -> list[Grant | Reply | Refuse]:
        """Time passes; what is answered meanwhile."""
        before = len(self.answers)
        self.advance(seconds)
        return self.answers[before:]

    def resident(self, *models: str, nbytes: int = 2) -> None:
        """Make these resident and idle, one after the other, a second apart."""
        for model in models:
            self.warm(model, nbytes)
            self.loaded(model)
            self.now += 1

    def state(self, model: str) -> str:
        view = self.machine.residency(key(model))
        return view.state if view else "absent"
