"""The finder that patches frameworks as they are imported, and the one that lends trims to Pythons without it.

This file is loaded by its path into any Python that a program uses, so it imports nothing but os and sys, and is the
only module of trims there until one of the frameworks below is imported. Nothing in it may break a program's import:
whatever goes wrong, the framework stays as it is.
"""

import os
import sys

TYPE_CHECKING = False  # what typing calls it; importing typing would cost each program 8 ms
if TYPE_CHECKING:
    from typing import Any

HOOKS = {
    "numpy": "trims.redirect.hooks_numpy:patch",
    "onnxruntime.capi.onnxruntime_inference_collection": "trims.redirect.hooks_onnxruntime:patch",
    "safetensors": "trims.redirect.hooks_safetensors:patch",
    "torch.serialization": "trims.redirect.hooks_torch:patch",
}
"""The module that is patched right after its execution, and the function that does it, given the module."""

LENT = ("trims", "msgspec", "xxhash", "blake3", "ml_dtypes", "zstandard")
"""What is taken out of trims' own installation where the program's Python lacks it, for trims' own imports only."""

environ: "dict[str, str]" = {}
"""The variables of `trims exec` as they were at the start: a program may change its environment."""
lending: "Any" = sys.modules["_thread"]._local()
"""`lending.depth` is above 0 in a thread that runs code of trims."""
_said: "set[str]" = set()


class Finder:
    """Finds modules of HOOKS, as the other finders do, and has them patched when they are executed."""

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """The module's own spec, or None for what is not ours to find."""
        if name not in HOOKS:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = None if find is None else find(name, path, target)
            if spec is not None:
                try:
                    _patch_when_executed(spec.loader, name)
                except Exception as error:
                    say(f"trims: cannot redirect {name}: {error!r}")
                return spec
        return None


class Lender:
    """Finds trims and what it needs in trims' own installation, when nothing else does and trims asks for it."""

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """The spec of a module of LENT, or None."""
        if name not in LENT or not getattr(lending, "depth", 0) or not _is_same_abi():
            return None
        home = environ.get("TRIMS_EXEC_HOME", "").split(os.pathsep)
        return _machinery().PathFinder.find_spec(name, home)


def install() -> None:
    """Begin to patch, in the main interpreter. Modules that are there already are patched now."""
    if not _is_main():
        return
    environ.update((name, value) for name, value in os.environ.items() if name.startswith("TRIMS_"))
    meta_path: list[Any] = sys.meta_path
    meta_path.insert(0, Finder())
    meta_path.append(Lender())
    for name in HOOKS:
        if name in sys.modules:
            _patch(sys.modules[name], name)
    if any(environ.get(f"TRIMS_EXEC_{word}") for word in ("REPORT", "REQUIRE")) or refuses():
        import atexit

        atexit.register(_end)  # before any of the program's, so it is called after them


def _is_main() -> bool:
    """Whether this is the main interpreter: frameworks support no other, and code at the exit of another can hang."""
    signal: Any = __import__("_signal")
    try:
        signal.signal(0, 0)
    except ValueError as error:  # there is no signal 0; in other interpreters than the main one, that is not looked at
        return "main" not in str(error)
    return True


def refuses() -> bool:
    """Whether what cannot be redirected is to fail."""
    return environ.get("TRIMS_FALLBACK") == "fail"


def say(line: str) -> None:
    """One line on stderr, once each."""
    if line in _said:
        return
    _said.add(line)
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except Exception:  # closed, or none, or a program's own: there is nobody to tell
        pass


def enter() -> None:
    """The thread runs code of trims from here on: what that lacks is lent."""
    lending.depth = getattr(lending, "depth", 0) + 1


def leave() -> None:
    """The end of what `enter` began."""
    lending.depth -= 1


def _patch_when_executed(loader: "Any", name: str) -> None:
    execute = getattr(loader, "exec_module", None)
    if execute is None or "exec_module" in vars(loader):
        return

    def exec_module(module: "Any") -> None:
        execute(module)
        if module.__name__ == name:
            vars(loader).pop("exec_module", None)  # it leaves no trace
            _patch(module, name)

    loader.exec_module = exec_module


def _patch(module: "Any", name: str) -> None:
    home, _, function = HOOKS[name].partition(":")
    enter()
    try:
        __import__(home)
        getattr(sys.modules[home], function)(module)
    except ModuleNotFoundError as error:
        if error.name != home and (error.name != "trims" or _is_same_abi()):  # no such hook is no failure
            say(f"trims: cannot redirect {name}: {error}")
    except Exception as error:
        say(f"trims: cannot redirect {name}: {error!r}")
    finally:
        leave()


def _machinery() -> "Any":
    """What `importlib.machinery` is made of, without importing that."""
    return sys.modules["_frozen_importlib_external"]


def _is_same_abi() -> bool:
    """Whether compiled modules of trims' own Python work in this one. When not, one line says so."""
    suffix: str = _machinery().EXTENSION_SUFFIXES[0]
    theirs = environ.get("TRIMS_EXEC_ABI", suffix)
    if suffix == theirs:
        return True
    version = ".".join(map(str, sys.version_info[:2]))
    line = f"trims: this is Python {version} and trims is installed for another ({theirs.split('.')[1]}): "
    if refuses():
        say(line + "nothing can be redirected (install trims here, or say --fallback native)")
        sys.exit(125)
    say(line + "models are loaded natively (install trims here)")
    return False


def _end() -> None:
    """The process ends by itself: write its part of the report, and see that what was required was redirected."""
    reported = sys.modules.get("trims.redirect.report")
    if reported is None and environ.get("TRIMS_EXEC_MAIN", "").split(":")[0] != str(os.getpid()):
        return  # it loaded nothing, and it is not the program itself
    enter()
    try:
        from trims.redirect import ending

        code = ending.end()
    except Exception as error:
        say(f"trims: the report is incomplete: {error!r}")
        return
    finally:
        leave()
    if code:
        _flush_all()
        os._exit(code)


def _flush_all() -> None:
    """Write out what the program's files still hold: no interpreter will end them."""
    import gc
    import io

    for found in gc.get_objects():
        if issubclass(type(found), io.IOBase):
            try:
                found.flush()
            except Exception:  # closed, or nowhere to write to: as at any other end
                pass
