"""warm, pin, unpin, wait: what the manager is asked for. Each is: names, one request a name, one listing.

Requests for several models are sent at once, so that their loads go on together; answers are shown in the order given.
"""

from __future__ import annotations

import os

from trims import places, units
from trims.client.control import Control
from trims.errors import UsageError
from trims_cli import gpus, output, selection, targets
from trims_cli.output import Column

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from typing import Any

    from trims.errors import TrimsError
    from trims_cli.output import Item
    from trims_cli.settings import Settings

WAIT = 60.0  # seconds, the default of --timeout
_WHO = (Column("NAME", "name"), Column("ID", "id", "id", usual=False))
_PLACE = Column("PLACE", "place", "place")
_WHERE = (_PLACE, Column("VARIANT", "variant", usual=False), Column("SIZE", "nbytes", "size"))
WARM = (
    *_WHO,
    *_WHERE,
    Column("OUTCOME", "outcome"),
    Column("TIME", "seconds", "took"),
    Column("VICTIMS", "_victims"),
)
EVICT = (
    *_WHO, *_WHERE, Column("FREED", "measured", "size", usual=False), Column("OUTCOME", "outcome"),
    Column("HOLDERS", "_holders"),
)  # fmt: skip
UNPIN = (*_WHO, Column("OWNER", "owner"))
WAITED = (Column("CONDITION", "condition"), Column("NAME", "name"), _PLACE)
FLAVOURS = ("auto", "raw", "onnxruntime", "torch")


def warm(
    settings: Settings,
    models: tuple[str, ...],
    to: str = places.HOST,
    ttl: str | None = None,
    pin: bool = False,
    no_wait: bool = False,
    no_evict: bool = False,
    flavour: str = "auto",
    dry_run: bool = False,
) -> int:
    """Make models resident."""
    if flavour not in FLAVOURS:
        raise UsageError(f"bad value {flavour!r} for --for", "", f"use one of {', '.join(FLAVOURS)}")
    fields: Item = {"place": gpus.place(to), "flavour": flavour, "timeout": settings.seconds(WAIT)}
    if pin:
        fields |= {"owner": user()}
    else:
        fields |= {"wait": not no_wait, "evict": not no_evict, "dry_run": dry_run}
        if ttl is not None:
            fields["ttl"] = units.parse_duration(ttl)
        if dry_run:
            return _plan(settings, models, fields)
    return _ask(settings, "warm", "pin" if pin else "warm", models, fields, WARM)


def _plan(settings: Settings, models: tuple[str, ...], fields: Item) -> int:
    """Say what warming these together would do."""
    from trims_cli import planned

    return planned.conclude(settings, *ask(settings, "warm", models, {**fields, "together": True}))


def pin(
    settings: Settings,
    models: tuple[str, ...],
    place: str = places.HOST,
    duration: str | None = None,
    reason: str = "",
    owner: str | None = None,
    flavour: str = "auto",
) -> int:
    """Make models resident and keep them so."""
    fields: Item = {
        "place": gpus.place(place),
        "flavour": flavour,
        "owner": owner or user(),
        "reason": reason,
        "timeout": settings.seconds(WAIT),
    }
    if duration is not None:
        fields["expires"] = units.parse_duration(duration)
    return _ask(settings, "pin", "pin", models, fields, WARM)


def unpin(
    settings: Settings, models: tuple[str, ...] = (), owner: str | None = None, mine: bool = False, all: bool = False
) -> int:
    """Drop pins."""
    if not models and not all and not mine and owner is None:
        raise UsageError("unpin what?", "no model was named", "name models, or say --mine or --all")
    if models and all:
        raise UsageError("--all takes no models")
    fields = {"owner": user() if mine else owner or ""}
    return _ask(settings, "unpin", "unpin", models or ("",), fields, UNPIN)


def wait(
    settings: Settings, models: tuple[str, ...] = (), condition: str = "", place: str = places.HOST, any: bool = False
) -> int:
    """Come back when a condition holds."""
    condition, _, amount = (condition or ("warm" if models else "ready")).partition("=")
    needs_model = condition in ("warm", "gone", "idle", "attached")
    if condition not in ("warm", "gone", "idle", "attached", "ready", "free") or bool(amount) != (condition == "free"):
        raise UsageError(
            f"cannot wait for {condition + ('=' + amount if amount else '')!r}",
            "",
            "conditions are ready, warm, gone, idle, attached and free=SIZE",
        )
    if needs_model != bool(models):
        raise UsageError(f"waiting for {condition} takes {'a model' if needs_model else 'no models'}")
    fields: Item = {"condition": condition, "place": gpus.place(place), "timeout": settings.seconds(WAIT)}
    if condition == "free":
        fields["nbytes"] = units.parse_size(amount)
    if condition == "ready":
        from trims_cli import readiness

        fields["timeout"] = readiness.wait_for_manager(settings.config.sockets, fields["timeout"])
    if any:
        return _any(settings, models, fields)
    return _ask(settings, "wait", "wait", models or ("",), fields, WAITED)


def user() -> str:
    """Who we are, as the owner of a pin."""
    from trims_cli.processes import user_name

    return user_name(os.getuid(), {})


def connect(settings: Settings) -> Control:
    """The manager. Raises UsageError when a store was named with --store and the manager serves another one."""
    control = Control(settings.config.sockets)
    if settings.store is not None:
        theirs = control.welcome["store"]
        if os.path.realpath(theirs) != os.path.realpath(settings.config.store):
            control.close()
            raise UsageError(
                f"the manager at {control.socket_path} serves another store",
                theirs,
                "leave --store out, or name its socket",
            )
    return control


def _ask(
    settings: Settings, schema: str, t: str, models: tuple[str, ...], fields: Item, columns: tuple[Column, ...]
) -> int:
    return conclude(settings, schema, *ask(settings, t, models, fields), columns)


def ask(settings: Settings, t: str, models: tuple[str, ...], fields: Item) -> tuple[list[Item], list[TrimsError], int]:
    """(items of the answers, errors, how many names were tried) of one request a name."""
    with connect(settings) as control:
        names = [""] if models == ("",) else selection.expand(lambda: selection.served(control), models)
        progress = _progress(settings) if t in ("warm", "pin") and names else None
        try:
            numbers = [control.begin(t, progress and progress.of(name), ref=name, **fields) for name in names]
            wait = fields.get("timeout", WAIT)
            answers, errors = targets.each(numbers, lambda number: control.finish([number], wait)[1])
        finally:
            if progress:
                progress.close()
        if errors:
            from trims_cli import told

            told.blame_the_store(settings, control, errors)
    return [shape(item) for answer in answers for item in answer], errors, len(names)


def _any(settings: Settings, models: tuple[str, ...], fields: Item) -> int:
    with connect(settings) as control:
        names = selection.expand(lambda: selection.served(control), models)
        numbers = [control.begin("wait", None, ref=name, **fields) for name in names]
        answer = control.finish(numbers, fields["timeout"])[1]
    return conclude(settings, "wait", [shape(item) for item in answer], [], 1, WAITED)


def conclude(
    settings: Settings,
    schema: str,
    items: list[Item],
    errors: list[TrimsError],
    tried: int,
    columns: tuple[Column, ...],
) -> int:
    """Print what was answered; then raise what failed, or give 0."""
    if items or settings.form in ("json", "jsonl"):
        if any(column.name == "VARIANT" for column in columns):
            columns = output.telling_forms_apart(columns, items, "name")
        columns = output.shown_when_any(columns, items, "FREED")
        output.emit(settings, schema, items, columns, None)
    elif not errors:
        output.tell(settings, lambda: "nothing to do")
    return targets.conclude(errors, tried)


def shape(item: Item) -> Item:
    """An item of the protocol in the words of the listings: name and id for ref and digest."""
    shaped: Item = {{"ref": "name", "digest": "id"}.get(key, key): value for key, value in item.items()}
    for field, short in (("victims", "_victims"), ("holders", "_holders")):
        if field in item:
            shaped[field] = [shape(part) for part in item[field]]
            shaped[short] = [part.get("ref") or part.get("pid") for part in item[field]]
    return shaped


def _progress(settings: Settings) -> Any:
    """A bar where a person watches, or None."""
    import sys

    if not sys.stderr.isatty():
        return None
    from trims_cli import progress

    return progress.wanted(settings)
