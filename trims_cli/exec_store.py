"""What exec has to know of the store before the program starts; from its manager, where it cannot be read."""

from __future__ import annotations

import os

from trims.errors import TrimsError

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from trims.client.control import Control
    from trims_cli.settings import Settings


def nothing_known(settings: Settings) -> str:
    """Why nobody can say what a file is; "" when the store can be read, or else a manager can be asked."""
    root = settings.config.store
    if _sees(root):
        return ""
    try:
        _manager(settings).close()
    except TrimsError as error:
        if os.path.isdir(root):
            return f"the store at {root} cannot be read, and there is no manager to ask: {error}"
        return f"there is no store at {root} (make one with `trims init`, or name another)"
    return ""


def resolved(settings: Settings, models: tuple[str, ...]) -> list[str]:
    """`ref=digest` of each model. Raises NoSuchModel and its like."""
    if _sees(settings.config.store):
        from trims.disk.catalog import Catalog
        from trims.paths import StorePaths

        catalog = Catalog(StorePaths(settings.config.store))
        return [f"{entry.ref}={entry.digest}" for entry in map(catalog.resolve, models)]
    with _manager(settings) as manager:
        items = [manager.request("show", ref=text)[0] for text in models]
    return [f"{item['ref']}={item['digest']}" for item in items]


def _sees(root: str) -> bool:
    return os.access(os.path.join(root, "store.json"), os.R_OK)


def _manager(settings: Settings) -> Control:
    from trims.client.control import Control

    return Control(settings.config.sockets)
