"""`trims ls`: its forms, its columns, its selection; the fast path and typer's say the same."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from helpers import cli

from trims.disk.catalog import Catalog
from trims.disk.store import Store

GOLDEN = {
    "name": "alpha:latest", "id": "<id>", "format": "npz", "tensors": 2, "nbytes": 1024, "stored": "<int>",
    "codec": "none", "created": "<time>", "labels": {}, "resident": None, "pins": None, "used": None,
}  # fmt: skip


def normal(item: dict[str, object]) -> dict[str, object]:
    """An item with what differs from run to run replaced, after a look at its kind."""
    assert isinstance(item["id"], str) and len(item["id"]) == 64
    assert isinstance(item["created"], str) and len(item["created"]) == 20 and item["created"].endswith("Z")
    assert type(item["stored"]) is int
    return {**item, "id": "<id>", "created": "<time>", "stored": "<int>"}


def test_json_is_the_golden_document(store: Store) -> None:
    document = json.loads(cli.ok("ls", "alpha", "--json"))
    assert document.keys() == {"schema", "items"} and document["schema"] == "trims.ls/1"
    assert [normal(item) for item in document["items"]] == [GOLDEN]
    assert list(document["items"][0]) == list(GOLDEN)


def test_spliced_and_parsed_listings_are_the_same(store: Store) -> None:
    assert cli.items("ls") == cli.items("ls", "--limit", "3")


BOTH_WAYS = """
ls
ls --json
ls alpha gamma
ls --columns name,size
ls --sort size:desc
ls -q
ls --format=tsv
ls nope
ls alpha nope --json
ls --filter size>=1KiB
ls --filter size>x
ls --sort nope
ls --columns nope
ls -b --no-header
ps
ps --json
status
status --check
warm alpha
evict
unpin
wait --for x
""".strip().splitlines()


@pytest.mark.parametrize("line", BOTH_WAYS)
def test_both_ways_in_give_the_same(store: Store, line: str) -> None:
    words = line.split()
    through_typer = "import sys; from trims_cli import app; from trims_cli.app import run; sys.exit(run(sys.argv[1:]))"
    fast = cli.run(*words)
    command = [cli.TRIMS[0], "-c", through_typer, *words]
    slow = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert (fast.returncode, ageless(fast.stdout), fast.stderr) == (slow.returncode, ageless(slow.stdout), slow.stderr)


def ageless(text: str) -> str:
    """Without what time alone changes: CREATED is shown as an age."""
    return re.sub(r"\b\d+s\b", "Ns", text)


def test_table_is_words_in_columns(store: Store) -> None:
    head, *rows = [line.split() for line in cli.ok("ls").splitlines()]
    assert head == ["NAME", "ID", "FORMAT", "TENSORS", "SIZE", "STORED", "RESIDENT", "PINS", "USED", "CREATED"]
    assert [row[0] for row in rows] == ["alpha:latest", "beta:latest", "gamma:latest"]
    assert all(len(row) == len(head) for row in rows)
    assert [row[6] for row in rows] == ["?", "?", "?"]


def test_tsv_has_whole_values(store: Store) -> None:
    head, row = [line.split("\t") for line in cli.ok("ls", "alpha", "--format", "tsv").splitlines()]
    cells = dict(zip(head, row, strict=True))
    assert cells["SIZE"] == "1024" and len(cells["ID"]) == 64 and cells["CREATED"].endswith("Z")


def test_quiet_lists_names(store: Store) -> None:
    assert cli.ok("ls", "-q").split() == ["alpha:latest", "beta:latest", "gamma:latest"]


def test_jsonl_is_one_object_a_line(store: Store) -> None:
    lines = [json.loads(line) for line in cli.ok("ls", "--format", "jsonl").splitlines()]
    assert [line["schema"] for line in lines] == ["trims.ls/1"] * 3


def test_selection(store: Store, tmp_path: Path) -> None:
    def names(*words: str, **options: object) -> list[str]:
        return [item["name"].partition(":")[0] for item in cli.items("ls", *words, **options)]

    digest = Catalog(store.paths).get("beta:latest").digest
    listed = tmp_path / "names"
    listed.write_text("# mine\ngamma\n\nalpha:latest\n")
    assert names("beta", "alpha") == ["beta", "alpha"]
    assert names("*a") == ["alpha", "beta", "gamma"]
    assert names("*lph*:latest") == ["alpha"]
    assert names(f"id:{digest[:8]}") == ["beta"]
    assert names(f"@{listed}") == ["gamma", "alpha"]
    assert names("-", input="beta\n") == ["beta"]
    assert names("alpha", "al*") == ["alpha"]


def test_filters_and_order(store: Store) -> None:
    def names(*words: str) -> list[str]:
        return [item["name"][0] for item in cli.items("ls", *words)]

    assert names("--sort", "size") == ["a", "g", "b"] or names("--sort", "size") == ["g", "a", "b"]
    assert names("--sort", "size:desc", "--limit", "1") == ["b"]
    assert names("--filter", "size>1KiB") == ["b"]
    assert names("--filter", "name=*a:latest", "--filter", "name!=beta*") == ["a", "g"]
    assert names("--filter", "created<1h") == ["a", "b", "g"]
    assert names("--filter", "created>1h") == []
    assert names("--filter", "tag=latest", "--filter", "tensors=2", "--limit", "2") == ["a", "b"]
    assert names("--filter", "used<1h") == []  # not known never passes
    assert "did not" not in cli.fails(2, "ls", "--filter", "nope")
    assert "name" in cli.fails(2, "ls", "--filter", "nope=1")
    cli.fails(2, "ls", "--limit", "-3")


def test_names_that_match_nothing(store: Store) -> None:
    assert "'nope'" in cli.fails(10, "ls", "nope")
    done = cli.run("ls", "alpha", "nope")
    assert done.returncode == 5 and "alpha" in done.stdout and "'nope'" in done.stderr
    done = cli.run("ls", "nope", "--json")
    assert cli.error(done)["code"] == "no-such-model" and json.loads(done.stdout)["items"] == []


def test_ambiguous_digests(store: Store) -> None:
    rows = Catalog(store.paths).rows()
    assert len({digest for digest, _, _ in rows}) == 3
    line = cli.fails(2, "ls", "id:12")  # six digits at least
    assert "id:12" in line


@pytest.mark.parametrize("name", ["../x", "a b", "a\nb", "-rf:x", ".hidden", "a//b", "x" * 300, "é", "\x1b31m", ""])
def test_hostile_names_are_refused(store: Store, name: str) -> None:
    line = cli.fails(2, "ls", "--", name)
    assert line.isprintable()


def test_bytes_that_are_no_text(store: Store) -> None:
    line = cli.fails(2, "ls", b"\xff\xfe")
    assert "\\udcff" in line or "\\xff" in line
    cli.fails(12, "ls", "--store", b"/tmp/\xff")


def test_no_store(home: Path) -> None:
    assert "trims init" in cli.fails(12, "ls", "--store", str(home / "nowhere"))
    assert cli.run("ls", "--store", str(home / "nowhere"), "--exit-zero").returncode == 0


def test_newer_store(store: Store) -> None:
    marker = Path(store.paths.marker)
    marker.write_text(marker.read_text().replace('"format":1', '"format":2'))
    assert "upgrade" in cli.fails(13, "ls")


def test_name_is_shortened_on_a_narrow_terminal_only(store: Store) -> None:
    catalog = Catalog(store.paths)
    long = "a" * 120 + ":latest"
    catalog.put(catalog.get("alpha:latest")._replace(ref=long))
    assert long in cli.ok("ls")
    shown = on_terminal("ls", columns="100")
    assert long not in shown and "…" in shown
    assert max(map(len, shown.splitlines())) <= 100


def on_terminal(*words: str, columns: str = "80") -> str:
    """What a command prints to a terminal."""
    main, side = pty.openpty()
    try:
        child = subprocess.Popen(
            [*cli.TRIMS, *words], stdin=side, stdout=side, stderr=side, env={**os.environ, "COLUMNS": columns}
        )
        os.close(side)
        text = b""
        while True:
            try:
                part = os.read(main, 1 << 16)
            except OSError:  # the last one has closed it
                break
            if not part:
                break
            text += part
        assert child.wait(60) == 0
    finally:
        os.close(main)
    return text.decode()


def test_closed_pipe_is_silent(store: Store) -> None:
    script = "import sys; from trims_cli.__main__ import main; sys.exit(main())"
    command = f"'{cli.TRIMS[0]}' -c '{script}' ls --format tsv | head -c 1; echo ${{PIPESTATUS[0]}}"
    read, write = os.pipe()
    os.close(read)
    try:
        child = subprocess.run([*cli.TRIMS, "ls"], stdout=write, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(write)
    assert child.returncode == -13 and child.stderr == b""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.stdout.splitlines()[-1] in ("N0", "N141", "0", "141")


def test_a_name_that_was_nearly_right(store: Store) -> None:
    for words in (["ls", "alpa"], ["show", "alhpa"], ["rm", "alphaa"], ["verify", "alph"]):
        assert "did you mean alpha?" in cli.fails(10, *words)
    assert "did you mean" not in cli.fails(10, "show", "omega")
