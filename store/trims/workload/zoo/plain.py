"""Networks that are one chain of layers, and the shapes of their weights: AlexNet and its kin, NIN, VGG.

With side s, a convolution or a floor-mode pool gives floor((s + 2 pad - kernel) / stride) + 1, a ceil-mode pool
(Caffe's) the same with ceil. A convolution of c channels to n in g groups has n*(c/g)*k*k weights and n biases; a full
layer from f features to n has f*n and n, where the first one's f is channels * side * side of what reaches it: that
layer alone grows with the input, as the square of its side, and makes the paper's enlarged AlexNet and VGG16 large.

Sources: Krizhevsky et al. 2012 (AlexNet; the table's has no groups: 62.4 M parameters, 238 MiB), BVLC's CaffeNet and
R-CNN deploy files (grouped; 200 classes in the latter), Lin et al. 2014 (NIN), Simonyan and Zisserman 2015 (VGG D, E),
Zhang et al. 2016 and 2015 (VGG16 for salient objects: 100 windows; for subitizing: 5 classes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution with bias, and a ReLU after it."""

    out: int
    kernel: int
    stride: int = 1
    pad: int = 0
    groups: int = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """A maximum over kernel x kernel; ceil: the last window may hang over the edge."""

    kernel: int
    stride: int
    ceil: bool = False


@dataclass(frozen=True, slots=True)
class Norm:
    """Local response normalisation over five channels."""


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of each channel: the head of a network without full layers."""


@dataclass(frozen=True, slots=True)
class Full:
    """A full layer with bias; a ReLU after it unless it is the last of the network."""

    out: int


Layer = Conv | Pool | Norm | Average | Full
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """A network: the side of its square input of three channels, and its layers."""

    side: int
    layers: tuple[Layer, ...]

    def enlarged(self, side: int) -> Chain:
        """The same chain for an input of side x side pixels."""
        return replace(self, side=side)


def shapes(chain: Chain) -> list[tuple[str, Shape]]:
    """Name and shape of every weight, in the order of use: "conv1.weight" (out, in/groups, k, k), "conv1.bias" (out,),
    "fc6.weight" (out, in)."""
    found: list[tuple[str, Shape]] = []
    channels, side, features = 3, chain.side, 0
    for layer in chain.layers:
        number = len(found) // 2 + 1
        if isinstance(layer, Conv):
            kernel: Shape = (layer.out, channels // layer.groups, layer.kernel, layer.kernel)
            found += [(f"conv{number}.weight", kernel), (f"conv{number}.bias", (layer.out,))]
            channels = layer.out
        elif isinstance(layer, Full):
            features = features or channels * side * side
            found += [(f"fc{number}.weight", (layer.out, features)), (f"fc{number}.bias", (layer.out,))]
            features = layer.out
        side = side_after(layer, side)
    return found


def side_after(layer: Layer, side: int) -> int:
    """The side of the image behind `layer`, whose input has side `side`."""
    if isinstance(layer, Conv):
        return (side + 2 * layer.pad - layer.kernel) // layer.stride + 1
    if isinstance(layer, Pool):
        steps = (side - layer.kernel) / layer.stride
        return (math.ceil(steps) if layer.ceil else math.floor(steps)) + 1
    return side


def nbytes(chain: Chain) -> int:
    """Bytes of all weights in float32."""
    return 4 * sum(math.prod(shape) for _, shape in shapes(chain))


def _alexnet(groups: int, classes: int, pool_first: bool) -> Chain:
    pool = Pool(3, 2, ceil=True)
    between = (pool, Norm()) if pool_first else (Norm(), pool)
    tail = (Conv(384, 3, pad=1), Conv(384, 3, pad=1, groups=groups), Conv(256, 3, pad=1, groups=groups), pool)
    head = (Full(4096), Full(4096), Full(classes))
    return Chain(227, (Conv(96, 11, 4), *between, Conv(256, 5, pad=2, groups=groups), *between, *tail, *head))


def _vgg(repeats: tuple[int, ...], classes: int) -> Chain:
    layers: list[Layer] = []
    for width, count in zip((64, 128, 256, 512, 512), repeats, strict=True):
        layers += [Conv(width, 3, pad=1)] * count + [Pool(2, 2)]
    return Chain(224, (*layers, Full(4096), Full(4096), Full(classes)))


def _nin() -> Chain:
    layers: list[Layer] = []
    stages = ((96, 11, 4, 0, 96), (256, 5, 1, 2, 256), (384, 3, 1, 1, 384), (1024, 3, 1, 1, 1000))
    for out, kernel, stride, pad, last in stages:
        layers += [Conv(out, kernel, stride, pad), Conv(out, 1), Conv(last, 1)]
        layers.append(Average() if last == 1000 else Pool(3, 2, ceil=True))
    return Chain(224, tuple(layers))


CHAINS: dict[str, Chain] = {
    "AlexNet": _alexnet(1, 1000, pool_first=False),
    "CaffeNet": _alexnet(2, 1000, pool_first=True),
    "RCNN-ILSVRC13": _alexnet(2, 200, pool_first=True),
    "NIN": _nin(),
    "VGG16": _vgg((2, 2, 3, 3, 3), 1000),
    "VGG16-SOD": _vgg((2, 2, 3, 3, 3), 100),
    "VGG16-SOS": _vgg((2, 2, 3, 3, 3), 5),
    "VGG19": _vgg((2, 2, 4, 4, 4), 1000),
}
