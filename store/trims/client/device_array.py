"""A tensor in the memory of a GPU, for every library that takes one: by DLPack, or `__cuda_array_interface__`."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from trims.client import capsules
from trims.errors import UsageError
from trims.manifest import STORAGE

if TYPE_CHECKING:
    from trims.client.device_memory import Mapped


class DeviceArray:
    """One tensor of a model on a GPU; it holds the memory, and so the lease.

    It does nothing but hand the tensor on: `cupy.asarray(a)`, `torch.from_dlpack(a)`, `jax.dlpack.from_dlpack(a)`; all
    without a copy. The memory is mapped for reading only, and the GPU enforces that: a kernel that writes to it ends
    the CUDA context of this process, with an error at whatever call comes next. Frameworks that know no read-only
    tensors do not prevent it. Other processes and the weights are not hurt. (Where a GPU is shared by legacy CUDA IPC
    nothing enforces it: such a kernel changes the weights for everybody.)

    shape, dtype: as NumPy's; bfloat16 and float8 are those of ml_dtypes. address: of the first byte, on the GPU.
    """

    __slots__ = ("_mapped", "address", "dtype", "shape")

    def __init__(self, mapped: Mapped, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._mapped = mapped
        self.address, self.shape, self.dtype = address, shape, dtype

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def device(self) -> int:
        """The number of the GPU in this process."""
        return self._mapped.ordinal

    def get(self) -> np.ndarray[Any, Any]:
        """A copy in host memory. Raises DeviceLost."""
        made = np.empty(self.shape, self.dtype)
        self._mapped.read(self.address, made)
        return made

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3, read-only. There is none of bfloat16 and float8, which it cannot name: DLPack can."""
        if self.dtype.name in STORAGE:
            raise AttributeError(f"__cuda_array_interface__ has no {self.dtype.name}: use DLPack")
        self._mapped.check()
        address = self.address if self.size else 0  # as the interface wants it of an empty array
        return {
            "version": 3, "shape": self.shape, "typestr": self.dtype.str, "data": (address, True), "strides": None,
            "stream": None,
        }  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        return (capsules.CUDA, self.device)

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A capsule, without a copy; asked for host memory (`dl_device`), of one.

        It says that the memory is read-only to those who know version 1 of the protocol. What is there was there before
        the model could be opened, so no stream has to wait. Raises BufferError for what cannot be had.
        """
        if dl_device == capsules.CPU and copy is not False:
            return capsules.of_array(self.get())
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"the tensor is on GPU {self.device}, and read-only: copy it with what takes it")
        self._mapped.check()
        versioned = max_version is not None and max_version >= (1, 0)
        device = self.__dlpack_device__()
        return capsules.of_memory(self.address, self.shape, self.dtype, device, self._mapped, versioned)

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("the tensor is on a GPU: copy it to the host with .get()")

    def __reduce__(self) -> NoReturn:
        raise UsageError("a tensor on a GPU cannot be pickled", "its memory belongs to this process", "pickle .get()")

    def __repr__(self) -> str:
        return f"<trims.DeviceArray {self.dtype.name} {self.shape} on GPU {self.device}>"
