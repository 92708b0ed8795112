"""Open questions about the driver's memory: contexts, access, how long it lives. Each answer has its evidence.

An answer is {"question", "answer": "yes" or "no", "wanted", ...evidence}. `wanted` is what trims is built on.
"""

from __future__ import annotations

import os
from typing import Any

from bench.gpu import programs
from bench.gpu.peers import SIZE, ask, attempt, given, made, mapped, peers, until, used
from bench.gpu.place import MIB, Place

Answer = dict[str, Any]


def answer(question: str, holds: bool, wanted: bool | None = True, **evidence: Any) -> Answer:
    """wanted: None where trims does well either way."""
    words = {True: "yes", False: "no", None: ""}
    return {"question": question, "answer": words[holds], "wanted": words[wanted], **evidence}


def create_without_context(place: Place) -> Answer:
    """A context would show: hundreds of MB on a real GPU, 8 MiB on a simulated one."""
    nbytes = 2 * SIZE
    with peers(place) as start:
        watch, maker = start(), start()
        watch.gpus(), maker.gpus()
        before, seen = used(watch, place), ask(watch, programs.held_by, place.uuid)
        fd = maker.export(maker.create(0, nbytes))
        grew = used(watch, place) - before
        there = ask(watch, programs.held_by, place.uuid)
        maker.close_fd(fd)
        maker.open(0)
        context = used(watch, place) - before - nbytes
        return answer(
            "Can memory be made and exported by a process that has no context?",
            abs(grew - nbytes) < context / 2, asked=nbytes, grew=grew, context=context,
            processes=[seen, there, ask(watch, programs.held_by, place.uuid)],
        )  # fmt: skip


def map_without_context(place: Place) -> Answer:
    with peers(place) as start:
        watch, maker = start(), start()
        handle = maker.create(0, SIZE)
        before = used(watch, place)
        address = maker.reserve(SIZE)
        errors = [
            attempt(lambda: maker.map(address, SIZE, handle)),
            attempt(lambda: maker.allow(address, SIZE, 0, False)),
        ]
        access = attempt(lambda: maker.access(address, 0)) or maker.access(address, 0)
        grew = used(watch, place) - before
        question = "Can memory be mapped, and access be given, without a context?"
        return answer(question, not any(errors) and grew < 4 * MIB, None, errors=errors, access=access, grew=grew)


def read_only(place: Place) -> Answer:
    with peers(place) as start:
        maker, reader = start(), start()
        handle, _, digest = made(maker)
        address = mapped(reader, given(maker, handle, reader))
        access, seen = reader.access(address, 0), ask(reader, programs.digest, address, SIZE)
        question = "Does what is imported and mapped for reading say so, and hold the maker's bytes?"
        return answer(question, access == "read" and seen == digest, access=access, digests=[digest, seen])


def _write(place: Place, how: Any, question: str) -> Answer:
    """One process writes where it may only read, between its maker and a sibling that go on."""
    with peers(place) as start:
        maker, writer, sibling = start(), start(), start()
        handle, own, digest = made(maker)
        theirs = mapped(sibling, given(maker, handle, sibling))
        address = mapped(writer, given(maker, handle, writer))
        found = ask(writer, how, address, SIZE)
        seen = [ask(maker, programs.digest, own, SIZE), ask(sibling, programs.digest, theirs, SIZE)]
        new = start()
        seen.append(ask(new, programs.digest, mapped(new, given(maker, handle, new)), SIZE))
        held = bool(found["error"]) and seen == [digest] * 3
        return answer(question, held, writer=found, digest=digest, others=seen)


def write_by_copy(place: Place) -> Answer:
    return _write(place, programs.write_by_copy, "Does a copy into memory mapped for reading fail in the writer alone?")


def write_by_kernel(place: Place) -> Answer:
    return _write(
        place, programs.write_by_kernel, "Does a kernel that writes to memory mapped for reading hurt the writer alone?"
    )


def write_on_purpose(place: Place) -> Answer:
    with peers(place) as start:
        maker, other = start(), start()
        handle, own, digest = made(maker)
        address = mapped(other, given(maker, handle, other), write=True)
        new = ask(other, programs.fill, address, SIZE, 2)
        seen = ask(maker, programs.digest, own, SIZE)
        question = "Can whoever gets a descriptor map it for writing, and change what all see?"
        return answer(question, seen == new != digest, access=other.access(address, 0), digests=[digest, new, seen])


def outlives_exporter(place: Place) -> Answer:
    """Mapped before its maker was killed; imported only afterwards; and after a maker that ended by itself."""
    with peers(place) as start:
        reader = start()
        found: dict[str, Any] = {}
        for end in ("killed", "ended"):
            maker = start()
            handle, _, digest = made(maker)
            address = mapped(reader, given(maker, handle, reader))
            fd = maker.give(maker.export(handle), reader)
            if end == "killed":
                maker.kill()
            else:
                maker.begin("end")
                maker.ended()
            before = ask(reader, programs.digest, address, SIZE) == digest
            late = mapped(reader, reader.import_(fd))
            found[end] = [before, ask(reader, programs.digest, late, SIZE) == digest]
        question = "Is memory good for those who map it, or have only its descriptor, after its maker's end?"
        return answer(question, all(all(pair) for pair in found.values()), **found)


def twice_in_one_process(place: Place) -> Answer:
    with peers(place) as start:
        maker, reader = start(), start()
        handle, _, digest = made(maker)
        fd = maker.give(maker.export(handle), reader)
        addresses = [mapped(reader, reader.import_(fd)) for _ in range(2)]
        own = mapped(maker, maker.import_(maker.export(handle)))
        seen = [ask(reader, programs.digest, address, SIZE) for address in addresses]
        seen.append(ask(maker, programs.digest, own, SIZE))
        question = "Can one process import memory twice, and its maker its own?"
        return answer(question, seen == [digest] * 3 and len(set(addresses)) == 2, others=seen, digest=digest)


def one_descriptor_for_many(place: Place) -> Answer:
    with peers(place) as start:
        maker, readers = start(), [start() for _ in range(3)]
        handle, _, digest = made(maker)
        fd = maker.export(handle)
        theirs = [maker.give(fd, reader) for reader in readers]
        maker.close_fd(fd)
        seen = [
            ask(reader, programs.digest, mapped(reader, reader.import_(there)), SIZE)
            for reader, there in zip(readers, theirs, strict=True)
        ]
        return answer("Can several processes import one exported descriptor?", seen == [digest] * 3, digests=seen)


def killed_importer(place: Place) -> Answer:
    """What it had comes back, its maker's memory stays."""
    with peers(place) as start:
        watch, maker, reader = start(), start(), start()
        handle, own, digest = made(maker)
        before = used(watch, place)
        mapped(reader, given(maker, handle, reader))
        reader.create(0, SIZE)
        there = used(watch, place) - before
        reader.kill()
        seconds = until(lambda: used(watch, place) <= before + 4 * MIB)
        whole = ask(maker, programs.digest, own, SIZE) == digest
        question = "Does everything of a killed process come back, and nothing else?"
        return answer(question, seconds is not None and whole, seconds=seconds, had=there, others_unchanged=whole)


def kept_by_a_descriptor(place: Place) -> Answer:
    """A killed maker's memory, of which another process has only a descriptor."""
    with peers(place) as start:
        watch, maker, other = start(), start(), start()
        other.gpus()
        before = used(watch, place)
        fd = maker.give(maker.export(maker.create(0, SIZE)), other)
        maker.kill()
        until(lambda: used(watch, place) <= before + SIZE + 4 * MIB)
        kept = used(watch, place) - before
        other.close_fd(fd)
        seconds = until(lambda: used(watch, place) <= before + 4 * MIB)
        question = "Does a descriptor alone keep memory, and its closing free it?"
        return answer(question, kept > SIZE // 2 and seconds is not None, kept=kept, seconds=seconds)


def frees_at_last_mapping(place: Place) -> Answer:
    with peers(place) as start:
        watch, maker, reader = start(), start(), start()
        maker.gpus(), reader.open(0)
        before = used(watch, place)
        handle = maker.create(0, SIZE)
        address = mapped(reader, given(maker, handle, reader))
        maker.release(handle)
        kept = used(watch, place) - before
        reader.unmap(address, SIZE)
        reader.free(address, SIZE)
        # The handle that was imported is still there.
        still = used(watch, place) - before
        reader.kill()
        seconds = until(lambda: used(watch, place) <= before)
        question = "Does memory that its maker gave up stay until the last who has it lets go?"
        return answer(question, kept > SIZE // 2, kept=kept, with_only_a_handle=still, seconds=seconds)


def register_read_only(place: Place) -> Answer:
    nbytes = 4 * SIZE
    with peers(place) as start:
        peer = start()
        _, address, _ = made(peer, nbytes)
        host = ask(peer, programs.sealed, nbytes)
        seconds, error = ask(peer, programs.register, host, nbytes)
        said = bool(place.device["reads_registered"])
        question = "Can a sealed memfd that is mapped for reading be registered for copies?"
        same = None if error else ask(peer, programs.copied, host, address, nbytes)
        return answer(question, not error and bool(same), error=error, driver_says=said, seconds=seconds, nbytes=nbytes)


def descriptors_in_a_message(place: Place) -> Answer:
    """SCM_MAX_FD of Linux; no GPU has a part in it."""
    import socket

    from trims.linux import fdpass

    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = os.open("/dev/null", os.O_RDONLY)
        try:
            socket.send_fds(ours, [b"x"], [fd] * 253)
            try:
                socket.send_fds(ours, [b"x"], [fd] * 254)
                more = "254 were sent"
            except OSError as error:
                more = os.strerror(error.errno or 0)
        finally:
            os.close(fd)
    return answer("Do 253 descriptors fit into one message, and no more?", more != "254 were sent", sending_254=more,
                  trims_sends_at_most=fdpass.MOST_FDS)  # fmt: skip


ITEMS = {
    f.__name__: f
    for f in (
        create_without_context, map_without_context, read_only, write_by_copy, write_by_kernel, write_on_purpose,
        outlives_exporter, twice_in_one_process, one_descriptor_for_many, killed_importer, kept_by_a_descriptor,
        frees_at_last_mapping, register_read_only, descriptors_in_a_message,
    )
}  # fmt: skip
SECONDS = dict.fromkeys(ITEMS, 45.0)
