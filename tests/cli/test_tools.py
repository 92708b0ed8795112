"""config, help, completion, the boundary: what surrounds the commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers import cli
from hypothesis import given
from hypothesis import strategies as st

from trims import config as configuration
from trims import config_file
from trims.disk.store import Store
from trims.errors import UsageError
from trims_cli import app, completion, pages, toml_edit

ROOT = Path(__file__).resolve().parents[2]


def test_bare_config_lists_every_key_with_its_origin(home: Path) -> None:
    rows = {item["key"]: item for item in cli.items("config", env={"TRIMS_TTL": "5m"})}
    assert set(rows) == set(configuration.BY_KEY)
    assert (rows["residency.ttl"]["value"], rows["residency.ttl"]["origin"]) == ("5m", "env:TRIMS_TTL")
    assert rows["budget.host"]["origin"] == "default" and rows["budget.host"]["running"] is None
    assert len(cli.ok("config").splitlines()) == len(rows) + 1


def test_config_set_get_unset(home: Path) -> None:
    path = Path(cli.ok("config", "path").strip())
    path.parent.mkdir(parents=True)
    path.write_text("# mine\n[ui]\nformat = 'tsv' # why not\n\n[budget]\nspare = \"1GiB\"\n")
    cli.ok("config", "set", "budget.host", "20GiB", "--format", "table")
    assert path.read_text() == '# mine\n[ui]\nformat = \'tsv\' # why not\n\n[budget]\nspare = "1GiB"\nhost = "20GiB"\n'
    assert cli.ok("config", "get", "budget.host").strip() == "20GiB"
    cli.ok("config", "set", "budget.host", "2GiB")
    cli.ok("config", "unset", "budget.spare")
    assert tomllib.loads(path.read_text()) == {"ui": {"format": "tsv"}, "budget": {"host": "2GiB"}}
    cli.fails(2, "config", "set", "budget.host", "lots")
    assert "did you mean budget.host" in cli.fails(2, "config", "get", "budget.hots")
    cli.fails(2, "config", "set", "budget.host")
    assert "did you mean get" in cli.fails(2, "config", "gte", "budget.host")


def test_config_check_names_what_is_wrong(home: Path) -> None:
    cli.ok("config", "check")
    assert "TRIMS_STOER" in cli.fails(2, "config", "check", env={"TRIMS_STOER": "x"})
    assert "bad duration" in cli.fails(2, "config", "check", env={"TRIMS_TTL": "soon"})
    assert "is no TOML" in cli.fails(2, "ls", env={"TRIMS_CONFIG": str(ROOT / "README.md")})


@given(st.dictionaries(st.sampled_from(["a", "b-c", "d_e"]), st.text(max_size=20), max_size=3), st.text(max_size=20))
def test_toml_edit_changes_one_key(before: dict[str, str], value: str) -> None:
    lines = ["# head\n", "[s]\n", *(f"{key} = {toml_edit.quoted(text)}\n" for key, text in before.items()), "[t]\n"]
    tree = tomllib.loads("".join(toml_edit.edit(lines, "s", "a", toml_edit.quoted(value))))
    assert tree == {"s": {**before, "a": value}, "t": {}}
    gone = tomllib.loads("".join(toml_edit.edit(lines, "s", "a", None)))
    assert gone == {"s": {key: text for key, text in before.items() if key != "a"}, "t": {}}
    new = tomllib.loads("".join(toml_edit.edit(lines, "u", "a", toml_edit.quoted(value))))
    assert new == {"s": before, "t": {}, "u": {"a": value}}


@pytest.mark.parametrize(
    "text", ["budget.host = '1GiB'\n", "[budget]\nhost = '''\n1GiB'''\n", "budget = {host = '1GiB'}\n"]
)
def test_toml_edit_leaves_other_forms_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match="by hand"):
        toml_edit.change(str(path), "budget.host", '"2GiB"')
    assert path.read_text() == text


LINES = st.sampled_from(
    ["[store]", "[ui]", "[a.b]", 'path = "/x"', "path = '/x'", 'n = "a\\\\b"', "k = 12", "k = 012", "k = 1.5",
     "t = true", "# note", 'x = "y" # z', "", "  ", 'codec="none"', "a.b = 1", "l = [1]", '"q" = 2', "bad", "= 3",
     "[ store ]", "d = 1_0", 'u = "é"', "k = +1", "[[x]]"]
)  # fmt: skip


@given(st.lists(LINES, max_size=6))
def test_the_plain_reader_agrees_with_tomllib(lines: list[str]) -> None:
    text = "\n".join(lines)
    plain = config_file.read_plain(text.encode())
    if plain is not None:
        flat = {}
        for section, values in tomllib.loads(text).items():
            for key, value in values.items() if isinstance(values, dict) else [("", values)]:
                flat[f"{section}.{key}" if key else section] = (
                    str(value).lower() if value in (True, False) else str(value)
                )
        assert plain == flat


def test_help_of_every_command_works() -> None:
    import typer.testing

    tree = app.build()
    assert list(tree.commands) == app.top_words()
    done = cli.run("--help")
    assert done.returncode == 0 and all(f"\n  {name} " in done.stdout for name in app.top_words())
    del typer.testing


@pytest.mark.parametrize("name", [*app.COMMANDS, *app.ALIASES])
def test_help(name: str) -> None:
    done = cli.run(*name.split(), "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"Usage: trims {app.ALIASES.get(name, name)} ")
    assert cli.run("help", *name.split()).returncode == 0


def test_a_group_alone_shows_its_commands() -> None:
    for words in (["bench"], ["bench", "--help"], ["--json", "bench", "-h"]):
        said = cli.ok(*words)
        assert said.startswith("Usage: trims bench ") and "\n  paper " in said
    page = cli.ok("help", "bench")
    assert "\n    bench paper\n" in page and "trims-bench-paper(1)" in page
    assert cli.ok("help", "bench", "paper").startswith("NAME\n    trims-bench-paper - ")


def test_verbs_of_two_words_are_guessed() -> None:
    assert "no command 'bench papr'; did you mean paper" in cli.fails(2, "bench", "papr")
    assert "did you mean bench paper" in cli.fails(2, "paper")
    assert "did you mean bench?" in cli.fails(2, "bnch")
    assert "trims bench paper --help" in cli.fails(2, "bench", "-q", "paper", "--nope")


@pytest.mark.parametrize("topic", ["places", "exit-codes", "env", "filters"])
def test_help_topics(topic: str) -> None:
    assert len(cli.ok("help", topic).splitlines()) > 5


def test_help_goes_through_the_pager_on_a_terminal_only() -> None:
    assert cli.ok("help", "ls", env={"PAGER": "false"}).startswith("NAME\n")
    assert "did you mean" in cli.fails(2, "help", "lss")


def test_no_words_is_help() -> None:
    assert cli.ok().startswith("Usage: trims ")


def test_man_pages_are_in_step() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "man", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_page_has_prose_and_lints() -> None:
    from trims_cli import manual

    assert all(manual.prose(name) for name in ["trims", *app.top_words(), *app.COMMANDS])
    if shutil.which("mandoc"):
        paths = sorted((ROOT / "man" / "man1").glob("*.1"))
        done = subprocess.run(["mandoc", "-T", "lint", "-W", "error", *paths], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@given(st.text(max_size=60))
def test_roff_lines_are_never_requests(text: str) -> None:
    page = pages.Page("x", 1, "x")
    page.add("DESCRIPTION", pages.Literal(text.replace("\n", " ").splitlines() or [""]))
    body = pages.to_roff(page, "0").split(".nf\n")[1].split("\n.fi\n")[0]
    assert not any(line.startswith((".", "'")) for line in body.split("\n"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lss"], "did you mean ls"), (["ls", "--jsn"], "--json"), (["stop", "model"], "trims evict model"),
        (["import"], "argument"), (["--nope"], "--nope"), (["show"], "argument"), (["ls", "--limit", "x"], "limit"),
        (["completion", "tcsh"], "bash"), (["warm"], "argument"),
        (["top", "--interval", "0"], "interval"), (["logs", "--lines", "-1"], "lines"),
    ],
)  # fmt: skip
def test_usage_errors_are_one_line(home: Path, words: list[str], says: str) -> None:
    assert says in cli.fails(2, *words).lower()
    done = cli.run(*words, "--json")
    assert cli.error(done)["code"] == "usage" and done.returncode == 2


def test_shared_flags_may_come_first(store: Store) -> None:
    assert "jsonl" in cli.fails(2, "--format", "xml", "ls")
    assert json.loads(cli.ok("--json", "--store", store.root, "ls", "alpha"))["schema"] == "trims.ls/1"
    assert cli.ok("-q", "show", "alpha", "--path").endswith(".h5\n")


def test_unexpected_failures_save_a_report(home: Path) -> None:
    program = "import sys\nfrom trims_cli import listing\nlisting.ls = lambda *_, **__: 1 / 0\n" + cli.TRIMS[2]
    for flags in ([], ["--debug"]):
        done = subprocess.run([sys.executable, "-c", program, "ls", *flags], capture_output=True, text=True)
        assert done.returncode == 1 and ("Traceback" in done.stderr) == bool(flags)
        last = done.stderr.splitlines()[-1]
        assert "unexpected failure: ZeroDivisionError" in last and "report saved in" in last
        report = Path(last.partition("report saved in ")[2].partition(";")[0])
        assert "ZeroDivisionError" in report.read_text() and report.stat().st_mode & 0o077 == 0


def test_a_full_disk_under_the_output(store: Store) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*cli.TRIMS, "ls"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr == "trims: writing the output failed: No space left on device\n"


def complete(shell: str, script: str, line: str, env: dict[str, str]) -> list[str]:
    """What a real shell offers for a line. PATH has no Python: nothing of it may be started."""
    if shell == "bash":
        program = (
            f"{script}\nCOMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; COMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:'\n"
            '_trims; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        command = [str(shutil.which("bash")), "--norc", "-c", program]
    else:
        command = [str(shutil.which("fish")), "--no-config", "-c", f"{script}\ncomplete -C {line!r}"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert done.stderr == "", done.stderr
    return [word.split("\t")[0] for word in done.stdout.splitlines() if word]


@pytest.fixture
def shell_env(store: Store, tmp_path: Path) -> dict[str, str]:
    from trims.disk import snapshot

    snapshot.rebuild(store.paths)
    return {"PATH": str(tmp_path), "HOME": str(tmp_path), "TRIMS_STORE": store.root}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_completion_in_a_real_shell(shell: str, shell_env: dict[str, str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    where = os.path.dirname(str(shutil.which(shell)))
    shell_env = {**shell_env, "PATH": where if shell == "fish" else shell_env["PATH"]}
    script = completion.script(shell, None)

    def offered(line: str) -> list[str]:
        return complete(shell, script, line, shell_env)

    assert {"ls", "import", "warm"} <= set(offered("trims "))
    assert "evict" in offered("trims ev")
    assert set(offered("trims warm ")) >= {"alpha", "beta", "gamma"}
    assert offered("trims warm be") == ["beta"]
    assert "--no-wait" in offered("trims warm --no-")
    assert set(offered("trims completion ")) >= {"bash", "zsh", "fish"}
    assert "bench" in offered("trims be") and "bench paper" not in offered("trims ")
    assert offered("trims bench pap") == ["paper"]
    assert "--quick" in offered("trims bench paper --qui")
    assert "paper" not in offered("trims bench paper ")
    for line in ("trims warm --to ", "trims wait alpha --on "):
        assert {"host", "gpu", "gpu:0"} <= set(offered(line)), line
    assert set(offered("trims evict alpha --to ")) == {"host", "disk"}
    assert set(offered("trims start --demote-to ")) == {"host", "disk"}
    if shell == "bash":
        assert offered("trims pin --on gpu:1") == ["1"]  # what is before the colon is another word to readline
        assert offered("trims warm alpha:l") == ["latest"]
        assert offered("trims --store /nowhere warm be") == []
        assert offered("trims --json warm be") == ["beta"]
        assert "json" in offered("trims ls --format ")
        assert offered("trims rm --lock-timeout be") == []


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_completion_in_zsh(shell_env: dict[str, str], tmp_path: Path) -> None:
    import pexpect

    (tmp_path / "_trims").write_text(completion.script("zsh", None))
    env = {**shell_env, "TERM": "dumb", "PATH": "/nowhere"}
    child = pexpect.spawn(str(shutil.which("zsh")), ["-f"], env=env, timeout=30, dimensions=(50, 200))
    try:
        child.sendline(
            f"PS1='READY> '; fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -D -u; echo LOA''DED"
        )
        child.expect("LOADED")
        child.send("trims warm be\t")
        child.expect("trims warm beta")
    finally:
        child.close(force=True)
