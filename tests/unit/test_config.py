from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trims import config
from trims.errors import UsageError
from trims.units import FOREVER


@pytest.fixture
def user_file(home: Path) -> Path:
    path = home / "config" / "trims" / "config.toml"
    path.parent.mkdir()
    return path


def test_defaults_are_valid_and_say_so() -> None:
    loaded = config.load()
    for option in config.OPTIONS:
        loaded[option.key]
        assert loaded.origin(option.key) == "default"
    assert loaded["residency.ttl"] == FOREVER and loaded["ui.no_input"] is False
    assert loaded.warnings == []


def test_flag_over_environment_over_file_over_default(user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def effective(**flags: str | None) -> tuple[str, str]:
        loaded = config.load(flags={"budget.host": flags.get("host")})
        return loaded.text("budget.host"), loaded.origin("budget.host")

    assert effective() == ("50%", "default")
    user_file.write_text('[budget]\nhost = "1GiB"\n')
    assert effective() == ("1GiB", str(user_file))
    monkeypatch.setenv("TRIMS_HOST_BUDGET", "2GiB")
    assert effective() == ("2GiB", "environment TRIMS_HOST_BUDGET")
    assert effective(host="3GiB") == ("3GiB", "flag")


def test_the_user_file_wins_over_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user, system = tmp_path / "user.toml", tmp_path / "system.toml"
    user.write_text("[ui]\ncolor = 'never'\n")
    system.write_text("[ui]\ncolor = 'always'\nno_input = true\n")
    monkeypatch.setattr(config, "config_files", lambda _: [str(user), str(system)])
    loaded = config.load({})
    assert loaded["ui.color"] == "never" and loaded.origin("ui.color") == str(user)
    assert loaded["ui.no_input"] is True and loaded.origin("ui.no_input") == str(system)


def test_toml_values_of_any_kind_become_text(user_file: Path) -> None:
    user_file.write_text("[budget]\nhost = 1048576\n[ui]\nno_input = true\nprogress = 2.5\n")
    loaded = config.load()
    assert (loaded["budget.host"], loaded["ui.no_input"], loaded["ui.progress"]) == ("1048576", True, "2.5")


def test_unknown_names_are_told_with_a_guess(user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file.write_text('stray = 1\n[budget]\nhots = "1GiB"\n[budget.deep]\nx = 1\n')
    monkeypatch.setenv("TRIMS_HOST_BUDGETS", "1GiB")
    monkeypatch.setenv("TRIMS_DEBUG", "1")
    warnings = config.load().warnings
    assert len(warnings) == 4
    assert any("budget.hots; did you mean budget.host?" in line for line in warnings)
    assert any("TRIMS_HOST_BUDGETS; did you mean TRIMS_HOST_BUDGET?" in line for line in warnings)


@pytest.mark.parametrize("data", [b"[budget", b"\xff\xfe", b"a = "])
def test_a_file_that_is_no_toml(user_file: Path, data: bytes) -> None:
    user_file.write_bytes(data)
    with pytest.raises(UsageError, match="no TOML"):
        config.load()


def test_a_file_that_cannot_be_read(user_file: Path) -> None:
    user_file.mkdir()
    with pytest.raises(UsageError, match="cannot read"):
        config.load()


def test_a_named_file_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIMS_CONFIG", str(tmp_path / "none.toml"))
    assert len(config.load().warnings) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRIMS_HOST_BUDGET", "lots"),
        ("TRIMS_TTL", "soon"),
        ("TRIMS_CODEC", "lz9"),
        ("TRIMS_NO_INPUT", "perhaps"),
        ("TRIMS_PROGRESS", "x"),
    ],
)
def test_a_bad_value_names_its_origin(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    loaded = config.load()
    key = next(option.key for option in config.OPTIONS if option.env == name)
    with pytest.raises(UsageError, match=name):
        loaded[key]


def test_the_store_is_absolute_and_from_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load().store == f"{home}/data/trims"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert config.load().store == f"{home}/home/.local/share/trims"
    monkeypatch.setenv("TRIMS_STORE", "~/models")
    assert config.load().store == f"{home}/home/models"
    monkeypatch.setenv("TRIMS_STORE", "here")
    assert config.load().store == f"{os.getcwd()}/here"


def test_where_managers_are_looked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.getuid()
    expected = [f"{home}/run/trims/trims.sock", "/run/trims/trims.sock", f"{home}/tmp/trims-{uid}/trims.sock"]
    assert config.load().sockets == expected
    assert config.load().own_socket == expected[0]
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert config.load().sockets == [expected[2], expected[1]]
    monkeypatch.setenv("TRIMS_SOCKET", "/x/y.sock")
    assert config.load().sockets == ["/x/y.sock"] and config.load().own_socket == "/x/y.sock"


def test_every_key_has_a_name_of_its_own() -> None:
    assert len({o.env for o in config.OPTIONS}) == len(config.BY_KEY) == len(config.OPTIONS)
    assert all(o.env.startswith("TRIMS_") and o.help for o in config.OPTIONS)


@given(st.sampled_from(config.OPTIONS), st.text(max_size=20))
def test_any_value_is_accepted_or_a_usage_error(option: config.Option, value: str) -> None:
    loaded = config.load({}, {option.key: value})
    try:
        loaded[option.key]
    except UsageError as error:
        assert option.key in str(error)
