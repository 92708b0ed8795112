"""`trims exec` where the store cannot be read: the manager says what a file is, and to whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import cli, redirecting
from helpers.capabilities import cannot_contain, needs_root
from helpers.containers import Container
from helpers.tenants import ANNA, BERT

import trims_cli
from trims.disk.fingerprint import let_settle
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.store import create_store
from trims.linux import cgroup
from trims.permission import Asker, Importer

pytestmark = pytest.mark.skipif(bool(cannot_contain()), reason=f"no containers here: {cannot_contain()}")

EXEC = """
import os, sys
words = [sys.executable, "-m", "trims_cli", "exec", *FLAGS, "--", sys.executable, "-c", PROGRAM]
os.execv(sys.executable, words)
"""
PROGRAM = """
import sys, numpy
kept = []
for line in sys.stdin:
    kept.append(archive := numpy.load(line.strip()))
    print(float(archive["w"].sum()), type(archive).__module__, hasattr(archive, "_trims"), flush=True)
"""


def contained(runtime: Path, files: Path, *flags: str, **options: Any) -> Container:
    """A container in which `trims exec` runs PROGRAM, which knows nothing of trims; `files` is its /files."""
    program = EXEC.replace("FLAGS", repr(list(flags))).replace("PROGRAM", repr(PROGRAM))
    commands = Path(trims_cli.__file__).parent
    shared = {str(files): "/files", str(commands): str(commands), "/dev": "/dev"}
    path = f"{commands.parent / 'store'}:{commands.parent}"
    return Container(program, runtime, shared=shared, PYTHONPATH=path, HOME="/", **options)


def load(container: Container, name: str) -> tuple[str, bool]:
    """(the sum that the program printed of an archive, whether its arrays were the shared ones)."""
    container.say(f"/files/{name}")
    words = container.hear().split()
    assert words, container.errors()
    return words[0], words[2] == "True"


@pytest.fixture
def files(home: Path) -> Path:
    directory = home / "files"
    directory.mkdir(mode=0o755)
    for seed, name in enumerate(("a", "b")):
        redirecting.archive(directory / f"{name}.npz", seed)
    let_settle()
    return directory


@pytest.fixture
def store(runtime: Any) -> Any:
    return create_store(str(runtime.store), if_missing=True)


def test_a_program_in_a_container_gets_shared_weights_by_the_socket_alone(
    manager: Any, runtime: Any, files: Path
) -> None:
    redirecting.bring(Path(runtime.store), files / "a.npz")
    with contained(runtime.directory, files) as container:
        assert load(container, "a.npz") == (redirecting.total(files / "a.npz"), True)
        (row,) = cli.items("ps")
        assert (row["model"], row["pid"], row["container"]) == ("a:latest", container.pid, cgroup.NAMESPACE)
        assert load(container, "b.npz") == (redirecting.total(files / "b.npz"), False)
        (files / "a.npz").write_bytes((files / "b.npz").read_bytes())  # of the same size
        assert load(container, "a.npz") == (redirecting.total(files / "b.npz"), False)
        container.kill()
        manager.request("wait", condition="idle", ref="a", timeout=10.0)


@needs_root
def test_another_user_is_redirected_to_what_their_refs_allow(
    runtime: Any, home: Path, files: Path, managers: Any
) -> None:
    """One file, imported by one user for everybody, and one for herself alone; both can be read by all as files."""
    for directory in (home, runtime.directory):
        directory.chmod(0o755)
    store = create_store(str(runtime.store), system=True)
    for name, mode in (("a", 0o644), ("b", 0o600)):
        with open_source(str(files / f"{name}.npz")) as source:
            import_model(
                store, source, f"anna/{name}", importer=Importer(Asker(ANNA, ANNA, frozenset([ANNA])), mode=mode)
            )
    managers(manager_scope="system")
    sums = {name: redirecting.total(files / f"{name}.npz") for name in ("a", "b")}
    told = {}
    for user in (ANNA, BERT):
        with contained(runtime.directory, files, "--require", "anna/a", uid=user) as container:
            told[user] = [load(container, f"{name}.npz") for name in ("a", "b")]
            assert (user, "anna/a:latest") in [(row["uid"], row["model"]) for row in cli.items("ps")]
            container.end()
            assert container.wait() == 0
            errors = container.errors()
            native = "trims: /files/b.npz is loaded natively: it is not in the store, or has changed since its import\n"
            assert errors == (native if user == BERT else "")
    assert told == {ANNA: [(sums["a"], True), (sums["b"], True)], BERT: [(sums["a"], True), (sums["b"], False)]}


def test_what_is_missing_is_imported_through_the_manager(manager: Any, store: Any, runtime: Any, files: Path) -> None:
    with contained(runtime.directory, files, "--import-missing") as container:
        assert load(container, "a.npz") == (redirecting.total(files / "a.npz"), True)
        (model,) = cli.items("ls")
        assert model["name"].startswith("exec/a-")
