"""A manager of system scope and the users it serves: each attaches what refs let them, and nothing else."""

from __future__ import annotations

import os
import random
from contextlib import suppress

import pytest
from helpers import capabilities, sources
from helpers.raw import Raw
from helpers.service import serving
from helpers.tenants import ANNA, BERT, CARA, OPERATORS, TEAM, Tenant, become, connections, greeting

import trims
from trims import config
from trims.disk.catalog import Catalog
from trims.disk.ingest import import_model
from trims.disk.store import create_store
from trims.errors import NoSuchModel
from trims.manager import neighbours
from trims.manager.run import run
from trims.paths import RuntimePaths
from trims.permission import Asker, Importer
from trims.shmindex.reader import read
from trims.wire.framing import encode
from trims.wire.messages import (
    Attach,
    Attached,
    Evict,
    Forget,
    History,
    List,
    Look,
    Pin,
    Refused,
    Remove,
    Result,
    SetPolicy,
    Share,
    Show,
    Status,
    Stop,
    Trace,
    Unpin,
    WaitFor,
    Warm,
)

pytestmark = capabilities.needs_root


@pytest.fixture
def serve(runtime, home, managers):
    yield from serving(runtime, home, managers)


@pytest.fixture
def service(serve):
    return serve()


@pytest.fixture
def anna(service):
    return service.user(ANNA)


@pytest.fixture
def bert(service):
    return service.user(BERT)


@pytest.fixture
def cara(service):
    return service.user(CARA)


def outcome(answer):
    return answer.code if isinstance(answer, Refused) else "yes"


# ---- attaching


def test_refs_say_who_attaches(service, anna, bert, cara):
    refs = {"private": (None, None), "team": (TEAM, None), "open": (None, 0o644), "closed": (None, 0)}
    for seed, (ref, (group, mode)) in enumerate(refs.items()):
        service.put(ref, ANNA, group, mode, seed=seed)
    found = {ref: [outcome(user.ask(Attach, ref=ref)) for user in (anna, bert, cara)] for ref in refs}
    no = "no-such-model"
    assert found == {
        "private": ["yes", no, no],
        "team": ["yes", "yes", no],
        "open": ["yes", "yes", "yes"],
        "closed": [no, no, no],
    }


def test_what_may_not_be_read_does_not_exist(service, anna, cara):
    """The refusal is the same to the letter, known to the manager or not, for every verb, by name and by digest."""
    digest = service.put("secret", ANNA)
    asks = [
        (Attach, {}), (Attach, {"variant": "ort-1"}), (Warm, {}), (Warm, {"dry_run": True}), (Warm, {"flavour": "raw"}),
        (Pin, {}), (Unpin, {}), (Evict, {}), (WaitFor, {"condition": "gone"}), (History, {}), (Show, {}),
    ]  # fmt: skip
    for known in (False, True):
        for cls, fields in asks:
            real, fake = cara.ask(cls, ref="secret", **fields), cara.ask(cls, ref="sesame", **fields)
            assert (real.code, real.what.replace("secret", "sesame"), real.why, real.hint, real.details) == (
                fake.code, fake.what, fake.why, fake.hint, fake.details,
            )  # fmt: skip
            for name in (f"id:{digest}", f"id:{digest[:12]}"):
                assert cara.ask(cls, ref=name, **fields).what == f"no model {name}"
        for cls in (Share, Remove):
            assert cara.ask(cls, ref="secret").code == cara.ask(cls, ref="sesame").code == "no-such-model"
        assert cara.ask(History, digest=digest).code == "no-such-model"
        assert isinstance(anna.ask(Attach, ref="secret"), Attached), known


def test_a_digest_is_what_some_ref_of_it_lets_one_have(service, anna, bert, cara):
    digest = service.put("team", ANNA, TEAM)
    assert service.put("mine", BERT, TEAM) == digest
    for user, word in ((anna, "yes"), (bert, "yes"), (cara, "no-such-model")):
        assert [outcome(user.ask(Attach, ref=f"id:{digest[:n]}")) for n in (64, 64, 12)] == [word] * 3
    assert isinstance(anna.ask(Share, ref="team", mode=0o600), Result)
    assert outcome(bert.ask(Attach, ref=f"id:{digest}")) == "yes"  # by his own
    assert isinstance(bert.ask(Remove, ref="mine", force=True), Result)
    assert outcome(bert.ask(Attach, ref=f"id:{digest}")) == "no-such-model"
    assert outcome(anna.ask(Attach, ref=f"id:{digest}")) == "yes"


def test_equal_content_of_two_users_is_two_models(service, anna, bert):
    assert service.put("a", ANNA) != service.put("b", BERT)
    first, second = anna.ask(Attach, ref="a"), bert.ask(Attach, ref="b")
    assert (first.how, second.how) == ("loaded", "loaded")  # nobody learns from its speed that another has it
    assert first.digest != second.digest


def test_a_share_holds_from_the_next_attach_on(service, anna, cara):
    service.put("m", ANNA)
    assert outcome(cara.ask(Attach, ref="m")) == "no-such-model"
    assert anna.ask(Share, ref="m", mode=0o644).items[0]["mode"] == 0o644
    assert outcome(cara.ask(Attach, ref="m")) == "yes"
    for _ in range(3):  # however fast it changes
        anna.ask(Share, ref="m", mode=0o600)
        assert outcome(cara.ask(Attach, ref="m")) == "no-such-model"
        anna.ask(Share, ref="m", mode=0o604)
        assert outcome(cara.ask(Attach, ref="m")) == "yes"


def test_operators_root_and_the_manager_itself_may_do_everything(service):
    digest = service.put("m", ANNA, mode=0)
    with Raw(service.socket) as root:
        assert root.welcome.scope == "system"
        assert root.welcome.operator
        assert root.attach(f"id:{digest}").digest == digest
    operator = service.user(CARA, OPERATORS)
    assert operator.run(greeting).operator
    assert outcome(operator.ask(Attach, ref="m")) == "yes"
    assert outcome(operator.ask(Trace)) == "yes"
    assert operator.ask(Share, ref="m", owner=str(BERT), group=str(TEAM)).items[0]["owner"] == BERT
    assert not service.user(BERT).run(greeting).operator


def test_users_without_a_number_are_not_served(service):
    nobody = service.user(65534, TEAM)
    welcome = nobody.run(greeting)
    assert (welcome.code, welcome.id) == ("not-permitted", 0)


def test_a_manager_of_one_user_refuses_others(runtime, home, manager):
    home.chmod(0o755)
    runtime.directory.chmod(0o755)
    runtime.socket.chmod(0o666)
    with Tenant(runtime.socket, ANNA) as stranger:
        assert stranger.run(greeting).code == "not-permitted"


# ---- verbs


def test_verbs_that_are_for_operators(service, anna):
    digest = service.put("m", ANNA)
    anna.ask(Attach, ref="m")
    for cls, fields in (
        (Stop, {"drain": False}), (SetPolicy, {"policy": "lru"}), (Trace, {}), (Forget, {"digest": digest}),
        (Evict, {}), (Evict, {"idle": 0.0}), (Evict, {"until_free": 1 << 20}), (Evict, {"ref": "m", "force": True}),
        (Evict, {"ref": "m", "idle": 0.0}), (History, {}),
    ):  # fmt: skip
        answer = anna.ask(cls, **fields)
        assert answer.code == "not-permitted", (cls, fields)
    assert anna.ask(Share, ref="m", owner=str(BERT)).code == "not-permitted"
    assert anna.ask(Share, ref="m", group="0").code == "not-permitted"
    assert anna.ask(Share, ref="m", mode=0o7777).code == "usage"
    assert outcome(anna.ask(Attach, ref="m")) == "yes"


def test_pins_are_put_and_taken_away_as_oneself(service, anna, bert):
    service.put("m", ANNA, TEAM)
    assert outcome(anna.ask(Pin, ref="m", owner="root", reason="mine")) == "yes"
    assert outcome(bert.ask(Pin, ref="m", owner=f"uid {ANNA}", reason="his")) == "yes"
    for fields in ({"owner": f"uid {ANNA}"}, {"ref": "m", "owner": f"uid {ANNA}"}, {}):
        bert.ask(Unpin, **fields)
    with Raw(service.socket) as root:
        assert [item["owner"] for item in root.ask(Unpin).items] == [f"uid {ANNA}"]


def test_eviction_is_of_ones_own_that_nobody_else_uses(service, anna, bert):
    service.put("m", ANNA, TEAM)
    bert.ask(Warm, ref="m")
    assert bert.ask(Evict, ref="m").code == "not-permitted"
    lease = bert.ask(Attach, ref="m").lease
    refusal = anna.ask(Evict, ref="m")
    assert (refusal.code, refusal.why, refusal.details) == ("in-use", "others use it", {})
    bert.run(_release, lease)
    bert.ask(Pin, ref="m")
    assert anna.ask(Evict, ref="m").code == "pinned"
    bert.ask(Unpin)
    assert anna.ask(Evict, ref="m").items[0]["outcome"] == "evicted"


def _release(client, lease):
    client.raw.release(lease)
    client.raw.ask(Status)


def test_removing_is_for_owners_and_leaves_others_what_they_hold(service, anna, bert):
    service.put("m", ANNA, TEAM)
    bert.ask(Attach, ref="m")
    bert.ask(Pin, ref="m", reason="secret plans")
    assert bert.ask(Remove, ref="m").code == "not-permitted"
    refusal = anna.ask(Remove, ref="m")
    assert refusal.code == "pinned"
    assert "secret" not in str(refusal)
    assert str(BERT) not in str(refusal)
    assert anna.ask(Remove, ref="m", force=True).items[0]["evicted"] == 0
    assert outcome(bert.ask(Attach, ref="m")) == "no-such-model"
    assert outcome(anna.ask(Attach, ref="m")) == "no-such-model"
    assert read(f"{service.runtime.directory}/index").residencies[0].leases == 1


def test_removing_takes_idle_memory_and_files_along(service, anna):
    digest = service.put("m", ANNA)
    service.put("other", ANNA)
    anna.ask(Warm, ref="m")
    assert anna.ask(Remove, ref="m").items == [{"ref": "m:latest", "digest": digest, "evicted": 0}]
    assert anna.ask(Remove, ref="other").items == [{"ref": "other:latest", "digest": digest, "evicted": 1}]
    assert Catalog(service.store.paths).refs() == []
    assert read(f"{service.runtime.directory}/index").residencies == []


# ---- what is told


def test_listings_are_of_what_one_may_read(service, anna, bert, cara):
    service.put("a", ANNA, seed=1)
    service.put("b", BERT, mode=0o644, seed=2)
    service.put("c", ANNA, TEAM, seed=3)
    names = {user.uid: [item["ref"] for item in user.ask(List).items[1:]] for user in (anna, bert, cara)}
    assert names == {
        ANNA: ["a:latest", "b:latest", "c:latest"], BERT: ["b:latest", "c:latest"], CARA: ["b:latest"],
    }  # fmt: skip
    head, first = anna.ask(List, limit=1).items
    assert (head, first["ref"], first["owner"], first["mode"]) == ({"more": True}, "a:latest", ANNA, 0o600)
    assert [i["ref"] for i in anna.ask(List, after="a:latest", limit=2).items[1:]] == ["b:latest", "c:latest"]
    assert anna.ask(List, after="c:latest").items == [{"more": False}]
    item, tensor = anna.ask(Show, ref="a", limit=10).items
    assert (item["tensors"], tensor["name"], item["files"], item["variants"]) == (1, "w", [], [])


def test_the_index_names_what_one_may_read_and_ones_own_leases(service, anna, bert, cara):
    secret = service.put("secret", ANNA, seed=1)
    team = service.put("team", ANNA, TEAM, seed=2)
    for user, ref in ((anna, "secret"), (anna, "team"), (bert, "team")):
        user.ask(Attach, ref=ref)
    header, *rows = bert.ask(Look).items
    told = {row["digest"]: (row["ref"], row["leases"], [lease["uid"] for lease in row["held"]]) for row in rows}
    assert told == {"": ("", 1, []), team: ("team:latest", 2, [BERT])}
    assert [place["place"] for place in header["places"]] == ["host"]
    assert "last_eviction" not in header["settings"]
    assert {row["digest"] for row in cara.ask(Look).items[1:]} == {""}
    with Raw(service.socket) as root:
        rows = root.ask(Look).items[1:]
        assert {row["digest"]: sorted(lease["uid"] for lease in row["held"]) for row in rows} == {
            secret: [ANNA], team: [ANNA, BERT],
        }  # fmt: skip
    assert bert.ask(Look, limit=1).items[0]["next"] == rows[1]["slot"]
    with pytest.raises(PermissionError):
        bert.run(_open, f"{service.runtime.directory}/index", os.O_RDONLY)


def test_refusals_and_plans_name_nobody_else(serve):
    service = serve(budget_host="4MiB", budget_pin_cap="100%")
    anna, cara = service.user(ANNA), service.user(CARA)
    service.put("secret", ANNA, nbytes=3 << 20, seed=1)
    service.put("mine", CARA, nbytes=3 << 20, seed=2)
    anna.ask(Warm, ref="secret")
    (plan,) = cara.ask(Warm, ref="mine", dry_run=True).items
    assert [(v["ref"], v["digest"], v["nbytes"] > 0) for v in plan["victims"]] == [("", "", True)]
    assert plan["ref"] == "mine:latest"
    anna.ask(Pin, ref="secret", reason="for the launch")
    for cls, fields in ((Attach, {"timeout": 0.05}), (Warm, {"dry_run": True}), (Pin, {"timeout": 0.05})):
        refusal = cara.ask(cls, ref="mine", **fields)
        assert refusal.code == "no-room"
        assert [(b["ref"], b["why"], b["holders"], b["pins"]) for b in refusal.details["blockers"]] == [
            ("", "pinned", [], [])
        ]
        for word in ("secret", "launch", str(ANNA)):
            assert word not in str(refusal)
    anna.ask(Unpin)
    (item,) = cara.ask(Warm, ref="mine").items
    assert [v["ref"] for v in item["victims"]] == [""]
    for line in cara.ask(History, ref="mine").items:
        assert (line["ref"], line["why"], line["by"]) == ("mine:latest", "", "")
    assert "secret" not in str(cara.ask(Status)) + str(cara.ask(Look))


# ---- around the manager


def _open(_client, path, flags):
    os.close(os.open(path, flags))


def test_only_the_socket_can_be_opened(service, cara):
    service.put("m", ANNA)
    with Raw(service.socket) as root:
        root.ask(Pin, ref="m")
    service.manager.stop()  # which writes the journal, and takes the index away
    for name in ("index", "lock", "start", "log", "journal"):
        path = f"{service.runtime.directory}/{name}"
        if name == "index":
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT, 0o600))
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            with pytest.raises(PermissionError):
                cara.run(_open, path, flags)
        for act in (os.unlink, os.mkfifo):
            with pytest.raises((PermissionError, FileExistsError)):
                cara.run(_act, act.__name__, path)


def _act(_client, name, *args):
    getattr(os, name)(*args)


def test_nothing_can_be_put_beside_the_socket(service, cara):
    directory = str(service.runtime.directory)
    for name, args in (
        ("mkdir", (f"{directory}/x",)), ("symlink", ("/etc/passwd", f"{directory}/journal.x")),
        ("rename", (str(service.socket), f"{directory}/y")), ("unlink", (str(service.socket),)),
        ("chmod", (directory, 0o777)), ("listdir", (str(service.runtime.store),)),
        ("chmod", (str(service.runtime.store), 0o777)),
    ):  # fmt: skip
        with pytest.raises(PermissionError):
            cara.run(_act, name, *args)


def test_the_managers_memory_is_out_of_reach(service, anna):
    service.put("m", ANNA)
    anna.ask(Attach, ref="m")
    pid = service.manager.pid
    for path in (f"/proc/{pid}/fd", f"/proc/{pid}/map_files"):
        with pytest.raises(PermissionError):
            anna.run(_act, "listdir", path)
    for path in (f"/proc/{pid}/mem", f"/proc/{pid}/maps", f"/proc/{pid}/environ"):
        with pytest.raises(PermissionError):
            anna.run(_open, path, os.O_RDONLY)
    assert anna.run(_ptrace, pid) != 0


def _ptrace(_client, pid):
    import ctypes

    return ctypes.CDLL(None, use_errno=True).ptrace(16, pid, 0, 0)  # PTRACE_ATTACH


def test_a_region_cannot_be_changed_by_whom_it_is_handed_to(service, anna):
    service.put("m", ANNA)
    anna.ask(Attach, ref="m")
    assert anna.run(_abuse) == []


def _abuse(client):
    """The ways by which a region could be written to, or handed on, that worked."""
    import mmap

    fd = client.raw.fds[-1]
    path = f"/proc/self/fd/{fd}"
    ways = {
        "reopen for writing": lambda: os.open(path, os.O_RDWR),
        "reopen for reading": lambda: os.open(path, os.O_RDONLY),
        "write": lambda: os.pwrite(fd, b"x", 0),
        "truncate": lambda: os.ftruncate(fd, 0),
        "chmod": lambda: os.fchmod(fd, 0o777),
        "chown": lambda: os.fchown(fd, os.getuid(), -1),
        "map to write": lambda: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
        "link": lambda: os.link(path, "/tmp/trims-region", follow_symlinks=True),
    }
    worked = []
    for name, way in ways.items():
        try:
            way()
        except OSError:
            continue
        worked.append(name)
    return worked


def test_one_user_cannot_take_all_connections(serve):
    service = serve(quota_connections="8")
    anna, cara = service.user(ANNA), service.user(CARA)
    assert sum(cara.run(connections, 20)) == 8
    service.put("m", ANNA)
    assert outcome(anna.ask(Attach, ref="m")) == "yes"


def test_a_users_share_of_what_is_attached_and_pinned(serve):
    service = serve(quota_leased="100KiB", quota_pinned="1%", budget_host="10MiB")
    anna, cara = service.user(ANNA), service.user(CARA)
    for seed, (ref, nbytes) in enumerate((("a", 60_000), ("b", 60_000), ("c", 20_000))):
        service.put(ref, ANNA, mode=0o644, nbytes=nbytes, seed=seed)
    first = anna.ask(Attach, ref="a")
    assert outcome(anna.ask(Attach, ref="a")) == "yes"  # the same bytes
    refusal = anna.ask(Attach, ref="b")
    assert (refusal.code, "you hold" in refusal.why, refusal.details["budget"]) == ("no-room", True, 100 << 10)
    with_another = service.user(ANNA)
    assert outcome(with_another.ask(Attach, ref="b")) == "no-room"  # it is the user's, not the process's
    assert outcome(with_another.ask(Attach, ref="c")) == "yes"
    assert outcome(cara.ask(Attach, ref="b")) == "yes"
    anna.run(_release, first.lease)
    assert outcome(anna.ask(Attach, ref="b")) == "no-room"  # one lease on it is left
    anna.run(_release, first.lease + 1)
    with_another.close()  # its leases end with it
    anna.ask(WaitFor, condition="idle", ref="c")
    assert outcome(anna.ask(Attach, ref="b")) == "yes"
    assert outcome(cara.ask(Pin, ref="a")) == "yes"
    assert outcome(cara.ask(Pin, ref="a")) == "yes"
    assert outcome(cara.ask(Pin, ref="b")) == "no-room"
    with Raw(service.socket) as root:
        assert [outcome(root.ask(cls, ref=ref)) for ref in "abc" for cls in (Attach, Pin)] == ["yes"] * 6


def test_requests_that_wait_are_bounded(service, cara):
    service.put("m", CARA)
    assert cara.run(_flood, 400) == {"failed": 400 - 256, "": 256}
    assert outcome(cara.ask(Attach, ref="m")) == "yes"


def _flood(client, count):
    """How many of so many requests that nothing answers are refused at once, and with what; the others are left."""
    from collections import Counter

    with Raw(client.path) as raw:
        raw.send(*(WaitFor(id=n, condition="attached", ref="m", timeout=60.0) for n in range(10, 10 + count)))
        raw.send(Status(id=9999))
        codes = Counter()
        while True:
            answer = raw.receive()
            if answer.id == 9999:
                return {**codes, "": count - codes.total()}
            if isinstance(answer, Refused):
                codes[answer.code] += 1


def test_how_long_anothers_model_is_kept_is_not_ones_own_to_say(service, anna, cara):
    service.put("m", ANNA, mode=0o644)
    assert cara.ask(Warm, ref="m", ttl=0.0).code == "not-permitted"
    assert outcome(cara.ask(Warm, ref="m")) == "yes"
    assert outcome(anna.ask(Warm, ref="m", ttl=60.0)) == "yes"


def _rave(client, seed, names):
    """Ask for anything about these names; the digests of all that was handed out, and all that was said."""
    rng = random.Random(seed)
    kinds = (
        Attach, Warm, Pin, Unpin, Evict, WaitFor, Forget, SetPolicy, History, Status, Trace, Stop, List, Show, Look,
        Share, Remove,
    )  # fmt: skip
    values = {
        "ref": names, "digest": names, "place": ("host",), "variant": ("raw", "auto"), "timeout": (0.0, 0.02),
        "owner": ("", "root", f"uid {ANNA}", str(CARA)), "group": ("", str(CARA), "0"), "mode": (None, 0o644, 0),
        "force": (False, True), "wait": (False, True), "dry_run": (False, True), "policy": ("lru", "fifo"),
        "condition": ("warm", "gone", "idle", "attached"), "drain": (False, True), "ttl": (None, 0.0),
        "idle": (None, 0.0), "until_free": (None, 1 << 40), "after": (0, 5),
    }  # fmt: skip
    got, said = set(), []
    with Raw(client.path) as raw:
        for _ in range(400):
            cls = rng.choice(kinds)
            chosen = {name: rng.choice(values[name]) for name in cls.__struct_fields__ if name in values}
            if cls is List:
                chosen["after"] = ""
            answer = raw.ask(cls, **chosen)
            if isinstance(answer, Attached):
                got.add(answer.digest)
                os.close(raw.fds.pop())
            said.append(str(answer))
    return got, said


def test_whatever_a_user_asks_for_others_are_as_before(service, anna, cara):
    secret = service.put("secret", ANNA, seed=1)
    shared = service.put("shared", ANNA, mode=0o644, seed=2)
    own = service.put("own", CARA, seed=3)
    held = anna.ask(Attach, ref="secret")
    anna.ask(Pin, ref="shared", reason="needed")
    before = {entry.ref: entry for entry in Catalog(service.store.paths).entries() if entry.owner == ANNA}
    digests = [f"id:{digest}" for digest in (secret, shared, own)] + [f"id:{secret[:8]}"]
    names = ("secret", "shared", "own", "", "x", secret, *digests)
    got, said = set(), []
    for seed in range(3):
        found, texts = cara.run(_rave, seed, names)
        got |= found
        said += texts
    assert got <= {shared, own}
    words = "".join(said)
    for told in ("'ref': 'secret", f"'digest': '{secret}", "needed", f"'owner': 'uid {ANNA}", f"'pid': {anna.pid}"):
        assert told not in words, [text for text in said if told in text]
    after = {entry.ref: entry for entry in Catalog(service.store.paths).entries() if entry.owner == ANNA}
    assert after == before
    with Raw(service.socket) as root:
        rows = {row["ref"]: row for row in root.ask(Look).items[1:]}
        assert [lease["lease"] for lease in rows["secret:latest"]["held"] if lease["uid"] == ANNA] == [held.lease]
        assert [item["owner"] for item in root.ask(Unpin, owner=f"uid {ANNA}").items] == [f"uid {ANNA}"]


def _hoard(client, count):
    """How many of so many connections are left open that each sent nearly all of a message of a megabyte."""
    made = [Raw(client.path) for _ in range(count)]
    for raw in made:
        with suppress(BrokenPipeError, ConnectionResetError):
            raw.sock.sendall(encode(Attach(id=1, ref="x" * 1_000_000))[:-1])
    client.raw.ask(Status)  # all of it has been read
    left = 0
    for raw in made:
        raw.sock.setblocking(False)
        with suppress(ConnectionResetError):
            try:
                left += bool(raw.sock.recv(1))
            except BlockingIOError:
                left += 1
        raw.close()
    return left


def test_what_is_kept_for_one_user_is_bounded(service, anna, cara):
    service.put("m", ANNA)
    assert 30 < cara.run(_hoard, 80) < 70
    assert outcome(anna.ask(Attach, ref="m")) == "yes"


def _neighbours(client):
    """The budgets that a manager of this user finds taken when it starts."""
    settings = config.load(flags={"manager.socket": str(client.path)})
    return [neighbour.host for neighbour in neighbours.living(settings, RuntimePaths("/nonexistent/trims.sock"))]


def test_a_users_own_manager_counts_what_the_shared_one_may_use(service, cara):
    assert cara.run(_neighbours) == [64 << 20]
    service.manager.stop()
    assert cara.run(_neighbours) == []


# ---- the service as it is meant to run, and the library


SERVICE = 40_300


def _be_the_service(runtime, ready):
    """In a forked process: become the service's user, make its store with two models, and serve until killed."""
    become(SERVICE)
    store = create_store(str(runtime.store), system=True)
    for ref, mode in (("open", 0o644), ("secret", None)):
        importer = Importer(Asker(ANNA, ANNA, frozenset((ANNA,))), mode=mode)
        import_model(store, sources.source({"w": sources.numbers(3, 4, 16)}), ref, importer=importer)
    flags = {"store.path": store.root, "manager.socket": str(runtime.socket), "manager.scope": "system"}
    settings = config.load(flags={**flags, "budget.host": "8MiB", "budget.spare": "0"})
    run(settings, False, lambda _: os.write(ready, b"."))


@pytest.fixture
def own_service(runtime, home):
    """A manager that is a user of its own, neither root nor any of those it serves; its pid."""
    home.chmod(0o755)
    runtime.directory.chmod(0o755)
    runtime.store.mkdir()
    for path in (runtime.directory, runtime.store):
        os.chown(path, SERVICE, SERVICE)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read_end)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            _be_the_service(runtime, write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    said = os.read(read_end, 1)
    os.close(read_end)
    yield pid
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert said == b"."


def _use(_client, name):
    """What a program gets that knows of nothing but the socket."""
    with trims.open(name, place="host") as model:
        array = model.numpy()["w"]
        return array.shape, array.flags.writeable


def test_a_service_of_its_own_user(own_service, runtime, monkeypatch):
    monkeypatch.setenv("TRIMS_SOCKET", str(runtime.socket))
    cara, anna = Tenant(runtime.socket, CARA), Tenant(runtime.socket, ANNA)
    try:
        for user, ref in ((cara, "open"), (anna, "open"), (anna, "secret")):
            assert user.run(_use, ref) == ((4, 16), False)
        with pytest.raises(NoSuchModel, match=r"^no model secret:latest \(see `trims ls`\)$"):
            cara.run(_use, "secret")
        cara.ask(Attach, ref="open")
        assert cara.run(_abuse) == []
        for act, path in (("listdir", f"/proc/{own_service}/fd"), ("listdir", str(runtime.store))):
            with pytest.raises(PermissionError):
                cara.run(_act, act, path)
        assert cara.run(_ptrace, own_service) != 0
        found = {path.name: oct(path.lstat().st_mode & 0o777) for path in runtime.directory.iterdir()}
        assert found.pop("trims.sock") == "0o666"
        assert {"lock", "index"} <= found.keys()
        assert set(found.values()) == {"0o600"}
    finally:
        cara.close()
        anna.close()
