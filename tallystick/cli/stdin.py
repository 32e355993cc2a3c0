"""Text from standard input, for arguments that take `-`."""

import sys

from tallystick.cli.output import fail


def read_stdin(argument: str) -> str:
    """Return all of it; bytes that are no UTF-8 are refused, since Claude takes nothing else."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        fail(f"{argument}: standard input is not UTF-8 text (byte {error.start})")
