"""Open questions about frameworks over memory that is mapped for reading, and about what is unusual on this GPU."""

from __future__ import annotations

from typing import Any

from bench.gpu import program_views, programs
from bench.gpu.peers import SIZE, ask, given, made, mapped, peers
from bench.gpu.place import Place
from bench.gpu.settle import Answer, answer


def _view(place: Place, view: Any, question: str) -> Answer:
    with peers(place) as start:
        maker, reader = start(), start()
        handle, own, digest = made(maker)
        address = mapped(reader, given(maker, handle, reader))
        found = ask(reader, view, address, SIZE)
        right = found["sum"] == ask(maker, programs.total, own, SIZE)
        unchanged = ask(maker, programs.digest, own, SIZE) == digest
        no_copy = found["same_address"] and not found["allocated"]
        held = no_copy and right and unchanged and found["kept_while_used"] and found["end_heard"]
        return answer(question, bool(held), right=right, unchanged=unchanged, **found)


def torch_dlpack(place: Place) -> Answer:
    return _view(
        place, program_views.torch_view, "Does PyTorch use the memory from DLPack without a copy, and give it back?"
    )


def cupy_unowned(place: Place) -> Answer:
    return _view(place, program_views.cupy_view, "Does CuPy use the memory without a copy, and give it back?")


def onnxruntime_in_place(place: Place) -> Answer:
    with peers(place) as start:
        maker, reader = start(), start()
        handle = maker.create(0, 4 * SIZE)
        ask(maker, programs.fill_halves, mapped(maker, handle, True, 4 * SIZE), 4 * SIZE)
        address = mapped(reader, given(maker, handle, reader), nbytes=4 * SIZE)
        found = ask(reader, program_views.ort_session, address, 4 * SIZE, place.uuid)
        held = not found["warnings"] and found["grew"] < 2 * SIZE and found["right"] and found["kept_while_used"]
        question = "Does ONNX Runtime use an initializer in GPU memory in place?"
        return answer(question, held, nbytes=4 * SIZE, **found)


def unusual(place: Place) -> Answer:
    """MIG, MPS and compute modes change who may share what: only their absence is what the rest was tried on."""
    notes = [note for note in place.device["notes"] if not note.startswith("simulated")]
    return answer("Is there MIG, MPS or a compute mode to be aware of?", bool(notes), False, notes=notes,
                  uuid=place.uuid)  # fmt: skip


ITEMS = {f.__name__: f for f in (torch_dlpack, cupy_unowned, onnxruntime_in_place, unusual)}
SECONDS = dict.fromkeys(ITEMS, 60.0)
