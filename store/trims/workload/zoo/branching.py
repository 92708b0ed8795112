"""SqueezeNet, GoogLeNet and Inception-BN: networks whose modules branch and join, with biases.

Sources: Iandola et al. 2016 (fire modules; 1.1 pools earlier), Szegedy et al. 2015, Table 1, Ioffe and Szegedy 2015 in
the form of MXNet's example, which has a bias beside each normalisation (416 tensors, as the table says). The 21k form
differs by its 21,841 classes only, and is 3 % smaller than the table's.
"""

from __future__ import annotations

from trims.workload.zoo.net import Net
from trims.workload.zoo.noise import Noise
from trims.workload.zoo.unfilled import Unfilled

_SQUEEZE = {
    "SqueezeNet-v1.0": ((96, 7), (16, 16, 32, 0, 32, 48, 48, 64, 0, 64)),
    "SqueezeNet-v1.1": ((64, 3), (16, 16, 0, 32, 32, 0, 48, 48, 64, 64)),
}
"""The first convolution, and the squeeze width of each fire module (each half expands to 4 times that); 0 is a pool."""

_GOOGLENET = (
    (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (),
    (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128), (),
    (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
)  # fmt: skip
"""1x1; 3x3 reduced, 3x3; 5x5 reduced, 5x5; behind the pool. () is a pool between modules."""

_INCEPTION_BN = (
    (64, 64, 64, 64, 96, 32), (64, 64, 96, 64, 96, 64), (0, 128, 160, 64, 96, 0),
    (224, 64, 96, 96, 128, 128), (192, 96, 128, 96, 128, 128), (160, 128, 160, 128, 160, 128),
    (96, 128, 192, 160, 192, 128), (0, 128, 192, 192, 256, 0),
    (352, 192, 320, 160, 224, 128), (352, 192, 320, 192, 224, 128),
)  # fmt: skip
"""1x1; 3x3 reduced, 3x3; two 3x3 reduced, each; behind the pool. Without the first and the last it halves the image."""

_INCEPTION_BN_CLASSES = {"Inception-BN-v3": 1000, "InceptionBN-21k-v2": 21841}

NETWORKS = frozenset({"GoogLeNet", *_SQUEEZE, *_INCEPTION_BN_CLASSES})


def branching(name: str, seed: int, width: float = 1.0) -> Unfilled:
    """One of NETWORKS for a 1x3x224x224 input."""
    net = Net(Noise(seed, name), 224, width)
    if name in _SQUEEZE:
        return net.model(name, _squeezenet(net, *_SQUEEZE[name]))
    if name == "GoogLeNet":
        return net.model(name, _googlenet(net))
    return net.model(name, _inception_bn(net, _INCEPTION_BN_CLASSES[name]))


def _squeezenet(net: Net, first: tuple[int, int], widths: tuple[int, ...]) -> str:
    x = net.pool(net.relu(net.conv("x", *first, 2, bias=True)), 3, 2, ceil=True)
    for width in widths:
        if not width:
            x = net.pool(x, 3, 2, ceil=True)
            continue
        x = net.relu(net.conv(x, width, 1, bias=True))
        sides = [net.relu(net.conv(x, 4 * width, kernel, pad=kernel // 2, bias=True)) for kernel in (1, 3)]
        x = net.concat(*sides)
    return net.average(net.relu(net.conv(x, 1000, 1, bias=True)))


def _googlenet(net: Net) -> str:
    def conv(x: str, out: int, kernel: int, stride: int = 1) -> str:
        return net.relu(net.conv(x, out, kernel, stride, kernel // 2, bias=True))

    x = net.lrn(net.pool(conv("x", 64, 7, 2), 3, 2, ceil=True))
    x = net.pool(net.lrn(conv(conv(x, 64, 1), 192, 3)), 3, 2, ceil=True)
    for module in _GOOGLENET:
        if not module:
            x = net.pool(x, 3, 2, ceil=True)
            continue
        one, three_in, three, five_in, five, behind = module
        branches = [conv(x, one, 1), conv(conv(x, three_in, 1), three, 3), conv(conv(x, five_in, 1), five, 5)]
        x = net.concat(*branches, conv(net.pool(x, 3, 1, 1), behind, 1))
    return net.full(net.average(x), 1000)


def _inception_bn(net: Net, classes: int) -> str:
    def conv(x: str, out: int, kernel: int, stride: int = 1) -> str:
        return net.relu(net.norm(net.conv(x, out, kernel, stride, kernel // 2, bias=True)))

    x = net.pool(conv("x", 64, 7, 2), 3, 2, ceil=True)
    x = net.pool(conv(conv(x, 64, 1), 192, 3), 3, 2, ceil=True)
    for module in _INCEPTION_BN:
        one, three_in, three, double_in, double, behind = module
        stride = 1 if one else 2
        double_out = conv(conv(conv(x, double_in, 1), double, 3), double, 3, stride)
        branches = [conv(conv(x, three_in, 1), three, 3, stride), double_out]
        if one:
            pooled = net.pool(x, 3, 1, 1, mean=module is not _INCEPTION_BN[-1])
            x = net.concat(conv(x, one, 1), *branches, conv(pooled, behind, 1))
        else:
            x = net.concat(*branches, net.pool(x, 3, 2, 1))
    return net.full(net.average(x), classes)
