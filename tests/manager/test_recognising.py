"""What a file is, asked of a manager: everybody is told of what they may read, and nothing of the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from helpers import capabilities, redirecting
from helpers.service import Service, serving
from helpers.tenants import ANNA, BERT, CARA, TEAM

from trims.disk.fingerprint import FileKey, is_lasting, let_settle
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.permission import Asker, Importer
from trims.wire.messages import List, Recognise, Refused, Remove, Share

pytestmark = capabilities.needs_root


@pytest.fixture
def serve(runtime: Any, home: Path, managers: Any) -> Any:
    yield from serving(runtime, home, managers)


@pytest.fixture
def service(serve: Any) -> Service:
    return serve()


def bring(service: Service, path: Path, ref: str, uid: int, group: int | None = None, mode: int | None = None) -> str:
    """Import a file as this user would; the model's digest."""
    let_settle()
    importer = Importer(Asker(uid, uid, frozenset((uid, *service.members.get(uid, ())))), group=group, mode=mode)
    with open_source(str(path)) as source:
        return import_model(service.store, source, ref, importer=importer).entry.digest


def by_content(user: Any, path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    return list(user.ask(Recognise, size=len(data), file=blake3(data).hexdigest()).items)


def by_key(user: Any, path: Path, **other: int) -> list[dict[str, Any]]:
    key = FileKey.of(os.stat(path))._replace(**other)
    return list(user.ask(Recognise, size=key.size, key=list(key)).items)


def test_who_may_read_a_model_is_told_of_its_files_and_nobody_else(service: Service, home: Path) -> None:
    path = redirecting.archive(home / "a.npz")
    digest = bring(service, path, "anna/secret", ANNA, group=TEAM)
    anna, bert, cara = (service.user(uid) for uid in (ANNA, BERT, CARA))
    for user in (anna, bert):
        (item,) = by_content(user, path)
        assert (item["digest"], item["ref"], item["kind"], item["size"]) == (
            digest, "anna/secret:latest", "npz", path.stat().st_size,
        )  # fmt: skip
    assert (
        by_content(cara, path) == by_key(cara, path) == by_content(cara, redirecting.archive(home / "b.npz", 1)) == []
    )
    anna.ask(Share, ref="anna/secret", mode=0o600)
    assert by_content(bert, path) == by_key(bert, path) == []
    anna.ask(Share, ref="anna/secret", mode=0o604)
    assert [item["digest"] for item in by_content(cara, path)] == [digest]
    anna.ask(Remove, ref="anna/secret")
    assert by_content(anna, path) == by_content(cara, path) == []


def test_the_name_that_is_told_is_one_that_the_asker_may_read(service: Service, home: Path) -> None:
    """Their own model before another's; not the name it was imported by, where that is another's."""
    path = redirecting.archive(home / "a.npz")
    first = bring(service, path, "bert/his", BERT, group=TEAM)
    assert bring(service, path, "team/secret-plan", ANNA, group=TEAM) == first  # one content of the group's, two names
    service.user(ANNA).ask(Share, ref="team/secret-plan", mode=0o600)
    public = bring(service, path, "public", CARA, mode=0o644)
    bert = service.user(BERT)
    assert [(item["digest"], item["ref"]) for item in by_content(bert, path)] == [
        (first, "bert/his:latest"), (public, "public:latest"),
    ]  # fmt: skip
    assert "secret" not in str(by_content(bert, path)) + str(by_content(service.user(CARA), path))
    assert [item["ref"] for item in by_content(service.user(CARA), path)] == ["public:latest"]


def test_a_size_is_known_to_those_who_may_read_a_model_of_a_file_of_it(service: Service, home: Path) -> None:
    path = redirecting.archive(home / "a.npz")
    bring(service, path, "m", ANNA)
    path.chmod(0o600)  # the key is another now
    assert by_key(service.user(ANNA), path) == [{"size": path.stat().st_size}]
    assert by_key(service.user(BERT), path) == []
    assert by_key(service.user(ANNA), path, size=path.stat().st_size + 1) == []


def test_a_key_tells_only_of_files_that_the_asker_could_read(service: Service, home: Path) -> None:
    if not is_lasting(FileKey.of(os.stat(home))):
        pytest.skip("files are on no block device here: keys are not answered")
    path = redirecting.archive(home / "a.npz")
    os.chown(path, ANNA, TEAM)
    path.chmod(0o640)
    digest = bring(service, path, "m", CARA, mode=0o644)  # everybody may read the model, not everybody this file
    told = {uid: by_key(service.user(uid), path) for uid in (ANNA, BERT, CARA)}
    assert [item["digest"] for item in told[ANNA] + told[BERT]] == [digest] * 2
    assert told[CARA] == [{"size": path.stat().st_size}]
    for change in ({"mtime_ns": 1}, {"ctime_ns": 1}, {"ino": 1}, {"dev": 5}):
        assert by_key(service.user(ANNA), path, **change) == [{"size": path.stat().st_size}]


def test_what_a_client_says_is_not_remembered(service: Service, home: Path) -> None:
    """A liar names the key of another's file with the content of a model of their own: nobody is told so."""
    lure, victim = redirecting.archive(home / "a.npz"), redirecting.archive(home / "b.npz", 1)
    assert lure.stat().st_size == victim.stat().st_size
    bring(service, lure, "lure", CARA, mode=0o644)
    liar = service.user(CARA)
    key = FileKey.of(os.stat(victim))
    liar.ask(Recognise, size=key.size, key=list(key), file=blake3(lure.read_bytes()).hexdigest())
    for user in (liar, service.user(ANNA)):
        assert by_key(user, victim) == [{"size": key.size}]
        assert by_content(user, victim) == []


def test_what_is_no_question_is_refused(service: Service) -> None:
    user = service.user(ANNA)
    files: list[dict[str, Any]] = [{"file": "xy"}, {"file": "../" * 20 + "etc/"}]
    keys: list[list[int]] = [[1, 2, 3], [1, 2, 8, 4, 5], [1, 2, 7, -4, 5], [1, 1 << 64, 7, 4, 5]]
    for fields in [*files, *({"key": key} for key in keys)]:
        answer = user.ask(Recognise, size=7, **fields)
        assert isinstance(answer, Refused) and answer.code == "usage", fields
    assert user.ask(List).items == [{"more": False}]  # and the connection lives


def test_records_are_known_as_soon_as_they_are_there(service: Service, home: Path) -> None:
    anna = service.user(ANNA)
    for seed in range(3):
        path = redirecting.archive(home / f"{seed}.npz", seed)
        assert by_content(anna, path) == []
        digest = bring(service, path, f"m{seed}", ANNA)
        assert [item["digest"] for item in by_content(anna, path)] == [digest]
