"""Importing a file that the store does not know, because `--import-missing` asks for it: once, whoever loads it first.

A child of trims' own interpreter imports: the program's may lack what that needs, and is not to be burdened with it.
"""

from __future__ import annotations

import os
import subprocess

from trims.disk.sources import Sources
from trims.errors import TrimsError, UsageError
from trims.linux import flock
from trims.paths import StorePaths
from trims.redirect import report
from trims.redirect.environment import OWN, Wishes, sees_store

_PATIENCE = 3600.0  # seconds to wait for another's import of the same file: it may be a very large one
_failed: set[str] = set()


def bring(path: str, asked: Wishes) -> None:
    """Have the file at `path` in the store, if it can be imported; a line says why not. Never raises for the file."""
    if path in _failed or not os.path.isfile(path):
        return
    paths = StorePaths(asked.store)
    try:
        name = _name(path)
        if not sees_store():  # the manager does one import of a user's at a time
            _import(path, name, asked)
            return
        with flock.held(paths.ref_lock(f"import:{name}"), exclusive=True, timeout=_PATIENCE):
            if Sources(paths).find(path) is None:  # whoever held the lock may have imported it
                _import(path, name, asked)
    except (TrimsError, OSError) as error:
        _failed.add(path)
        report.say(f"trims: {path} was not imported: {error}", f"import {path}", asked.quiet)


def _name(path: str) -> str:
    """`exec/STEM-DIGITS`, the digits of what is in the file: the same name for the same content."""
    from blake3 import blake3

    digest = blake3()
    digest.update_mmap(path)
    stem = os.path.basename(path).partition(".")[0]
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem)[:80]
    return f"exec/{plain.lstrip('._-') or 'model'}-{digest.hexdigest()[:8]}"


def _import(path: str, name: str, asked: Wishes) -> None:
    command = [asked.python, "-I", "-m", "trims_cli", "import", path, "--name", name, "--quiet"]
    env = {key: value for key, value in os.environ.items() if key not in OWN and not key.startswith("PYTHON")}
    if sees_store():
        command += ["--store", asked.store]
    else:
        env.pop("TRIMS_STORE", None)  # one that is named has to be the manager's, and we cannot see which that is
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise UsageError("the import failed", lines[-1].removeprefix("trims: ") if lines else "")
