"""Which models a person means: `name[:tag]`, `id:PREFIX`, a glob, `-` for names on standard input, `@file`.

Everything is looked up in the store's snapshot: one file, current or rebuilt here first. Its rows are (digest, ref, the
listing's JSON without its end).
"""

from __future__ import annotations

import os
import sys

from trims import refs
from trims.errors import AmbiguousModel, NoStore, NoSuchModel, UsageError
from trims.paths import StorePaths

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trims.client.control import Control
    from trims_cli.settings import Settings

    Row = tuple[str, str, str]

_GLOB = frozenset("*?[")


def store_paths(settings: Settings) -> StorePaths:
    """The names in the store in effect. Raises NoStore, and what `open_store` raises for a marker that is unusual."""
    root = settings.config.store
    paths = StorePaths(root)
    try:
        with open(paths.marker, "rb") as file:
            usual = b'"format":1,' in file.read(4096).replace(b" ", b"")
    except OSError:
        usual = False
    if not usual:
        if not os.path.exists(paths.marker) and os.access(root, os.X_OK):
            raise NoStore(f"no store at {root}", "", "make one with `trims init`, or name another with --store")
        from trims.disk.store import open_store

        open_store(root)
    return paths


def load(paths: StorePaths) -> list[Row]:
    """Every model of the store, by ref."""
    from trims.disk import snapshot

    return snapshot.listing(paths)


def served(control: Control) -> list[Row]:
    """Every model that this manager serves to us: from its store, where we can read that, or as it tells."""
    from trims_cli import told

    root = control.welcome["store"]
    return load(StorePaths(root)) if told.readable(root) else told.rows(control)


def words(given: Sequence[str]) -> list[str]:
    """The names given, with `-` and `@file` replaced by the lines they stand for; each once."""
    found: list[str] = []
    for word in given:
        if word == "-":
            found += _lines(sys.stdin.buffer.read())
        elif word.startswith("@") and len(word) > 1:
            try:
                with open(word[1:], "rb") as file:
                    found += _lines(file.read())
            except OSError as error:
                raise UsageError(f"cannot read the names in {word[1:]!r}", os.strerror(error.errno or 0)) from None
        else:
            found.append(word)
    return list(dict.fromkeys(found))


def _lines(data: bytes) -> list[str]:
    text = data.decode("utf-8", "surrogateescape")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def is_glob(word: str) -> bool:
    return not _GLOB.isdisjoint(word)


def choose(rows: list[Row], given: Sequence[str]) -> tuple[list[Row], list[str]]:
    """(the rows that the words name, in order and each once; the words that name nothing). No words: all rows.

    Raises AmbiguousModel for a digest prefix of several models, UsageError for a word that can be no name.
    """
    if not given:
        return rows, []
    chosen: dict[str, Row] = {}
    missing = []
    for word in words(given):
        found = match(rows, word)
        if not found:
            missing.append(word)
        chosen.update((row[1], row) for row in found)
    return list(chosen.values()), missing


def match(rows: list[Row], word: str) -> list[Row]:
    """The rows one word names."""
    if is_glob(word):
        from fnmatch import fnmatchcase

        return [row for row in rows if fnmatchcase(row[1], word) or fnmatchcase(row[1].partition(":")[0], word)]
    prefix = refs.digest_prefix(word)
    if prefix is None:
        ref = refs.parse_ref(word)
        return [row for row in rows if row[1] == ref]
    found = [row for row in rows if row[0].startswith(prefix)]
    digests = sorted({row[0] for row in found})
    if len(digests) > 1:
        raise AmbiguousModel(
            f"{word} names {len(digests)} models", ", ".join(d[:16] for d in digests[:5]), "give more digits",
            candidates=digests,
        )  # fmt: skip
    return found


def no_model(word: str, rows: list[Row]) -> NoSuchModel:
    """The error for a word that names none of the rows."""
    guess = "" if is_glob(word) or refs.digest_prefix(word) else refs.near(refs.parse_ref(word), (r[1] for r in rows))
    return NoSuchModel(f"no model {word!r}{guess}", "nothing in the store has that name", "see `trims ls`")


def expand(rows: Callable[[], list[Row]], given: Sequence[str]) -> list[str]:
    """Words for the manager, which itself resolves names and digests: only globs are looked up, in `rows`.

    Raises NoSuchModel for a glob that matches nothing, UsageError for a word that can be no name.
    """
    found: list[str] = []
    for word in words(given):
        if is_glob(word):
            matches = match(rows(), word)
            if not matches:
                raise NoSuchModel(f"no model matches {word!r}", "", "see `trims ls`")
            found += [row[1] for row in matches]
        elif refs.digest_prefix(word) is None:
            found.append(refs.parse_ref(word))
        else:
            found.append(word)
    return list(dict.fromkeys(found))
