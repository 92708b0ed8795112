"""When a model was last used is known though it is not resident, and though the manager has ended."""

from __future__ import annotations

from helpers import cli

from trims.disk.store import Store
from trims_cli import times


def test_show_knows_the_last_use_after_eviction_and_after_the_manager(store: Store, manager) -> None:
    assert cli.items("show", "alpha")[0]["used"] is None
    cli.ok("warm", "alpha", "beta")
    assert cli.items("show", "alpha")[0]["used"] is not None
    cli.ok("evict", "alpha")
    manager.stop()
    used = [cli.items("show", name)[0]["used"] for name in ("alpha", "beta", "gamma")]
    assert used[0] and used[1] and used[2] is None
    assert times.epoch(used[1]) >= times.epoch(used[0])
    assert f"used:      {used[0]}" in cli.ok("show", "alpha")
