"""Commands about models of a store that we cannot read or write: by way of the manager that all users share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trims.errors import ManagerNotRunning, TrimsError, UsageError
from trims_cli import output, prompt, selection, targets, told
from trims_cli.output import Column, Item
from trims_cli.settings import Settings
from trims_cli.times import rfc3339

if TYPE_CHECKING:
    from trims.client.control import Control
    from trims_cli.selection import Row

SHARED = (
    Column("NAME", "name"), Column("ID", "id", "id"), Column("OWNER", "owner"), Column("GROUP", "group"),
    Column("MODE", "mode", "mode"),
)  # fmt: skip
_PAGE = 1000


def share(settings: Settings, models: tuple[str, ...], owner: str, group: str, mode: int | None) -> int:
    """Say whose models are and who may read them: by the manager where one of system scope runs, else in the store."""
    from trims.client.control import Control

    fields: Item = {"owner": owner, "group": group, "mode": mode}
    try:
        with Control(settings.config.sockets) as control:
            if control.welcome.get("scope") == "system":
                return _share(settings, models, lambda ref: control.request("share", ref=ref, **fields)[0], control)
    except ManagerNotRunning:
        pass
    from trims.disk import sharing
    from trims_cli.cmd_store import open_store

    store = open_store(settings)

    def here(ref: str) -> Item:
        entry = sharing.share(store, ref, None, owner, group, mode, settings.lock_seconds)
        return {"ref": ref, "digest": entry.digest, **(entry.access._asdict() if entry.access else {})}

    return _share(settings, models, here, None)


def _share(settings: Settings, models: tuple[str, ...], one: Any, control: Control | None) -> int:
    def rows() -> list[Row]:
        return selection.served(control) if control else selection.load(selection.store_paths(settings))

    names = selection.expand(rows, models)
    answers, errors = targets.each(names, one)
    if control and errors:
        told.blame_the_store(settings, control, errors)
    items = [{"name": a.pop("ref"), "id": a.pop("digest"), **_named(a)} for a in answers]
    if items or settings.form in ("json", "jsonl"):
        output.emit(settings, "share", items, SHARED)
    return targets.conclude(errors, len(names))


def _named(item: Item) -> Item:
    """Owner and group as names, where they have one here."""
    import grp

    from trims_cli.processes import user_name

    try:
        group = grp.getgrgid(item["group"]).gr_name
    except KeyError:
        group = str(item["group"])
    return {**item, "uid": item["owner"], "gid": item["group"], "owner": user_name(item["owner"], {}), "group": group}


def remove(
    settings: Settings, models: tuple[str, ...], error: TrimsError, force: bool, missing_ok: bool, dry_run: bool
) -> int:
    """`rm` where the store cannot be opened, as `error` says."""
    from trims_cli.cmd_care import REMOVED, whole

    with told.manager(settings, error) as control:
        rows = selection.served(control)
        chosen, missing = selection.choose(rows, [whole(word) for word in selection.words(models)])
        errors: list[TrimsError] = [] if missing_ok else [selection.no_model(word, rows) for word in missing]
        if any(map(selection.is_glob, models)) and chosen and not dry_run:
            prompt.confirm(settings, f"remove {', '.join(row[1] for row in chosen)}?")

        def one(row: Row) -> Item:
            digest, ref, _ = row
            if dry_run:
                return {"name": ref, "id": digest, "outcome": "would-remove", "evicted": 0}
            (item,) = control.request("remove", wait=60.0, ref=ref, force=force)
            return {"name": ref, "id": digest, "outcome": "removed", "evicted": item["evicted"]}

        items, failed = targets.each(chosen, one)
    if items or settings.form in ("json", "jsonl"):
        output.emit(settings, "rm", items, REMOVED)
    return targets.conclude(errors + failed, len(chosen) + len(errors))


def describe(settings: Settings, model: str, error: TrimsError, tensors: bool) -> tuple[Item, list[Item]]:
    """`show` where the store cannot be opened: the model, as `show` has it, and its tensors if they are wanted."""
    from trims_cli import glance

    with told.manager(settings, error) as control:
        found: list[Item] = []
        limit = _PAGE if tensors else 0
        item, *page = control.request("show", ref=model, limit=limit)
        while page:
            found += page
            page = control.request("show", ref=model, after=len(found), limit=limit)[1:]
        snapshot = told.look(control)
    here = glance.by_digest(snapshot).get(item["digest"], [])
    whose = {key: value for key in ("owner", "group", "mode") if (value := item.get(key)) is not None}
    shown: Item = {"name": item["ref"], "id": item["digest"]}
    shown |= {key: item[key] for key in ("format", "tensors", "nbytes", "stored", "codec", "created", "labels")}
    shown |= {"graph_nbytes": item["graph_nbytes"], "files": [f["name"] for f in item["files"]], "path": None}
    shown |= {"origin": item["origin"], "variants": item["variants"]}
    shown["used"] = rfc3339(max(r.last_use for r in here)) if here else None
    shown["_files"] = item["files"]
    return {**shown, **whose, "_here": here}, found


def unreadable(what: str, error: TrimsError) -> UsageError:
    """For what only those who can read the store's files can have."""
    return UsageError(f"{what} is not to be had", error.why, "the manager tells what models are, not where they lie")
