"""import: models into the store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trims import refs
from trims.errors import UsageError
from trims_cli import output, targets
from trims_cli.options import DryRun
from trims_cli.output import Column, Item
from trims_cli.progress import Meter
from trims_cli.settings import Settings

if TYPE_CHECKING:
    from trims.disk.ingest import ImportResult
    from trims.disk.store import Store

IMPORTED = (
    Column("NAME", "name"), Column("ID", "id", "id"), Column("FORMAT", "format"), Column("TENSORS", "tensors", "int"),
    Column("SIZE", "nbytes", "size"), Column("STORED", "written", "size"), Column("SHARED", "deduplicated", "size"),
    Column("OUTCOME", "outcome"), Column("TIME", "seconds", "took"),
)  # fmt: skip
WARMED = (Column("WARM", "warm"),)


def import_(
    settings: Settings,
    sources: Annotated[list[str], typer.Argument(metavar="SRC...", help="Files, or directories of sharded models.")],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME[:TAG]", help="Its name; the file's.")] = None,
    file_format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="auto, onnx, safetensors, npz, npy, h5 or torch.")
    ] = "auto",
    codec: Annotated[str | None, typer.Option("--codec", metavar="CODEC", help="How to store it: none, zstd.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label; repeatable.")] = None,
    if_exists: Annotated[
        str, typer.Option("--if-exists", metavar="WHAT", help="When the name is taken: replace, skip or fail.")
    ] = "replace",
    warm: Annotated[bool, typer.Option("--warm", help="Warm it in host memory, too.")] = False,
    no_variant: Annotated[bool, typer.Option("--no-variant", help="Derive no form for ONNX Runtime.")] = False,
    dry_run: DryRun = False,
) -> int:
    """Import models: ONNX, safetensors, npz, npy, HDF5 or PyTorch, told by content."""
    from trims_cli.cmd_store import open_store

    if name is not None and len(sources) > 1:
        raise UsageError("--name takes one source", f"{len(sources)} were given")
    if if_exists not in ("replace", "skip", "fail"):
        raise UsageError(f"bad value {if_exists!r} for --if-exists", "", "use replace, skip or fail")
    labels, store = _labels(label or []), open_store(settings)

    def bring(path: str) -> Item:
        ref = refs.parse_ref(name if name is not None else refs.name_from_path(path))
        options = {"codec": codec or settings.config["store.codec"], "labels": labels, "if_exists": if_exists}
        if dry_run:
            return _look(store, path, file_format, ref)
        item = _bring(settings, store, path, file_format, ref, options)
        if item["format"] == "onnx" and not no_variant and item["outcome"] != "skipped":
            item["variant"] = _derive(settings, store, item["id"])
        if warm:
            item["warm"] = _warm(settings, ref)
        return item

    items, errors = targets.each(sources, bring)
    if items or settings.form in ("json", "jsonl"):
        output.emit(settings, "import", items, (*IMPORTED, *WARMED) if warm else IMPORTED)
    return targets.conclude(errors, len(sources))


def _labels(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise UsageError(f"bad label {key + equals!r}", "", "write it like stage=production")
    return {key: value for key, _, value in pairs}


def _bring(settings: Settings, store: Store, path: str, format: str, ref: str, options: dict[str, Any]) -> Item:
    from trims.disk.importers import open_source
    from trims.disk.ingest import import_model

    with open_source(path, format) as source, Meter(settings, ref, "import") as meter:
        result = import_model(store, source, ref, lock_timeout=settings.lock_seconds, progress=meter, **options)
    return _item(result, options["if_exists"])


def _item(result: ImportResult, if_exists: str) -> Item:
    entry = result.entry
    if result.already and result.nbytes_in == 0 and if_exists == "skip":
        outcome = "skipped"
    elif result.replaced:
        outcome = "replaced"
    else:
        outcome = "already" if result.already else "imported"
    return {
        "name": entry.ref,
        "id": entry.digest,
        "format": entry.origin_format,
        "tensors": entry.tensors,
        "nbytes": entry.nbytes,
        "stored": entry.stored,
        "codec": entry.codec,
        "nbytes_in": result.nbytes_in,
        "written": result.stored,
        "deduplicated": result.deduplicated,
        "outcome": outcome,
        "seconds": result.seconds,
        "variant": None,
    }


def _look(store: Store, path: str, format: str, ref: str) -> Item:
    """What an import would do, without reading the tensors."""
    from trims.disk.catalog import Catalog
    from trims.disk.importers import open_source
    from trims.manifest import ITEM_SIZES

    with open_source(path, format) as source:
        nbytes = 0
        for tensor in source.tensors:
            size = ITEM_SIZES[tensor.dtype]
            for n in tensor.shape:
                size *= n
            nbytes += size
        found = {"format": source.format, "tensors": len(source.tensors), "nbytes": nbytes}
    exists = ref in Catalog(store.paths).refs()
    unknown = dict.fromkeys(("id", "stored", "codec", "written", "deduplicated", "seconds", "variant"))
    outcome = "would-replace" if exists else "would-import"
    return {"name": ref, **unknown, **found, "nbytes_in": nbytes, "outcome": outcome}


def _derive(settings: Settings, store: Store, digest: str) -> str | None:
    """Have a child build the form of the model that ONNX Runtime would compute for itself; gives its key.

    Not having it costs memory and time later, nothing else, so failing is a remark.
    """
    import importlib.util
    import json
    import subprocess

    if importlib.util.find_spec("onnxruntime") is None:
        return None
    command = [
        sys.executable,
        "-m",
        "trims.integrations.ort_variant",
        "build",
        "--store",
        store.root,
        "--digest",
        digest,
    ]
    child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    try:
        key: str = json.loads(child.stdout)["key"]
        return key
    except (ValueError, KeyError, TypeError):
        last = (child.stderr.strip().splitlines() or [f"its builder ended with {child.returncode}"])[-1]
        if not settings.quiet:
            output.note(f"trims: no form for ONNX Runtime was derived, sessions will load natively: {last[:300]}")
        return None


def _warm(settings: Settings, ref: str) -> str:
    """Warm what was imported; gives the outcome. Raises why that failed, though the import is done."""
    from trims_cli import resident

    fields = {"place": "host", "timeout": settings.seconds(resident.WAIT)}
    items, errors, _ = resident.ask(settings, "warm", (ref,), fields)
    if errors:
        errors[0].what = f"{ref} is imported, but not warm: {errors[0].what}"
        raise errors[0]
    return ",".join(str(item["outcome"]) for item in items)
