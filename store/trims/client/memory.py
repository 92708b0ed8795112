"""What of an open model a process shares with others, and what it has to itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trims.client.mapping import Watch
from trims.errors import TrimsError
from trims.linux import pagemap


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one open model in this process, as long as something uses them.

    shared: mapped from memory, or a file, that all users of the model share; each form of it once.
    written: pages of copy-on-write maps that this process has written to and therefore has to itself.
    copied: what was copied for this process alone: buffers of torch modules, small tensors that are equal and must be
        writable apart, what a framework would not take without a copy, a compressed model opened without a manager.

    What a framework makes inside of itself from the weights (matrices that ONNX Runtime packs, say) is not known here.
    """

    shared: int
    written: int
    copied: int

    @property
    def private(self) -> int:
        """All that this process has to itself."""
        return self.written + self.copied


def measure(watches: Iterable[Watch]) -> Memory:
    """The memory of the regions watched. Raises TrimsError without /proc."""
    shared = written = copied = 0
    for watch in watches:
        copied += watch.copied
        if not watch():
            continue
        if watch.own:
            copied += watch.nbytes
        else:
            shared += watch.nbytes
        for mapped in watch.private():
            try:
                written += pagemap.written(*mapped.span)
            except OSError as error:
                raise TrimsError(
                    "private memory cannot be counted",
                    f"/proc/self/pagemap: {error.strerror}",
                    "it needs /proc, and a process that may look at itself",
                ) from None
    return Memory(shared, written, copied)
