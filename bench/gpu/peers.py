"""Processes with a driver of their own, told what to do call by call: the contract suite's, and programs for them.

A fault or a kill then hurts that process alone, and whoever asks never loads the driver.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bench.gpu import programs
from bench.gpu.place import MIB, Place, Skip
from bench.gpu.running import ROOT

if str(ROOT / "tests") not in sys.path:
    sys.path.append(str(ROOT / "tests"))
from helpers.driver_peer import Peer

SIZE = 32 * MIB
"""Bytes of an allocation to experiment with: a multiple of every granularity."""
SOON = 20.0
"""Seconds in which memory of a process that has ended is expected back."""


@contextmanager
def peers(place: Place) -> Iterator[Callable[[], Peer]]:
    """Starts processes; all are ended afterwards."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Peer(place.environment()))


def ask(peer: Peer, program: Callable[..., Any], *arguments: Any) -> Any:
    """What a function answers in a peer, given its driver and these values. Raises Skip when it says why not."""
    names = f"from {program.__module__} import {program.__name__} as program"
    answer = peer.run(f"{names}; answer = program(driver, *{arguments!r})")
    if isinstance(answer, dict) and "skipped" in answer:
        raise Skip(answer["skipped"])
    return answer


def used(peer: Peer, place: Place) -> int:
    """Bytes of the GPU that anybody has, as its management library measures them."""
    return int(peer.usage(place.uuid).used)


def mapped(peer: Peer, handle: int, write: bool = False, nbytes: int = SIZE) -> int:
    """The address of memory that is now mapped in a peer, which has a context from now on."""
    address = int(peer.reserve(nbytes))
    peer.map(address, nbytes, handle)
    peer.allow(address, nbytes, 0, write)
    peer.open(0)
    return address


def made(peer: Peer, nbytes: int = SIZE) -> tuple[int, int, str]:
    """(handle, address, digest) of new memory with random bytes, mapped for writing in a peer."""
    handle = int(peer.create(0, nbytes))
    address = mapped(peer, handle, True, nbytes)
    return handle, address, str(ask(peer, programs.fill, address, nbytes, 1))


def given(maker: Peer, handle: int, other: Peer) -> int:
    """A handle, in another peer, of the memory behind one of `maker`'s; no descriptor of it stays."""
    fd = maker.export(handle)
    there = maker.give(fd, other)
    maker.close_fd(fd)
    taken = int(other.import_(there))
    other.close_fd(there)
    return taken


def attempt(call: Callable[[], Any]) -> str:
    """What a call of the driver says when it fails; "" when it does not."""
    from trims.errors import TrimsError

    try:
        call()
    except TrimsError as error:
        return str(error)
    return ""


def until(holds: Callable[[], bool], seconds: float = SOON) -> float | None:
    """Seconds until something holds; None when it does not in time."""
    begun = time.perf_counter()
    while not holds():
        if time.perf_counter() - begun > seconds:
            return None
        time.sleep(0.001)
    return time.perf_counter() - begun
