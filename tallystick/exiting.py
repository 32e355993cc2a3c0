"""How a process that used Temporal ends: its exit handlers run, and nothing after them.

The SDK's native threads may crash an interpreter that tears itself down after the work is done,
which would turn a success into a failure for whoever reads the exit code (facts on Temporal, 'Read
this first', 10).
"""

import atexit
import logging
import os
import sys
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """Flush, run the exit handlers (the embedded PostgreSQL's among them) and end."""
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
