"""Where things lie: pure functions from a root or a socket to names. No file system call is made here.

The store's layout is documented in trims-store(5), the runtime directory's in trims(1).
"""

from __future__ import annotations

SOCKET = "trims.sock"


class StorePaths:
    """The names inside one store. `root` is the store's directory, as given."""

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = root

    @property
    def marker(self) -> str:
        """`store.json`: magic, format version and options. Its presence makes a directory a store."""
        return f"{self.root}/store.json"

    @property
    def lock(self) -> str:
        """The store lock: shared while importing, exclusive while collecting garbage."""
        return f"{self.root}/lock"

    @property
    def tmp(self) -> str:
        """Files being written, each locked by its writer."""
        return f"{self.root}/tmp"

    @property
    def catalog(self) -> str:
        return f"{self.root}/catalog"

    @property
    def containers(self) -> str:
        return f"{self.root}/containers"

    @property
    def variants(self) -> str:
        return f"{self.root}/variants"

    @property
    def snapshot(self) -> str:
        """All refs in one disposable file, for listing; the catalog is the truth."""
        return f"{self.root}/snapshot"

    @property
    def names(self) -> str:
        """One ref a line, for shell completion; disposable."""
        return f"{self.root}/names"

    @property
    def sources(self) -> str:
        """What is known of the files that models were imported from."""
        return f"{self.root}/sources"

    def source(self, size: int, file: str) -> str:
        """What a file of this size in bytes and this BLAKE3 became."""
        return f"{self.root}/sources/{size}/{file}.json"

    def source_native(self, size: int, file: str) -> str:
        """How long frameworks' own loads of such a file took."""
        return f"{self.root}/sources/{size}/{file}.native.json"

    def source_key(self, dev: int, ino: int) -> str:
        """The digest that went with the `stat` of one file."""
        return f"{self.root}/sources/keys/{ino & 0xFF:02x}/{dev}-{ino}.json"

    def container(self, digest: str) -> str:
        return f"{self.root}/containers/{digest[:2]}/{digest}.h5"

    def sidecar(self, digest: str) -> str:
        """The manifest and layout of a container, as one JSON file beside it."""
        return f"{self.root}/containers/{digest[:2]}/{digest}.json"

    def variants_of(self, digest: str) -> str:
        """The directory of a model's variants; missing when it has none."""
        return f"{self.root}/variants/{digest}"

    def variant(self, digest: str, key: str) -> str:
        return f"{self.root}/variants/{digest}/{key}.h5"

    def variant_refusal(self, digest: str, key: str) -> str:
        """Where it is noted that a variant cannot be built, and why."""
        return f"{self.root}/variants/{digest}/{key}.refused"

    def variant_sidecar(self, digest: str, key: str) -> str:
        return f"{self.root}/variants/{digest}/{key}.json"

    def entry(self, ref: str) -> str:
        """The catalog file of a canonical ref."""
        return f"{self.root}/catalog/{shard(ref)}/{escape(ref)}.json"

    def ref_lock(self, ref: str) -> str:
        """The writer lock of one ref."""
        return f"{self.root}/locks/{shard(ref)}.lock"


def shard(ref: str) -> str:
    """The two hexadecimal digits that spread refs over 256 directories: the low byte of the ref's CRC-32."""
    import zlib  # here, since listing never asks

    return f"{zlib.crc32(ref.encode()) & 0xFF:02x}"


def escape(name: str) -> str:
    """`name`, any text, as one path component: all but ASCII letters, digits and `._-+@` as %XX of its UTF-8."""
    return "".join(
        chr(b) if chr(b).isascii() and (chr(b).isalnum() or chr(b) in "._-+@") else f"%{b:02X}"
        for b in name.encode("utf-8", "surrogatepass")
    )


def unescape(component: str) -> str:
    """The inverse of `escape`. Raises ValueError for what `escape` never makes."""
    head, *rest = component.split("%")
    raw = head.encode()
    for part in rest:
        raw += bytes([int(part[:2], 16)]) + part[2:].encode()
    return raw.decode("utf-8", "surrogatepass")


class RuntimePaths:
    """The names of one manager's runtime directory, all beside its socket."""

    __slots__ = ("directory", "socket")

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.directory = socket.rpartition("/")[0] or "."

    @property
    def index(self) -> str:
        """The shared index of what is resident."""
        return f"{self.directory}/index"

    @property
    def lock(self) -> str:
        """Held by the living manager, as an open-file-description lock, from before it listens until it ends."""
        return f"{self.directory}/lock"

    @property
    def journal(self) -> str:
        """Pins and the warm set: what a restarted manager restores."""
        return f"{self.directory}/journal"

    @property
    def log(self) -> str:
        return f"{self.directory}/log"
