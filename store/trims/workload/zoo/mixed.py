"""Xception and the dual path networks: the two of the table that fit no other family.

Chollet 2017: blocks of separable convolutions (one group a channel, then 1x1) beside a 1x1 shortcut. Chen et al. 2017:
a unit adds some channels of its result to those that came in, as a ResNet, and joins the others to them, as a DenseNet.

Layer by layer these have the shapes of timm's legacy_xception, dpn68 and dpn92.
"""

from __future__ import annotations

from dataclasses import dataclass

from trims.workload.zoo.net import Net
from trims.workload.zoo.noise import Noise
from trims.workload.zoo.unfilled import Unfilled

_BLOCKS = ((128, 128), (256, 256), (728, 728), *[(728, 728, 728)] * 8, (728, 1024))
"""Widths of the separable convolutions of each block of Xception; all but the eight in the middle halve the image."""


@dataclass(frozen=True, slots=True)
class DualPath:
    """stem: channels and kernel of the first convolution; groups: 32 of the 3x3 convolutions; narrow: their channels in
    the first stage; added: channels that are added there; stages: units and the channels that each unit joins."""

    stem: tuple[int, int]
    narrow: int
    added: int
    stages: tuple[tuple[int, int], ...]


_DUAL = {
    "DPN68": DualPath((10, 3), 128, 64, ((3, 16), (4, 32), (12, 32), (3, 64))),
    "DPN92": DualPath((64, 7), 96, 256, ((3, 16), (4, 32), (20, 24), (3, 128))),
}
_GROUPS = 32

NETWORKS = frozenset({"Xception", *_DUAL})


def mixed(name: str, seed: int, width: float = 1.0) -> Unfilled:
    """One of NETWORKS; Xception takes 1x3x299x299, the others 1x3x224x224."""
    noise = Noise(seed, name)
    if name in _DUAL:
        net = Net(noise, 224, width)
        return net.model(name, _dual_path(net, _DUAL[name]))
    net = Net(noise, 299, width)
    return net.model(name, _xception(net))


def _xception(net: Net) -> str:
    x = net.relu(net.norm(net.conv("x", 32, 3, 2)))
    x = net.relu(net.norm(net.conv(x, 64, 3)))
    for at, widths in enumerate(_BLOCKS):
        halves, y = len(widths) == 2, x
        for width in widths:
            y = net.norm(_separable(net, net.relu(y) if at or y != x else y, width))
        shortcut = net.norm(net.conv(x, widths[-1], 1, 2)) if halves else x
        x = net.add(net.pool(y, 3, 2, 1) if halves else y, shortcut)
    for width in (1536, 2048):
        x = net.relu(net.norm(_separable(net, x, width)))
    return net.full(net.average(x), 1000)


def _separable(net: Net, x: str, out: int) -> str:
    return net.conv(net.exact(x, net.channels[x], 3, 1, 1, groups=net.channels[x]), out, 1)


def _dual_path(net: Net, form: DualPath) -> str:
    channels, kernel = form.stem
    x = net.relu(net.norm(net.conv("x", channels, kernel, 2, kernel // 2)))
    added, joined = net.pool(x, 3, 2, 1), ""
    for stage, (units, grown) in enumerate(form.stages):
        for at in range(units):
            added, joined = _unit(net, added, joined, form, stage, grown, at == 0)
    return net.full(net.average(net.relu(net.norm(net.concat(added, joined)))), 1000)


def _unit(net: Net, added: str, joined: str, form: DualPath, stage: int, grown: int, first: bool) -> tuple[str, str]:
    """One unit: what came in on the two paths to what goes out. The first of a stage starts both paths anew."""
    stride = 2 if first and stage else 1
    wide, grow = net.wide(form.added << stage), net.wide(grown)
    middle = net.wide(form.narrow << stage, _GROUPS)
    x = net.concat(added, joined) if joined else added
    if first:
        added, joined = net.split(_active(net, x, wide + 2 * grow, 1, stride), wide)
    y = _active(net, _active(net, x, middle, 1), middle, 3, stride, _GROUPS)
    more, new = net.split(_active(net, y, wide + grow, 1), wide)
    return net.add(added, more), net.concat(joined, new)


def _active(net: Net, x: str, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
    """Normalisation, ReLU, then a convolution that keeps the size but for its stride."""
    return net.exact(net.relu(net.norm(x)), channels, kernel, stride, kernel // 2, groups)
