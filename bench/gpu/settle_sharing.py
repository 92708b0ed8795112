"""Open questions about legacy CUDA IPC, which a machine without descriptors of GPU memory has to do with."""

from __future__ import annotations

from typing import Any

from bench.gpu import programs
from bench.gpu.peers import SIZE, ask, attempt, peers
from bench.gpu.place import MIB, Place
from bench.gpu.settle import Answer, answer


def exported(maker: Any, nbytes: int = SIZE, seed: int = 1) -> tuple[int, bytes, str]:
    """(address, handle, digest) of new memory with random bytes, of a peer that has a context from now on."""
    maker.open(0)
    address = int(maker.allocate(0, nbytes))
    return address, maker.ipc_handle(0, address), ask(maker, programs.fill, address, nbytes, seed)


def _looked(peer: Any, address: int, nbytes: int) -> str:
    """The digest of what is there, or how looking fails."""
    found: list[str] = []
    error = attempt(lambda: found.append(ask(peer, programs.digest, address, nbytes)))
    return error or found[0]


def ipc_opened_twice(place: Place) -> Answer:
    with peers(place) as start:
        maker, other = start(), start()
        _, handle, digest = exported(maker)
        other.open(0)
        first, second = [], []
        errors = [attempt(lambda to=to: to.append(other.ipc_open(0, handle))) for to in (first, second)]  # type: ignore[misc]
        seen = _looked(other, second[0], SIZE) if second else ""
        question = "Can one process open a legacy IPC handle twice?"
        return answer(question, seen == digest, None, same_address=first == second, errors=errors)


def ipc_in_its_own_process(place: Place) -> Answer:
    with peers(place) as start:
        maker = start()
        _, handle, _ = exported(maker)
        error = attempt(lambda: maker.ipc_open(0, handle))
        return answer("Can a process open its own legacy IPC handle?", not error, None, error=error)


def ipc_write(place: Place) -> Answer:
    with peers(place) as start:
        maker, other = start(), start()
        address, handle, digest = exported(maker)
        other.open(0)
        new = ask(other, programs.fill, other.ipc_open(0, handle), SIZE, 2)
        seen = ask(maker, programs.digest, address, SIZE)
        return answer(
            "Can whoever opens a legacy IPC handle write?", seen == new != digest, None, digests=[digest, seen]
        )


def ipc_neighbours(place: Place) -> Answer:
    """Two allocations of half a MiB, which the driver may put into one block of 2 MiB."""
    with peers(place) as start:
        maker, other = start(), start()
        first, _, digest = exported(maker, MIB // 2)
        second, handle, _ = exported(maker, MIB // 2, 2)
        other.open(0)
        there = int(other.ipc_open(0, handle))
        seen = _looked(other, there + first - second, MIB // 2)
        one_block = first // (2 * MIB) == second // (2 * MIB)
        question = "Does a legacy IPC handle of a small allocation show its neighbours in the same 2 MiB?"
        return answer(question, seen == digest, None, one_block=one_block, distance=second - first, seen=seen)


def ipc_after_its_maker(place: Place) -> Answer:
    with peers(place) as start:
        maker, other = start(), start()
        _, handle, digest = exported(maker)
        other.open(0)
        address = other.ipc_open(0, handle)
        maker.kill()
        seen = _looked(other, address, SIZE)
        return answer("Is memory opened by legacy IPC good after its maker's end?", seen == digest, None, seen=seen)


ITEMS = {
    f.__name__: f for f in (ipc_opened_twice, ipc_in_its_own_process, ipc_write, ipc_neighbours, ipc_after_its_maker)
}
