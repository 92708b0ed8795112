"""What a handled event leads to, collected until it is done with.

What makes a change visible and durable (Publish, Journal) comes first, each once, so that whoever is answered finds it
done. The rest stays in order.
"""

from __future__ import annotations

from trims.residency.effects import Effect, Journal, Log, Publish
from trims.residency.events import Key


class Outbox:
    """The effects of one event."""

    __slots__ = ("_effects", "_journal", "_published")

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._published: dict[Key, None] = {}
        self._journal = False

    def emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def log(self, text: str, level: str = "info") -> None:
        self._effects.append(Log(text, level))

    def journal(self) -> None:
        self._journal = True

    def publish(self, key: Key) -> None:
        self._published[key] = None

    def take(self) -> list[Effect]:
        """The effects since the last call, in the order to perform them."""
        effects = self._effects
        if not effects and not self._published and not self._journal:
            return []
        first: list[Effect] = [Publish(key) for key in self._published]
        if self._journal:
            first.append(Journal())
        first += effects
        self._published.clear()
        self._effects, self._journal = [], False
        return first
