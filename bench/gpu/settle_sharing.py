"""Open questions about legacy CUDA IPC, which a machine without descriptors of GPU memory has to do with."""

from __future__ import annotations

from typing import Any

from bench.gpu import program_ipc
from bench.gpu.peers import ask, peers
from bench.gpu.place import MIB, Place
from bench.gpu.settle import Answer, answer


def _exported(maker: Any, nbytes: int = 2 * MIB, count: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(maker, program_ipc.allocate, nbytes, count)["allocations"]
    return found


def ipc_opened_twice(place: Place) -> Answer:
    with peers(place) as start:
        (one,) = _exported(start())
        found = ask(start(), program_ipc.open_, one["handle"], 0, 2)
        held = len(found["addresses"]) == 2
        return answer("Can one process open a legacy IPC handle twice?", held, None, **found,
                      same_address=held and len(set(found["addresses"])) == 1)  # fmt: skip


def ipc_in_its_own_process(place: Place) -> Answer:
    with peers(place) as start:
        maker = start()
        (one,) = _exported(maker)
        found = ask(maker, program_ipc.open_, one["handle"], 0, 1)
        return answer("Can a process open its own legacy IPC handle?", bool(found["addresses"]), None, **found)


def ipc_write(place: Place) -> Answer:
    with peers(place) as start:
        maker = start()
        (one,) = _exported(maker)
        found = ask(start(), program_ipc.open_, one["handle"], 0, 1)
        seen = ask(maker, program_ipc.peek, one["address"])
        return answer("Can whoever opens a legacy IPC handle write?", seen == 77, None, seen=seen, **found)


def ipc_neighbours(place: Place) -> Answer:
    """Two allocations of half a block: whether a handle of the second shows the first."""
    with peers(place) as start:
        maker = start()
        first, second = _exported(maker, MIB, 2)
        found = ask(start(), program_ipc.open_, second["handle"], first["address"] - second["base"], 1)
        shared = first["base"] == second["base"] or first["address"] // (2 * MIB) == second["address"] // (2 * MIB)
        return answer(
            "Does a legacy IPC handle of a small allocation show its neighbours in the same 2 MiB?",
            found.get("byte") == "done" and found.get("seen") == 1,
            None,
            one_block=shared, blocks=[first["block"], second["block"]], distance=second["address"] - first["address"],
            **found,
        )  # fmt: skip


def ipc_after_its_maker(place: Place) -> Answer:
    with peers(place) as start:
        maker, reader = start(), start()
        (one,) = _exported(maker)
        found = ask(reader, program_ipc.open_, one["handle"], 0, 1)
        maker.kill()
        try:
            seen: Any = ask(reader, program_ipc.peek, found["addresses"][0])
        except AssertionError as error:
            seen = str(error).strip().rpartition("\n")[2]
        return answer("Is memory opened by legacy IPC good after its maker's end?", seen == 77, None, seen=seen)


ITEMS = {
    f.__name__: f for f in (ipc_opened_twice, ipc_in_its_own_process, ipc_write, ipc_neighbours, ipc_after_its_maker)
}
