"""A manager of system scope with a store of its own, and the users it serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from helpers import sources
from helpers.tenants import ANNA, BERT, CARA, OPERATORS, TEAM, Tenant
from trims.disk.ingest import import_model
from trims.disk.store import Store, create_store
from trims.permission import Asker, Importer


class Service:
    """A manager of system scope. Everybody may find its socket, and nothing else."""

    def __init__(self, runtime: Any, manager: Any, store: Store) -> None:
        self.runtime, self.manager, self.store = runtime, manager, store
        self.socket = runtime.socket
        self.members = {ANNA: (TEAM,), BERT: (TEAM,), CARA: ()}
        self._open: list[Tenant] = []

    def put(
        self,
        ref: str,
        uid: int,
        group: int | None = None,
        mode: int | None = None,
        nbytes: int = 1 << 14,
        seed: int = 1,
    ) -> str:
        """Import as this user; the digest. Models of one seed and size have the same content."""
        asker = Asker(uid, uid, frozenset((uid, *self.members.get(uid, ()))))
        tensors = {"w": sources.numbers(seed, nbytes // 64, 16)}
        importer = Importer(asker, group=group, mode=mode)
        return import_model(self.store, sources.source(tensors), ref, importer=importer).entry.digest

    def user(self, uid: int, *groups: int) -> Tenant:
        """A process of this user, in the groups it is a member of, or in these."""
        tenant = Tenant(self.socket, uid, *(groups or self.members.get(uid, ())))
        self._open.append(tenant)
        return tenant

    def close(self) -> None:
        for tenant in self._open:
            tenant.close()


def serving(runtime: Any, home: Path, managers: Callable[..., Any]) -> Iterator[Callable[..., Service]]:
    """For a fixture: starts such managers, one at a time, with other settings if need be."""
    made: list[Service] = []

    def serve(**flags: str) -> Service:
        home.chmod(0o755)
        runtime.directory.chmod(0o755)
        store = create_store(str(runtime.store), system=True, if_missing=True)
        manager = managers(manager_scope="system", manager_operators=str(OPERATORS), **flags)
        made.append(Service(runtime, manager, store))
        return made[-1]

    yield serve
    for service in made:
        service.close()
