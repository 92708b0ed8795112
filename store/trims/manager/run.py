"""The process that `trims start` starts: from a configuration to a serving manager, and out again.

`python -m trims.manager [--ready-fd N]`: it tells on that descriptor, as one JSON object, that it is ready or why not.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from trims import units
from trims.config import Config
from trims.config import load as load_config
from trims.devices.host import HostDevice
from trims.disk.store import Store, open_store
from trims.errors import NotPermitted, TrimsError, UsageError
from trims.linux import memfd
from trims.manager import gpus, neighbours, runtime, systemd
from trims.manager.doors import Doors, group_number
from trims.manager.inheritance import await_end, left_in_places
from trims.manager.life import Manager
from trims.manager.logfile import Log
from trims.manager.quotas import Limits
from trims.paths import RuntimePaths
from trims.places import HOST
from trims.residency import policies
from trims.residency.machine import Machine
from trims.transfer.to_host import HostFiller

SPARE = 256 << 20
"""Most bytes of ready pages when the configuration says auto; never more than an eighth of the budget."""
CONNECTIONS = 4096
TOLD = (
    "budget.host", "budget.spare", "budget.pin_cap", "residency.ttl", "residency.policy", "residency.min_resident",
    "manager.idle_exit", "manager.log", "manager.scope", "manager.operators",
    "budget.gpu", "gpu.devices", "gpu.sharing", "gpu.group", "residency.demote_to",
)  # fmt: skip
"""What a manager tells of its configuration; where it listens and which store it serves it says besides."""

Ready = Callable[[dict[str, Any]], None]


def run(config: Config, detached: bool, ready: Ready) -> int:
    """Be the manager of this configuration until it ends. ready: called once it serves. Raises TrimsError before."""
    paths = RuntimePaths(config.own_socket)
    runtime.prepare(paths, config["manager.scope"] == "system")
    with ExitStack() as stack:
        log = Log(paths.log if detached else None, config["manager.log"])
        stack.callback(log.close)
        lock = runtime.own(paths)
        stack.callback(os.close, lock)
        log.adopt()
        manager = _manager(config, paths, log)
        _on_signals(manager, stack)
        log.write(f"the manager is ready: {_describe(manager)}")
        ready(describe(manager, paths))
        systemd.notify(f"READY=1\nMAINPID={os.getpid()}")
        manager.serve()
        systemd.notify("STOPPING=1")
        log.write("the manager has ended")
    return 0


def _manager(config: Config, paths: RuntimePaths, log: Log) -> Manager:
    store, doors = (
        open_store(config.store),
        Doors(config["manager.scope"] == "system", group_number(config["manager.operators"])),
    )
    _check_store(store, doors.system)
    host, found = _memory(config, paths, log)
    machine = _machine(config, {HOST: host, **found.budgets}, found.sources, doors.system)
    memfd.make_undumpable()
    _raise_limits()
    given = systemd.listener()
    listener = given or runtime.listen(paths, doors.system)
    try:
        return Manager(
            paths,
            store,
            machine,
            {HOST: HostDevice(), **found.devices},
            {HOST: HostFiller(), **found.fillers},
            listener,
            log.write,
            settings={key: config.text(key) for key in TOLD},
            cap=_connections(doors.system, config["quota.connections"]),
            own_socket=given is None,
            spare=_spare(config, host),
            idle_exit=config["manager.idle_exit"],
            doors=doors,
            gpus=found,
            gpu_group=group_number(config["gpu.group"], "gpu.group"),
            demote=config["residency.demote_to"] == HOST,
            limits=Limits(*(_quota(config, name, host) for name in ("leased", "pinned"))),
        )
    except BaseException:
        listener.close()
        if given is None:
            os.unlink(paths.socket)  # nobody listens: it would only look like a manager that died
        raise


def _memory(config: Config, paths: RuntimePaths, log: Log) -> tuple[int, gpus.Gpus]:
    """(the budget of the host, the GPUs with theirs), as this configuration and those who were here before allow."""
    for key in ("budget.host", "budget.gpu", "budget.spare", "budget.pin_cap", "quota.leased", "quota.pinned"):
        config[key]  # a bad one is named with where it is from
    await_end(paths)  # what it had is free when we look
    others = neighbours.living(config, paths)
    found = gpus.find(config, neighbours.gpus_taken(others), left_in_places(paths), log.write)
    return neighbours.host_budget(config, others, log.write), found


def _machine(config: Config, budgets: dict[str, int], sources: dict[str, tuple[str, ...]], system: bool) -> Machine:
    policy, min_resident = policies.make(config["residency.policy"]), config["residency.min_resident"]
    cap = {place: units.parse_size(config.text("budget.pin_cap"), budget) for place, budget in budgets.items()}
    turn = config["quota.turn"] if system else units.FOREVER
    return Machine(budgets, policy, config["residency.ttl"], cap, min_resident, turn, sources)


def _check_store(store: Store, system: bool) -> None:
    """The scope of a store is that of its manager: what one user imported has no owner, what is shared has."""
    if system and not store.system:
        hint = "make one with `trims init --system`"
        raise UsageError(f"{store.root} cannot be served to all", "it is a store of one user's scope", hint)
    if system:
        found = os.stat(store.root)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:  # whoever gets in reads past every permission
            hint = f"chown it to the user of the service, and chmod 700 {store.root}"
            raise NotPermitted(f"{store.root} cannot be served to all", "others own it, or can enter it", hint)
    if store.system and not system:
        hint = "start the manager with --scope system"
        raise UsageError(f"{store.root} cannot be served so", "it is a store that users share", hint)


def _quota(config: Config, name: str, budget: int) -> int:
    """Bytes of one user's share; a percentage is of the budget, as it is of memory elsewhere."""
    text = config.text(f"quota.{name}")
    return 0 if text == "auto" else units.parse_size(text, budget)


def _spare(config: Config, budget: int) -> int:
    text = config.text("budget.spare")
    return min(SPARE, budget // 8) if text == "auto" else min(units.parse_size(text, budget), budget)


def _raise_limits() -> None:
    """As many descriptors as we may have: one a connection and one a region."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _connections(system: bool, quota: int) -> int:
    """How many one user may have: half of what may be open, an eighth of a shared manager; or `quota`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(16, min(CONNECTIONS, soft // (8 if system else 2)))
    return min(most, quota) if quota else most


def _on_signals(manager: Manager, stack: ExitStack) -> None:
    """SIGTERM and SIGINT end it now: clients keep what they have mapped. The loop is woken through a pipe."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def woken(_: int) -> None:
        if set(os.read(read, 64)) & {signal.SIGTERM, signal.SIGINT}:
            manager.stop()

    manager.server.watch(read, woken)
    stack.callback(os.close, read)
    stack.callback(os.close, write)
    stack.callback(signal.set_wakeup_fd, -1)


def describe(manager: Manager, paths: RuntimePaths) -> dict[str, Any]:
    """What `trims start` says."""
    status = manager.status()
    return {
        "pid": os.getpid(),
        "socket": paths.socket,
        "budgets": status["budgets"],
        "already": False,
        "found": status["found"],
        "left_out": status["left_out"],
        "settings": status["settings"],
        "store": status["store"],
    }


def _describe(manager: Manager) -> str:
    uses = {place: manager.machine.use(place).budget for place in manager.executor.places}
    budgets = ", ".join(f"{place} {units.format_size(budget)}" for place, budget in uses.items())
    return f"pid {os.getpid()}, budget {budgets}"


def main(arguments: list[str]) -> int:
    """`python -m trims.manager`: detached when it has somebody to tell that it is ready."""
    import msgspec

    told = int(arguments[arguments.index("--ready-fd") + 1]) if "--ready-fd" in arguments else -1

    def tell(answer: dict[str, Any]) -> None:
        if told >= 0:
            os.write(told, msgspec.json.encode(answer))
            os.close(told)

    try:
        return run(load_config(), told >= 0, lambda answer: tell({"ready": answer}))
    except TrimsError as error:
        if told >= 0:
            tell({"error": error.to_dict()})
        else:
            print(f"trims: {error}", file=sys.stderr)
        return error.exit_code
