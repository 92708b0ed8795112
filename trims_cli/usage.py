"""What `df` counts and `gc` removes: one inventory for both, so that what the one promises the other frees."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from trims import units
from trims.errors import LockTimeout, TrimsError, UsageError
from trims_cli import glance, output, prompt, selection
from trims_cli.output import Column, Item
from trims_cli.settings import Settings

if TYPE_CHECKING:
    from trims.disk.gc import Garbage
    from trims.disk.store import Store

GARBAGE = (
    Column("NAME", "name"),
    Column("KIND", "kind"),
    Column("SIZE", "nbytes", "size"),
    Column("OUTCOME", "outcome"),
)


def gather(settings: Settings, store: Store, by: str | None = None) -> list[Item]:
    """The rows of `df`."""
    if by is not None:
        if by not in ("model", "codec"):
            raise UsageError(f"bad value {by!r} for --by", "", "use model or codec")
        return by_model(store) if by == "model" else by_codec(store)
    from trims.disk import gc

    rows = selection.load(store.paths)
    garbage = gc.plan(store).items
    unused = {kind: [g for g in garbage if g.kind == kind] for kind in ("container", "variant", "temporary")}
    items = []
    for what, directory, kind in (
        ("models", store.paths.containers, "container"),
        ("variants", store.paths.variants, "variant"),
        ("temporary", store.paths.tmp, "temporary"),
    ):
        count, nbytes = _measure(directory)
        items.append(
            {"what": what, "count": count, "nbytes": nbytes, "reclaimable": sum(g.nbytes for g in unused[kind])}
        )
    items.append({"what": "refs", "count": len(rows), "nbytes": None, "reclaimable": None})
    snapshot = glance.look(settings)
    if snapshot and glance.serves(snapshot, store.root):
        for use in snapshot.places:
            here = [r for r in snapshot.residencies if r.place == use.place]
            items.append(
                {"what": use.place, "count": len(here), "nbytes": use.used, "reclaimable": use.idle + use.spare}
            )
    return items


def by_model(store: Store) -> list[Item]:
    """One row a name: how many names its model has, its bytes on disk, and what would be free without the name."""
    from trims_cli import retiring

    models = retiring.inventory(store)
    names = Counter(model.digest for model in models)
    return [
        {
            "what": m.ref,
            "count": names[m.digest],
            "nbytes": m.nbytes,
            "reclaimable": m.nbytes if names[m.digest] == 1 else 0,
        }
        for m in sorted(models, key=lambda m: m.ref)
    ]


def by_codec(store: Store) -> list[Item]:
    """One row a codec: how many models are stored in it, and in how many bytes."""
    from trims.disk.catalog import Catalog

    models = {entry.digest: entry for entry in Catalog(store.paths).entries()}.values()
    return [
        {"what": codec, "count": len(stored), "nbytes": sum(stored), "reclaimable": None}
        for codec in sorted({m.codec for m in models})
        for stored in [[m.stored for m in models if m.codec == codec]]
    ]


def _measure(directory: str) -> tuple[int, int]:
    """(containers or files, bytes) below a directory of the store."""
    count = nbytes = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                nbytes += os.stat(f"{folder}/{name}").st_size
            except FileNotFoundError:  # somebody is tidying at this moment
                continue
            count += not name.endswith(".json")
    return count, nbytes


def collect(settings: Settings, store: Store, dry_run: bool, partial_only: bool = False) -> int:
    """`gc`: show the plan, ask where a person is, act, and show what happened."""
    from trims.disk import gc

    agreed = gc.plan(store)
    if partial_only:
        agreed = gc.GcPlan(tuple(g for g in agreed.items if g.kind == "temporary"))
    if dry_run or not agreed.items:
        show(settings, [item(g, "would-remove") for g in agreed.items])
        return 0
    if not settings.yes and settings.may_ask:
        for g in agreed.items:
            output.note(f"{g.kind:<10} {g.name} {units.format_size(g.nbytes)}")
    prompt.confirm(
        settings, f"free {units.format_size(agreed.nbytes)} in {len(agreed.items)} things that no name holds?"
    )
    result = gc.collect(store, agreed, settings.lock_seconds)
    items = [item(g, "removed") for g in result.removed] + [item(g, "in-use") for g in result.kept]
    output.emit(settings, "gc", items, GARBAGE)
    output.tell(settings, lambda: f"freed {units.format_size(result.nbytes)}")
    return 0


def show(settings: Settings, items: list[Item]) -> None:
    """A plan."""
    if items or settings.form != "table":
        output.emit(settings, "gc", items, GARBAGE)
    else:
        output.tell(settings, lambda: "nothing to collect")


def item(garbage: Garbage, outcome: str) -> Item:
    """One row."""
    return {"name": garbage.name, "kind": garbage.kind, "nbytes": garbage.nbytes, "outcome": outcome}


def free_removed(settings: Settings, store: Store, digests: set[str]) -> int:
    """After `rm`: remove the files of these models where no name and no reader holds them; gives the bytes freed.

    What cannot go now goes with the next `gc`.
    """
    from trims.disk import gc

    try:
        found = gc.plan(store)
        ours = gc.GcPlan(tuple(g for g in found.items if g.name.partition("/")[0] in digests))
        return gc.collect(store, ours, settings.lock_seconds).nbytes if ours.items else 0
    except LockTimeout:
        return 0
    except TrimsError as error:
        output.note(f"trims: the names are gone, their bytes are not: {error}")
        return 0
