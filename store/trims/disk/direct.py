"""Opening a container for mapping, without a manager: held, whole, and checked once.

The descriptor carries a shared `flock`, so `gc` leaves the file alone while it is open. The first opening reads all of
it and checks every hash; a stamp in the state directory then says that this very file (device, inode, size, both times)
was found whole, and later openings believe it. The stamp is the reader's own, so no store needs to be trusted for it.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass

from trims import config
from trims.disk.catalog import Catalog, Entry
from trims.disk.parts import CONTAINER
from trims.disk.reader import damaged
from trims.disk.sidecar import Sidecar, read_sidecar
from trims.disk.store import Store
from trims.errors import NoSuchModel, NoSuchVariant, TrimsError
from trims.linux import atomic

RAW = "raw"


@dataclass(slots=True)
class OpenContainer:
    """An open container, verified, and safe from collection until closed. Closing twice is allowed."""

    fd: int
    sidecar: Sidecar
    path: str

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> OpenContainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_container(store: Store, entry: Entry, variant: str = RAW) -> OpenContainer:
    """The container of a model, or of one of its variants. Raises NoSuchModel, NoSuchVariant, Damaged."""
    for _ in range(2):  # twice: an import may replace the container, or gc remove it, between two of our looks
        container = _open(store, entry, variant)
        try:
            if os.fstat(container.fd).st_nlink:
                _check(store, container, entry, variant)
                return container
        except BaseException:
            container.close()
            raise
        container.close()
    raise _gone(entry)


def _gone(entry: Entry) -> NoSuchModel:
    return NoSuchModel(f"{entry.ref} is gone", "it was removed while we opened it", "see `trims ls`")


def _missing(store: Store, entry: Entry, path: str) -> TrimsError:
    """Why the container is not there: the model was removed since `entry` was read, or the store has lost it."""
    now = Catalog(store.paths).find(entry.ref)
    return damaged(path, [CONTAINER]) if now and now.digest == entry.digest else _gone(entry)


def _open(store: Store, entry: Entry, variant: str) -> OpenContainer:
    paths = store.paths
    if variant == RAW:
        path, sidecar_path = paths.container(entry.digest), paths.sidecar(entry.digest)
    else:
        path, sidecar_path = paths.variant(entry.digest, variant), paths.variant_sidecar(entry.digest, variant)
    try:
        sidecar = read_sidecar(sidecar_path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NoSuchModel):
        if variant != RAW:
            raise NoSuchVariant(f"{entry.ref} has no variant {variant}", "", "see `trims show`") from None
        raise _missing(store, entry, path) from None
    except OSError as error:
        raise atomic.translate(error, f"opening {path}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    except OSError:
        pass  # a network file system without locks: there, gc waits out a grace period instead
    return OpenContainer(fd, sidecar, path)


def _check(store: Store, container: OpenContainer, entry: Entry, variant: str) -> None:
    """Raise Damaged unless the container is whole; look into it only when it bears no stamp."""
    directory = f"{config.state_directory(os.environ)}/verified/{store.id}"
    stamp_path = f"{directory}/{entry.digest}.{variant}"
    stamp = _stamp(container)
    try:
        with open(stamp_path, encoding="ascii") as file:
            if file.read() == stamp:
                return
    except (OSError, UnicodeDecodeError):
        pass
    from trims.disk.verify import check_container  # seldom needed, and as slow to import as all the rest

    # Through the page cache: it is going to be mapped.
    findings = check_container(entry.ref, container.path, container.sidecar, direct=False)
    if findings:
        raise damaged(container.path, [finding.part for finding in findings])
    try:
        atomic.make_directory(directory, 0o700)
        atomic.replace(stamp_path, stamp.encode(), directory, durable=False)
    except (OSError, TrimsError):
        pass  # no home to write to: then it is checked every time


def _stamp(container: OpenContainer) -> str:
    st = os.fstat(container.fd)
    return f"{st.st_dev} {st.st_ino} {st.st_size} {st.st_ctime_ns} {st.st_mtime_ns} {container.sidecar.rest}\n"
