from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import UsageError
from trims.paths import StorePaths, escape, unescape
from trims.refs import digest_prefix, name_from_path, parse_ref

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
part = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._+@-]{0,20}\Z")
names = st.lists(part, min_size=1, max_size=4).map("/".join).filter(lambda name: name != "id")
tags = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._+@-]{0,63}\Z")


@given(names, tags | st.none())
def test_what_the_grammar_makes_is_a_ref_and_stays_itself(name: str, tag: str | None) -> None:
    ref = parse_ref(name if tag is None else f"{name}:{tag}")
    assert ref == f"{name}:{tag or 'latest'}"
    assert parse_ref(ref) == ref


@given(st.text(st.sampled_from(LETTERS + "._-+@/: \n%*?\u00e9"), max_size=300))
def test_any_ref_is_one_file_name_and_comes_back(text: str) -> None:
    try:
        ref = parse_ref(text)
    except UsageError:
        return
    file = os.path.basename(StorePaths("/s").entry(ref))
    assert unescape(file.removesuffix(".json")) == ref
    assert len(file) <= 255
    assert file.isascii() and file[0] not in ".-"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":v1",
        "a:",
        "../x",
        "a/../b",
        "a//b",
        "/a",
        "a/",
        "-rf",
        ".hidden",
        "a b",
        "a\nb",
        "a:b:c",
        "a:b/c",
        "id",
        "id:x",
        "caf\u00e9",
        "a\udcff",
        "a" * 151,
        "a:" + "t" * 65,
        "a/" * 60 + "b",
        "a*",
        "@list",
        "_a",
        "a:.b",
        "./a",
        "a\0b",
    ],
)
def test_what_is_no_ref(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_ref(text)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["a" * 10_000, "id:" + "0" * 10_000])
def test_an_absurd_name_is_not_repeated_whole(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        digest_prefix(text) or parse_ref(text)
    assert len(str(caught.value)) < 400


def test_the_longest_ref_is_a_file_name(tmp_path) -> None:
    ref = parse_ref("a/" * 37 + "b" * 2 + ":" + "t" * 64)
    file = tmp_path / os.path.basename(StorePaths("/s").entry(ref))
    file.write_text("")
    assert file.exists()


def test_digest_prefixes() -> None:
    assert digest_prefix("id:ABCDEF") == "abcdef"
    assert digest_prefix("resnet50") is None
    for bad in ("id:abcde", "id:", "id:xyzxyz", "id:" + "a" * 65):
        with pytest.raises(UsageError):
            digest_prefix(bad)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/m/resnet50.onnx", "resnet50"),
        ("model.safetensors.index.json", "model"),
        ("dir/", "dir"),
        ("a b\n.npz", "a-b"),
        (".onnx", "onnx"),
        ("id.pt", "model"),
        ("---", "model"),
        ("", "model"),
        ("x.tar.gz", "x.tar.gz"),
        ("\udcff.h5", "model"),
    ],
)
def test_names_of_files(path: str, name: str) -> None:
    assert name_from_path(path) == name


@given(st.text(st.characters(codec=None), max_size=300))
def test_a_name_from_any_path_is_a_ref(path: str) -> None:
    parse_ref(name_from_path(path))


@given(st.text(st.characters(codec=None), max_size=80))
def test_escape_is_a_round_trip_and_a_file_name(text: str) -> None:
    component = escape(text)
    assert unescape(component) == text
    assert component.isascii() and "/" not in component and "\0" not in component
