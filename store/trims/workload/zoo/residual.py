"""The residual networks of the table: ResNets of both kinds, ResNeXts, a wide one and LocationNet.

After He et al. 2015 (sum, then ReLU) and 2016 (normalisation and ReLU before each convolution), Xie et al. 2017 (32
groups of 4 channels) and Zagoruyko and Komodakis 2016 (middle layers twice as wide). Which form each name has was read
off the table's number of tensors, which these meet exactly: with c convolutions, 5c + 2 is the first form with a
normalisation behind each; a further 4 is one of the input; what the second form comes to depends on the units. By those
counts the table's 50-, 101- and 152-layer "v2" are of the first form, and ResNet152-11k is of the second. Class counts
that the table does not give: 11,221 of 11k ImageNet, 15,527 places of LocationNet.
"""

from __future__ import annotations

from dataclasses import dataclass

from trims.workload.zoo.net import Net
from trims.workload.zoo.noise import Noise
from trims.workload.zoo.unfilled import Unfilled

_50, _101, _152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)


@dataclass(frozen=True, slots=True)
class Residual:
    """units: residual units in each of four stages; before: normalise before each convolution (the second form).

    deep: units of 1x1, 3x3, 1x1 convolutions, else of two 3x3; middle: channels of the first stage's 3x3; groups: of
    the 3x3; data: a normalisation of the input; stem: one behind the first convolution.
    """

    units: tuple[int, int, int, int]
    before: bool = False
    deep: bool = True
    middle: int = 64
    groups: int = 1
    classes: int = 1000
    data: bool = False
    stem: bool = True


NETWORKS = {
    "LocationNet": Residual(_101, before=True, data=True, classes=15527),
    "ResNet18-v2": Residual((2, 2, 2, 2), before=True, deep=False, data=True),
    "ResNet34-v2": Residual((3, 4, 6, 3), before=True, deep=False, data=True),
    "ResNet50": Residual(_50, data=True),
    "ResNet50-v2": Residual(_50),
    "ResNet101": Residual(_101, data=True),
    "ResNet101-v2": Residual(_101),
    "ResNet152": Residual(_152),
    "ResNet152-v2": Residual(_152),
    "ResNet152-11k": Residual(_152, before=True, data=True, classes=11221),
    "ResNet200-v2": Residual((3, 24, 36, 3), before=True, data=True),
    "ResNet269-v2": Residual((3, 30, 48, 8), before=True, stem=False),
    "ResNeXt26-32x4d": Residual((2, 2, 2, 2), middle=128, groups=32),
    "ResNeXt50": Residual(_50, middle=128, groups=32, data=True),
    "ResNeXt50-32x4d": Residual(_50, middle=128, groups=32),
    "ResNeXt101": Residual(_101, middle=128, groups=32, data=True),
    "ResNeXt101-32x4d": Residual(_101, middle=128, groups=32),
    "WRN50-v2": Residual(_50, middle=128),
}


def residual(name: str, seed: int, width: float = 1.0) -> Unfilled:
    """One of NETWORKS for a 1x3x224x224 input."""
    form = NETWORKS[name]
    net = Net(Noise(seed, name), 224, width)
    x = net.conv(net.norm("x") if form.data else "x", 64, 7, 2, 3)
    x = net.relu(net.norm(x)) if form.stem else x
    x = net.pool(x, 3, 2, 1)
    unit = _before if form.before else _after
    for stage, count in enumerate(form.units):
        for at in range(count):
            x = unit(net, x, form, stage, at == 0)
    x = net.relu(net.norm(x)) if form.before else x
    return net.model(name, net.full(net.average(x), form.classes))


def _layers(form: Residual, stage: int, first: bool) -> list[tuple[int, int, int, int]]:
    """(channels, kernel, stride, groups) of a unit's convolutions; the 3x3 that comes first shrinks the image."""
    stride = 2 if first and stage else 1
    if not form.deep:
        return [(64 << stage, 3, stride, 1), (64 << stage, 3, 1, 1)]
    middle = form.middle << stage
    return [(middle, 1, 1, 1), (middle, 3, stride, form.groups), (256 << stage, 1, 1, 1)]


def _after(net: Net, x: str, form: Residual, stage: int, first: bool) -> str:
    """Convolution, normalisation, ReLU; the last ReLU behind the sum."""
    layers, y = _layers(form, stage, first), x
    for channels, kernel, stride, groups in layers:
        y = net.relu(y) if y != x else y
        whole = form.groups if channels < layers[-1][0] else 1
        y = net.norm(net.conv(y, channels, kernel, stride, kernel // 2, groups=groups, whole=whole))
    if first:
        x = net.norm(net.conv(x, layers[-1][0], 1, 2 if stage else 1))
    return net.relu(net.add(x, y))


def _before(net: Net, x: str, form: Residual, stage: int, first: bool) -> str:
    """Normalisation, ReLU, convolution; the shortcut leaves behind the first ReLU where the shape changes."""
    layers, y, shortcut = _layers(form, stage, first), x, x
    for channels, kernel, stride, groups in layers:
        y = net.relu(net.norm(y))
        if first and shortcut == x:
            shortcut = net.conv(y, layers[-1][0], 1, 2 if stage else 1)
        y = net.conv(y, channels, kernel, stride, kernel // 2, groups=groups)
    return net.add(shortcut, y)
