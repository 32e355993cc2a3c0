"""`python -m workers`: one worker process, without the command line's extras."""

import argparse
import asyncio
import sys

from tallystick.exiting import end_process
from tallystick.expected import in_one_line
from tallystick.logs import configure_logging
from tallystick.settings import get_settings
from workers.main import Role, run_worker


def main() -> None:
    """Run until told to stop; exits 1 with one line when it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--role", choices=["all", *Role], default="all")
    role = parser.parse_args().role
    code = 0
    try:
        configure_logging(get_settings().log_format)
        asyncio.run(run_worker(get_settings(), list(Role) if role == "all" else [Role(role)]))
    except Exception as error:
        line = in_one_line(error)
        if line is None:
            raise
        sys.stderr.write(f"error: {line}\n")
        code = 1
    end_process(code)


if __name__ == "__main__":
    main()
