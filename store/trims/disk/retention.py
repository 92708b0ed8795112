"""Which named models may go, by a policy somebody gave: pure planning over what is known of each name.

A name is a candidate when every rule of the policy gives it up: unused for long enough, not among the newest tags of
its name, without a label that keeps. A target size then takes only as many candidates as it needs, the least recently
used first, and counts bytes once: those of a model go when its last name goes, so a model of which one name stays
frees nothing and is left whole. A model was last used when a manager noted it, or when it was imported, if later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Named:
    """One name and its model. nbytes: on disk, derived forms included. used: the last use, 0 when none is known."""

    ref: str
    digest: str
    nbytes: int
    created: float
    used: float = 0.0
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def last(self) -> float:
        return max(self.used, self.created)


@dataclass(frozen=True, slots=True)
class Policy:
    """unused_for: seconds. keep_last: so many tags of each name. keep_labelled: (key, value) pairs, any of which keeps.

    target_nbytes: what all models together may take.
    """

    unused_for: float | None = None
    keep_last: int | None = None
    keep_labelled: tuple[tuple[str, str], ...] = ()
    target_nbytes: int | None = None

    @property
    def removes(self) -> bool:
        """Whether it gives any name up: labels alone only keep."""
        return self.unused_for is not None or self.keep_last is not None or self.target_nbytes is not None


def choose(models: Sequence[Named], policy: Policy, now: float) -> list[Named]:
    """The names that go, the least recently used first."""
    if not policy.removes:
        return []
    kept = {m.ref for m in models if not set(policy.keep_labelled).isdisjoint(m.labels.items())}
    if policy.unused_for is not None:
        kept |= {m.ref for m in models if now - m.last < policy.unused_for}
    if policy.keep_last is not None:
        kept |= _newest(models, policy.keep_last)
    going = sorted((m for m in models if m.ref not in kept), key=lambda m: (m.last, m.ref))
    return going if policy.target_nbytes is None else _enough(models, going, policy.target_nbytes)


def _newest(models: Sequence[Named], count: int) -> set[str]:
    """The `count` tags of each name that were imported last."""
    tags: dict[str, list[Named]] = {}
    for model in models:
        tags.setdefault(model.ref.partition(":")[0], []).append(model)
    newest = set()
    for group in tags.values():
        group.sort(key=lambda m: (m.created, m.ref), reverse=True)
        newest |= {m.ref for m in group[:count]}
    return newest


def _enough(models: Sequence[Named], going: Sequence[Named], target: int) -> list[Named]:
    """Of the candidates, those whose models must go for the rest to take `target` at most."""
    names: dict[str, set[str]] = {}
    sizes: dict[str, int] = {}
    for model in models:
        names.setdefault(model.digest, set()).add(model.ref)
        sizes[model.digest] = model.nbytes
    candidates: dict[str, list[Named]] = {}
    for model in going:
        candidates.setdefault(model.digest, []).append(model)
    total, chosen = sum(sizes.values()), list[Named]()
    for digest, group in sorted(candidates.items(), key=lambda item: (max(m.last for m in item[1]), item[0])):
        if total <= target:
            break
        if len(group) == len(names[digest]):
            chosen += group
            total -= sizes[digest]
    return chosen
