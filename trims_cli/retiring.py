"""`gc` of named models, when a policy was given: the plan, the question, the manager's leave, then the files.

A name goes only if it still names what the plan saw. The manager has to let the model go first, as for `rm`: one that
is attached or pinned stays, and is reported. Files go last, through the same collector as everything unnamed.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from trims import units
from trims.errors import UsageError
from trims_cli import output, prompt, targets, usage
from trims_cli.output import Item
from trims_cli.settings import Settings

if TYPE_CHECKING:
    from trims.disk.gc import GcPlan
    from trims.disk.retention import Named, Policy
    from trims.disk.store import Store


def policy(
    unused_for: str | None, keep_last: int | None, keep_labelled: list[str] | None, target_size: str | None
) -> Policy:
    """The policy of the flags. Raises UsageError."""
    from trims.disk.retention import Policy

    pairs = []
    for text in keep_labelled or []:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"bad label {text!r}", "", "write it KEY=VALUE")
        pairs.append((key, value))
    if keep_last is not None and keep_last < 0:
        raise UsageError(f"bad number {keep_last} for --keep-last", "", "give 0 or more")
    made = Policy(
        units.parse_duration(unused_for) if unused_for is not None else None,
        keep_last,
        tuple(pairs),
        units.parse_size(target_size) if target_size is not None else None,
    )
    if pairs and not made.removes:
        raise UsageError("--keep-labelled alone removes nothing", "", "add --unused-for, --keep-last or --target-size")
    return made


def inventory(store: Store) -> list[Named]:
    """Every name of the store, with what a policy decides by."""
    from trims.disk import uses
    from trims.disk.catalog import Catalog
    from trims.disk.retention import Named

    known = uses.read(uses.path(store.id, os.environ))
    return [
        Named(e.ref, e.digest, _on_disk(store, e.digest), e.created, known.get(e.digest, 0.0), e.labels)
        for e in Catalog(store.paths).entries()
    ]


def _on_disk(store: Store, digest: str) -> int:
    total, variants = 0, store.paths.variants_of(digest)
    paths = [store.paths.container(digest)]
    paths += [f"{variants}/{name}" for name in (os.listdir(variants) if os.path.isdir(variants) else [])]
    for path in paths:
        try:
            total += os.stat(path).st_size
        except FileNotFoundError:
            continue
    return total


def collect(settings: Settings, store: Store, policy: Policy, dry_run: bool) -> int:
    """Show the plan, ask where a person is, act, and show what happened."""
    from trims.disk import gc
    from trims.disk.retention import choose

    garbage = gc.plan(store)
    models = inventory(store)
    going = choose(models, policy, time.time())
    planned = [_item(m, "would-remove") for m in going] + [usage.item(g, "would-remove") for g in garbage.items]
    if dry_run or not planned:
        usage.show(settings, planned)
        return 0
    _ask(settings, planned)
    left = {m.ref: m.digest for m in models}
    items, failed = targets.each(going, lambda model: _remove(settings, store, model, left))
    freed = gc.collect(store, _agreed(gc.plan(store), garbage, {m.digest for m in going}), settings.lock_seconds)
    items += [usage.item(g, "removed") for g in freed.removed] + [usage.item(g, "in-use") for g in freed.kept]
    if items or settings.form != "table":
        output.emit(settings, "gc", items, usage.GARBAGE)
    output.tell(settings, lambda: f"freed {units.format_size(freed.nbytes)}")
    return targets.conclude(failed, len(going))


def _ask(settings: Settings, planned: list[Item]) -> None:
    if not settings.yes and settings.may_ask:
        for item in planned:
            output.note(f"{item['kind']:<10} {item['name']} {units.format_size(item['nbytes'])}")
    names = [item["name"] for item in planned if item["kind"] == "model"]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    prompt.confirm(settings, f"remove {shown or 'no model'} and {len(planned) - len(names)} things without a name?")


def _remove(settings: Settings, store: Store, model: Named, left: dict[str, str]) -> Item:
    """Take one name away, if it is still that model's. Raises InUse, Pinned."""
    from trims.disk.catalog import Catalog
    from trims_cli.cmd_care import forget

    catalog = Catalog(store.paths, settings.lock_seconds)
    now = catalog.find(model.ref)
    if now is None or now.digest != model.digest:
        return _item(model, "changed")
    if sum(digest == model.digest for digest in left.values()) == 1:
        forget(settings, store, model.digest, False)
    catalog.remove(model.ref)
    del left[model.ref]
    return _item(model, "removed")


def _agreed(now: GcPlan, before: GcPlan, digests: set[str]) -> GcPlan:
    """Of what is garbage now, what was in the plan, and the files of the models that went."""
    from trims.disk.gc import GcPlan

    planned = {(g.kind, g.name) for g in before.items}
    return GcPlan(tuple(g for g in now.items if (g.kind, g.name) in planned or g.name.partition("/")[0] in digests))


def _item(model: Named, outcome: str) -> Item:
    return {"name": model.ref, "kind": "model", "nbytes": model.nbytes, "outcome": outcome}
