"""top: the live screen."""

from trims_cli.settings import Settings


def top_(settings: Settings) -> int:
    """Watch."""
    return 0
