"""What the manager records of its work, and `trims trace record` and `trims logs --trace` make of it."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from helpers import chrome_rules, cli, leaks
from helpers.raw import Raw

from trims.client.records import Cursor
from trims.errors import ManagerUnreachable
from trims.manager.recording import KINDS
from trims.wire.messages import (
    Attach,
    Evict,
    Forget,
    History,
    Pin,
    SetPolicy,
    Status,
    Trace,
    Unpin,
    WaitFor,
    Warm,
)
from trims.workload import trace
from trims.workload.outcomes import FAILED, HIT, JOINED, LOADED

HOLDER = """
import sys; sys.path[:0] = sys.argv[2].split(":")
from helpers.raw import Raw
client = Raw(sys.argv[1])
client.attach("m")
print("held", flush=True)
sys.stdin.read()
"""


def attach_and_release(client, ref):
    answer = client.attach(ref)
    client.release(answer.lease)
    return answer


def attach_both(first, second, ref):
    """Two attaches of what is not there yet: both are asked before either is answered."""
    asked = [(client, client.next_id()) for client in (first, second)]
    for client, id in asked:
        client.send(Attach(id=id, ref=ref))
    return [client.answer(id) for client, id in asked]


@contextmanager
def holder(manager):
    """A process that holds a lease of m."""
    words = [sys.executable, "-c", HOLDER, str(manager.runtime.socket), ":".join(path for path in sys.path if path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def recording(*words):
    """`trims trace record WORDS` that has begun: its header is written."""
    process = subprocess.Popen(
        [*cli.TRIMS, "trace", "record", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 20
        while not (os.path.exists(words[0]) and os.path.getsize(words[0])):
            assert process.poll() is None and time.monotonic() < deadline
            os.sched_yield()
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process, number=None):
    """(exit code, standard output, standard error) after a signal."""
    if number is not None:
        process.send_signal(number)
    out, error = process.communicate(timeout=30)
    return process.returncode, out, error


def read(path):
    with open(path, "rb") as file:
        return trace.read(file, str(path))


def hows(found, ref):
    numbers = [n for n, model in enumerate(found.models) if model.name == ref]
    return sorted(row["how"] for row in found.requests if row["model"] in numbers)


def records(manager, kind=None):
    with manager.control() as control:
        return [r for r in Cursor(control).take() if kind in (None, r["kind"])]


def test_a_recorder_sees_every_way_a_request_can_go(put, managers, home):
    manager = managers(budget_host="12MiB")
    digest = put("m", 8 << 20)
    put("big", 13 << 20)
    path = home / "t.jsonl"
    with Raw(manager.runtime.socket) as early, Raw(manager.runtime.socket) as one, Raw(manager.runtime.socket) as two:
        early.ask(WaitFor, condition="ready")
        with recording(str(path)) as process:
            attach_both(one, two, "m")
            attach_and_release(one, "m")
            assert one.ask(Attach, ref="nope").code == "no-such-model"
            assert two.ask(Attach, ref="big").code == "no-room"
            kept = early.attach("m")
            code, out, error = ended(process, signal.SIGINT)
        assert (code, error) == (0, "") and out.startswith("recorded 6 requests for ")
        early.release(kept.lease)
    found = read(path)
    assert hows(found, "m:latest") == [HIT, HIT, JOINED, LOADED]
    assert hows(found, "nope:latest") + hows(found, "nope") == [FAILED] and hows(found, "big:latest") == [FAILED]
    m = next(model for model in found.models if model.name == "m:latest")
    assert (m.digest, m.nbytes, m.tensors, m.variant, m.place) == (digest, (8 << 20) + 32, 2, "raw", "host")
    assert [client.pid for client in found.clients] == [os.getpid()] * 3 and found.clients[0].job == "test"
    assert found.about["policy"] == "lru" and found.about["budgets"] == {"host": 12 << 20}
    held = found.requests["held"]
    assert (~(held >= 0)).sum() == 5  # two failed, three held to the end: of one, two and early
    assert (found.requests["wait"] > 0).all() and found.seconds >= found.requests["at"].max()
    assert len(found.stream()) == 5  # all but the one for what is no model
    shown = cli.items("trace", "show", str(path))[0]
    assert (shown["requests"], shown["hits"], shown["joined"], shown["loaded"], shown["failed"]) == (6, 2, 1, 1, 2)
    assert shown["still_held"] == 3 and shown["hit_rate"] == 0.5


def test_the_lease_of_a_killed_client_ends_with_it(put, manager, home):
    put("m")
    path = home / "t.jsonl"
    with recording(str(path)) as process, holder(manager) as client:
        begin = time.monotonic()
        client.kill()
        client.wait()
        with Raw(manager.runtime.socket) as watcher:
            watcher.ask(WaitFor, condition="idle", ref="m")
        assert ended(process, signal.SIGTERM)[0] == 0
        seconds = time.monotonic() - begin
    (row,) = read(path).requests
    assert row["how"] == LOADED and 0 < row["held"] < seconds + 20 and not math.isnan(row["held"])


def test_the_managers_death_ends_a_recording_that_stays_valid(put, manager, home):
    put("m")
    path = home / "t.jsonl"
    with recording(str(path)) as process, Raw(manager.runtime.socket) as client:
        attach_and_release(client, "m")
        client.attach("m")
        attach_and_release(client, "m")
        while path.read_bytes().count(b"\n[") < 2:  # the recorder has come to the last release
            os.sched_yield()
        manager.kill()
        code, _, error = ended(process)
    assert code == 4 and error.count("\n") == 1 and "has the 3 requests until then" in error
    found = read(path)
    assert len(found) == 3 and math.isnan(found.requests["held"][1]) and found.seconds > 0


def test_a_recording_ends_by_itself_and_goes_to_standard_output(put, manager):
    done = cli.run("trace", "record", "-", "--for", "50ms")
    assert done.returncode == 0 and done.stderr.startswith("recorded 0 requests")
    found = trace.read(io.BytesIO(done.stdout.encode()))
    assert len(found) == 0 and 0.05 <= found.seconds < 20


def test_a_person_sees_how_far_a_recording_is(manager, home):
    import pexpect

    words = ["trace", "record", str(home / "t.jsonl")]
    person = pexpect.spawn(cli.TRIMS[0], [*cli.TRIMS[1:], *words], encoding="utf-8", timeout=30)
    person.expect("recording: 0 requests in .*; Ctrl-C ends it")
    person.sendintr()
    person.expect("recorded 0 requests for 0 models by 0 clients")
    person.expect(pexpect.EOF)
    person.close()
    assert person.exitstatus == 0 and read(home / "t.jsonl").seconds > 0


def test_a_file_that_is_there_stays_unless_force_says_otherwise(manager, home):
    path = home / "t.jsonl"
    path.write_text("mine")
    assert "--force" in cli.fails(2, "trace", "record", str(path))
    assert "--force" in cli.fails(2, "logs", "--trace", str(path))
    assert path.read_text() == "mine"
    assert (
        json.loads(cli.ok("trace", "record", str(path), "--force", "--for", "1ms", "--json"))["items"][0]["held"] == 0
    )
    assert len(read(path)) == 0
    assert cli.items("logs", "--trace", str(path), "--force") == [{"file": str(path), "lost": 0}]
    chrome_rules.check(path.read_text())


def test_a_recording_that_cannot_be_written_or_asked_for_fails_in_one_line(manager, home):
    assert "full" in cli.fails(15, "trace", "record", "/dev/full", "--for", "1ms")
    cli.fails(2, "trace", "record", str(home / "no" / "t.jsonl"))
    cli.fails(2, "trace", "record", str(home), "--for", "tomorrow")
    manager.stop()
    cli.fails(3, "trace", "record", str(home / "t.jsonl"))
    cli.fails(3, "logs", "--trace", str(home / "t.json"))
    assert not (home / "t.jsonl").exists() and not (home / "t.json").exists()


def test_a_reader_that_is_too_slow_is_told_what_it_lost(manager):
    with manager.control() as control, Raw(manager.runtime.socket) as client:
        late, early = Cursor(control, -1), Cursor(control)
        before = len(early.take())
        assert early.lost == 0
        for _ in range(41):
            ids = [client.next_id() for _ in range(500)]
            client.send(*(Unpin(id=id, ref="", owner="nobody") for id in ids))
            for id in ids:
                client.answer(id)
        assert len(late.take()) == 20_000 and late.lost == 500
        everything = Cursor(control)
        assert len(everything.take()) == 20_000 and everything.lost == 500 + before
        assert late.take() == [] and late.lost == 500


def test_pages_are_small_whatever_is_asked_for(manager):
    with Raw(manager.runtime.socket) as client:
        for _ in range(300):
            client.ask(Unpin, owner="nobody")
        for limit, count in ((1 << 62, 250), (250, 250), (3, 3), (0, 1), (-5, 1)):
            where, *found = client.ask(Trace, after=0, limit=limit).items
            assert (len(found), where["next"], where["more"], where["lost"]) == (count, count, True, 0)
        for after in (-1, 1 << 62, -(1 << 62)):
            where, *found = client.ask(Trace, after=after).items
            assert found == [] and not where["more"] and where["lost"] == 0


def test_what_is_kept_of_a_request_is_small_whatever_it_says(manager):
    huge = "x" * 900_000
    with Raw(manager.runtime.socket) as client:
        for _ in range(5):
            client.ask(Attach, ref=huge, prefer=huge[:100_000])
            client.ask(Unpin, owner=huge)
        _where, *found = client.ask(Trace, after=0).items
        asked = [item for item in found if item["kind"] == "request"]
        assert len(asked) == 10 and max(len(str(item)) for item in found) < 2_000
        refused = client.ask(Pin, ref="m", reason=huge)
        assert refused.code == "usage" and len(str(refused)) < 1_000


def test_watching_keeps_no_manager_from_ending(managers):
    manager = managers(manager_idle_exit="200ms")
    with manager.control() as control:
        cursor = Cursor(control)
        with pytest.raises(ManagerUnreachable):
            while True:
                cursor.take()
    assert not leaks.wait_ended({manager.pid}, 10)


def test_a_client_that_does_not_stay_for_the_answer_is_recorded(put, manager):
    put("m")
    with Raw(manager.runtime.socket) as watcher:
        with Raw(manager.runtime.socket) as client:
            client.ask(Pin, ref="m", owner="me", expires=60.0)
            client.send(WaitFor(id=client.next_id(), condition="gone", ref="m", timeout=30.0))
            client.ask(Status)  # so it has come to the wait
        watcher.ask(WaitFor, condition="idle", ref="m")
        found = records(manager, "request")
    (pin,) = [r for r in found if r["verb"] == "pin"]
    assert (pin["how"], pin["ref"], pin["code"]) == ("warmed", "m:latest", "")
    gone, idle = [r for r in found if r["verb"] == "wait"]
    assert (gone["how"], gone["code"], gone["conn"]) == ("failed", "gone", pin["conn"])
    assert (idle["how"], idle["code"]) == ("done", "")


def test_every_answer_is_recorded_so_that_nothing_is_left_open(put, manager):
    digest = put("m")
    put("n")
    asked = [
        Attach(1, "m"), Attach(2, "nope"), Attach(3, "m", place="disk"), Warm(4, "m"), Warm(5, "n", dry_run=True),
        Warm(6, "n", wait=False), Warm(7, "nope"), Warm(8, "m", flavour="tea"), Pin(9, "m"), Unpin(10, "m"), Unpin(11),
        Evict(12, "m", dry_run=True), Evict(13, "m"), Evict(14, idle=0.0), WaitFor(15), WaitFor(16, "warm", "m"),
        WaitFor(17, "idle"), WaitFor(18, "gone", "m", timeout=0.0), Forget(19, digest), Forget(20, "x"), Status(21),
        Trace(22), SetPolicy(23, "fifo"), SetPolicy(24, "tea"), History(25, "m"),
        Warm(26, "n", dry_run=True, together=True),
    ]  # fmt: skip
    with Raw(manager.runtime.socket) as watcher:
        with Raw(manager.runtime.socket) as client:
            for message in asked:
                client.send(message)
                client.answer(message.id)
        watcher.ask(WaitFor, condition="idle", ref="m")  # the connection has ended
        found = [r for r in records(manager, "request") if r["id"] != 1 or r["verb"] == "attach"]
    mine = [r for r in found if r["conn"] == found[0]["conn"]]
    assert [r["id"] for r in mine] == [m.id for m in asked if type(m) in KINDS]
    assert "gone" not in {r["code"] for r in mine}
    failed = [r["id"] for r in mine if r["how"] == "failed"]
    assert failed == [2, 3, 7, 8, 12, 13, 17, 18, 19, 20]


def test_a_chrome_trace_shows_requests_loads_evictions_and_leases(put, managers, home):
    manager = managers(budget_host="10MiB")
    for name in ("a", "b", "c"):
        put(name, 4 << 20)
    with Raw(manager.runtime.socket) as one, Raw(manager.runtime.socket) as two:
        one.ask(Attach, ref="nope")
        for name in ("a", "b"):
            attach_and_release(one, name)
        for answer in attach_both(one, two, "c"):
            assert answer.digest
        with Raw(manager.runtime.socket) as waiting:
            waiting.ask(WaitFor, condition="gone", ref="a")
        cli.ok("logs", "--trace", str(home / "t.json"))
        early = cli.ok("logs", "--trace", "-", "--since", "1ms")
    chrome_rules.check(early)
    events = chrome_rules.check((home / "t.json").read_text())
    rows = chrome_rules.rows(events)
    loads = [e for e in rows["manager", "host: loads"] if e["cat"] == "load"]
    assert [e["name"] for e in loads] == ["load a:latest", "load b:latest", "load c:latest"]
    steps = [e["name"] for e in rows["manager", "host: loads"] if e["cat"] == "load,step"]
    assert steps[:3] == ["queued", "reading", "sealing"]
    (evict,) = rows["manager", "host: evictions"]
    assert (evict["name"], evict["ph"], evict["args"]["policy"]) == ("evict a:latest", "i", "lru")
    assert "c:latest" in evict["args"]["why"]
    (free,) = rows["manager", "host: memory given back"]
    assert free["name"] == "free a:latest"
    mine = [e for (process, _), found in rows.items() if process == "clients" for e in found]
    both = sorted(e["cat"] for e in mine if e["name"] == "attach c:latest")
    assert both in (["request,joined", "request,loaded"], ["request,hit", "request,loaded"])  # as fast as the load is
    (failed,) = [e for e in mine if e["cat"] == "request,failed"]
    assert failed["args"]["error"] == "no-such-model"
    assert sum(e["args"].get("held") == "still" for e in mine if e.get("cat") == "lease") == 2
    assert {"looking up", "waiting for room", "waiting for the load"} <= {e["name"] for e in mine}
    used = [e["args"]["used"] for e in events if e["ph"] == "C"]
    assert max(used) <= 10 << 20 and used[-1] >= 8 << 20
