"""The manager of a measured world, as a child process: `python -m trims.workload.private READY_FD`.

It is the manager of `trims start` with the configuration of its environment, but stays its starter's child, and the
kernel tells it to end when that one ends: a measurement that is killed leaves no manager behind.
"""

from __future__ import annotations

import os
import signal
import sys

from trims.linux import process
from trims.manager.run import main

if __name__ == "__main__":
    process.end_with_parent(signal.SIGTERM)
    status = main(["--ready-fd", sys.argv[1]])
    os._exit(status)  # as the manager itself does
