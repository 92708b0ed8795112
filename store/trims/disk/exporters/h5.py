"""HDF5: one dataset a tensor, at the path that its name spells.

A name that no path spells (an empty part, a lone dot, a group that is a dataset, too) is escaped as in a container, and
kept whole in the attribute `trims_name`; bfloat16 and float8 are integers with an attribute `trims_dtype`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack

import h5py
import numpy as np

from trims.disk.container import link_name
from trims.disk.exporters.reading import ModelReader
from trims.disk.exporters.target import Target
from trims.manifest import STORAGE


def write_h5(target: Target, model: ModelReader, names: Sequence[str]) -> None:
    """One file with these tensors. HDF5 writes with seeks, so a stream gets it by way of a temporary file."""
    with ExitStack() as stack:
        if target.is_stream:
            path = stack.enter_context(tempfile.NamedTemporaryFile(prefix="trims-", suffix=".h5")).name
        else:
            path = target.stage()
        # Nobody else knows the file, and its own lock would clash with the one that marks it as in use.
        with h5py.File(path, "w", locking=False) as file:
            groups = {name.rpartition("/")[0] for name in names}
            for name in names:
                _write(file, model, name, groups)
        if target.is_stream:
            with open(path, "rb") as done:
                shutil.copyfileobj(done, target.open(), 1 << 20)


def _write(file: h5py.File, model: ModelReader, name: str, groups: set[str]) -> None:
    spec = model.spec(name)
    path = _path(name, groups)
    storage = np.dtype(STORAGE.get(spec.dtype, spec.dtype)).newbyteorder("<")
    array = np.frombuffer(model.tensor(name), storage) if spec.nbytes else np.empty(0, storage)
    dataset = file.create_dataset(path, data=array.reshape(spec.shape), track_times=False)
    if spec.dtype in STORAGE:
        dataset.attrs["trims_dtype"] = spec.dtype
    if path != name:
        dataset.attrs["trims_name"] = name


def _path(name: str, groups: set[str]) -> str:
    """Where in the file the tensor `name` goes: its own path, unless HDF5 would not keep it."""
    if any(group == name or group.startswith(name + "/") for group in groups):
        return "%%" + link_name(name)  # no escaped name begins so, and no plain one has a percent sign
    odd = "%" in name or any(part in ("", ".", "..") or not part.isprintable() for part in name.split("/"))
    return link_name(name) if odd else name
