"""evict: by name one request a name; by a rule one request, which takes what nobody uses.

Where what goes is to be kept in a lower place, a rule is only asked which models it would take. Each of these is then
evicted by name, for the manager brings a model down one at a time; what came into use meanwhile stays.
"""

from __future__ import annotations

from trims import places, units
from trims.errors import InUse, Pinned, TrimsError, UsageError
from trims_cli import gpus, resident

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from trims.client.control import Control
    from trims_cli.output import Item
    from trims_cli.settings import Settings


def evict(
    settings: Settings,
    models: tuple[str, ...] = (),
    place: str | None = None,
    all: bool = False,
    idle: str | None = None,
    until_free: str | None = None,
    force: bool = False,
    wait: bool = False,
    dry_run: bool = False,
    to: str = places.DISK,
) -> int:
    """Give residencies up. place: host, or with `to` host any GPU, where none is named."""
    rules = [all, idle is not None, until_free is not None]
    if sum(rules) + bool(models) != 1:
        raise UsageError("evict what?", "", "name models, or give one of --all, --idle and --until-free")
    where, lower = _from_and_to(place, to)
    fields: Item = {"place": where, "timeout": settings.seconds(resident.WAIT)}
    rule: Item = {}
    if idle is not None:
        rule["idle"] = units.parse_duration(idle)
    if until_free is not None:
        rule["until_free"] = units.parse_size(until_free)
    if lower and not models and not dry_run:
        return _demote(settings, {**fields, **rule}, lower)
    fields |= {**rule, "force": force, "wait": wait, "dry_run": dry_run}
    if lower and models:
        fields["to"] = lower
    return resident.conclude(
        settings, "evict", *resident.ask(settings, "evict", models or ("",), fields), resident.EVICT
    )


def _from_and_to(place: str | None, to: str) -> tuple[str, str]:
    """(the place to evict from, the place that keeps the models or ""). Raises UsageError."""
    lower = places.parse_place(to)
    if lower not in (places.HOST, places.DISK):
        raise UsageError(f"models are not evicted to {to}", "", "--to takes host, or disk, where they are anyway")
    keep = lower if lower == places.HOST else ""
    where = gpus.place(place if place is not None else places.GPU if keep else places.HOST)
    if keep and not places.is_gpu(where):
        raise UsageError(f"models are not evicted from {where} to {keep}", "", "name a GPU with --on")
    return where, keep


def _demote(settings: Settings, rule: Item, to: str) -> int:
    """Evict what the rule would take, each by its name."""
    with resident.connect(settings) as control:
        planned = control.request("evict", None, rule["timeout"], **rule, dry_run=True)
        models = {(item["digest"], item["place"]): item for item in planned}
        numbers = [
            control.begin("evict", None, ref=f"id:{digest}", place=place, to=to, timeout=rule["timeout"])
            for digest, place in models
        ]
        items: list[Item] = []
        errors: list[TrimsError] = []
        for number, item in zip(numbers, models.values(), strict=True):
            _answer(control, number, rule, item, items, errors)
    shaped = [resident.shape(item) for item in items]
    return resident.conclude(settings, "evict", shaped, errors, len(numbers), resident.EVICT)


def _answer(control: Control, number: int, rule: Item, item: Item, items: list[Item], errors: list[TrimsError]) -> None:
    """Take one answer. What is in use by now is no failure, unless so much was to become free."""
    try:
        items += control.finish([number], rule["timeout"])[1]
    except TrimsError as error:
        if isinstance(error, (InUse, Pinned)) and "until_free" not in rule:
            items.append({**item, "outcome": error.code})
        else:
            errors.append(error)
