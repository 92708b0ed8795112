"""Which place a request means: `gpu` is any GPU, and the beginning of a UUID is as good as all of it.

`gpu` is chosen for a model: where it is, or is on its way to, else where most room is. A request that names no model
has to say which GPU it means, unless there is only one.
"""

from __future__ import annotations

from collections.abc import Mapping

from trims.errors import DeviceLost, TrimsError, UsageError
from trims.manager.executor import Executor
from trims.manager.loader import Form
from trims.places import GPU, gpu_number, gpu_of, is_called, is_gpu
from trims.residency.loading import no_place


class Whereabouts:
    """The places of one manager. left_out: as of `trims.manager.gpus.Gpus`."""

    def __init__(self, executor: Executor, left_out: Mapping[str, TrimsError]) -> None:
        self._executor, self._left_out = executor, left_out
        self._gpus = [place for place in executor.places if is_gpu(place)]

    def find(self, text: str, digest: str = "") -> str:
        """The place that `text` means for a model, or ("") for none. Raises DeviceLost, UsageError."""
        if text in self._executor.devices:
            return text
        if not is_gpu(text):
            raise no_place(text)
        known = self._gpus if gpu_number(text) is None else []  # a number is the asker's own, and means nothing here
        found = [place for place in known if text == GPU or is_called(gpu_of(place), gpu_of(text))]
        if len(found) == 1:
            return found[0]
        if not found:
            raise self._none(text)
        if text != GPU:
            raise UsageError(f"{text} is no place", "several GPUs begin so", f"say which: {', '.join(found)}")
        if not digest:
            raise UsageError("gpu is ambiguous", f"this manager has {len(found)}", f"say which: {', '.join(found)}")
        return self._best(digest, found)

    def holding(self, text: str, digest: str) -> str:
        """The place that `text` means to one who wants a model to leave it: there must be no two."""
        there = {view.key.place for view in self._executor.machine.residencies() if view.key.digest == digest}
        found = [place for place in self._gpus if place in there]
        if text == GPU and len(found) > 1:
            raise UsageError("gpu is ambiguous", "several GPUs have the model", f"say which: {', '.join(found)}")
        return self.find(text, digest)

    def check(self, text: str) -> None:
        """Raise what is wrong with a place before a model is looked for; which it is may depend on the model."""
        if text != GPU or not self._gpus:
            self.find(text)

    def form(self, form: Form, text: str) -> Form:
        """A form in the place that `text` means."""
        return form.on(self._executor.devices[self.find(text, form.key.digest)])

    def _best(self, digest: str, places: list[str]) -> str:
        machine = self._executor.machine
        there = {view.key.place for view in machine.residencies() if view.key.digest == digest}
        uses = {place: machine.use(place) for place in places}
        return max(places, key=lambda place: (place in there, uses[place].budget - uses[place].used + uses[place].idle))

    def _none(self, text: str) -> TrimsError:
        for place, error in self._left_out.items():
            if GPU in (place, text) or is_called(gpu_of(place), gpu_of(text)):
                why = ("this manager keeps no models there", error.what, error.why)
                return DeviceLost(f"there is no place {text}", ": ".join(filter(None, why)), error.hint)
        there = f"this manager has {', '.join(self._gpus)}"
        return DeviceLost(f"there is no place {text}", there, "see `trims status`")
