"""All records of sources: which belong to a model, which are damaged, and which have outlived their model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from trims.disk.known import Known, Newer, fields_of, parse, read
from trims.disk.sources import ODD, Sources
from trims.errors import one_line
from trims.linux import atomic
from trims.paths import StorePaths


def of_model(paths: StorePaths, model: str) -> list[Known]:
    """The files that a model is known to have been imported from, in order of size and digest."""
    found = [one for _, known in _records(paths) if isinstance(known, list) for one in known if one.model == model]
    return sorted(found, key=lambda known: (known.size, known.file))


def damaged(paths: StorePaths) -> list[tuple[str, str]]:
    """(path in the store, why) of every record that is not as it was written."""
    return [
        (path.removeprefix(f"{paths.root}/"), one_line(str(why)))
        for path, why in _records(paths)
        if not isinstance(why, list)
    ]


def abandoned(paths: StorePaths) -> list[str]:
    """The path of every record that is damaged, or tells only of models that have left the store."""
    sources = Sources(paths)
    return [
        path
        for path, known in _records(paths)
        if not isinstance(known, list) or not any(sources.is_stored(one.model) for one in known)
    ]


def forget(paths: StorePaths) -> None:
    """Remove all that only models which have left the store need. The caller holds the store lock, exclusive."""
    sources = Sources(paths)
    for path, known in _records(paths):
        kept = [one for one in known if sources.is_stored(one.model)] if isinstance(known, list) else []
        with suppress(*ODD):
            if not kept:
                atomic.with_suppressed_missing(path)
            elif kept != known:
                sources.write(path, fields_of(kept))
    _forget_keys(paths)
    _forget_times(paths)


def _records(paths: StorePaths) -> Iterator[tuple[str, list[Known] | Exception]]:
    """(path, what it says or what is wrong with it) of every record that this trims can read."""
    for path in _files(paths):
        if path.endswith(".native.json"):
            continue
        try:
            yield path, parse(read(path))
        except (FileNotFoundError, Newer):
            continue
        except ODD as error:
            yield path, error


def _files(paths: StorePaths) -> Iterator[str]:
    """The path of every file in the directories of the sizes."""
    for size in _listdir(paths.sources):
        if size.isdecimal():
            for name in _listdir(f"{paths.sources}/{size}"):
                yield f"{paths.sources}/{size}/{name}"


def _forget_keys(paths: StorePaths) -> None:
    """Remove the keys of contents of which there is no record."""
    keys = f"{paths.sources}/keys"
    for shard in _listdir(keys):
        for name in _listdir(f"{keys}/{shard}"):
            path = f"{keys}/{shard}/{name}"
            with suppress(OSError):
                if not _is_useful(paths, path):
                    atomic.with_suppressed_missing(path)


def _is_useful(paths: StorePaths, path: str) -> bool:
    try:
        fields = read(path)
        return os.access(paths.source(fields["key"][2], fields["file"]), os.F_OK)
    except Newer:
        return True
    except ODD:
        return False


def _forget_times(paths: StorePaths) -> None:
    """Remove the times of contents of which there is no record, and directories in which nothing is left."""
    for path in _files(paths):
        stem = path.removesuffix(".native.json")
        if stem != path and not os.access(f"{stem}.json", os.F_OK):
            with suppress(OSError):
                atomic.with_suppressed_missing(path)
    for size in _listdir(paths.sources):
        with suppress(OSError):
            os.rmdir(f"{paths.sources}/{size}")


def _listdir(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
