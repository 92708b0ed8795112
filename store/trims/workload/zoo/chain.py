"""The chains of `plain` as graphs."""

from __future__ import annotations

from trims.workload.zoo import plain
from trims.workload.zoo.net import Net
from trims.workload.zoo.noise import Noise
from trims.workload.zoo.unfilled import Unfilled


def chain(name: str, seed: int, width: float = 1.0) -> Unfilled:
    """One of plain.CHAINS for a 1x3xSxS input, S its side: 227 for AlexNet and its kin, else 224."""
    form = plain.CHAINS[name]
    net, x, side = Net(Noise(seed, name), form.side, width), "x", form.side
    whole = max(layer.groups for layer in form.layers if isinstance(layer, plain.Conv))
    flat = False
    for layer in form.layers:
        if isinstance(layer, plain.Conv):
            shape = (layer.out, layer.kernel, layer.stride, layer.pad)
            x = net.relu(net.conv(x, *shape, groups=layer.groups, whole=whole, bias=True))
        elif isinstance(layer, plain.Pool):
            x = net.pool(x, layer.kernel, layer.stride, ceil=layer.ceil)
        elif isinstance(layer, plain.Norm):
            x = net.lrn(x)
        elif isinstance(layer, plain.Average):
            x = net.average(x)
        else:
            x = net.full(x if flat else net.flatten(x, side), layer.out)
            x, flat = (x if layer is form.layers[-1] else net.relu(x)), True
        side = plain.side_after(layer, side)
    return net.model(name, x)
