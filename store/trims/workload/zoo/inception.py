"""Inception-v3, Inception-v4 and Inception-ResNet-v2, as tables of modules (Szegedy et al. 2015b and 2016).

A module is its branches, side by side, joined by channels; a branch is words, one layer each:
  "96"      1x1 to 96 channels         "96:3"    3x3, same size         "96:3v"   3x3 without padding
  "96:3/2"  the same, every second     "96:1x7"  one row, seven columns "avg"     the mean over 3x3, same size
  "max"     the maximum over 3x3, without padding, every second         "a+b"     two layers side by side
Every convolution has a normalisation and a ReLU behind it and no bias, so c of them are 5c + 2 tensors with the head's.
Layer by layer these have the shapes of torchvision's inception_v3 and timm's inception_v4 and inception_resnet_v2.
A residual module joins, is brought to the width of what came in by a 1x1 with bias, scaled, and added to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from trims.workload.zoo.net import Net
from trims.workload.zoo.noise import Noise
from trims.workload.zoo.unfilled import Unfilled

Module = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Residual:
    """A residual module: its branches, the factor of their sum, and whether a ReLU follows."""

    branches: Module
    factor: float
    relu: bool = True


def _v3() -> list[Module | Residual]:
    def a(behind: int) -> Module:
        return "64", "48 64:5", "64 96:3 96:3", f"avg {behind}"

    def c(n: int) -> Module:
        return "192", f"{n} {n}:1x7 192:7x1", f"{n} {n}:7x1 {n}:1x7 {n}:7x1 192:1x7", "avg 192"

    e = ("320", "384 384:1x3+384:3x1", "448 384:3 384:1x3+384:3x1", "avg 192")
    shrink = (("384:3/2", "64 96:3 96:3/2", "max"), ("192 320:3/2", "192 192:1x7 192:7x1 192:3/2", "max"))
    stem = ("32:3/2 32:3v 64:3 max 80 192:3v max",)
    return [stem, a(32), a(64), a(64), shrink[0], c(128), c(160), c(160), c(192), shrink[1], e, e]


def _v4() -> list[Module | Residual]:
    stem: list[Module] = [
        ("32:3/2 32:3v 64:3",), ("max", "96:3/2"), ("64 96:3v", "64 64:1x7 64:7x1 96:3v"), ("192:3/2", "max"),
    ]  # fmt: skip
    a = ("96", "64 96:3", "64 96:3 96:3", "avg 96")
    b: Module = ("384", "192 224:1x7 256:7x1", "192 192:7x1 224:1x7 224:7x1 256:1x7", "avg 128")
    c = ("256", "384 256:1x3+256:3x1", "384 448:3x1 512:1x3 256:1x3+256:3x1", "avg 256")
    shrink = (("384:3/2", "192 224:3 256:3/2", "max"), ("192 192:3/2", "256 256:1x7 320:7x1 320:3/2", "max"))
    return [*stem, a, a, a, a, shrink[0], *[b] * 7, shrink[1], c, c, c]


def _resnet_v2() -> list[Module | Residual]:
    small = Residual(("32", "32 32:3", "32 48:3 64:3"), 0.17)
    middle = Residual(("192", "128 160:1x7 192:7x1"), 0.1)
    large = ("192", "192 224:1x3 256:3x1")
    shrink = (("384:3/2", "256 256:3 384:3/2", "max"), ("256 384:3/2", "256 288:3/2", "256 288:3 320:3/2", "max"))
    stem: list[Module] = [("32:3/2 32:3v 64:3 max 80 192:3v max",), ("96", "48 64:5", "64 96:3 96:3", "avg 64")]
    tail: list[Module | Residual] = [*[Residual(large, 0.2)] * 9, Residual(large, 1.0, relu=False), ("1536",)]
    return [*stem, *[small] * 10, shrink[0], *[middle] * 20, shrink[1], *tail]


NETWORKS = {"Inception-v3": _v3(), "Inception-v4": _v4(), "Inception-ResNet-v2": _resnet_v2()}


def inception(name: str, seed: int, width: float = 1.0) -> Unfilled:
    """One of NETWORKS for a 1x3x299x299 input."""
    net, x = Net(Noise(seed, name), 299, width), "x"
    for module in NETWORKS[name]:
        x = _residual(net, x, module) if isinstance(module, Residual) else _join(net, x, module)
    return net.model(name, net.full(net.average(x), 1000))


def _residual(net: Net, x: str, module: Residual) -> str:
    y = net.exact(_join(net, x, module.branches), net.channels[x], 1, bias=True)
    y = net.add(x, net.times(y, module.factor) if module.factor != 1.0 else y)
    return net.relu(y) if module.relu else y


def _join(net: Net, x: str, branches: Module) -> str:
    ends = []
    for branch in branches:
        end = x
        for word in branch.split():
            sides = [_layer(net, end, part) for part in word.split("+")]
            end = net.concat(*sides) if len(sides) > 1 else sides[0]
        ends.append(end)
    return net.concat(*ends) if len(ends) > 1 else ends[0]


def _layer(net: Net, x: str, word: str) -> str:
    """One layer of the words that the module's description lists."""
    if word in ("avg", "max"):
        return net.pool(x, 3, 1, 1, mean=True) if word == "avg" else net.pool(x, 3, 2)
    out, _, shape = word.partition(":")
    shape, _, stride = shape.partition("/")
    rows, _, columns = shape.rstrip("v").partition("x")
    kernel = (int(rows or 1), int(columns or rows or 1))
    valid = bool(stride) or shape.endswith("v")
    pad = (0, 0) if valid else (kernel[0] // 2, kernel[1] // 2)
    return net.relu(net.norm(net.conv(x, int(out), kernel, int(stride or 1), pad)))
