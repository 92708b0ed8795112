"""Imports by other users: through the manager, in their own name, of files that only they can read."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import h5py  # noqa: F401  - another user may not be able to read this Python: what is imported is there already
import pytest
from helpers import capabilities
from helpers.channels import children, half_way, left, wait_for_end
from helpers.raw import Raw, until
from helpers.tenants import ANNA, BERT, CARA, TEAM, Tenant

import trims_cli.cmd_transfer
import trims_cli.selection
from trims.client import giving
from trims.disk.catalog import Catalog
from trims.disk.importers import directory, npy, safetensors, sniff  # noqa: F401
from trims.disk.store import Store, create_store
from trims.errors import BadInput, NotPermitted
from trims.wire.messages import Attach, Refused
from trims_cli.settings import Settings

pytestmark = capabilities.needs_root


@pytest.fixture
def store(runtime: Any, home: Path) -> Store:
    home.chmod(0o755)
    runtime.directory.chmod(0o755)
    return create_store(str(runtime.store), system=True)


@pytest.fixture
def start(managers: Any) -> Callable[[], Any]:
    return lambda: managers(manager_scope="system")


@pytest.fixture
def users(runtime: Any, store: Store, start: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, Tenant]]:
    """Three of them, of a manager of system scope that runs."""
    start()
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "/nonexistent")
    users = {uid: Tenant(runtime.socket, uid, *groups) for uid, groups in ((ANNA, [TEAM]), (BERT, [TEAM]), (CARA, []))}
    yield users
    for user in users.values():
        user.close()


def attaching(users: dict[int, Tenant], ref: str) -> list[str]:
    answers = [user.ask(Attach, ref=ref) for user in users.values()]
    return [answer.code if isinstance(answer, Refused) else "yes" for answer in answers]


def run_import(_client: Any, path: str, options: dict[str, Any]) -> dict[str, Any]:
    """`trims import --json` as this user; its item."""
    out = StringIO()
    with redirect_stdout(out):
        trims_cli.cmd_transfer.import_(Settings(json=True), [path], **options)
    (found,) = json.loads(out.getvalue())["items"]
    return dict(found)


@pytest.fixture
def annas(models: Any, home: Path) -> str:
    """A file that Anna alone can read."""
    path = home / "annas.safetensors"
    path.write_bytes(models.safetensors.read_bytes())
    path.chmod(0o400)
    os.chown(path, ANNA, ANNA)
    return str(path)


NO = "no-such-model"


def test_an_import_is_its_users_own(users: dict[int, Tenant], store: Store, annas: str) -> None:
    anna = users[ANNA]
    item = anna.run(run_import, annas, {"name": "mine"})
    assert (item["name"], item["outcome"], item["format"]) == ("mine:latest", "imported", "safetensors")
    entry = Catalog(store.paths).get("mine:latest")
    assert (entry.owner, entry.mode, entry.digest) == (ANNA, 0o600, item["id"])
    assert attaching(users, "mine") == ["yes", NO, NO]
    team = anna.run(run_import, annas, {"name": "ours", "group": str(TEAM)})
    assert team["id"] != item["id"]  # the same content, among others
    assert attaching(users, "ours") == ["yes", "yes", NO]
    assert anna.run(run_import, annas, {"name": "ours", "dry_run": True})["outcome"] == "would-replace"
    assert left(store) == []


def test_names_groups_and_files_of_others_are_refused(
    runtime: Any, users: dict[int, Tenant], store: Store, annas: str
) -> None:
    users[ANNA].run(run_import, annas, {"name": "mine"})
    with pytest.raises(NotPermitted, match="belongs to another user"):  # said before anything is copied
        users[BERT].run(give, annas, "mine:latest", "")
    with pytest.raises(NotPermitted, match="not in group"):
        users[ANNA].run(give, annas, "x:latest", "1")
    with pytest.raises(BadInput, match="cannot import"):
        users[BERT].run(give, annas, "b:latest", "")
    assert Catalog(store.paths).find("b:latest") is None
    with Raw(runtime.socket) as client:
        until(lambda: left(store) == [], client)  # Bert has given up by himself


def give(_client: Any, path: str, ref: str, group: str) -> dict[str, Any]:
    """An import without a look at the file."""
    with giving.Giver(Settings().config.sockets) as giver:
        return giver.give([path], ref=ref, files=["f.safetensors"], group=group)


def test_the_next_manager_sweeps_up(runtime: Any, store: Store, start: Any, models: Any) -> None:
    manager = start()
    with half_way(manager, (str(models.npz), "")) as (_, child):
        os.kill(manager.pid, signal.SIGSTOP)
        os.kill(child, signal.SIGKILL)
        wait_for_end(child)
        manager.kill()
    assert len(left(store)) == 1
    again = start()
    with Raw(runtime.socket) as client:
        until(lambda: left(store) == [], client)
    assert children(again.pid) == set()
