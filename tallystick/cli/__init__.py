"""The command line: `tallystick`."""

from tallystick.cli.app import main

__all__ = ["main"]
