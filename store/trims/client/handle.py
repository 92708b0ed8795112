"""`open`, and the `Model` it returns: tensors by name, and what frameworks make of them.

A model is attached a form at a time, each with its own lease, when the first view or session needs it: the raw tensors,
or a variant derived for a framework. Everything handed out (views, tensors, sessions) holds the form it came from, so
closing the model ends each lease as soon as the last user of it is gone, and never before.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from trims.client.attachment import RAW, AnyRegion, Attachment, DirectModeWarning
from trims.client.choosing import Backend, choose
from trims.client.mapping import Watch
from trims.errors import UsageError
from trims.refs import digest_prefix, parse_ref
from trims.units import format_size

if TYPE_CHECKING:
    from jax import Array
    from onnxruntime import InferenceSession, SessionOptions
    from torch import Tensor

    from trims.client.memory import Memory
    from trims.manifest import Manifest

__all__ = ["DirectModeWarning", "Model", "open"]

_ORT_KEY = "trims.integrations.ort_key"


def open(
    ref: str, place: str = "auto", timeout: float = 60.0, *, store: str | None = None, socket: str | None = None
) -> Model:
    """The model named `ref` (`name[:tag]` or `id:PREFIX`), resident and ready to use.

    place: "auto" is the manager's memory when a manager of this store runs, and the store's files otherwise; "host"
        insists on the manager; "disk" maps the files. "gpu:1" or "gpu:<UUID>" is the manager's memory on that GPU,
        "gpu" on the one that this process would use: PyTorch's current one, or else the first. Numbers are those of
        this process (CUDA_VISIBLE_DEVICES).
    timeout: seconds to wait for a load, or for room; then what stood in the way is raised.
    store, socket: instead of the configured ones.
    """
    text = _canonical(ref)
    if not timeout >= 0:
        raise UsageError(f"bad timeout {timeout!r}", "it is no number of seconds", "use 0, 60.0 or float('inf')")
    prefer = importlib.import_module(_ORT_KEY).variant_key() if "onnxruntime" in sys.modules else ""
    backend, attachment = choose(text, place, prefer, timeout, store, socket)
    return Model(text, backend, attachment)


@functools.lru_cache(maxsize=1024)
def _canonical(ref: str) -> str:
    return ref if digest_prefix(ref) is not None else parse_ref(ref)


class Files(Mapping[str, bytes]):
    """A model's side files by name. Each look-up copies the file out of shared memory."""

    __slots__ = ("_region",)

    def __init__(self, region: AnyRegion) -> None:
        self._region = region

    def __getitem__(self, name: str) -> bytes:
        return self._region.blob(self._region.contents.files[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._region.contents.files)

    def __len__(self) -> int:
        return len(self._region.contents.files)


class Model(Mapping[str, Any]):
    """An open model: a mapping of tensor names to read-only NumPy views of shared memory. Safe to use from threads.

    On a GPU its tensors are `trims.client.device_array.DeviceArray`s, which see; a forked child cannot use those.

    ref: as asked for, canonical. digest: what it named when opened. place: where the bytes are, "host", "disk" or
        "gpu:<UUID>".
    variant: the form attached first, "raw" or a derived form's key.
    how: what opening it took: "hit" when it was resident, "loaded" when this request had it loaded, "joined" when it
        waited for a load that another request had begun; "direct" without a manager.
    backend: how forms of it are attached; for integrations.
    """

    def __init__(self, ref: str, backend: Backend, first: Attachment) -> None:
        self.ref = ref
        self.digest = first.digest
        self.place = first.place
        self.variant = first.variant
        self.how = first.how
        self.backend = backend
        self._regions = {first.variant: first.region}
        self._raw = first.region if first.variant == RAW else None
        self._watches: list[Watch] = [first.region.watch()]
        self._closed = False

    # ---- tensors

    def __getitem__(self, name: str) -> Any:
        raw = self._raw or self.region()
        try:
            return raw.view(name)
        except KeyError:
            raise KeyError(f"{self.ref} has no tensor {name!r}: see `trims show --tensors {self.ref}`") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.region().contents.views)

    def __len__(self) -> int:
        return len(self.region().contents.views)

    def __contains__(self, name: object) -> bool:
        return name in self.region().contents.views

    # A model is a thing, not a value: comparing tensors is `numpy.array_equal`'s business.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def tensors(self) -> dict[str, Any]:
        """A view of every tensor, in region order: the fastest way to get all of them."""
        views: dict[str, Any] = self.region().views()
        return views

    # ---- what it is

    @property
    def manifest(self) -> Manifest:
        return self.region().contents.manifest

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as their users see them; tied ones count each time."""
        return self.manifest.nbytes

    @property
    def graph(self) -> bytes | None:
        """The origin's computation without its weights (for ONNX a ModelProto), or None."""
        raw = self.region()
        return raw.blob(raw.contents.graph) if raw.contents.graph else None

    @property
    def files(self) -> Files:
        return Files(self.region())

    def region(self, variant: str = RAW) -> AnyRegion:
        """The mapped form `variant`, attached now if it was not. Raises NoSuchVariant; for integrations."""
        self._check_open()
        found = self._regions.get(variant)
        if found is None:
            # Without a lock, which a fork could leave locked for ever: of two threads one drops what it attached.
            made = self.backend.attach(variant).region
            found = self._regions.setdefault(variant, made)
            if found is made:
                self._watches.append(made.watch())
            if variant == RAW:
                self._raw = found
            if self._closed:  # by another thread, meanwhile
                self.close()
                self._check_open()
        return found

    # ---- frameworks

    def onnxruntime(
        self,
        share: str = "exact",
        sess_options: SessionOptions | None = None,
        providers: list[Any] | None = None,
        **options: Any,
    ) -> InferenceSession:
        """An InferenceSession over the shared weights: see `trims.integrations.onnxruntime.session`."""
        self._check_open()
        session: InferenceSession = integration("onnxruntime").session(
            self, share=share, sess_options=sess_options, providers=providers, **options
        )
        return session

    def torch(self) -> dict[str, Tensor]:
        """Every tensor as a torch tensor over the shared weights: see `trims.integrations.torch.tensors`."""
        self._check_open()
        tensors: dict[str, Tensor] = integration("torch").tensors(self)
        return tensors

    def numpy(self, writable: bool = False) -> dict[str, np.ndarray[Any, Any]]:
        """Every tensor as a NumPy array, over the shared weights in host memory: see `trims.integrations.numpy`."""
        self._check_open()
        arrays: dict[str, np.ndarray[Any, Any]] = integration("numpy").arrays(self, writable)
        return arrays

    def jax(self, device: Any = None) -> dict[str, Array]:
        """Every tensor as a JAX array, where it is over the shared weights: see `trims.integrations.jax.arrays`."""
        self._check_open()
        arrays: dict[str, Array] = integration("jax").arrays(self, device)
        return arrays

    def cupy(self, device: int | None = None) -> dict[str, Any]:
        """Every tensor as a CuPy array, copied to a GPU if it is not on one: see `trims.integrations.cupy.arrays`."""
        self._check_open()
        arrays: dict[str, Any] = integration("cupy").arrays(self, device)
        return arrays

    # ---- what it costs

    def memory(self) -> Memory:
        """What of the model this process shares, and what it has to itself now: see `trims.client.memory.Memory`.

        Also after `close`, when something still uses the model. Raises TrimsError where /proc cannot be read.
        """
        from trims.client.memory import measure

        return measure(self._watches)

    def count_copy(self, owner: object, nbytes: int) -> None:
        """Have `memory` count `nbytes` as copied for this process, as long as `owner` lives; for integrations."""
        self._watches[0].count(owner, nbytes)

    # ---- the end

    def close(self) -> None:
        """Give the model up. What is still in use, views and sessions included, stays valid and leased until it is not.

        Closing twice is fine.
        """
        self._closed = True
        self._raw = None
        self._regions = {}

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def in_use(self) -> bool:
        """Whether any memory of the model is still mapped: after `close`, by a view, tensor or session."""
        return any(watch() for watch in self._watches)

    def __enter__(self) -> Model:
        self._check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise UsageError(
            f"model {self.ref} cannot be pickled",
            "its memory belongs to this process",
            f"send its name and call trims.open({self.ref!r}) in the other process",
        )

    def __repr__(self) -> str:
        state = f"id:{self.digest[:12]} {self.place}"
        if self._closed:
            state += ", closed" + (", still in use" if self.in_use else "")
        elif self._raw is not None:
            state += f", {len(self)} tensors, {format_size(self.nbytes)}"
        return f"<trims.Model {self.ref} {state}>"

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"model {self.ref} is closed", "", "open it again with trims.open")


def integration(framework: str) -> Any:
    """The module that knows the framework. Raises UsageError when the framework itself is not installed."""
    try:
        return importlib.import_module(f"trims.integrations.{framework}")
    except ModuleNotFoundError as error:
        if error.name != framework:
            raise
        wheel = "cupy-cuda12x" if framework == "cupy" else f"'trims[{framework}]'"
        raise UsageError(f"{framework} is not installed", "", f"pip install {wheel}") from None
