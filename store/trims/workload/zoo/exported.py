"""Graphs that libraries construct: exported to ONNX in a process of their own, with weights of ours.

A child runs this module, because it imports torch (seconds, hundreds of MiB) and may have to lend torchvision the two
operators that its CUDA build misses on a CPU-only torch, which would trip other libraries later in the same process.
The exporter folds equal tensors into one, so all are made to differ first; normalisations stay nodes (PRESERVE), as the
table counts their tensors. What the library drew is then replaced by noise that follows from the seed alone.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

SIDES = {
    "timm dpn68": 224,
    "timm dpn92": 224,
    "torchvision inception_v3": 299,
    "timm inception_v4": 299,
    "timm inception_resnet_v2": 299,
    "timm legacy_xception": 299,
}
"""Constructors, as "LIBRARY NAME" → side of the input in pixels."""

_LENT = ("nms", "qnms")  # operators that torchvision 0.28 describes and only its CUDA library defines


class Unavailable(Exception):
    """The library cannot be imported, or cannot export; the text is the last line it said."""


def is_installed(source: str) -> bool:
    """Whether the packages that `source` needs are there; whether they work is seen when they are used."""
    return all(importlib.util.find_spec(name) for name in ("torch", "torchvision", source.partition(" ")[0]))


def export(source: str) -> onnx.ModelProto:
    """The graph of `source`, one of SIDES, with arbitrary weights. Raises Unavailable when its library fails."""
    with tempfile.TemporaryDirectory(prefix="trims-zoo-") as directory:
        path = os.path.join(directory, "m.onnx")
        command = [sys.executable, "-W", "ignore", "-m", __name__, source, path]
        child = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if child.returncode:
            lines = child.stderr.decode(errors="replace").strip().splitlines()
            raise Unavailable(lines[-1] if lines else f"its export ended with status {child.returncode}")
        import onnx

        return onnx.load(path)


def _main(source: str, path: str) -> None:
    import torch

    library, _, constructor = source.partition(" ")
    _import_torchvision(torch)
    with torch.no_grad():
        net = _constructors()[library](constructor).eval()
        for tensor in [*net.parameters(), *net.buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 0.2)
        image = torch.zeros(1, 3, SIDES[source], SIDES[source])
        torch.onnx.export(
            net, (image,), path, dynamo=False, opset_version=17, input_names=["x"], output_names=["y"],
            training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
        )  # fmt: skip


def _constructors() -> dict[str, Callable[[str], Any]]:
    def timm(name: str) -> Any:
        import timm

        return timm.create_model(name)

    def torchvision(name: str) -> Any:
        import torchvision

        return getattr(torchvision.models, name)(weights=None, aux_logits=False, init_weights=False)

    return {"timm": timm, "torchvision": torchvision}


def _import_torchvision(torch: Any) -> None:
    """Import it; where its own library of operators does not load, define the two that its import asks for."""
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in _LENT:
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision

        torchvision.lent_operators = library  # they last as long as this object


if __name__ == "__main__":
    _main(*sys.argv[1:])
