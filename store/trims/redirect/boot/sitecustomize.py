"""What Python runs at its start when `trims exec` is in charge: installs the finder, then the next sitecustomize.

It stands alone on PYTHONPATH, in any Python that a program uses: it imports nothing but os and sys, does its work once
however often it runs, and whatever fails in it, the program starts as it would have started without.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _install(here: str) -> None:
    """Load the finder by its path, under a name of its own: trims itself is not imported before it is needed."""
    if not os.environ.get("TRIMS_EXEC") or os.environ.get("TRIMS_DISABLE") == "1" or "_trims_finder" in sys.modules:
        return
    external: Any = sys.modules["_frozen_importlib_external"]
    path = os.path.join(os.path.dirname(here), "finder.py")
    loader = external.SourceFileLoader("_trims_finder", path)
    module: Any = type(sys)("_trims_finder")
    module.__file__ = path
    module.__loader__ = loader
    sys.modules["_trims_finder"] = module
    loader.exec_module(module)
    module.install()


def _chain(here: str) -> None:
    """Run the sitecustomize that Python would have run, had this one not been found first. Raises what it raises."""
    own = sys.modules.pop("sitecustomize", None)
    at = sys.path.index(here)
    del sys.path[at]
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401 - the next one on the path
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        if own is not None:
            sys.modules["sitecustomize"] = own
    finally:
        sys.path.insert(at, here)


def _start() -> None:
    here = os.path.dirname(__file__)
    try:
        _install(here)
    except Exception as error:
        sys.modules.pop("_trims_finder", None)
        if os.environ.get("TRIMS_DEBUG"):
            sys.stderr.write(f"trims: nothing is redirected: {error!r}\n")
    if here in sys.path and __name__ == "sitecustomize":
        _chain(here)


_start()
