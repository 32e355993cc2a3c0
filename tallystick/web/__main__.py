"""`python -m tallystick.web`: the web process, without the command line's extras."""

import argparse
import asyncio
import sys

from tallystick.exiting import end_process
from tallystick.expected import in_one_line
from tallystick.logs import configure_logging
from tallystick.settings import get_settings
from tallystick.web.main import run_web


def main() -> None:
    """Serve until told to stop; exits 1 with one line when it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m tallystick.web", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    code = 0
    try:
        configure_logging(get_settings().log_format)
        asyncio.run(run_web(get_settings(), host="127.0.0.1", port=port))
    except Exception as error:
        line = in_one_line(error)
        if line is None:
            raise
        sys.stderr.write(f"error: {line}\n")
        code = 1
    end_process(code)


if __name__ == "__main__":
    main()
