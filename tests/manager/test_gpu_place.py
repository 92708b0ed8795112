"""A real manager with simulated GPUs: residency, leases, budgets and failures are those of any place."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import leaks
from helpers.gpus import MIB, Gpus, entered
from helpers.raw import Raw, until

import trims
from trims import config
from trims.devices import simulated
from trims.devices.simulated import fail
from trims.devices.simulated_gpus import CONTEXT
from trims.errors import Damaged, DeviceLost, InUse, NoRoom, Pinned, UsageError
from trims.manager import gpus as gpus_module
from trims.manager import journal, neighbours
from trims.manifest import parse_table
from trims.paths import RuntimePaths
from trims.shmindex.reader import Index
from trims.wire.messages import Attach, Attached, Evict, Pin, Refused, Result, Status, WaitFor, Warm

HOLDER = """
import sys; sys.path[:0] = sys.argv[2].split(":")
from helpers.raw import Raw
client = Raw(sys.argv[1])
answer = client.attach(sys.argv[3], place="gpu")
print(answer.lease, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def manager(gpus, managers):
    """With two GPUs of 64 MiB, of which it may use 80 %: 50 MiB each."""
    return managers()


@pytest.fixture
def client(manager):
    with Raw(manager.runtime.socket) as client:
        yield client


def attach(client: Raw, ref: str, place: str = "gpu", **fields: object) -> tuple[Attached, list[int]]:
    """The answer and its descriptors, which stay the client's to close."""
    before = len(client.fds)
    answer = client.attach(ref, place=place, **fields)
    return answer, client.fds[before:]


def uses(client: Raw, place: str) -> dict[str, int]:
    return client.ask(Status).items[0]["budgets"][place]


def imported(runtime, ref: str) -> dict[str, bytes]:
    """The tensors of a model by name, as the store's files have them."""
    with trims.open(ref, place="disk", store=str(runtime.store)) as model:
        return {name: array.tobytes() for name, array in model.tensors().items()}


def tensors(gpus: Gpus, answer: Attached, fds: list[int], number: int = 0) -> dict[str, bytes]:
    """The same as a client of the GPU has them."""
    offset, nbytes = answer.table
    table = parse_table(os.pread(fds[0], nbytes, offset - answer.tail))
    data = gpus.read(fds[1:], answer.slabs, offset, number)
    found = {}
    for (name, *_, at), spec in zip(table.rows(), table.manifest.tensors, strict=True):
        found[name] = data[at : at + spec.nbytes]
    return found


# ---- what is there


def test_a_model_is_attached_on_a_gpu(put, gpus, manager, client) -> None:
    digest = put("m", 5 * MIB)
    answer, fds = attach(client, "m")
    assert (answer.digest, answer.place, answer.how) == (digest, gpus.place(0), "loaded")
    assert answer.map_nbytes == sum(answer.slabs) == 6 * MIB and len(fds) == 2
    assert tensors(gpus, answer, fds) == imported(manager.runtime, "m")
    again, more = attach(client, "m")
    assert (again.how, again.place) == ("hit", answer.place)
    assert tensors(gpus, again, more) == imported(manager.runtime, "m")
    assert uses(client, answer.place)["leased"] == 6 * MIB


@pytest.mark.parametrize("source", ["disk", "host", "gpu"])
def test_wherever_it_is_loaded_from_it_is_the_same(put, gpus, manager, client, source) -> None:
    put("m", 9 * MIB)
    if source != "disk":
        assert isinstance(client.ask(Warm, ref="m", place="host" if source == "host" else gpus.place(0)), Result)
    answer, fds = attach(client, "m", gpus.place(1))
    assert tensors(gpus, answer, fds, 1) == imported(manager.runtime, "m")


def test_no_context_is_opened_but_on_the_gpu_that_is_filled(put, gpus, manager, client) -> None:
    put("m", 9 * MIB)
    client.ask(Warm, ref="m", place="host")
    client.ask(Warm, ref="m", place=gpus.place(1))
    assert gpus.used(0) == 0
    assert gpus.used(1) == 10 * MIB + CONTEXT  # the worker's: the manager has none


def test_many_ask_at_once_and_one_load_serves_them(put, gpus, manager) -> None:
    put("m", 5 * MIB)
    clients = [Raw(manager.runtime.socket) for _ in range(8)]
    asked = [(client, client.next_id()) for client in clients]
    for client, id in asked:
        client.send(Attach(id=id, ref="m", place="gpu"))
    answers = [client.answer(id) for client, id in asked]
    assert {type(a) for a in answers} == {Attached} and sorted(a.how for a in answers) == ["joined"] * 7 + ["loaded"]
    assert clients[0].ask(Status).items[0]["counters"]["loads"] == 1
    for client in clients:
        client.close()


def test_evicted_memory_is_really_free(put, gpus, manager, client) -> None:
    put("m", 9 * MIB)
    client.ask(Warm, ref="m", place="gpu")
    there = gpus.used()
    (item,) = client.ask(Evict, ref="m", place="gpu").items
    assert (item["outcome"], item["nbytes"], item["place"]) == ("evicted", 10 * MIB, gpus.place(0))
    assert item["measured"] == 10 * MIB
    assert there - gpus.used() == 10 * MIB


def test_a_model_makes_room_for_another_on_its_gpu_alone(put, gpus, manager, client) -> None:
    for ref in ("a", "b", "c"):
        put(ref, 24 * MIB)
        client.ask(Warm, ref=ref, place=gpus.place(0))
    with Index(f"{manager.runtime.directory}/index") as index:
        assert [r.ref for r in index.snapshot().residencies] == ["c:latest"]
    refused = client.ask(Pin, ref="c", place=gpus.place(0), owner="ann")
    assert isinstance(refused, Result)
    refused = client.ask(Warm, ref="a", place=gpus.place(0), timeout=0)
    assert isinstance(refused, Refused) and refused.code == NoRoom.code
    assert client.ask(Warm, ref="a", place="gpu").items[0]["place"] == gpus.place(1)


def test_any_gpu_is_the_one_that_has_it_or_the_one_with_room(put, gpus, manager, client) -> None:
    put("a", 9 * MIB)
    put("b", 9 * MIB)
    assert client.ask(Warm, ref="a", place=gpus.place(1)).items[0]["outcome"] == "warmed"
    assert client.ask(Warm, ref="a", place="gpu").items[0]["outcome"] == "already"
    assert client.ask(Warm, ref="b", place="gpu").items[0]["place"] == gpus.place(0)
    assert client.ask(Evict, ref="a", place="gpu").items[0]["place"] == gpus.place(1)
    assert client.ask(WaitFor, ref="b", place="gpu", condition="warm").items[0]["held"]


def test_what_is_on_several_gpus_leaves_the_one_that_is_said(put, gpus, client) -> None:
    put("m")
    for number in (0, 1):
        client.ask(Warm, ref="m", place=gpus.place(number))
    refused = client.ask(Evict, ref="m", place="gpu")
    assert isinstance(refused, Refused) and refused.code == UsageError.code and gpus.place(1) in refused.hint
    assert client.ask(Evict, ref="m", place=gpus.place(1)).items[0]["outcome"] == "evicted"
    assert client.ask(Evict, ref="m", place="gpu").items[0]["place"] == gpus.place(0)


@pytest.mark.parametrize(
    ("place", "kind"),
    [("gpu:SIM-0000000", UsageError), ("gpu:sim-00000001", None), ("gpu:00000001", None), ("gpu:GPU-1", DeviceLost),
     ("gpu:7", DeviceLost), ("gpu:0", DeviceLost), ("gpu:0000000", DeviceLost), ("tape", DeviceLost)],
)  # fmt: skip
def test_the_beginning_of_a_uuid_is_enough_where_it_is_one_gpus(put, gpus, client, place, kind) -> None:
    put("m")
    answer = client.ask(Warm, ref="m", place=place)
    if kind is None:
        assert answer.items[0]["place"] == gpus.place(1)
    else:
        assert isinstance(answer, Refused) and answer.code == kind.code


def test_a_rule_has_to_say_which_gpu(put, gpus, client) -> None:
    refused = client.ask(Evict, place="gpu")
    assert isinstance(refused, Refused) and refused.code == UsageError.code and gpus.place(1) in refused.hint
    assert isinstance(client.ask(Evict, place=gpus.place(0)), Result)
    assert isinstance(client.ask(WaitFor, place=gpus.place(0), condition="free", nbytes=1), Result)


# ---- leases


def test_a_killed_clients_lease_is_gone_and_its_memory_can_go(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    paths = ":".join(path for path in sys.path if path)
    words = [sys.executable, "-c", HOLDER, str(manager.runtime.socket), paths, "m"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        refused = client.ask(Evict, ref="m", place="gpu")
        assert isinstance(refused, Refused) and refused.code == InUse.code
        holder.kill()
        holder.wait()  # its descriptors go one after the other, and the lease's is not the last
        assert client.ask(WaitFor, ref="m", place="gpu", condition="idle").items[0]["held"]
    before = gpus.used()
    client.ask(Evict, ref="m", place="gpu")
    assert before - gpus.used() == 6 * MIB


def test_what_a_client_holds_outlives_a_forced_eviction_and_the_manager(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    expected = imported(manager.runtime, "m")
    answer, fds = attach(client, "m")
    worker = client.ask(Status).items[0]["gpus"][answer.place]["worker"]
    (item,) = client.ask(Evict, ref="m", place="gpu", force=True).items
    assert item["outcome"] == "doomed" and item["holders"][0]["pid"] == os.getpid()
    assert tensors(gpus, answer, fds) == expected
    manager.kill()
    assert not leaks.wait_ended({worker}, leaks.GRACE)
    assert tensors(gpus, answer, fds) == expected
    assert gpus.used() == answer.map_nbytes


def kept(manager) -> set[str]:
    """The places that the journal names."""
    return {wish.place for wish in journal.read(RuntimePaths(str(manager.runtime.socket)).journal).kept}


def test_pins_and_the_warm_set_come_back_on_their_gpu(put, gpus, managers) -> None:
    first = managers()
    put("pinned", 5 * MIB)
    put("warm", 3 * MIB)
    with Raw(first.runtime.socket) as client:
        client.ask(Pin, ref="pinned", place=gpus.place(1), owner="ann")
        client.ask(Warm, ref="warm", place=gpus.place(0))
        client.ask(Warm, ref="warm", place="host", wait=True)
        until(lambda: kept(first) == {gpus.place(0), gpus.place(1), "host"}, client)
    first.kill()
    second = managers()
    with Raw(second.runtime.socket) as client:
        assert client.ask(WaitFor, ref="pinned", place=gpus.place(1), condition="warm").items[0]["held"]
        assert client.ask(WaitFor, ref="warm", place=gpus.place(0), condition="warm").items[0]["held"]


@pytest.mark.parametrize("budget", ["auto", "50MiB"])
def test_what_clients_of_a_killed_manager_hold_counts_once(put, gpus, managers, budget) -> None:
    flags = {} if budget == "auto" else {"budget_gpu": budget}
    first = managers(gpu_devices="0", **flags)
    put("held", 23 * MIB)
    put("more", 19 * MIB)
    with Raw(first.runtime.socket) as client:
        attach(client, "held")
        worker = client.ask(Status).items[0]["gpus"][gpus.place(0)]["worker"]
        mapped = mmap.mmap(client.fds[-2], 0, prot=mmap.PROT_READ)  # the tail: by that a holder is known
        first.kill()
        assert not leaks.wait_ended({worker}, leaks.GRACE)
        second = managers(gpu_devices="0", **flags)
        with Raw(second.runtime.socket) as other:
            assert uses(other, gpus.place(0)) == {
                "budget": 50 * MIB, "used": 24 * MIB, "reserved": 24 * MIB,
                **dict.fromkeys(("pinned", "leased", "idle", "spare"), 0),
            }  # fmt: skip
            assert isinstance(other.ask(Warm, ref="more", place="gpu"), Result)
            until(lambda: other.ask(Status).items[0]["gpus"][gpus.place(0)]["used"] > 0, other)
            assert uses(other, gpus.place(0))["reserved"] == 24 * MIB
        mapped.close()


# ---- going down


def test_an_eviction_can_keep_the_model_on_the_host(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    client.ask(Warm, ref="m", place="gpu")
    (item,) = client.ask(Evict, ref="m", place="gpu", to="host").items
    assert (item["outcome"], item["place"]) == ("evicted", gpus.place(0))
    assert client.ask(WaitFor, ref="m", condition="warm").items[0]["held"]
    refused = client.ask(Evict, ref="m", place="host", to="host")
    assert isinstance(refused, Refused) and refused.code == UsageError.code


def test_what_is_in_use_is_doomed_by_force_when_the_host_has_it(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    attach(client, "m")
    refused = client.ask(Evict, ref="m", place="gpu", to="host")
    assert isinstance(refused, Refused) and refused.code == InUse.code
    (item,) = client.ask(Evict, ref="m", place="gpu", to="host", force=True).items
    assert (item["outcome"], item["place"], item["measured"]) == ("doomed", gpus.place(0), None)
    assert client.ask(WaitFor, ref="m", condition="warm").items[0]["held"]


def test_a_model_stays_on_its_gpu_when_the_host_has_no_room(put, gpus, manager, client) -> None:
    put("m", 40 * MIB)
    put("big", 40 * MIB)
    client.ask(Warm, ref="m", place="gpu")
    client.ask(Pin, ref="big", place="host", owner="ann")
    refused = client.ask(Evict, ref="m", place="gpu", to="host", timeout=0)
    assert isinstance(refused, Refused) and refused.code == NoRoom.code
    assert client.ask(WaitFor, ref="m", place="gpu", condition="warm").items[0]["held"]


def test_nothing_gives_way_on_the_host_for_what_does_not_leave_its_gpu(put, gpus, manager, client) -> None:
    for ref in ("leased", "pinned", "idle"):
        put(ref, 20 * MIB)
    client.ask(Warm, ref="idle", place="host")
    client.ask(Pin, ref="pinned", place=gpus.place(0), owner="ann")
    lease = attach(client, "leased", gpus.place(0))[0].lease
    refused = [
        client.ask(Evict, ref=ref, place="gpu", to="host", wait=wait)
        for ref, wait in (("leased", False), ("pinned", False), ("pinned", True))
    ]
    assert [answer.code for answer in refused] == [InUse.code, Pinned.code, Pinned.code]
    with Index(f"{manager.runtime.directory}/index") as index:
        assert [r.ref for r in index.snapshot().residencies if r.place == "host"] == ["idle:latest"]
    id = client.next_id()
    client.send(Evict(id=id, ref="leased", place="gpu", to="host", wait=True))
    with Raw(manager.runtime.socket) as other:
        assert other.ask(WaitFor, ref="leased", place="host", condition="warm").items[0]["held"]
    client.release(lease)
    assert client.answer(id).items[0]["outcome"] == "evicted"


def test_what_gives_way_is_kept_on_the_host_where_that_is_configured(put, gpus, managers) -> None:
    manager = managers(residency_demote_to="host")
    with Raw(manager.runtime.socket) as client:
        put("a", 40 * MIB)
        put("b", 40 * MIB)
        client.ask(Warm, ref="a", place=gpus.place(0))
        client.ask(Warm, ref="b", place=gpus.place(0))
        assert client.ask(WaitFor, ref="a", place="host", condition="warm").items[0]["held"]
        client.ask(Evict, ref="b", place=gpus.place(0))  # sent away, not made to give way
        refused = client.ask(WaitFor, ref="b", place="host", condition="warm", timeout=0)
        assert isinstance(refused, Refused)


# ---- what goes wrong


def test_a_damaged_model_is_never_handed_out(put, gpus, manager, client) -> None:
    digest = put("m", 5 * MIB)
    path = next(Path(manager.runtime.store).rglob(f"{digest}.h5"))
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    refused = client.ask(Attach, ref="m", place="gpu")
    assert isinstance(refused, Refused) and refused.code == Damaged.code and "w" in refused.what
    until(lambda: uses(client, gpus.place(0))["used"] == 0, client)


@pytest.mark.parametrize("failure", [{"create": [1]}, {"copy_in": [1]}, {"die": "copy_in"}])
def test_a_failed_load_is_told_and_the_next_one_goes_well(put, gpus, manager, client, failure) -> None:
    put("m", 5 * MIB)
    fail(gpus.directory, **failure)
    refused = client.ask(Attach, ref="m", place=gpus.place(0))
    assert isinstance(refused, Refused) and refused.code in (NoRoom.code, DeviceLost.code)
    assert uses(client, gpus.place(0))["used"] == 0
    fail(gpus.directory)
    answer, fds = attach(client, "m", gpus.place(0))
    assert tensors(gpus, answer, fds) == imported(manager.runtime, "m")


def test_a_lost_gpu_leaves_the_others_and_the_host(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    fail(gpus.directory, lost=[gpus.all[0].uuid])
    refused = client.ask(Attach, ref="m", place=gpus.place(0))
    assert isinstance(refused, Refused) and refused.code == DeviceLost.code
    assert isinstance(client.ask(Attach, ref="m", place=gpus.place(1)), Attached)
    assert isinstance(client.ask(Attach, ref="m"), Attached)
    told = client.ask(Status).items[0]["gpus"]
    until(lambda: len(client.ask(Status).items[0]["gpus"][gpus.place(0)]["notes"]) == 2, client)
    assert len(told[gpus.place(1)]["notes"]) == 1  # that it is simulated
    fail(gpus.directory)
    until(lambda: len(client.ask(Status).items[0]["gpus"][gpus.place(0)]["notes"]) == 1, client)


def test_a_load_that_nobody_waits_for_is_given_up(put, gpus, manager, client, home) -> None:
    put("m", 20 * MIB)
    gate = home / "gate"
    os.mkfifo(gate)
    fail(gpus.directory, hold={"copy_in": str(gate)})
    with Raw(manager.runtime.socket) as other:
        other.send(Attach(id=other.next_id(), ref="m", place=gpus.place(0)))
        fd = entered(gate)
    until(lambda: client.ask(Status).items[0]["counters"]["loads_cancelled"] == 1, client)
    fail(gpus.directory)
    os.close(fd)
    until(lambda: uses(client, gpus.place(0))["used"] == 0, client)


def test_what_others_take_of_a_gpu_is_not_promised(put, gpus, manager, client) -> None:
    put("m", 24 * MIB)
    handle = gpus.driver.create(0, 40 * MIB)
    try:
        until(lambda: uses(client, gpus.place(0))["reserved"] > 0, client)
        refused = client.ask(Warm, ref="m", place=gpus.place(0), timeout=0)
        assert isinstance(refused, Refused) and refused.code == NoRoom.code
        told = client.ask(Status).items[0]["gpus"][gpus.place(0)]
        assert told["used"] == told["others"] == 40 * MIB and told["simulated"] is True
    finally:
        gpus.driver.release(handle)
    until(lambda: uses(client, gpus.place(0))["reserved"] == 0, client)
    assert isinstance(client.ask(Warm, ref="m", place=gpus.place(0)), Result)


def test_a_killed_managers_worker_ends_with_it(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    client.ask(Warm, ref="m", place="gpu")
    worker = client.ask(Status).items[0]["gpus"][gpus.place(0)]["worker"]
    assert worker
    manager.kill()
    assert not leaks.wait_ended({worker}, leaks.GRACE)
    assert gpus.used() == 0


# ---- which GPUs


@pytest.mark.parametrize(("named", "numbers"), [("auto", (0, 1)), ("1", (1,)), ("SIM-00000001", (1,)), ("1,0", (1, 0))])
def test_the_gpus_that_are_named_are_served(gpus, managers, named, numbers) -> None:
    manager = managers(gpu_devices=named)
    assert list(manager.started["budgets"])[1:] == [gpus.place(number) for number in numbers]


def test_none_are_served_where_none_are_wanted(put, gpus, managers) -> None:
    manager = managers(gpu_devices="none")
    put("m")
    with Raw(manager.runtime.socket) as client:
        refused = client.ask(Attach, ref="m", place="gpu")
        assert isinstance(refused, Refused) and refused.code == DeviceLost.code and "without GPUs" in refused.why


@pytest.mark.parametrize(("flags", "kind"), [
    ({"gpu_devices": "2"}, DeviceLost), ({"gpu_devices": "GPU-1"}, DeviceLost), ({"gpu_devices": "SIM-0"}, UsageError),
    ({"gpu_devices": "0", "budget_gpu": "1GiB"}, NoRoom), ({"gpu_devices": "0", "budget_gpu": "1MiB"}, NoRoom),
    ({"gpu_devices": "0", "budget_gpu": "many"}, UsageError),
])  # fmt: skip
def test_what_was_asked_for_and_is_not_there_stops_the_start(gpus, managers, flags, kind) -> None:
    with pytest.raises(kind):
        managers(**flags)


def test_a_gpu_that_cannot_share_is_left_out_or_refused(home, managers, monkeypatch) -> None:
    others = Gpus(simulated.make(str(home / "others"), gpus=1, nbytes=64 * MIB, shares=False))
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", others.directory)
    with pytest.raises(DeviceLost, match="descriptors"):
        managers(gpu_devices="0")
    assert list(managers().started["budgets"]) == ["host"]


@pytest.mark.parametrize("failure", ["notes", "usage", "reaches"])
def test_a_gpu_that_fails_at_the_start_costs_no_manager(gpus, managers, failure) -> None:
    fail(gpus.directory, **{failure: [1]})
    served = {gpus.place(0), gpus.place(1)} if failure == "reaches" else {gpus.place(1)}
    assert set(managers().started["budgets"]) == {"host", *served}


def test_a_budget_is_of_what_is_free_and_nobody_else_was_promised(gpus, managers, home) -> None:
    first = managers(gpu_devices="0")
    assert first.started["budgets"][gpus.place(0)]["budget"] == 50 * MIB
    settings = config.load(flags={"gpu.devices": "0"})
    taken = neighbours.gpus_taken(neighbours.living(settings, RuntimePaths(str(home / "another" / "trims.sock"))))
    assert taken == {gpus.place(0): 50 * MIB}
    assert gpus_module.find(settings, taken, {}, lambda text, level: None).budgets == {gpus.place(0): 10 * MIB}
