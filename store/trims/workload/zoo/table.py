"""Table 3 of the paper as data, and its large models as formula.

The 37 rows are `zoo37.csv`: id, name, number of weight tensors, MiB of weights, bytes of the layers between. The
authors round weights up to whole MiB (below 10 to a tenth): the architectures that `plain` counts fit that, but for
NIN's 28.97. The large models are AlexNet and VGG16 for inputs of 2 to 5 and 2 to 4 times the side; the paper gives no
sizes for them, `plain` counts them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

from trims.errors import UsageError
from trims.workload.models import ModelSpec
from trims.workload.zoo import plain

MIB = 1 << 20
GIB = 1 << 30
LARGE = {"AlexNet": (454, 681, 908, 1135), "VGG16": (448, 672, 896)}
"""Sides in pixels of the enlarged inputs: multiples of 227 and of 224."""

LIGHT = {
    "GoogLeNet": "light_inception_v1",
    "CaffeNet": "light_bvlc_alexnet",
    "ResNet50": "light_resnet50",
    "SqueezeNet-v1.1": "light_squeezenet",
    "VGG19": "light_vgg19",
}
"""The light models of the onnx package that are within 2 % of the table's size. BVLC's AlexNet, the light one, is
CaffeNet but for the order of pooling and normalisation; the table's own AlexNet is the one without groups."""

_NAMES = {
    "chain": "AlexNet CaffeNet RCNN-ILSVRC13 NIN VGG16 VGG16-SOD VGG16-SOS VGG19",
    "branching": "GoogLeNet Inception-BN-v3 InceptionBN-21k-v2 SqueezeNet-v1.0 SqueezeNet-v1.1",
    "inception": "Inception-v3 Inception-v4 Inception-ResNet-v2",
    "mixed": "DPN68 DPN92 Xception",
    "residual": "LocationNet ResNet18-v2 ResNet34-v2 ResNet50 ResNet50-v2 ResNet101 ResNet101-v2 ResNet152 ResNet152-v2"
    " ResNet152-11k ResNet200-v2 ResNet269-v2 ResNeXt26-32x4d ResNeXt50 ResNeXt50-32x4d ResNeXt101 ResNeXt101-32x4d"
    " WRN50-v2",
}
ARCHITECTURES = {name: family for family, names in _NAMES.items() for name in names.split()}
"""The table's models → the family of their graph."""


@dataclass(frozen=True, slots=True)
class ZooModel:
    """One model of the paper.

    spec: what a workload asks for; its size is the table's times the scale until the file is built.
    paper_mib, paper_internal_bytes: the table's own figures, 0 where the paper gives none.
    architecture: the family of its graph, a module of this package: one of the words of ARCHITECTURES.
    """

    spec: ModelSpec
    id: int
    paper_mib: float
    paper_internal_bytes: int
    architecture: str = ""


def paper_models(scale: float = 1.0) -> list[ZooModel]:
    """The 37 small models, in the table's order, with sizes times `scale`. Raises UsageError unless 0 < scale <= 16."""
    check_scale(scale)
    text = resources.files(__package__).joinpath("zoo37.csv").read_text("utf-8")
    return [_row(row, scale) for row in csv.DictReader(text.splitlines())]


def _row(row: dict[str, str], scale: float) -> ZooModel:
    name, tensors, mib = row["name"], int(row["tensors"]), float(row["weights_mib"])
    spec = ModelSpec(name, scaled(int(mib * MIB), tensors, scale), tensors)
    return ZooModel(spec, int(row["id"]), mib, int(row["internal_bytes"]), ARCHITECTURES[name])


def large_models(scale: float = 1.0, up_to: int = 4 * GIB) -> list[ZooModel]:
    """The enlarged AlexNets and VGG16s of at most `up_to` bytes at scale 1, smallest first, with ids from 38 on.

    Raises UsageError unless 0 < scale <= 16.
    """
    check_scale(scale)
    sizes = {f"{name}-{side}": _chain_size(name, side) for name, sides in LARGE.items() for side in sides}
    found = []
    for at, (name, nbytes) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        tensors = len(plain.shapes(plain.CHAINS[name.partition("-")[0]]))
        spec = ModelSpec(name, scaled(nbytes, tensors, scale), tensors, family="large")
        if nbytes <= up_to:
            found.append(ZooModel(spec, 38 + at, 0.0, 0, "chain"))
    return found


def _chain_size(name: str, side: int) -> int:
    return plain.nbytes(plain.CHAINS[name].enlarged(side))


def chain_of(name: str) -> plain.Chain | None:
    """The layers of a model that is one chain, large ones included ("VGG16-448"); None for all others."""
    base, _, side = name.rpartition("-")
    if base in LARGE and side.isdigit():
        return plain.CHAINS[base].enlarged(int(side))
    return plain.CHAINS.get(name)


def scaled(nbytes: int, tensors: int, scale: float) -> int:
    """`nbytes` times `scale` in whole float32 values, at least two for each tensor."""
    return 4 * max(2 * tensors, int(nbytes * scale) // 4)


def check_scale(scale: float) -> None:
    """Raises UsageError unless 0 < scale <= 16 (nan is refused too)."""
    if not 0.0 < scale <= 16.0:
        raise UsageError(
            f"bad scale {scale:g}", "it multiplies the sizes of the models", "give a number above 0, up to 16"
        )
