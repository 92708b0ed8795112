"""The checks that stand between a tenant's request and the machine, once it is known what the request is about."""

from __future__ import annotations

from trims.errors import InUse, NotPermitted, Pinned
from trims.manager import gate
from trims.manager.connection import Connection
from trims.manager.discretion import OTHERS
from trims.manager.loader import Form
from trims.manager.names import Named, Names, unknown
from trims.manager.quotas import Quotas
from trims.permission import Asker, may_change
from trims.places import is_gpu
from trims.residency.machine import Machine
from trims.wire import messages as wm

_WAIT = (wm.Attach, wm.Warm, wm.Pin, wm.Evict, wm.WaitFor)
"""Requests that may wait for the machine; the others wait in line, at most INBOX_LIMIT of a connection."""


class Tenancy:
    """Each check gives the name by which the tenant knows the model, or raises why not."""

    def __init__(self, names: Names, quotas: Quotas, machine: Machine, gpu_group: int | None = None) -> None:
        self._names, self._quotas, self._machine, self._gpu_group = names, quotas, machine, gpu_group

    def admitted(self, connection: Connection, tenant: Asker, message: wm.Request) -> wm.Request:
        """The request as it is served for this tenant. Raises NotPermitted, and when too many of theirs wait."""
        if isinstance(message, _WAIT):
            self._quotas.check_waiting(connection)
        return gate.admitted(tenant, message)

    def to_attach(self, tenant: Asker, form: Form) -> str:
        ref = self._known(tenant, form).ref
        if is_gpu(form.key.place):
            self._check_gpu(tenant, ref)
        self._quotas.check_lease(tenant, form.key, ref, form.nbytes)
        return ref

    def to_warm(self, tenant: Asker, form: Form, sets_ttl: bool) -> str:
        """How long it is kept is for its owner to say: with 0 seconds it would be evicted."""
        named = self._known(tenant, form)
        if sets_ttl and not may_change(named.access, tenant):
            what = f"how long {named.ref} is kept is not changed"
            raise NotPermitted(what, "it belongs to another user", "leave the ttl out")
        return named.ref

    def to_pin(self, tenant: Asker, form: Form) -> str:
        ref = self._known(tenant, form).ref
        self._quotas.check_pin(tenant, form.key, ref, form.nbytes)
        return ref

    def to_evict(self, tenant: Asker, digest: str, ref: str, place: str) -> None:
        """Raise unless the model is this tenant's own, and nobody else's to use at the moment."""
        what, named = f"{ref} is not evicted from {place}", self._names.quick(ref)
        if named is None or not may_change(named.access, tenant):
            raise NotPermitted(what, "it belongs to another user", "ask its owner")
        if any(holder.uid != tenant.uid for holder in self._machine.holders(digest)):
            raise InUse(what, OTHERS)
        if any(owner != gate.owner_name(tenant) for owner in self._machine.pin_owners(digest)):
            raise Pinned(what, "it is pinned by others")

    def _check_gpu(self, tenant: Asker, ref: str) -> None:
        """Raise unless the tenant may have memory of a GPU: whoever maps it could write to it."""
        if self._gpu_group is None or self._gpu_group not in tenant.groups:
            what = f"{ref} is not given to you on a GPU"
            raise NotPermitted(what, "GPU memory is shared within the group gpu.group only", "open it on the host")

    def _known(self, tenant: Asker, form: Form) -> Named:
        """What was found for a tenant, asked once more now that the answer is due."""
        named = self._names.readable(form.key.digest, tenant)
        if named is None:
            raise unknown(f"id:{form.key.digest}")  # its form may carry the ref of another
        return named
