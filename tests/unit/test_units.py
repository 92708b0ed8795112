from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import UsageError
from trims.units import FOREVER, format_age, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("1K", 1024),
        ("1KiB", 1024),
        ("1kb", 1000),
        ("20GiB", 20 << 30),
        ("20G", 20 << 30),
        ("20GB", 20 * 10**9),
        (" 1.5 GiB ", 3 << 29),
        (".5K", 512),
        ("2T", 2 << 40),
        ("9007199254740993", 9007199254740993),
        ("80%", 80),
        ("100%", 100),
        ("12.5%", 12),
        ("0%", 0),
    ],
)
def test_sizes(text: str, nbytes: int) -> None:
    assert parse_size(text, total=100) == nbytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "GiB",
        "-1",
        "1e5",
        "1_000",
        "1.2.3",
        ".",
        "\u0663",
        "\u00b2",
        "5 Q",
        "101%",
        "nan",
        "inf",
        "9" * 400,
        "0x10",
        "1\n2",
    ],
)
def test_bad_sizes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text, total=100)


def test_a_percentage_needs_a_total() -> None:
    with pytest.raises(UsageError, match="no meaning here"):
        parse_size("50%")


@given(st.integers(0, 1 << 60))
def test_a_number_of_bytes_is_itself(nbytes: int) -> None:
    assert parse_size(str(nbytes)) == nbytes


@given(st.integers(0, 1 << 60))
def test_a_printed_size_is_near_and_has_no_spaces(nbytes: int) -> None:
    text = format_size(nbytes)
    assert " " not in text and len(text) <= 9
    assert abs(parse_size(text) - nbytes) <= max(0.0501 * nbytes, 0)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0KiB"),
        (1023 * 1024, "1.0MiB"),
        (102_500_000, "97.8MiB"),
        (1 << 50, "1.0PiB"),
    ],
)
def test_printed_sizes(nbytes: int, text: str) -> None:
    assert format_size(nbytes) == text


@given(st.text())
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    try:
        assert parse_size(text, total=100) >= 0
        assert parse_duration(text) >= 0
    except UsageError:
        pass


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("7d", 604800),
        ("1w", 604800),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("forever", FOREVER),
        ("never", FOREVER),
        ("0", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1y", "1h30m", "9" * 400])
def test_bad_durations(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h"),
        (86400 * 9, "9d"),
        (FOREVER, "forever"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert format_age(seconds) == text
