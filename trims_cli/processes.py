"""`trims ps`: what is resident and who uses it, one row a lease, from the manager's index.

A residency that nobody uses has one row, without a process. The kernel told the manager who each client is, so the
process numbers are those of the manager's namespace; 0 is a process outside it.
"""

from __future__ import annotations

import time

from trims import refs
from trims.errors import ManagerNotRunning, ManagerUnreachable, NoSuchModel, TrimsError, UsageError
from trims.linux import flock
from trims.paths import RuntimePaths
from trims_cli import glance, output, selection
from trims_cli.output import Column
from trims_cli.times import rfc3339

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from trims.shmindex.reader import Lease, Residency, Snapshot
    from trims_cli.output import Item
    from trims_cli.settings import Settings

COLUMNS = (
    Column("MODEL", "model"),
    Column("PLACE", "place", "place"),
    Column("SIZE", "nbytes", "size"),
    Column("STATE", "state"),
    Column("PID", "pid", "int"),
    Column("USER", "user"),
    Column("JOB", "job"),
    Column("CONTAINER", "container", usual=False),
    Column("AGE", "age", "span"),
    Column("TTL", "ttl", "span"),
    Column("ID", "id", "id", usual=False),
    Column("VARIANT", "variant", usual=False),
    Column("PINS", "pins", "int", usual=False),
    Column("HITS", "hits", "int", usual=False),
    Column("LOAD", "load_seconds", "took", usual=False),
    Column("DONE", "done", "size", usual=False),
    Column("USED", "used", "time", usual=False),
)


def _no_index(sockets: list[str]) -> TrimsError:
    """Why there is none: nobody runs, or a manager that does lost the file."""
    for socket in sockets:
        paths = RuntimePaths(socket)
        if flock.is_owned(paths.lock):
            return ManagerUnreachable("the manager's index is gone", f"there is no {paths.index}", "`trims restart` it")
    return ManagerNotRunning("no manager is running", f"looked at {', '.join(sockets)}", "start one with `trims start`")


GROUPS = ("model", "user", "job", "container")
GROUPED = (
    Column("GROUP", "group"),
    Column("MODELS", "models", "int"),
    Column("SIZE", "nbytes", "size"),
    Column("LEASES", "leases", "int"),
    Column("PROCESSES", "processes", "int"),
)


def ps(
    settings: Settings,
    targets: tuple[str, ...] = (),
    user: str | None = None,
    job: str | None = None,
    filter: tuple[str, ...] = (),
    sort: str | None = None,
    limit: int | None = None,
    group_by: str | None = None,
) -> int:
    """List leases and unused residencies, or sums over them."""
    if group_by is not None and group_by not in GROUPS:
        raise UsageError(f"bad value {group_by!r} for --group-by", "", f"use one of {', '.join(GROUPS)}")
    items = rows(snapshot(settings))
    if targets:
        items = chosen(items, targets)
    if user is not None:
        items = [item for item in items if user in (item["user"], str(item["uid"]))]
    if job is not None:
        items = [item for item in items if item["job"] == job]
    columns = COLUMNS if group_by is None else GROUPED
    items = items if group_by is None else grouped(items, group_by)
    sort = settings.sort(sort, columns)
    if filter or sort or limit is not None:
        from trims_cli import query

        items = query.apply(items, columns, filter, sort, limit)
    if group_by is None:
        shown = output.telling_forms_apart(COLUMNS, items, "model")
        output.emit(settings, "ps", items, output.shown_when_any(shown, items, "CONTAINER"), "pid")
    else:
        output.emit(settings, "ps-groups", items, GROUPED, "group")
    return 0


def snapshot(settings: Settings) -> Snapshot:
    """The index of the manager that runs. Raises ManagerNotRunning, ManagerUnreachable."""
    found = glance.look(settings)
    if found is None:
        raise _no_index(settings.config.sockets)
    return found


def grouped(items: list[Item], key: str) -> list[Item]:
    """One row a model, user, job or container. nbytes: of its residencies, each once.

    What nobody uses has no user, no job and no container.
    """
    groups: dict[str | None, list[Item]] = {}
    for item in items:
        groups.setdefault(item[key], []).append(item)
    found = []
    for name in sorted(groups, key=lambda name: (name is None, name or "")):
        members = groups[name]
        sizes = {(i["id"], i["variant"], i["place"]): i["nbytes"] for i in members}
        found.append({
            "group": name, "models": len({i["id"] for i in members}), "nbytes": sum(sizes.values()),
            "leases": sum(i["pid"] is not None for i in members),
            "processes": len({i["pid"] for i in members} - {None}),
        })  # fmt: skip
    return found


def rows(snapshot: Snapshot) -> list[Item]:
    """The items of the listing, by model, then by age."""
    now = time.time()
    leases: dict[int, list[Lease]] = {}
    for lease in snapshot.leases:
        leases.setdefault(lease.residency_slot, []).append(lease)
    names: dict[int, str] = {}
    items = []
    for residency in sorted(snapshot.residencies, key=lambda r: (r.ref, r.place, r.variant)):
        holders = sorted(leases.get(residency.slot, []), key=lambda lease: (lease.since, lease.lease))
        items += [_item(residency, lease, now, names) for lease in holders or (None,)]
    return items


def _item(residency: Residency, lease: Lease | None, now: float, names: dict[int, str]) -> Item:
    since = lease.since if lease else residency.since
    return {
        "model": residency.ref or None,  # what is not ours to know has no name
        "id": residency.digest or None,
        "variant": residency.variant,
        "place": residency.place,
        "nbytes": residency.nbytes,
        "state": residency.state,
        "done": residency.done,
        "pid": lease.pid if lease else None,
        "uid": lease.uid if lease else None,
        "user": user_name(lease.uid, names) if lease else None,
        "job": (lease.job or None) if lease else None,
        "container": (lease.container or None) if lease else None,
        "since": rfc3339(since),
        "age": max(0.0, now - since),
        "ttl": ttl(residency, now),
        "pins": residency.pins,
        "hits": residency.hits,
        "used": rfc3339(residency.last_use),
        "load_seconds": residency.load_seconds,
    }


def ttl(residency: Residency, now: float) -> float | None:
    """Seconds until an idle residency goes by itself; None when it does not."""
    if residency.pins or residency.leases or not 0 < residency.expires < 1e18:
        return None
    return max(0.0, residency.expires - now)


def user_name(uid: int, names: dict[int, str]) -> str:
    """The name of a user, or the number; `names` remembers."""
    if uid not in names:
        import pwd

        try:
            names[uid] = pwd.getpwuid(uid).pw_name
        except KeyError:
            names[uid] = str(uid)
    return names[uid]


def chosen(items: list[Item], targets: tuple[str, ...]) -> list[Item]:
    """The rows that models and process numbers name. Raises NoSuchModel when a word names none."""
    picked: list[Item] = []
    for word in selection.words(targets):
        found = [item for item in items if _names(word, item)]
        if not found:
            raise NoSuchModel(f"nothing resident is {word!r}{_near(word, items)}", "", "see `trims ps`")
        picked += [item for item in found if item not in picked]
    return picked


def _near(word: str, items: list[Item]) -> str:
    if word.isdigit() or selection.is_glob(word) or refs.digest_prefix(word):
        return ""
    return refs.near(refs.parse_ref(word), (item["model"] or "" for item in items))


def _names(word: str, item: Item) -> bool:
    if word.isdigit():
        return bool(item["pid"] == int(word))
    if item["model"] is None:
        return False
    if selection.is_glob(word):
        from fnmatch import fnmatchcase

        return fnmatchcase(item["model"], word) or fnmatchcase(item["model"].partition(":")[0], word)
    prefix = refs.digest_prefix(word)
    return item["id"].startswith(prefix) if prefix else bool(item["model"] == refs.parse_ref(word))
