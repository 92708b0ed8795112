"""A directory with one model in it, as hubs lay them out: weights, perhaps sharded, beside configuration and tokenizer.

The weights are chosen by rank: an index of shards, else a single safetensors file, else a single file of another
format. When a directory holds several of the best rank nobody guesses. Text beside them becomes the side files.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from trims.disk.importers.base import MAX_SIDE_FILE, Source, bad, inside, is_unicode, read_small

_RANKS = (
    (".safetensors.index.json",),
    (".safetensors",),
    (".onnx",),
    (".pt", ".pth", ".bin", ".ckpt", ".npz", ".h5", ".hdf5", ".npy"),
)
_SIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".yaml", ".yml", ".md", ".vocab")
_SIDE_NAMES = ("LICENSE", "NOTICE")
_MAX_FILES = 10_000


def open_directory(path: str, format: str, open_file: Callable[[str, str], Source]) -> Source:
    """The model in the directory `path`; `open_file` opens its weights. Raises BadInput."""
    names = _names(path)
    main = os.path.join(path, _choose(path, names))
    source = open_file(main, format)
    try:
        for name in names:
            if _is_side(name) and not name.endswith(".index.json"):
                source.files[name] = read_small(inside(main, name, path))
        if sum(map(len, source.files.values())) > 4 * MAX_SIDE_FILE:
            raise bad(path, f"its side files are larger than {4 * MAX_SIDE_FILE} bytes together")
        source.origin["path"] = os.path.abspath(path)
        return source
    except BaseException:
        source.close()
        raise


def _names(path: str) -> list[str]:
    """The visible files of a directory."""
    try:
        with os.scandir(path) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and not e.is_dir())
    except OSError as error:
        raise bad(path, os.strerror(error.errno or 0)) from None
    if len(names) > _MAX_FILES:
        raise bad(path, f"it holds over {_MAX_FILES} files", "name the model file")
    return names


def _choose(path: str, names: list[str]) -> str:
    """The file with the weights, or with the index of them."""
    for suffixes in _RANKS:
        found = [name for name in names if name.lower().endswith(suffixes)]
        if len(found) == 1:
            return found[0]
        if found:
            raise bad(path, f"it holds several models: {', '.join(found[:3])}", "name one of them")
    raise bad(path, "it is a directory without a model file", "name the model file")


def _is_side(name: str) -> bool:
    return (name.lower().endswith(_SIDE) or name in _SIDE_NAMES) and is_unicode(name)
