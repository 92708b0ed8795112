"""What `trims import` does with one source: store it, or have a manager do that whose store is not ours to write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trims.errors import BadInput, NoStore, NoSuchModel, NotPermitted, TrimsError
from trims_cli.output import Item
from trims_cli.progress import Meter
from trims_cli.settings import Settings

if TYPE_CHECKING:
    from trims.disk.importers.base import Source
    from trims.disk.store import Store


def store_or_manager(settings: Settings) -> Store | None:
    """The store in effect; None when its manager is to be asked instead, as it is not ours to read, or to write.

    Raises NoStore and its like.
    """
    from trims_cli import told
    from trims_cli.cmd_store import open_store

    try:
        store = open_store(settings)
        if not store.system or os.access(store.paths.catalog, os.W_OK):
            return store
        error: TrimsError = NotPermitted(f"{store.root} is not yours to write", "its manager does not run")
    except (NoStore, NotPermitted) as cannot:
        error = cannot
    told.manager(settings, error).close()
    return None


def into_store(settings: Settings, store: Store, path: str, format: str, ref: str, options: dict[str, Any]) -> Item:
    """Import here."""
    from trims.disk.importers import open_source
    from trims.disk.ingest import import_model

    group, mode = options.pop("group"), options.pop("mode")
    importer = _ourselves(group, mode) if store.system else None
    with open_source(path, format) as source, Meter(settings, ref, "import") as meter:
        result = import_model(
            store, source, ref, lock_timeout=settings.lock_seconds, progress=meter, importer=importer, **options
        )
    return _item(result.to_dict(), options["if_exists"])


def _ourselves(group: str, mode: int | None) -> Any:
    from trims.disk.sharing import group_number
    from trims.permission import Asker, Importer

    return Importer(Asker(os.geteuid(), os.getegid(), frozenset()), True, group_number(group), mode)


def by_manager(settings: Settings, path: str, format: str, ref: str, options: dict[str, Any]) -> Item:
    """Give the manager the files. They are looked at here first: what is wrong with them need not be copied."""
    from trims.client.giving import Giver
    from trims.disk.importers import noting_files, open_source

    with noting_files() as noted, open_source(path, format) as source:
        found = source.format
    names, directory = _names(path, noted), os.path.isdir(path)
    nbytes = sum(os.path.getsize(file) for file in set(names.values()))
    giver = Giver(settings.config.sockets)
    with giver, Meter(settings, ref, "import") as meter:
        fields = giver.give(
            list(names.values()),
            lambda done, total: meter(done, total or nbytes),
            ref=ref,
            files=list(names),
            directory=directory,
            format="" if directory else found,
            **options,
        )
    return _item(fields, options["if_exists"])


def _names(path: str, noted: dict[str, str]) -> dict[str, str]:
    """Names relative to the source's directory, to the paths of the files that were opened."""
    base = path if os.path.isdir(path) else os.path.dirname(path) or "."
    names = {os.path.relpath(called, base): found for called, found in noted.items()}
    for name in names:
        if not name.isprintable():  # what is no UTF-8 becomes surrogates, which no message can hold
            raise BadInput(f"cannot import {path}", f"a manager cannot be told the name {name!r}", "rename it")
    return names


def _item(done: Item, if_exists: str) -> Item:
    if done["already"] and done["nbytes_in"] == 0 and if_exists == "skip":
        outcome = "skipped"
    elif done["replaced"]:
        outcome = "replaced"
    else:
        outcome = "already" if done["already"] else "imported"
    same = ("format", "tensors", "nbytes")
    return {
        "name": done["ref"],
        "id": done["digest"],
        **{name: done[name] for name in same},
        "stored": done["container"],
        "codec": done["codec"],
        "nbytes_in": done["nbytes_in"],
        "written": done["stored"],
        "deduplicated": done["deduplicated"],
        "outcome": outcome,
        "seconds": done["seconds"],
        "variant": done.get("variant"),
    }


def look(settings: Settings, store: Store | None, path: str, format: str, ref: str) -> Item:
    """What an import would do, without reading the tensors."""
    from trims.disk.importers import open_source

    with open_source(path, format) as source:
        nbytes = _nbytes(source)
        found = {"format": source.format, "tensors": len(source.tensors), "nbytes": nbytes}
    unknown = dict.fromkeys(("id", "stored", "codec", "written", "deduplicated", "seconds", "variant"))
    outcome = "would-replace" if _exists(settings, store, ref) else "would-import"
    return {"name": ref, **unknown, **found, "nbytes_in": nbytes, "outcome": outcome}


def _nbytes(source: Source) -> int:
    from math import prod

    from trims.manifest import ITEM_SIZES

    return sum(prod(tensor.shape) * ITEM_SIZES[tensor.dtype] for tensor in source.tensors)


def _exists(settings: Settings, store: Store | None, ref: str) -> bool:
    if store is not None:
        from trims.disk.catalog import Catalog

        return ref in Catalog(store.paths).refs()
    from trims.client.control import Control

    with Control(settings.config.sockets) as control:
        try:
            control.request("show", ref=ref)
        except NoSuchModel:
            return False
    return True


def derive(settings: Settings, store: Store, digest: str) -> str | None:
    """Have a child build the form of the model that ONNX Runtime would compute for itself; gives its key.

    Not having it costs memory and time later, nothing else, so failing is a remark.
    """
    import importlib.util
    import json
    import subprocess
    import sys

    if importlib.util.find_spec("onnxruntime") is None:
        return None
    module = "trims.integrations.ort_variant"
    command = [sys.executable, "-m", module, "build", "--store", store.root, "--digest", digest]
    child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    try:
        key: str = json.loads(child.stdout)["key"]
        return key
    except (ValueError, KeyError, TypeError):
        from trims_cli import output

        last = (child.stderr.strip().splitlines() or [f"its builder ended with {child.returncode}"])[-1]
        if not settings.quiet:
            output.note(f"trims: no form for ONNX Runtime was derived, sessions will load natively: {last[:300]}")
        return None


def warm(settings: Settings, ref: str) -> str:
    """Warm what was imported; gives the outcome. Raises why that failed, though the import is done."""
    from trims_cli import resident

    fields = {"place": "host", "timeout": settings.seconds(resident.WAIT)}
    items, errors, _ = resident.ask(settings, "warm", (ref,), fields)
    if errors:
        error: TrimsError = errors[0]
        error.what = f"{ref} is imported, but not warm: {error.what}"
        raise error
    return ",".join(str(item["outcome"]) for item in items)
