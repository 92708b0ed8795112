"""Every message of the protocol, as frozen typed structs. trims-protocol(7) is the reference for other languages.

A connection starts with Hello and Welcome. Requests carry an `id` chosen by the client; every answer repeats it. A
request is answered by exactly one of Attached, Result or Refused, after any number of Progress. Sizes are bytes, times
are seconds; `timeout` is how long the asker will wait, and the manager answers by then.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from trims.wire.header import VERSION as VERSION


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=False, tag_field="t", omit_defaults=True):
    """Any message. Unknown fields are ignored, so fields may be added within a version."""


# ---- from clients


class Hello(Message, frozen=True, tag="hello"):
    """The first message of a client. `job` is the batch job it runs in, for `ps`; the kernel tells who it is."""

    version: int
    trims: str = ""
    job: str = ""


class Request(Message, frozen=True):
    """A message that is answered. `id` is the client's own, above 0."""

    id: int


class Attach(Request, frozen=True, tag="attach"):
    """Make resident if it is not, and take a lease.

    variant: "raw", the key of a derived form of the model (see trims-store(5)), or "auto": `prefer` where the store has
    that variant of this model, raw otherwise. With no `prefer`, an ONNX model comes in the variant that the manager
    itself derives, where the store has it.
    """

    ref: str
    place: str = "host"
    variant: str = "raw"
    prefer: str = ""
    timeout: float = 60.0


class Release(Message, frozen=True, tag="release"):
    """Give one lease back. Has no answer."""

    lease: int


class Warm(Request, frozen=True, tag="warm"):
    """Make resident without a lease.

    flavour: what it will be used for: "raw", "onnxruntime", "torch", or "auto" for what it was imported from.
    ttl: seconds it is kept after its last use; None leaves the manager's default, inf keeps it.
    wait: answer when it is resident; otherwise answer at once and go on loading.
    evict: may others be evicted for it. dry_run: only say what would happen; `together` with the dry runs that came
    before it on the connection, each of which finds the room that those before it leave.
    """

    ref: str
    place: str = "host"
    flavour: str = "auto"
    ttl: float | None = None
    wait: bool = True
    timeout: float = 60.0
    evict: bool = True
    dry_run: bool = False
    together: bool = False


class Pin(Request, frozen=True, tag="pin"):
    """Make resident and never evict, until unpinned or `expires` seconds from now have passed (None: for ever)."""

    ref: str
    place: str = "host"
    flavour: str = "auto"
    owner: str = ""
    reason: str = ""
    expires: float | None = None
    timeout: float = 60.0


class Unpin(Request, frozen=True, tag="unpin"):
    """Drop pins: of `ref` ("" for any model), and only those of `owner` unless it is ""."""

    ref: str = ""
    owner: str = ""


class Evict(Request, frozen=True, tag="evict"):
    """Give residencies up: of `ref`; or, with ref "", of all idle ones, of those idle for `idle` seconds, or of as
    many as leave `until_free` bytes free.

    force: doom leased ones too, so that they go with their last lease. wait: wait for leases to end, up to `timeout`.
    to: a lower place, "host", where the model is to be resident before it leaves this one; only with a ref.
    """

    ref: str = ""
    place: str = "host"
    to: str = ""
    idle: float | None = None
    until_free: int | None = None
    force: bool = False
    wait: bool = False
    timeout: float = 60.0
    dry_run: bool = False


class WaitFor(Request, frozen=True, tag="wait"):
    """Answer when a condition holds: `ready`; `warm`, `gone`, `idle`, `attached` of `ref`; `free` of `nbytes`."""

    condition: Literal["ready", "warm", "gone", "idle", "attached", "free"] = "ready"
    ref: str = ""
    place: str = "host"
    nbytes: int = 0
    timeout: float = 60.0


class Forget(Request, frozen=True, tag="forget"):
    """The ref is about to be removed from the store: evict its idle residencies, or refuse (in-use, pinned).

    digest: what the ref named. force: doom leased ones and drop pins instead of refusing.
    """

    digest: str
    force: bool = False


class SetPolicy(Request, frozen=True, tag="policy"):
    """From now on give up by this policy; what is resident stays. It lasts as long as the manager's process."""

    policy: str


class History(Request, frozen=True, tag="history"):
    """What happened lately to the residencies of one model, oldest first: the last `limit` of what is remembered.

    ref: its name; or `digest`, 64 hexadecimal digits, of one that may have left the store.
    """

    ref: str = ""
    digest: str = ""
    limit: int = 50


class Status(Request, frozen=True, tag="status"):
    """Ask for what the index does not hold: configuration, paths, version, counters by name."""


class Trace(Request, frozen=True, tag="trace"):
    """Ask for what the manager did: its records numbered `after` and up, the oldest it has first, `limit` at most.

    after: below 0 asks for no record, only for the number of the next.
    """

    after: int = 0
    limit: int = 250


class Stop(Request, frozen=True, tag="stop"):
    """End the manager: when the last lease is gone (`drain`, refused after `timeout`), or now."""

    drain: bool = True
    timeout: float = 60.0


class List(Request, frozen=True, tag="list"):
    """Ask for the models of the store that the asker may read: by ref, those after `after`, `limit` at most."""

    after: str = ""
    limit: int = 1000


class Show(Request, frozen=True, tag="show"):
    """Ask what one model is. With a `limit`, also for its tensors, `limit` at most from the one numbered `after` on."""

    ref: str
    after: int = 0
    limit: int = 0


class Look(Request, frozen=True, tag="look"):
    """Ask for what the index holds, for those who cannot read it: residencies from slot `after` on, `limit` at most."""

    after: int = 0
    limit: int = 1000


class Share(Request, frozen=True, tag="share"):
    """Say whose a ref is and who may read it: its owner, group (names or numbers; "" leaves them) and mode (None too).

    mode: permission bits as of a file; those for reading count: 0o400 its owner, 0o040 its group, 0o004 everybody.
    """

    ref: str
    owner: str = ""
    group: str = ""
    mode: int | None = None


class Remove(Request, frozen=True, tag="remove"):
    """Take a ref away, and its model's residencies with it if it was the last, as `forget` does. force: as there."""

    ref: str
    force: bool = False


class Import(Request, frozen=True, tag="import"):
    """Store what is in some files of the client's, which it is asked for by a Channel, as `ref`.

    files: their names relative to the directory of the source, the source itself first; or, of a source that is a
    `directory`, all its files that count. format: "" looks at the file. codec: "" is the store's own. if_exists:
    replace, skip or fail. group, mode: as of share; the owner is the asker. variant: of an ONNX model, derive the form
    for ONNX Runtime, too.
    """

    ref: str
    files: list[str]
    format: str = ""
    labels: dict[str, str] = {}
    codec: str = ""
    if_exists: str = "replace"
    group: str = ""
    mode: int | None = None
    directory: bool = False
    variant: bool = True


class Recognise(Request, frozen=True, tag="recognise"):
    """Ask what a file is, of the models that the asker may read. size: in bytes.

    key: its device, inode, size, mtime and ctime (nanoseconds), by which the store may know it; file: the BLAKE3 of all
    its bytes, hexadecimal, which is to be said when the answer asks for it.
    """

    size: int
    key: list[int] = []
    file: str = ""


# ---- from the manager


class Welcome(Message, frozen=True, tag="welcome"):
    """The answer to Hello. `identity` is new for every life of a manager; `store_id` is that of store.json.

    scope: "system" where users see and change what permissions let them; operator: whether that is everything.
    """

    version: int
    trims: str
    pid: int
    identity: str
    store: str
    store_id: str
    scope: str = "user"
    operator: bool = True


class Attached(Message, frozen=True, tag="attached"):
    """A lease; the region's read-only descriptor comes with this message.

    map_nbytes: length to map. table: (offset, nbytes) of the region table within it.
    how: "hit" when it was resident, "loaded" when this request began its load, "joined" when another's had.
    slabs: of a region on a GPU, the bytes of each slab, `map_nbytes` in all. Then 1 + len(slabs) descriptors come: that
    of host memory with the region's bytes from `tail` to the end of its table, and that of each slab in order.
    ipc: where slabs have no descriptors, the handle of each for legacy CUDA IPC, 128 hexadecimal digits; then only the
    descriptor of host memory comes.
    """

    id: int
    lease: int
    digest: str
    variant: str
    place: str
    map_nbytes: int
    table: tuple[int, int]
    how: str = "hit"
    slabs: list[int] = []
    tail: int = 0
    ipc: list[str] = []

    @property
    def descriptors(self) -> int:
        """How many descriptors come with it."""
        return 1 if self.ipc else 1 + len(self.slabs)


class Channel(Message, frozen=True, tag="channel"):
    """Whoever does an import wants its files: a socket's descriptor comes with this message.

    It is a pair's end (SOCK_SEQPACKET). The number of a file comes on it, in decimal digits, and the client answers
    with the same and that file's descriptor, open for reading, until the other end closes.
    """

    id: int


class Progress(Message, frozen=True, tag="progress"):
    """A load or an import goes on: bytes in place so far, of all (0 while files are copied). At most ten a second."""

    id: int
    done: int
    total: int


class Result(Message, frozen=True, tag="result"):
    """The request is done. `items` are plain JSON objects whose fields trims-protocol(7) lists for each request."""

    id: int
    items: list[dict[str, object]] = []


class Refused(Message, frozen=True, tag="refused"):
    """The request failed; the fields are those of a TrimsError. id 0: the connection itself is refused, and closed."""

    id: int
    code: str
    what: str
    why: str = ""
    hint: str = ""
    details: dict[str, object] = {}


ClientMessage = (
    Hello | Attach | Release | Warm | Pin | Unpin | Evict | WaitFor | Forget | SetPolicy | History | Status | Trace
    | Stop | List | Show | Look | Share | Remove | Import | Recognise
)  # fmt: skip
ManagerMessage = Welcome | Attached | Channel | Progress | Result | Refused
