"""Names that were meant: what is suggested for a name that the store does not have."""

from __future__ import annotations

import pytest

from trims.refs import near

KNOWN = ["resnet50:latest", "resnet50:v2", "resnet101:latest", "bert:v1", "org/llama-7b:latest", "vgg:latest"]


@pytest.mark.parametrize(
    ("ref", "meant"),
    [
        ("resnet51:latest", "resnet50"),
        ("rsenet50:latest", "resnet50"),
        ("resnet50:v3", "resnet50"),
        ("resnet5:v2", "resnet50:v2"),
        ("resnet:latest", "resnet50"),
        ("resnet101-onnx:latest", "resnet101"),
        ("brt:latest", "bert:v1"),
        ("org/lama-7b:latest", "org/llama-7b"),
        ("vg:latest", "vgg"),
    ],
)
def test_a_slip_of_the_pen(ref: str, meant: str) -> None:
    assert near(ref, KNOWN) == f"; did you mean {meant}?"


@pytest.mark.parametrize("ref", ["gpt2:latest", "bart:latest:x", "resting:latest", "xyz:latest", "v:latest"])
def test_something_else(ref: str) -> None:
    assert near(ref, KNOWN[:3] + KNOWN[5:]) == ""


def test_an_empty_store() -> None:
    assert near("resnet50:latest", []) == ""
