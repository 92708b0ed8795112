"""`python -m trims.manager [--ready-fd N]`: see run.

With a descriptor to report to it is detached: its starter's child ends at once and the manager is nobody's child, so it
leaves no zombie in a program that started it and runs on. That fork comes before anything is loaded or any thread runs.
"""

import os
import sys

if __name__ == "__main__":
    if "--ready-fd" in sys.argv and os.fork():
        os._exit(0)

    from trims.manager.run import main

    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # without waiting for a thread that hangs in a file system
