"""The GPUs of a manager: which ones it keeps models on, within which budget, and who fills them.

`gpu.devices` names them; `auto` is every one that can share its memory, and none where there is no driver, which is no
reason not to serve the host. What was asked for by name has to be there. No context is made: a start touches no GPU.
One whose driver has no descriptors of its memory is shared by legacy IPC where `gpu.sharing` says so, and only there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trims import units
from trims.config import Config
from trims.devices import drivers
from trims.devices.driver import Driver, Gpu
from trims.devices.gpu import GpuDevice
from trims.devices.ipc import IpcDevice
from trims.devices.on_gpu import GpuPlace
from trims.errors import DeviceLost, NoRoom, TrimsError, UsageError
from trims.places import GPU, HOST, gpu_number, gpu_place, is_called
from trims.transfer.gpu_keeper import GpuKeeper
from trims.transfer.gpu_link import GpuLink
from trims.transfer.to_gpu import GpuFiller

Log = Callable[[str, str], None]
_UNWANTED = "the manager was started without GPUs"
IPC_NOTES = (
    "legacy IPC: read-write for every client",
    "legacy IPC: a worker process owns its models; when that ends they are lost, also to who has them open",
)


@dataclass(frozen=True)
class Gpus:
    """By place. notes: what an operator should know. driver: None where there are none.

    left_out: why no models are kept on a GPU; of `gpu`, why they are on none.
    """

    driver: Driver | None = None
    devices: dict[str, GpuPlace] = field(default_factory=dict)
    budgets: dict[str, int] = field(default_factory=dict)
    fillers: dict[str, GpuFiller] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: dict[str, TrimsError] = field(default_factory=dict)

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """Where a load to each may read from instead of the disk: other GPUs that it reaches, then the host."""
        crossing = {place: device.gpu for place, device in self.devices.items() if device.crosses}
        return {place: (*self._reached(crossing, place), HOST) for place in self.devices}

    def _reached(self, crossing: Mapping[str, Gpu], place: str) -> list[str]:
        if place not in crossing:
            return []
        gpu = crossing[place]
        return [other for other, its in crossing.items() if its != gpu and self._reaches(gpu, its)]

    def _reaches(self, gpu: Gpu, other: Gpu) -> bool:
        assert self.driver is not None
        try:
            return self.driver.reaches(gpu.ordinal, other.ordinal)
        except TrimsError:  # that one of them has failed is told when it is used
            return False


def find(config: Config, taken: Mapping[str, int], left: Mapping[str, int], log: Log) -> Gpus:
    """The GPUs that this configuration names. taken: bytes by place that other managers may still fill.

    left: bytes by place that clients of earlier lives of this manager still hold, which count against its budget.

    Raises DeviceLost when one that was asked for is not there or cannot share its memory, NoRoom when it has none.
    """
    wanted = config.text("gpu.devices").strip()
    if wanted == "none":
        return Gpus(left_out={GPU: DeviceLost(_UNWANTED, "", "`trims restart --gpu auto`")})
    auto = wanted == "auto"
    try:
        driver = drivers.find(config.environ)
        chosen = _all(driver) if auto else _named(driver, wanted)
    except DeviceLost as error:
        if not auto:
            raise
        return Gpus(left_out={GPU: _later(error)})
    found = Gpus(driver)
    for gpu in chosen:
        try:
            _check_sharing(config, gpu)
            place = gpu_place(gpu.uuid)
            ours = left.get(place, 0) if gpu.shares else 0
            budget = _budget(config, driver, gpu, taken.get(place, 0) - ours)
            unusual = driver.notes(gpu.uuid)
        except TrimsError as error:
            if not auto:
                raise
            log(str(error), "warning")
            found.left_out[gpu_place(gpu.uuid)] = _later(error)
            continue
        found.budgets[place] = budget
        found.devices[place], found.fillers[place], notes = _serving(driver, gpu)
        found.notes[place] = (*unusual, *notes)
        for note in found.notes[place]:
            log(f"{place}: {note}", "info")
    return found


def _later(error: TrimsError) -> TrimsError:
    """The same to whom a manager tells it that has started: it looks for GPUs no second time."""
    return type(error)(error.what, error.why, "; then ".join(filter(None, (error.hint, "`trims restart`"))))


def _check_sharing(config: Config, gpu: Gpu) -> None:
    if not gpu.shares and config.text("gpu.sharing") != "ipc":
        raise DeviceLost(
            f"no models are kept on {gpu_place(gpu.uuid)}",
            f"{gpu.name} cannot share its memory by descriptors",
            "set gpu.sharing to ipc (TRIMS_GPU_SHARING=ipc) for legacy CUDA IPC, or leave it out with --gpu",
        )


def _serving(driver: Driver, gpu: Gpu) -> tuple[GpuPlace, GpuFiller, tuple[str, ...]]:
    """What keeps models on a GPU, what fills it, and what is to be known of the way it is shared."""
    if gpu.shares:
        return GpuDevice(driver, gpu), GpuFiller(GpuLink(gpu.uuid)), ()
    keeper = GpuKeeper(gpu.uuid)
    return IpcDevice(driver, gpu, keeper), GpuFiller(keeper), IPC_NOTES


def _all(driver: Driver) -> list[Gpu]:
    if not driver.gpus():
        raise DeviceLost("the driver shows no GPU", "", "see `nvidia-smi -L`, and CUDA_VISIBLE_DEVICES")
    return list(driver.gpus())


def _named(driver: Driver, text: str) -> list[Gpu]:
    """The GPUs of a list of numbers and UUIDs (or their beginnings), each once, in that order."""
    gpus = driver.gpus()
    chosen: dict[str, Gpu] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        number = gpu_number(gpu_place(word))
        hits = [gpu for gpu in gpus if (is_called(gpu.uuid, word) if number is None else gpu.ordinal == number)]
        if not hits:
            there = ", ".join(f"{gpu.ordinal} {gpu.uuid}" for gpu in gpus) or "none"
            raise DeviceLost(f"there is no GPU {word}", f"the driver shows {there}", "see `nvidia-smi -L`")
        if len(hits) > 1:
            raise UsageError(f"{word} is no GPU", "several begin so", ", ".join(gpu.uuid for gpu in hits))
        chosen[hits[0].uuid] = hits[0]
    return list(chosen.values())


def _budget(config: Config, driver: Driver, gpu: Gpu, taken: int) -> int:
    """Bytes for regions: whole units. A percentage is of what is free now and not promised by other managers.

    taken: those promises, less what is in use and counts as ours.
    """
    place = gpu_place(gpu.uuid)
    usage = driver.usage(gpu.uuid)
    free = max(0, usage.total - usage.used - taken)
    budget = units.parse_size(config.text("budget.gpu"), free) // gpu.granularity * gpu.granularity
    if not budget or budget > free:
        raise NoRoom(
            f"there is no memory for models on {place}",
            f"{units.format_size(free)} are free, and {units.format_size(budget)} would be the budget",
            "end what uses it, or set another budget with --gpu-budget",
        )
    return budget
