"""verify, rm, gc: keeping the store sound and small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trims import refs
from trims.errors import ManagerNotRunning, NoStore, NotPermitted, UsageError
from trims_cli import glance, output, prompt, selection, targets, usage
from trims_cli.options import DryRun, Models, SomeModels
from trims_cli.output import Column, Item
from trims_cli.settings import Settings

if TYPE_CHECKING:
    from trims.disk.store import Store

REMOVED = (
    Column("NAME", "name"),
    Column("ID", "id", "id"),
    Column("OUTCOME", "outcome"),
    Column("EVICTED", "evicted", "int"),
)


def verify_(
    settings: Settings,
    models: Models = None,
    all: Annotated[
        bool, typer.Option("--all", help="Every model and the catalog; so it is when none is named.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only sizes and descriptions, not every byte.")] = False,
    subset: Annotated[
        str | None, typer.Option("--subset", metavar="PART", help="Only a part: 1/7, 5% or 10GiB.")
    ] = None,
    max_age: Annotated[
        str | None, typer.Option("--max-age", metavar="TIME", help="Not what was verified within this time.")
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option("--time-limit", metavar="TIME", help="Begin no model after so long.")
    ] = None,
    resident: Annotated[bool, typer.Option("--resident", help="What is in memory, GPUs included.")] = False,
) -> int:
    """Check that every byte is what was imported; exit with 14 when not."""
    if resident:
        from trims_cli import verifying_resident

        if quick or subset or max_age or time_limit:
            raise UsageError("--resident reads all that is resident", "it takes no other flag but --all")
        return verifying_resident.verify(settings, () if all else tuple(models or ()))
    from trims_cli import verifying

    return verifying.verify(settings, [] if all else list(models or []), quick, subset, max_age, time_limit)


def rm_(
    settings: Settings,
    models: SomeModels,
    force: Annotated[bool, typer.Option("--force", help="Though it is attached or pinned.")] = False,
    missing_ok: Annotated[bool, typer.Option("--missing-ok", help="A name that is not there is fine.")] = False,
    keep_data: Annotated[bool, typer.Option("--keep-data", help="Leave the bytes to the next gc.")] = False,
    dry_run: DryRun = False,
) -> int:
    """Remove models from the store, and from memory when nobody uses them."""
    from trims.disk.catalog import Catalog
    from trims_cli.cmd_store import open_store

    try:
        store = open_store(settings)
    except (NoStore, NotPermitted) as error:
        from trims_cli import sharing

        return sharing.remove(settings, tuple(models), error, force, missing_ok, dry_run)
    catalog = Catalog(store.paths, settings.lock_seconds)
    rows = selection.load(store.paths)
    chosen, missing = selection.choose(rows, [whole(word) for word in selection.words(models)])
    errors: list[Any] = []
    if not missing_ok:
        errors = [selection.no_model(word, rows) for word in missing]
    if any(map(selection.is_glob, models)) and chosen and not dry_run:
        prompt.confirm(settings, f"remove {', '.join(row[1] for row in chosen)}?")
    left = {row[1]: row[0] for row in rows}

    def remove(row: selection.Row) -> Item:
        digest, ref, _ = row
        last = sum(other == digest for other in left.values()) == 1
        item: Item = {"name": ref, "id": digest, "outcome": "would-remove" if dry_run else "removed", "evicted": 0}
        if dry_run:
            _would_be_refused(settings, store, digest, ref, force and last)
        elif last:
            item["evicted"] = forget(settings, store, digest, force)
        if not dry_run:
            catalog.remove(ref)
        left.pop(ref, None)
        return item

    items, failed = targets.each(chosen, remove)
    if items and not dry_run and not keep_data:
        usage.free_removed(settings, store, {item["id"] for item in items})
    if items or settings.form in ("json", "jsonl"):
        output.emit(settings, "rm", items, REMOVED)
    return targets.conclude(errors + failed, len(chosen) + len(errors))


def whole(word: str) -> str:
    """Refuse a shortened digest: what destroys takes no abbreviations."""
    prefix = refs.digest_prefix(word) if not selection.is_glob(word) else None
    if prefix is not None and len(prefix) < 64:
        raise UsageError(f"{word} is abbreviated", "rm takes names and whole digests only", "see `trims ls -q`")
    return word


def share_(
    settings: Settings,
    models: SomeModels,
    group: Annotated[str, typer.Option("--group", metavar="GROUP", help="The group that may read it.")] = "",
    mode: Annotated[
        str | None, typer.Option("--mode", metavar="MODE", help="Who may read it, as of a file: 640.")
    ] = None,
    owner: Annotated[str, typer.Option("--owner", metavar="USER", help="Give it to this user; for operators.")] = "",
) -> int:
    """Say who may read models of a store that users share."""
    from trims import permission
    from trims_cli import sharing

    if not group and mode is None and not owner:
        raise UsageError("share with whom?", "", "give --group, --mode or both")
    bits = permission.parse_mode(mode) if mode is not None else None
    return sharing.share(settings, tuple(models), owner, group, bits)


def forget(settings: Settings, store: Store, digest: str, force: bool) -> int:
    """Have the manager of this store, if one runs, let go of a model; gives what it evicted. Raises InUse, Pinned."""
    from trims.client.control import Control

    snapshot = glance.look(settings)
    if snapshot is None or not glance.serves(snapshot, store.root):
        return 0
    try:
        with Control([snapshot.socket]) as control:
            items = control.request("forget", digest=digest, force=force)
    except ManagerNotRunning:
        return 0
    return sum(int(item.get("evicted", 0)) for item in items)


def _would_be_refused(settings: Settings, store: Store, digest: str, ref: str, force: bool) -> None:
    """For a dry run: raise what the manager would say, as far as its index tells."""
    from trims.errors import InUse, Pinned

    snapshot = glance.look(settings)
    if force or snapshot is None or not glance.serves(snapshot, store.root):
        return
    for residency in glance.by_digest(snapshot).get(digest, []):
        if residency.leases:
            raise InUse(
                f"{ref} is attached", f"{residency.leases} clients use it in {residency.place}", "see `trims ps`"
            )
        if residency.pins:
            raise Pinned(f"{ref} is pinned", f"in {residency.place}", "see `trims unpin`")


def gc_(
    settings: Settings,
    unused_for: Annotated[
        str | None, typer.Option("--unused-for", metavar="TIME", help="Also models that nobody used for so long.")
    ] = None,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", metavar="N", help="Also all but the newest N tags of each name.")
    ] = None,
    keep_labelled: Annotated[
        list[str] | None, typer.Option("--keep-labelled", metavar="K=V", help="But never with this label; repeatable.")
    ] = None,
    target_size: Annotated[
        str | None, typer.Option("--target-size", metavar="SIZE", help="Also models, until the rest fits in this.")
    ] = None,
    partial_only: Annotated[bool, typer.Option("--partial-only", help="Only what unfinished work left.")] = False,
    dry_run: DryRun = False,
) -> int:
    """Collect what no name holds any more and what crashes left; with a policy, models too."""
    from trims_cli import retiring
    from trims_cli.cmd_store import open_store

    policy = retiring.policy(unused_for, keep_last, keep_labelled, target_size)
    if policy.removes and partial_only:
        raise UsageError("--partial-only takes no policy")
    if policy.removes:
        return retiring.collect(settings, open_store(settings), policy, dry_run)
    return usage.collect(settings, open_store(settings), dry_run, partial_only)
