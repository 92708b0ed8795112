"""`python -m trims.manager`: see run."""

import os
import sys

from trims.manager.run import main

if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # without waiting for a thread that hangs in a file system
