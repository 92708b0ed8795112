"""import: models into the store."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trims import permission, refs
from trims.errors import UsageError
from trims_cli import bringing, output, targets
from trims_cli.options import DryRun
from trims_cli.output import Column, Item
from trims_cli.settings import Settings

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
    group: Annotated[
        str, typer.Option("--group", metavar="GROUP", help="Who may read it, beside you, in a store of many users.")
    ] = "",
    mode: Annotated[
        str | None, typer.Option("--mode", metavar="MODE", help="Who may read it, as of a file: 640.")
    ] = None,
    dry_run: DryRun = False,
) -> int:
    """Import models: ONNX, safetensors, npz, npy, HDF5 or PyTorch, told by content."""
    if name is not None and len(sources) > 1:
        raise UsageError("--name takes one source", f"{len(sources)} were given")
    if if_exists not in ("replace", "skip", "fail"):
        raise UsageError(f"bad value {if_exists!r} for --if-exists", "", "use replace, skip or fail")
    shared: dict[str, Any] = {"group": group, "mode": None if mode is None else permission.parse_mode(mode)}
    labels, store = _labels(label or []), bringing.store_or_manager(settings)
    if store is not None and not store.system and (group or mode):
        raise UsageError("--group and --mode are for stores of many users", "this one is of one user")
    options = {"codec": codec or "", "labels": labels, "if_exists": if_exists, **shared}

    def bring(path: str) -> Item:
        ref = refs.parse_ref(name if name is not None else refs.name_from_path(path))
        if dry_run:
            return bringing.look(settings, store, path, file_format, ref)
        if store is None:
            item = bringing.by_manager(settings, path, file_format, ref, {**options, "variant": not no_variant})
        else:
            here = {**options, "codec": codec or settings.config["store.codec"]}
            item = bringing.into_store(settings, store, path, file_format, ref, here)
            if item["format"] == "onnx" and not no_variant and item["outcome"] != "skipped":
                item["variant"] = bringing.derive(settings, store, item["id"])
        if warm:
            item["warm"] = bringing.warm(settings, ref)
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
