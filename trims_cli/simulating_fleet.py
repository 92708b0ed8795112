"""What `trims simulate --nodes` does: a fleet behind a router, one row a tier, and what the routing makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trims import units
from trims.errors import UsageError
from trims.workload import fleet, report_file, routing
from trims.workload.cost import Cost
from trims.workload.models import total_bytes
from trims_cli import output
from trims_cli.counting import Count
from trims_cli.output import Column, Item
from trims_cli.settings import Settings
from trims_cli.simulating import Files, percent, remark, seconds
from trims_cli.simulating_input import MachineAsked, Workload, read_cases, read_cost, read_policies

COLUMNS = (
    Column("ROUTING", "routing"), Column("POLICY", "policy"), Column("SHARE", "_share"),
    Column("CLIENTS", "clients", "int"), Column("TIER", "tier"), Column("REQUESTS", "requests", "int"),
    Column("PART", "_part"), Column("BYTES", "nbytes", "size"), Column("MEAN", "_mean"), Column("P99", "_p99"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FleetAsked:
    """The options that say what the fleet is."""

    machines: int
    routing: str
    disk: str
    filled: bool
    bandwidth: str | None
    egress: str | None


def run(settings: Settings, workload: Workload, machine: MachineAsked, files: Files, given: FleetAsked) -> int:
    """Simulate the fleet under every routing, policy, share and number of clients."""
    if machine.native or files.csv is not None or files.picture is not None:
        raise UsageError("a fleet has no native side, cells or pictures", "", "leave --native, --csv and --picture out")
    prices, policies, ways = read_link(read_cost(machine.cost), given), read_policies(machine.policy), read_ways(given)
    cases = list(read_cases(workload, machine, prices))
    items: list[Item] = []
    total = sum(len(case.stream) for case in cases) * len(policies) * len(ways)
    with Count(settings, "simulating", total) as count:
        for case in cases:
            room = units.parse_size(given.disk, total_bytes(case.models))
            for policy in policies:
                for way in ways:
                    node = replace(case.setup, policy=policy)
                    asked = fleet.Fleet(given.machines, way, node, room, given.filled, workload.seed)
                    count.part(f"simulating {way}, {policy}")
                    served = fleet.serve(case.stream, asked, prices, count)
                    count(len(case.stream))
                    whole = {"routing": str(way), "policy": policy, "share": case.share, "clients": case.stream.clients,
                             "machines": given.machines, "measured": prices.measured}  # fmt: skip
                    items += _items(served, whole)
    if files.output is not None:
        report_file.write(files.output, output.document("simulate", [output.to_json(_plain(item)) for item in items]))
    output.emit(settings, "simulate", items, COLUMNS, "tier")
    for item in items[:: len(fleet.TIERS)]:
        output.tell(settings, lambda item=item: _sentence(item))  # type: ignore[misc]
    remark(settings, prices)
    return 0


def read_ways(given: FleetAsked) -> tuple[routing.Routing, ...]:
    """The ways of routing, each once, in the order given. Raises UsageError."""
    names = routing.KNOWN if given.routing == "all" else given.routing.split(",")
    return tuple(dict.fromkeys(routing.parse(name) for name in names))


def read_link(prices: Cost, given: FleetAsked) -> Cost:
    """The costs with the link to the remote store that was asked for. Raises UsageError."""
    link = prices.remote
    for name, text in (("alone", given.bandwidth), ("together", given.egress)):
        if text is not None:
            asked = units.parse_size(text.removesuffix("/s"))
            if asked < 1:
                raise UsageError(f"a link of {text} cannot be simulated", "nothing would ever arrive")
            link = replace(link, **{name: float(asked)})
    return replace(prices, remote=link)


def _items(served: fleet.Served, about: Item) -> list[Item]:
    """One a tier; figures of the whole fleet stand in each."""
    n, summary = max(1, len(served.outcomes)), served.summary
    mean, most = served.spread
    whole = {
        **about, "machines_used": served.machines_used, "imbalance": served.imbalance, "egress": served.egress,
        "busy_imbalance": served.busy_imbalance, "replicas_mean": mean, "replicas_max": most,
        "evictions": served.counters.get("evictions", 0), "fleet_mean": summary.mean, "fleet_p99": summary.p99,
        "throughput": summary.throughput, "seconds": summary.seconds, "_share": percent(about["share"]),
    }  # fmt: skip
    return [
        {
            **whole, "tier": tier.name, "requests": tier.requests, "nbytes": tier.nbytes, "mean": tier.mean,
            "p99": tier.p99, "_part": percent(tier.requests / n), "_mean": seconds(tier.mean),
            "_p99": seconds(tier.p99),
        }
        for tier in served.tiers
    ]  # fmt: skip


def _plain(item: Item) -> Item:
    return {key: value for key, value in item.items() if key[0] != "_"}


def _sentence(item: Item) -> str:
    return (
        f"{item['routing']}, {item['policy']}, {item['clients']} clients: mean {seconds(item['fleet_mean'])}, "
        f"p99 {seconds(item['fleet_p99'])}, {item['throughput']:.4g} requests a second; "
        f"{units.format_size(item['egress'])} from the remote store; "
        f"{item['machines_used']} of {item['machines']} machines asked"
        f", the busiest {item['imbalance']:.2f} times the mean; a model on {item['replicas_mean']:.2f} of them"
        f", at most {item['replicas_max']}"
    )
