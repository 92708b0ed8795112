"""`trims status`: is a manager running, which one, why that one, and what room it has.

Everything comes from the index; one greeting over the socket tells a wedged manager from a well one. The exit codes are
those of LSB: 0 running, 1 dead though its socket is left, 3 stopped, 4 unknown.
"""

from __future__ import annotations

import os

from trims import errors, units
from trims.client.control import Control, refuse_strangers
from trims.config import config_files
from trims.errors import ManagerNotRunning, ManagerUnreachable
from trims.paths import RuntimePaths
from trims.shmindex import reader
from trims_cli import output
from trims_cli.output import Column
from trims_cli.times import rfc3339

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

    from trims.shmindex.reader import Snapshot
    from trims_cli.output import Item
    from trims_cli.settings import Settings

PLACES = (
    Column("PLACE", "place", "place"),
    Column("BUDGET", "budget", "size"),
    Column("USED", "used", "size"),
    Column("PINNED", "pinned", "size"),
    Column("LEASED", "leased", "size"),
    Column("IDLE", "idle", "size"),
    Column("SPARE", "spare", "size"),
    Column("RESERVED", "reserved", "size", usual=False),
    Column("FREE", "free", "size"),
)
CODES = {"running": 0, "dead": 1, "stopped": 3, "unknown": 4}
GREETING = 1.0


def status(settings: Settings, check: bool = False, prometheus: bool = False) -> int:
    """Print it, or with `check` only give the exit code. prometheus: metrics from the index, and 0 whatever it says."""
    if prometheus:
        from trims_cli import glance
        from trims_cli import prometheus as metrics

        output.write(metrics.text(glance.look(settings)))
        return 0
    item = gather(settings, settings.verbose)
    if not check:
        _print(settings, item)
    return CODES[item["state"]]


def gather(settings: Settings, ask: bool) -> Item:
    """The item of the listing. ask: fetch what only the manager knows, too."""
    config = settings.config
    looked = []
    best: Item | None = None
    for socket in config.sockets:
        state, why, snapshot = probe(socket, named=len(config.sockets) == 1)
        looked.append({"socket": socket, "found": state})
        if state != "stopped" and best is None:
            best = _describe(state, why, socket, snapshot)
    item = best or _describe("stopped", "no manager has left a socket at any of these places", config.own_socket, None)
    item["why_socket"] = config.origin("manager.socket")
    item["looked_at"] = looked
    item["config_files"] = [path for path in config_files(config.environ) if os.path.exists(path)]
    item["client_store"] = config.store
    item["why_store"] = config.origin("store.path")
    item["manager"] = item["gpus"] = item["left_out"] = None
    if ask and item["state"] == "running":
        with Control([item["socket"]]) as control:
            item["manager"] = control.request("status")[0]
        item["gpus"] = [{"place": place, **facts} for place, facts in item["manager"].get("gpus", {}).items()]
        item["left_out"] = list(item["manager"].get("left_out", {}).values())
    return item


def probe(socket: str, named: bool) -> tuple[str, str, Snapshot | None]:
    """(state, why, index) of one place where a manager may be: running, dead, stopped or unknown."""
    paths = RuntimePaths(socket)
    try:
        refuse_strangers(socket, named)
        snapshot = reader.read(paths.index)
        with Control([socket], GREETING) as control:
            if snapshot is None:
                from trims_cli import told

                snapshot = told.look_if_told(control)
            return "running", "", snapshot
    except ManagerNotRunning:
        left = os.path.lexists(socket)
        return ("dead", "its socket is left, and nobody listens", None) if left else ("stopped", "", None)
    except ManagerUnreachable as error:
        return "unknown", str(error), None
    except PermissionError:
        return "unknown", f"{paths.directory} belongs to another user", None


def _describe(state: str, why: str, socket: str, snapshot: Snapshot | None) -> Item:
    item: Item = {"state": state, "why": why or None, "socket": socket}
    if snapshot is None:
        unknown = ("pid", "version", "store", "identity", "started", "residencies", "leases")
        return {**item, **dict.fromkeys((*unknown, "policy", "min_resident", "last_eviction", "places", "counters"))}
    return {
        **item,
        "pid": snapshot.pid,
        "version": snapshot.version,
        "store": snapshot.store,
        "identity": snapshot.identity,
        "started": rfc3339(snapshot.since),
        "residencies": len(snapshot.residencies),
        "leases": len(snapshot.leases),
        "policy": snapshot.settings.get("policy"),
        "min_resident": duration(snapshot.settings.get("min_resident")),
        "last_eviction": last_eviction(snapshot),
        "places": [place(use) for use in snapshot.places],
        "counters": dict(snapshot.counters),
    }


def duration(text: str | None) -> float | None:
    """Seconds, of a setting in the index; None where it is not told."""
    return units.parse_duration(text) if text else None


def last_eviction(snapshot: Snapshot) -> Item | None:
    """What went last, when, and why: `seconds ref reason` in the index."""
    when, _, rest = snapshot.settings.get("last_eviction", "").partition(" ")
    name, _, reason = rest.partition(" ")
    return {"time": rfc3339(float(when)), "name": name, "reason": reason} if name else None


def place(use: reader.PlaceUse) -> Item:
    """One row of the table of places."""
    names = ("place", "budget", "used", "pinned", "leased", "idle", "spare", "reserved")
    return {**{name: getattr(use, name) for name in names}, "free": max(0, use.budget - use.used)}


def place_table(settings: Settings, places: Sequence[Item]) -> str:
    """The table of places; what is reserved in one is shown where there is any."""
    return output.listing_text(settings, places, output.shown_when_any(PLACES, places, "RESERVED"))


def _print(settings: Settings, item: Item) -> None:
    form = settings.form
    if form in ("json", "jsonl"):
        output.emit(settings, "status", [item], ())
        return
    if settings.quiet:
        output.write(f"{item['state']}\n")
        return
    lines = [("state", item["state"] + (f" ({item['why']})" if item["why"] else ""))]
    if item["pid"] is not None:
        running = f"{item['version']}, process {item['pid']}, since {item['started']}"
        lines += [("manager", running), ("serves", item["store"])]
    lines += [
        ("socket", f"{item['socket']} ({_because(item['why_socket'])})"),
        ("store", f"{item['client_store']} ({_because(item['why_store'])})"),
    ]
    lines.append(("config", ", ".join(item["config_files"]) or "no file"))
    if item["state"] == "stopped":
        lines.append(("looked at", ", ".join(place["socket"] for place in item["looked_at"])))
    if item["pid"] is not None:
        lines.append(("resident", f"{item['residencies']} models, {item['leases']} leases"))
    if item["policy"] is not None:
        least = item["min_resident"]
        lines.append(
            ("policy", item["policy"] + (f", none within {units.format_age(least)} of its load" if least else ""))
        )
    if item["last_eviction"] is not None:
        last = item["last_eviction"]
        lines.append(("last gone", f"{last['name']} {output.cell('time', last['time'])} ago: {last['reason']}"))
    output.write("".join(f"{name + ':':<10} {errors.one_line(text)}\n" for name, text in lines))
    if item["places"]:
        output.write("\n" + place_table(settings, item["places"]))
    told = [line for gpu in item["gpus"] or () for line in gpu_lines(gpu)] + (item["left_out"] or [])
    if told:
        output.write("\n" + "".join(errors.one_line(line) + "\n" for line in told))
    if settings.verbose and item["counters"]:
        output.write("\n" + "".join(f"{name:<24} {value}\n" for name, value in sorted(item["counters"].items())))


def gpu_lines(gpu: Item) -> list[str]:
    """What the manager says of a GPU: what it is and how it is used, by the driver's own measure, then its notes."""
    total, used, others = (units.format_size(gpu[name]) for name in ("total", "used", "others"))
    worker = f"; process {gpu['worker']} loads to it" if gpu["worker"] is not None else ""
    line = f"{gpu['place']}: {gpu['name']}, {used} of {total} used as measured, {others} by other processes{worker}"
    return [line, *(f"  {note}" for note in gpu["notes"])]


def _because(origin: str) -> str:
    return "by default" if origin == "default" else f"from {origin}"
