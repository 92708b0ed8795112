"""What other users see of a shared manager at the command line: what refs let them read, all through the socket."""

from __future__ import annotations

import json
import re

import pytest
from helpers import capabilities, cli
from helpers.service import serving
from helpers.tenants import ANNA, BERT, CARA, TEAM, command

from trims.disk.catalog import Catalog
from trims.wire.messages import Attach, Pin

pytestmark = capabilities.needs_root


@pytest.fixture
def service(runtime, home, managers):
    for serve in serving(runtime, home, managers):
        service = serve()
        for seed, (ref, mode) in enumerate((("secret", None), ("team", 0o640), ("open", 0o644))):
            service.put(ref, ANNA, TEAM if mode == 0o640 else None, mode, seed=seed)
        yield service


def items(uid, *words, groups=()):
    code, out, errors = command(uid, *words, "--json", groups=groups)
    assert (code, errors) == (0, "")
    return json.loads(out)["items"]


def test_listings_come_through_the_socket(service):
    names = {
        uid: [item["name"] for item in items(uid, "ls", groups=groups)]
        for uid, groups in ((ANNA, ()), (BERT, (TEAM,)), (CARA, ()))
    }
    assert names == {
        ANNA: ["open:latest", "secret:latest", "team:latest"], BERT: ["open:latest", "team:latest"],
        CARA: ["open:latest"],
    }  # fmt: skip
    anna = service.user(ANNA)
    for ref in ("secret", "open"):
        anna.ask(Attach, ref=ref)
    rows = [(row["model"], row["pid"], row["state"]) for row in items(CARA, "ps")]
    assert rows == [(None, None, "resident"), ("open:latest", None, "resident")]
    rows = [(row["model"], row["pid"]) for row in items(ANNA, "ps")]
    assert rows == [("open:latest", anna.pid), ("secret:latest", anna.pid)]
    (shown,) = items(CARA, "show", "open")
    assert (shown["owner"], shown["mode"], shown["path"]) == (ANNA, 0o644, None)
    assert [r["leases"] for r in shown["resident"]] == [1]
    assert [t["name"] for t in items(CARA, "show", "open", "--tensors")] == ["w"]
    (status,) = items(CARA, "status")
    assert (status["state"], status["residencies"], status["last_eviction"]) == ("running", 2, None)
    code, out, _ = command(CARA, "top", "--once")
    assert (code, "open:latest" in out, "secret" in out) == (0, True, False)


REFUSED = (
    (("show", "secret"), 10, "no model secret:latest .see `trims ls`."),
    (("warm", "secret"), 10, "no model secret:latest .see `trims ls`."),
    (("rm", "secret"), 10, "no model 'secret'"),
    (("rm", "open"), 2, "it belongs to another user"),
    (("share", "open", "--mode", "600"), 2, "it belongs to another user"),
    (("evict", "open"), 2, "it belongs to another user"),
    (("evict", "--all"), 2, "it is for operators|are for operators"),
    (("stop",), 2, "it is for operators"),
    (("policy", "lru"), 2, "it is for operators"),
    (("show", "open", "--path"), 2, "this user may not read it"),
    (("df",), 2, "cannot be opened: this user may not read it"),
    (("gc", "--yes"), 2, "cannot be opened: this user may not read it"),
    (("verify",), 2, "cannot be opened: this user may not read it"),
    (("share", "open"), 2, "share with whom"),
    (("share", "open", "--mode", "999"), 2, "bad mode '999'"),
)


def test_what_is_refused_says_why_in_one_line(service):
    for words, code, says in REFUSED:
        found, out, errors = command(CARA, *words)
        assert (found, out, errors.count("\n")) == (code, "", 1), words
        assert re.search(says, errors), errors


def test_sharing_and_removing_ones_own(service):
    (item,) = items(ANNA, "share", "secret", "--mode", "644")
    assert (item["name"], item["uid"], item["mode"]) == ("secret:latest", ANNA, 0o644)
    assert "secret:latest" in [item["name"] for item in items(CARA, "ls")]
    assert [item["name"] for item in items(ANNA, "share", "*", "--mode", "600")] == [
        "open:latest", "secret:latest", "team:latest",
    ]  # fmt: skip
    assert items(CARA, "ls") == []
    assert items(ANNA, "rm", "open", "-n")[0]["outcome"] == "would-remove"
    assert [i["outcome"] for i in items(ANNA, "rm", "open", "secret", "--yes")] == ["removed", "removed"]
    assert Catalog(service.store.paths).refs() == ["team:latest"]
    assert items(ANNA, "rm", "nothing", "--missing-ok") == []


def test_globs_are_of_what_one_may_read(service):
    assert [item["name"] for item in items(CARA, "warm", "*")] == ["open:latest"]
    service.user(CARA).ask(Pin, ref="open")
    assert [item["owner"] for item in items(CARA, "unpin", "--mine")] == [f"uid {CARA}"]


def test_without_a_manager_the_store_stays_closed(service):
    service.manager.stop()
    for words in (("ls",), ("show", "open")):
        code, _, errors = command(CARA, *words)
        assert (code, "this user may not read it" in errors) == (2, True)


def test_a_restart_keeps_the_scope(service):
    service.put("kept", ANNA, seed=7)
    cli.ok("restart", "--now")
    service.manager.pid = service.manager.request("status")[0]["pid"]
    assert service.manager.request("status")[0]["scope"] == "system"
    assert [item["name"] for item in items(CARA, "ls")] == ["open:latest"]


def test_a_store_and_its_manager_are_of_one_scope(service, home):
    service.manager.stop()
    service.runtime.directory.chmod(0o700)
    assert "start the manager with --scope system" in cli.fails(2, "start")
    assert "chmod 755" in cli.fails(2, "start", "--scope", "system")
    service.runtime.directory.chmod(0o755)
    cli.ok("init", str(home / "mine"))
    assert "trims init --system" in cli.fails(2, "--store", str(home / "mine"), "start", "--scope", "system")
    assert "exclude each other" in cli.fails(2, "init", str(home / "x"), "--system", "--shared", "0")


def test_units_of_a_service_for_all(service):
    text = cli.ok("start", "--scope", "system", "--print-unit")
    for line in ("User=trims", "RuntimeDirectoryMode=0755", "SocketMode=0666", "WantedBy=multi-user.target"):
        assert line in text.splitlines()
    assert "start --foreground" in text
    assert "--scope system" in text


def test_listings_of_many_pages_are_whole(service, monkeypatch):
    for name in ("told", "sharing"):
        monkeypatch.setattr(f"trims_cli.{name}._PAGE", 1)
    anna = service.user(ANNA)
    for ref in ("secret", "team", "open"):
        anna.ask(Attach, ref=ref)
    assert [item["name"] for item in items(ANNA, "ls")] == ["open:latest", "secret:latest", "team:latest"]
    assert [row["model"] for row in items(ANNA, "ps")] == ["open:latest", "secret:latest", "team:latest"]
    assert [row["model"] for row in items(CARA, "ps")] == [None, None, "open:latest"]
    assert [t["name"] for t in items(ANNA, "show", "secret", "--tensors")] == ["w"]
